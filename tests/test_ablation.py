"""The study: what its variants are, what its tables say, and that it comes to its end whatever happens."""

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from benchmarks.ablation import __main__ as command
from benchmarks.ablation import runs, study
from benchmarks.ablation.pairs import Scenes, folder_of, visible
from benchmarks.ablation.results import Row, gain, interval, recovered, table
from benchmarks.ablation.runs import SCORES_FILE, Result, Score, score
from benchmarks.ablation.variants import FULL, TINY, VARIANTS
from models.__main__ import main as models_main
from models.core.config import to_dict
from models.data import images
from models.data.pairs import Pair
from models.framework import Framework
from models.synthesis import dataset, photographs, settings
from models.training import loop
from models.training.config import differing_keys

pytestmark = pytest.mark.slow

PAIRS = settings.Settings(patch=64, patches=1, blur=2.0, scenes=True, test_patches=2)
OVERRIDES = [
    "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}, prior: false}",
    "data.crop=32",
    "data.batch=2",
    "optimizer.precision=float32",
]
BY_NAME = {variant.name: variant for variant in VARIANTS}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where the pairs of all studies are."""
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture
def call(data, tmp_path, monkeypatch):
    """A minuscule study: takes options, returns the exit status."""
    monkeypatch.setattr(command, "TINY", replace(TINY, pairs=PAIRS, test_pairs=2))
    write = dataset.write_dataset  # in this process: starting others takes longer than the few pairs
    monkeypatch.setattr(dataset, "write_dataset", lambda photos, settings, out, _: write(photos, settings, out))

    def run(*options):
        usual = ["--data", data, "--out", tmp_path / "out", "--results", tmp_path / "results", "--parallaxes", 4]
        usual += ["--variants", "misaligned", "--steps", 4, "--seeds", 1, "--workers", 1]
        return command.main([*OVERRIDES, *map(str, usual), *options])  # the last of an option counts

    return run


# What is compared


@pytest.mark.parametrize("scale", [TINY, FULL], ids=["tiny", "full"])
def test_each_variant_differs_in_what_its_name_says(scale, tmp_path):
    made = study.Study(scale, VARIANTS, tmp_path, tmp_path, None, "cpu", 1)
    made.check()
    configs = {variant.name: to_dict(made.configure(variant)) for variant in VARIANTS}
    base = configs["reblurring, trusted"]
    assert all(configs[name] == base for name in ("aligned", "flow", "true flow", "reblurring", "flow, trusted"))
    assert differing_keys(base, configs["misaligned"]) == ["data.target"]
    assert differing_keys(base, configs["loss in light"]) == ["framework.reblur", "schedule.boundary"]
    assert differing_keys(configs["loss in light"], configs["loss in sRGB"]) == ["framework.reblur.light"]
    assert differing_keys(base, configs["prior"]) == ["framework.blur_map", "framework.deblur.prior"]
    assert configs["published"]["alignment"]["flow"] == "dis"
    assert {variant.target for variant in VARIANTS} == {"truth", "sharp", "dis", "reblur", "true flow"}
    assert all(variant.against in (None, *configs) for variant in VARIANTS)


def test_pairs_are_made_and_aligned_as_the_variants_ask(call, data):
    names = ["aligned", "flow", "flow, trusted", "reblurring", "true flow"]
    assert call("--variants", *names, "--steps", "1") == 0
    made = data / "4px"
    originals = sorted(path.name for path in (made / "train_patches" / "blur").iterdir())
    for name in names:
        variant = BY_NAME[name]
        root = folder_of(data, "4px", variant.target, variant.trusted) / "train_patches"
        assert sorted(path.name for path in (root / "blur").iterdir()) == originals
        assert len(list((root / "aligned").iterdir())) == len(originals)
        assert (root / "confidence").exists() == variant.trusted
    name = originals[0].removesuffix(".png")
    trusted = images.read_map(data / "4px-true-flow" / "train_patches" / "confidence" / f"{name}.tif")
    pair = Pair(name, *(made / "train_patches" / part / originals[0] for part in ("blur", "gt")))
    assert np.array_equal(trusted > 0.5, visible(pair))
    truth = images.read(made / "train_patches" / "aligned" / originals[0]).pixels
    warped = images.read(data / "4px-true-flow" / "train_patches" / "aligned" / originals[0]).pixels
    sharp = images.read(pair.sharp).pixels
    errors = [np.square(picture - truth)[trusted > 0.5].mean() for picture in (warped, sharp)]
    assert errors[0] < 0.3 * errors[1]


def test_a_recipe_of_one_stage_can_have_fewer_steps():
    base = command.study_of(
        command.parse(["--config", "adapt", "--steps", "40", "--parallaxes", "--device", "cpu"])
    ).base
    assert (base.schedule.steps, base.schedule.boundary) == (40, 40)


def test_smooth_pairs_have_no_layers():
    smooth, layered = (Scenes(parallax, TINY.pairs) for parallax in (0.0, 12.0))
    assert not smooth.settings.scenes
    assert layered.settings.scenes
    assert layered.settings.misalignment == 12.0
    assert (smooth.name, layered.name) == ("0px", "12px")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parallaxes", "4", "30"], "parallaxes must be from 0 to 12.8 pixels, got 4, 30"),
        (["data.crop=96"], "data.crop must be at most 64, the size of the pairs, got 96"),
        (["seed=3"], "seed=3 cannot be overridden"),
        (["framework.reblur.depth=3"], "unknown in the configuration: framework.reblur.depth"),
        (["--config", "nowhere"], "cannot read nowhere"),
        (["--full"], "--full needs --photos"),
        (["--photos", "/nowhere"], "/nowhere cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, tmp_path, capsys, options, message):
    assert call(*options) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m benchmarks.ablation: error: ")
    assert message in error
    assert not list((tmp_path / "out").glob("*/settings.json"))


def real_pairs(root):
    """Folders as `benchmarks.real` reads them: one scene of noise, sharp and blurred."""
    sharp = cv2.resize(np.random.default_rng(0).random((4, 5, 3), np.float32), (112, 96))
    for folder, names in (
        ("train_misaligned", ("box_1_blurry", "box_2_blurry", "box_sharp", "cat_blurry", "cat_sharp")),
        ("multifocus_aligned/lightfield_lfsd", ("7_1_blurry", "7_sharp")),
    ):
        (root / folder).mkdir(parents=True)
        for name in names:
            picture = cv2.GaussianBlur(sharp, (0, 0), 3) if name.endswith("blurry") else sharp
            images.write(root / folder / f"{name}.png", picture)
    return root


def test_real_pairs(call, tmp_path):
    root = real_pairs(tmp_path / "real")
    options = ["--real", str(root), "--data", str(tmp_path / "data")]
    names = ["aligned", "flow", "true flow"]
    assert call(*options, "--parallaxes", "--variants", *names, "--name", "of-real") == 0
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"of-real.md", "of-real.json"}
    assert call(*options, "--parallaxes", "--variants", *names) == 0  # nothing is trained again
    made = tmp_path / "data" / "real"
    assert sorted(path.stem for path in (made / "train_patches" / "blur").iterdir()) == [
        "box_1",
        "box_2",
        "cat",
    ]
    assert images.read(made / "test" / "blur" / "7_1.png").pixels.shape == (48, 56, 3)
    results = read(tmp_path)
    assert [(each["variant"], each["setting"]) for each in results["rows"]] == [("flow", "real")], (
        "no truth to train on"
    )
    text = (tmp_path / "results" / "ablation.md").read_text()
    assert "## Real pairs" in text
    assert "Parallax" not in text
    assert command.study_of(command.parse(["--real", str(root)])).scale.parallaxes == ()
    images.write(root / "train_misaligned" / "cat_sharp.png", np.zeros((96, 112, 3), np.float32))
    assert call(*options, "--parallaxes", "--variants", *names) == 2, "other pairs in the same folder"


def test_light_fields_that_are_moved(call, tmp_path):
    root = real_pairs(tmp_path / "real")
    folder = root / "multifocus_aligned" / "lightfield_lfsd"
    for name, same in (("7_2_blurry", "7_1_blurry"), ("8_1_blurry", "7_1_blurry"), ("8_sharp", "7_sharp")):
        shutil.copy(folder / f"{same}.png", folder / f"{name}.png")
    options = ["--light-fields", str(root), "--data", str(tmp_path / "data"), "--parallaxes"]
    assert call(*options, "--variants", "aligned", "misaligned", "true flow") == 0
    made = tmp_path / "data" / "light-fields"
    pictures = {
        part: images.read(made / "train_patches" / part / "7_1.png").pixels for part in ("gt", "aligned", "visible")
    }
    scenes = [sorted(path.stem for path in (made / split / "blur").iterdir()) for split in ("train_patches", "test")]
    assert scenes == [["7_1", "7_2"], ["8_1"]], "no scene is in both"
    assert np.abs(pictures["gt"] - pictures["aligned"]).mean() > 0.01
    warped = images.read(tmp_path / "data" / "light-fields-true-flow" / "train_patches" / "aligned" / "7_1.png").pixels
    seen = pictures["visible"][..., 0] > 0.5
    assert 0.3 < seen.mean() < 1
    assert np.abs(warped - pictures["aligned"])[seen].mean() < 0.01, "the true flow leads back"
    results = read(tmp_path)
    assert {each["setting"] for each in results["rows"]} == {"light-fields"}
    assert [each["variant"] for each in results["rows"]] == ["aligned", "misaligned", "true flow"]


@pytest.mark.parametrize("option", ["--real", "--light-fields"])
def test_real_pairs_that_are_not_there(call, tmp_path, capsys, option):
    assert call(option, str(tmp_path), "--parallaxes") == 2
    assert f"real pairs need the folder {tmp_path}" in capsys.readouterr().err


def test_photographs_of_ones_own_need_not_have_the_names_of_those_installed(tmp_path):
    for name in ("one", "two"):
        images.write(tmp_path / f"{name}.png", np.zeros((4, 4, 3), np.float32))
    pairs = command.study_of(command.parse(["--photos", str(tmp_path)])).scale.pairs
    split = photographs.split_photographs(photographs.find_originals(tmp_path, None), pairs)
    assert [len(originals) for originals in split.values()] == [1, 1]
    assert command.study_of(command.parse([])).scale.pairs.test == ("astronaut", "coffee")


# What it says


def row(variant, seed, psnrs, step_ms=10.0):
    scores = [Score(psnr, 0.8, None if index else psnr - 3, psnr - 1, 0.5) for index, psnr in enumerate(psnrs)]
    return Row(variant, "12px", seed, Result(scores, step_ms, 0, None))


def rows_with(**offsets):
    """Pictures and seeds differ by decibels, and variants by their offsets for each of them."""
    return [
        row(name, seed, [20.0 + 5 * picture + 2 * seed + offset + 0.1 * (picture % 2) for picture in range(6)])
        for name, offset in offsets.items()
        for seed in (0, 1)
    ]


def test_gains_are_between_the_same_pictures_and_seeds():
    found = gain(rows_with(flow=0.0, reblurring=0.4), "reblurring", "flow", "psnr")
    assert found.mean == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4)
    assert found.high == pytest.approx(0.4)
    assert gain(rows_with(flow=0.0), "reblurring", "flow", "psnr") is None


def test_an_interval_grows_with_what_pictures_disagree_about():
    rows = rows_with(flow=0.0)
    rows.append(row("reblurring", 0, [20.0 + 5 * picture + (-1) ** picture for picture in range(6)]))
    found = gain(rows, "reblurring", "flow", "psnr")
    assert found.low < -0.5 < 0.5 < found.high


def test_pictures_without_a_score_are_left_out():
    found = gain(rows_with(flow=0.0, reblurring=0.4), "reblurring", "flow", "hidden")
    assert found.mean == pytest.approx(0.4)


def test_an_interval_holds_95_percent_of_the_draws():
    found = interval(np.array([7.0, *np.linspace(0, 1, 2001)]))
    assert (found.mean, found.low, found.high) == pytest.approx((7, 0.025, 0.975))


def test_the_share_recovered():
    found = recovered(rows_with(aligned=2.0, flow=0.0, reblurring=0.5), "reblurring")
    assert found.mean == pytest.approx(0.25)
    assert found.low == pytest.approx(0.25)


def test_the_table():
    lines = table(rows_with(aligned=2.0, flow=0.0, reblurring=0.5), [Score(19.0, 0.75, None, 18.0, 1.0)]).splitlines()
    assert lines[2].startswith("|  | the blurry pictures |  | 19.00 | 0.7500 |  | 18.00 | 1.00 |")
    reblurring = next(line for line in lines if line.startswith("| reblurring |"))
    assert reblurring.split(" | ")[2] == "2", "runs: one of each seed"
    assert "+0.50 (+0.50 … +0.50), flow | +0.25 (+0.25 … +0.25) | 10 |" in reblurring


def test_the_table_where_training_goes_on_from_a_start():
    rows = [
        row(name, seed, [psnr, psnr + 2]) for name, psnr in (("flow", 19.8), ("reblurring", 20.5)) for seed in (0, 1)
    ]
    start = [Score(20.0, 0.8, None, 19.0, 1.0), Score(22.0, 0.8, None, 21.0, 1.0)]
    lines = table(rows, [Score(19.0, 0.75, None, 18.0, 1.0)] * 2, start).splitlines()
    assert lines[0].endswith("gain, dB, over the start |")
    assert lines[3].startswith("|  | the networks that all are trained on from |  | 21.00 |")
    assert lines[4].endswith("| -0.20 (-0.20 … -0.20) |")
    assert lines[5].endswith("| +0.50 (+0.50 … +0.50) |")


def test_scores_are_those_of_the_evaluation(call, data, tmp_path):
    assert call() == 0
    checkpoint = tmp_path / "out" / "misaligned-4px-seed0" / "latest"
    options = ["--data", f"sdd:{data}/4px", "--protocols", "aligned", "--pictures", "0", "--out", str(tmp_path / "e")]
    assert models_main(["evaluate", *options, "--checkpoint", str(checkpoint)]) == 0
    expected = json.loads((tmp_path / "e" / "scores.json").read_text())["mean"]
    pairs = runs.load_pairs([f"sdd:{data}/4px"], "test", truth=True)
    found = score(pairs, Framework.from_pretrained(checkpoint))
    assert np.mean([each.psnr for each in found]) == pytest.approx(expected["aligned"]["psnr"], abs=1e-4)
    assert np.mean([each.ssim for each in found]) == pytest.approx(expected["aligned"]["ssim"], abs=1e-5)
    assert any(each.hidden is not None for each in found)


# What it does


def read(tmp_path):
    return json.loads((tmp_path / "results" / "ablation.json").read_text())


def test_a_study_in_two_processes(call, tmp_path, monkeypatch, capfd):
    options = ["--workers", "2", "--variants", "aligned", "loss in light", "--seeds", "2"]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_receive", interrupt)  # after the first run, with others on their way
        assert call(*options) == 130
    assert multiprocessing.active_children() == []
    assert len(list((tmp_path / "out").glob(f"*/{SCORES_FILE}"))) in (1, 2)
    assert call(*options) == 0
    results = read(tmp_path)
    rows = {(each["variant"], each["seed"]): each["result"] for each in results["rows"]}
    assert set(rows) == {(name, seed) for name in ("aligned", "loss in light") for seed in (0, 1)}
    for result in rows.values():
        assert all(15 < each["psnr"] < 60 for each in result["scores"])
        assert result["step_ms"] is None or result["step_ms"] > 0  # None where it was interrupted after its last step
    assert any(result["step_ms"] for result in rows.values())
    photographs = results["photographs"]["4px"]
    assert set(photographs["test"]).isdisjoint(photographs["train_patches"])
    text = (tmp_path / "results" / "ablation.md").read_text()
    assert "## Parallax of up to 4 pixels" in text
    shown = capfd.readouterr()
    assert "4/4" in shown.err
    assert "step 4" not in shown.out + shown.err, "runs say nothing themselves"


def test_finished_runs_are_not_repeated(call, tmp_path, monkeypatch):
    assert call("--seeds", "2") == 0
    before = read(tmp_path)
    made = []
    original = runs.run
    monkeypatch.setattr(runs, "run", lambda job: (made.append(job.folder.name), original(job)))
    assert call("--seeds", "2") == 0
    assert made == []
    assert read(tmp_path)["rows"] == before["rows"]
    shutil.rmtree(tmp_path / "out" / "misaligned-4px-seed1")
    assert call("--seeds", "3") == 0
    assert made == ["misaligned-4px-seed1", "misaligned-4px-seed2"]
    scores = [[each["result"]["scores"] for each in results["rows"]] for results in (before, read(tmp_path))]
    assert scores[0] == scores[1][:2]
    assert scores[1][1] != scores[1][2]


def test_a_study_of_networks_that_are_trained_on(call, tmp_path):
    assert call() == 0
    untrained = read(tmp_path)
    assert untrained["start"] == {}
    trained = tmp_path / "out" / "misaligned-4px-seed0" / "latest"
    assert call("--out", str(tmp_path / "second"), f"start.framework={trained}") == 0
    found = read(tmp_path)
    [scores] = found["start"].values()
    assert [each["psnr"] for each in scores] == pytest.approx(
        [each["psnr"] for each in untrained["rows"][0]["result"]["scores"]], abs=1e-4
    )
    assert "trained on from" in (tmp_path / "results" / "ablation.md").read_text()


def test_a_change_of_settings_is_noticed(call, tmp_path, monkeypatch, capsys):
    assert call() == 0
    assert call("--steps", "5", "optimizer.lr=1e-3") == 2
    message = "misaligned-4px-seed0 holds a run of other settings, schedule.steps, schedule.boundary, optimizer.lr"
    assert message in capsys.readouterr().err
    monkeypatch.setattr(command, "TINY", replace(command.TINY, test_pairs=1))
    assert call() == 2
    assert "test_pairs differ" in capsys.readouterr().err
    monkeypatch.setattr(command, "TINY", replace(command.TINY, test_pairs=2, pairs=replace(PAIRS, noise=0.0)))
    assert call() == 2
    assert "noise was 0.01 and is 0" in capsys.readouterr().err
    assert len(read(tmp_path)["rows"]) == 1, "nothing was lost"


def test_interrupted_it_goes_on(call, tmp_path, monkeypatch, capsys):
    assert call() == 0
    whole = read(tmp_path)["rows"][0]["result"]["scores"]
    folder = tmp_path / "out" / "misaligned-4px-seed0"
    shutil.rmtree(folder)
    seed = loop.seed_step

    def seed_and_interrupt(value, step, rank):
        seed(value, step, rank)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "seed_step", seed_and_interrupt)
        assert call() == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert not (folder / SCORES_FILE).exists()
    assert torch.load(folder / "latest" / "training.pt", weights_only=True)["step"] == 3
    assert call() == 0
    assert read(tmp_path)["rows"][0]["result"]["scores"] == whole


def test_a_run_that_fails_is_named(call, tmp_path, capsys):
    assert call("alignment.options.speed=1") == 1
    assert "misaligned-4px-seed0: alignment: flow" in capsys.readouterr().err
    assert not (tmp_path / "results" / "ablation.md").exists()
