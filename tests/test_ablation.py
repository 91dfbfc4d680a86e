"""The ablation: what its variants are, what its tables say, and that a study comes to its end whatever happens."""

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import ablation
from benchmarks.ablation import FULL, TINY, VARIANTS, Result, Row, Scores
from models.__main__ import main as models_main
from models.core.config import to_dict
from models.data import images
from models.data.layouts import load_pairs
from models.framework import Framework
from models.synthesis import dataset, photographs, settings
from models.training import loop
from models.training.config import differing_keys, load_config

pytestmark = pytest.mark.slow

PAIRS = settings.Settings(patch=48, patches=2, blur=2.0)
OVERRIDES = [
    "framework={radii: [1, 2], blur_map: {width: 4, blocks: 1}, reblur: {width: 4, blocks: 1}}",
    "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
    "data.crop=32",
    "data.batch=2",
    "optimizer.precision=float32",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where the pairs of all studies are."""
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture
def study(data, tmp_path, monkeypatch):
    """A minuscule study: takes options, returns the exit status."""
    monkeypatch.setattr(ablation, "TINY", replace(TINY, pairs=PAIRS, test_pairs=2))
    write = dataset.write_dataset  # in this process: starting others takes longer than the few pairs
    monkeypatch.setattr(dataset, "write_dataset", lambda photos, settings, out, _: write(photos, settings, out))

    def run(*options):
        usual = ["--data", data, "--out", tmp_path / "out", "--results", tmp_path / "results", "--misalignments", 1]
        usual += ["--variants", "reblurring", "--steps", 4, "--seeds", 1, "--workers", 1]
        return ablation.main([*OVERRIDES, *map(str, usual), *options])  # the last of an option counts

    return run


def config_of(scale, variant, tmp_path):
    study = ablation.Study(scale, VARIANTS, tmp_path, tmp_path, None, "cpu", 1)
    study.check()
    return study._configure(variant.overrides)


# What is compared


@pytest.mark.parametrize("scale", [TINY, FULL], ids=["tiny", "full"])
def test_each_variant_differs_in_one_part_from_what_it_is_compared_with(scale, tmp_path):
    configs = {variant.name: to_dict(config_of(scale, variant, tmp_path)) for variant in VARIANTS}
    parts = [
        ["data.target"],
        ["alignment.flow"],
        ["alignment.first_mask", "alignment.mask"],
        ["framework.reblur"],
        ["framework.blur_map", "framework.deblur.prior"],
        ["losses.blur_map"],
        ["losses.blur_from"],
    ]
    assert [differing_keys(configs[variant.against], configs[variant.name]) for variant in VARIANTS[1:]] == parts
    everything = configs["full"]
    assert everything == to_dict(load_config(scale.recipe, scale.overrides))
    assert (everything["alignment"]["first_mask"], everything["alignment"]["mask"]) == ("inside", "consistency")
    assert everything["losses"]["blur_map"] > 0
    assert [variant.aligned for variant in VARIANTS] == [True] + 7 * [False]


def test_the_base_recipe_may_align_as_it_likes(tmp_path):
    scale = replace(
        TINY, overrides=(*TINY.overrides, "alignment={flow: pwc, options: {weights: w}, mask: calibration}")
    )
    flows = [config_of(scale, variant, tmp_path).alignment for variant in VARIANTS]
    assert [(alignment.flow, alignment.options) for alignment in flows[:3]] == 2 * [("none", {})] + [
        ("pwc", {"weights": "w"})
    ]
    assert [alignment.mask for alignment in flows] == 3 * ["none"] + 5 * ["calibration"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--misalignments", "1", "3"], "misalignments must be above 0 and at most 2 pixels, got 1, 3"),
        (["--misalignments", "0"], "misalignments must be above 0"),
        (["data.crop=64"], "data.crop must be at most 48, the size of the pairs, got 64"),
        (["seed=3"], "seed=3 cannot be overridden"),
        (["alignment.mask=none", "alignment.first_mask=none", "--variants", "flow", "masks"], "flow and masks are one"),
        (["framework.reblur.depth=3"], "unknown in the configuration: framework.reblur.depth"),
        (["--config", "nowhere"], "cannot read nowhere"),
        (["--full"], "--full needs --photos"),
        (["--photos", "/nowhere"], "/nowhere cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_refused(study, tmp_path, capsys, options, message):
    assert study(*options) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m benchmarks.ablation: error: ")
    assert message in error
    assert not list((tmp_path / "out").glob("*/settings.json"))


def test_photographs_of_ones_own_need_not_have_the_names_of_those_installed(tmp_path):
    for name in ("one", "two"):
        images.write(tmp_path / f"{name}.png", np.zeros((4, 4, 3), np.float32))
    pairs = ablation.study_of(ablation.parse(["--photos", str(tmp_path)])).scale.pairs
    split = photographs.split_photographs(photographs.find_originals(tmp_path, None), pairs)
    assert [len(originals) for originals in split.values()] == [1, 1]
    assert ablation.study_of(ablation.parse([])).scale.pairs.test == ("astronaut", "coffee")


# What it says


def row(variant, seed, psnr, radius=None, step_ms=10.0):
    return Row(variant, 2.0, seed, Result(Scores(psnr, 0.8 + seed / 100, radius), step_ms, 0, None))


def test_gains_are_between_equal_seeds():
    """The seeds differ by 2 dB, and a part brings half a dB to each."""
    rows = [row("masks", seed, 30.0 + 2 * seed) for seed in (0, 1)]
    rows += [row("reblurring", seed, 30.5 + 2 * seed, 0.5 + 0.2 * seed, 20.0 + seed) for seed in (0, 1)]
    lines = ablation.table(rows, Scores(29.0, 0.75)).splitlines()
    assert lines[2] == "|  | the blurry pictures | 29.00 |  | 0.7500 |  |  |"
    masks, reblurring = (line.split(" | ")[2:] for line in lines[3:])
    assert masks == ["31.00 ± 1.41", "", "0.8050 ± 0.0071", "", "10 |"]
    assert reblurring == ["31.50 ± 1.41", "+0.50 ± 0.00, masks", "0.8050 ± 0.0071", "0.600 ± 0.141", "20.5 |"]


def test_a_seed_without_its_like_gives_no_gain():
    rows = [row("aligned", 0, 30.0), row("aligned", 2, 31.0)]
    rows += [row("misaligned", 0, 29.5, step_ms=None), row("misaligned", 1, 40.0)]
    aligned, misaligned = (line.split(" | ")[2:] for line in ablation.table(rows, Scores(29.0, 0.75)).splitlines()[3:])
    assert aligned[1] == "+1.50 ± 0.71, blurry"
    assert misaligned[:2] == ["34.75 ± 7.42", "-0.50, aligned"]


def test_scores_are_those_of_the_evaluation(data, study, tmp_path):
    assert study() == 0
    pairs = load_pairs([f"sdd:{data}/1px"], "test", truth=True)
    checkpoint = tmp_path / "out" / "reblurring-1px-seed0" / "latest"
    options = ["--data", f"sdd:{data}/1px", "--protocols", "aligned", "--pictures", "0", "--out", str(tmp_path / "e")]
    assert models_main(["evaluate", *options, "--checkpoint", str(checkpoint)]) == 0
    expected = json.loads((tmp_path / "e" / "scores.json").read_text())["mean"]
    found = ablation.score(pairs, Framework.from_pretrained(checkpoint))
    assert found.psnr == pytest.approx(expected["aligned"]["psnr"], abs=1e-4)
    assert found.ssim == pytest.approx(expected["aligned"]["ssim"], abs=1e-5)
    assert found.radius == pytest.approx(expected["blur_radius"]["correlation"], abs=1e-4)


# What it does


def read(tmp_path):
    return json.loads((tmp_path / "results" / "ablation.json").read_text())


def test_a_study_in_two_processes(study, data, tmp_path, monkeypatch, capfd):
    options = ["--workers", "2", "--variants", "aligned", "reblurring", "--misalignments", "2", "1"]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ablation, "_receive", interrupt)  # after the first run, with others on their way
        assert study(*options) == 130
    assert multiprocessing.active_children() == []
    assert len(list((tmp_path / "out").glob(f"*/{ablation.SCORES_FILE}"))) in (1, 2)
    assert study(*options) == 0
    results = read(tmp_path)
    rows = {(row["variant"], row["misalignment"]): row["result"] for row in results["rows"]}
    assert set(rows) == {("aligned", 1), ("aligned", 2), ("reblurring", 1), ("reblurring", 2)}
    assert rows["aligned", 1] == rows["aligned", 2]
    assert rows["reblurring", 1]["scores"]["psnr"] != rows["reblurring", 2]["scores"]["psnr"]
    for (variant, _), result in rows.items():
        assert 15 < result["scores"]["psnr"] < 60
        assert (result["scores"]["radius"] is not None) == (variant == "reblurring")
        assert result["step_ms"] > 0
    assert results["blurry"]["1"] == results["blurry"]["2"]
    assert results["training"]["data"]["crop"] == 32
    assert set(results["photographs"]["test"]).isdisjoint(results["photographs"]["train_patches"])
    text = (tmp_path / "results" / "ablation.md").read_text()
    assert text.count("| aligned | ") == text.count("| reblurring | ") == 2
    assert "## Misaligned by up to 2 pixels" in text
    shown = capfd.readouterr()
    assert "3/3" in shown.err
    assert "step 4" not in shown.out + shown.err, "runs say nothing themselves"


def test_pairs_of_all_misalignments_differ_in_the_sharp_picture_alone(study, data):
    assert study("--misalignments", "1", "2", "--variants", "aligned") == 0
    for name, same in {"blur": True, "aligned": True, "blur_radius": True, "gt": False, "flow": False}.items():
        folders = [data / size / "train_patches" / name for size in ("1px", "2px")]
        files = [[path.read_bytes() for path in sorted(folder.iterdir())] for folder in folders]
        assert len(files[0]) >= 4
        assert (files[0] == files[1]) == same, name


def test_finished_runs_are_not_repeated(study, tmp_path, monkeypatch):
    assert study("--seeds", "2") == 0
    before = read(tmp_path)
    runs = []
    original = ablation.run
    monkeypatch.setattr(ablation, "run", lambda job: (runs.append(job.folder.name), original(job)))
    assert study("--seeds", "2") == 0
    assert runs == []
    assert read(tmp_path)["rows"] == before["rows"]
    shutil.rmtree(tmp_path / "out" / "reblurring-1px-seed1")
    assert study("--seeds", "3") == 0
    assert runs == ["reblurring-1px-seed1", "reblurring-1px-seed2"]
    scores = [[row["result"]["scores"] for row in results["rows"]] for results in (before, read(tmp_path))]
    assert scores[0] == scores[1][:2]
    assert scores[1][1] != scores[1][2]


def test_a_change_of_settings_is_noticed(study, data, tmp_path, monkeypatch, capsys):
    assert study() == 0
    assert study("--steps", "5", "optimizer.lr=1e-3") == 2
    message = "reblurring-1px-seed0 holds a run of other settings, schedule.steps, optimizer.lr differ: --out takes"
    assert message in capsys.readouterr().err
    monkeypatch.setattr(ablation, "TINY", replace(ablation.TINY, test_pairs=1))
    assert study() == 2
    assert "test_pairs differ" in capsys.readouterr().err
    more = replace(ablation.TINY, test_pairs=2, pairs=replace(PAIRS, noise=0.0))
    monkeypatch.setattr(ablation, "TINY", more)
    assert study() == 2
    assert "noise was 0.01 and is 0" in capsys.readouterr().err
    assert study("--data", str(tmp_path / "data")) == 2
    assert "pairs.settings.noise differ" in capsys.readouterr().err
    assert len(read(tmp_path)["rows"]) == 1, "nothing was lost"


def test_interrupted_it_goes_on(study, tmp_path, monkeypatch, capsys):
    assert study() == 0
    whole = read(tmp_path)["rows"][0]["result"]["scores"]
    folder = tmp_path / "out" / "reblurring-1px-seed0"
    shutil.rmtree(folder)
    seed = loop.seed_step

    def seed_and_interrupt(value, step, rank):
        seed(value, step, rank)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "seed_step", seed_and_interrupt)
        assert study() == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert not (folder / ablation.SCORES_FILE).exists()
    assert torch.load(folder / "latest" / "training.pt", weights_only=True)["step"] == 3
    assert study() == 0
    assert read(tmp_path)["rows"][0]["result"]["scores"] == whole


def test_a_run_that_fails_is_named(study, tmp_path, capsys):
    assert study("alignment.options.speed=1") == 1
    assert "reblurring-1px-seed0: alignment: flow" in capsys.readouterr().err
    assert not (tmp_path / "results" / "ablation.md").exists()
