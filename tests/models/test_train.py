"""Training: what it refuses, what it leaves behind, and that nothing is lost whatever happens to it."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.__main__ import main
from models.checkpoints.load import load_framework
from models.core.files import alone_in
from models.core.weights import read_torch
from models.data import images
from models.data.pairs import DataError
from models.data.samples import StepBatches
from models.flow import DisFlow
from models.framework import Framework
from models.training import batches, loop, signals
from models.training import folder as folder_module
from models.training.config import (
    PARTS,
    RECIPES,
    AlignmentConfig,
    OptimizerConfig,
    ScheduleConfig,
    differing_keys,
    load_config,
)
from models.training.losses import PUBLISHED_LOSSES, blur_map_ramp
from models.training.objective import Aligner
from models.training.processes import Processes
from models.training.state import State, make_state, precision_of
from models.training.validation import spread, validate

pytestmark = pytest.mark.slow

TINY = [
    "device=cpu",
    "framework.radii=[1,2]",
    "framework.blur_map={width: 4, blocks: 1}",
    "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
    "framework.reblur={width: 4, blocks: 1, support: disk, padding: replicate}",
    "data.batch=2",
    "data.crop=32",
    "data.workers=0",
    "data.decode=false",
    "schedule.steps=6",
    "schedule.boundary=3",
    "optimizer.lr=2e-3",
    "optimizer.ema=0.9",
    "output.metrics=1",
    "output.validation=3",
    "output.validation_pairs=2",
    "output.checkpoints=2",
    "output.pictures=0",
]


def synthesize(out, patches):
    """Make pairs of the photographs in colour."""
    options = ["--patch", "48", "--misalignment", "1.5", "--blur", "2", "--workers", "1"]
    grey = ["--test", "brick", "camera", "coins", "grass", "gravel"]
    assert main(["synthesize", "--out", str(out), "--patches", str(patches), *options, *grey]) == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    synthesize(out, patches=4)
    return out


@pytest.fixture
def config_file(data, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(f"data: {{train: ['sdd:{data}'], held_out: 0.25}}\n")
    return path


def train(config_file, out, *overrides):
    return main(["train", "--config", str(config_file), *TINY, f"out={out}", *overrides])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def saved(run, name="latest"):
    return torch.load(run / name / "training.pt", weights_only=True)


def tensors(value):
    """All tensors in containers of containers, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def assert_same_bits(run, other):
    """Two runs ended with the same weights, averages and optimizer."""
    first, second = saved(run), saved(other)
    assert first["step"] == second["step"]
    averages = [Framework.from_pretrained(folder / "latest").state_dict() for folder in (run, other)]
    for one, two in zip(tensors([first, averages[0]]), tensors([second, averages[1]]), strict=True):
        assert torch.equal(one, two)


def without_timing(record):
    return {key: value for key, value in record.items() if key not in ("images_per_second", "memory_mb")}


# What is refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=1", "unknown in the configuration: optimizer.learning_rate; optimizer has name, lr"),
        ("optimiser.lr=1", "unknown in the configuration: optimiser"),
        ("optimizer.lr=fast", "optimizer.lr must be a number, got 'fast'"),
        ("optimizer.lr=-1", "optimizer.lr must be above 0"),
        ("optimizer.lr=.nan", "optimizer.lr must be above 0"),
        ("data.batch=2.5", "data.batch must be an integer, got 2.5"),
        ("data.train=3", "data.train must be a list, got 3"),
        ("data.train=[sdd]", "data.train: a source of pairs is LAYOUT:DIR"),
        ("data.train=[sdd/test:x]", "data.train must not be a test split"),
        ("data.validation=[sdd/test:x]", "data.validation must not be a test split"),
        ("schedule.boundary=2.5", "schedule.boundary must be a whole number of steps, or a fraction below 1, got 2.5"),
        ("schedule.boundary=7", "schedule.boundary must be from 0 to 6, got 7"),
        ("schedule.first=reblur", 'start.framework or start.deblur must name weights for schedule.first "reblur"'),
        ("start.parts=[flow]", "start.parts must be one of blur_map, deblur, reblur"),
        ("schedule.frozen=[flow]", "schedule.frozen must be one of blur_map, deblur, reblur"),
        (
            "schedule.frozen=[blur_map,deblur,reblur]",
            'schedule.frozen must leave something to train in the stage "deblur", got',
        ),
        ("losses.compare=loosely", "losses.compare must be one of 'magnitude', 'signed', got 'loosely'"),
        ("losses.reblurring=-1", "losses.reblurring must be a number of at least 0"),
        ("framework.deblur.network=resnet", "framework: deblur.network must be one of compact"),
        ("framework.deblur.options.depth=3", "framework: unknown options: deblur.options.depth"),
        ("framework.blur_map=null", "framework.deblur.prior needs framework.blur_map"),
        ("alignment.flow=magic", "alignment.flow must be one of auto, dis, variational, pwc"),
        ("alignment.fallback=magic", "alignment.fallback must be one of dis, variational, pwc"),
        ("data.train=[folders:a,b]", "folders:BLURRY,SHARP, got 'folders:a'; within a list it needs quotes"),
        ("alignment.options.speed=1", 'alignment: flow "dis": got an unexpected keyword argument'),
        ("alignment.mask=black", "alignment.mask must be one of none, inside, calibration, consistency"),
        ("device=abacus", "device must be one of auto, cpu, cuda"),
        ("seed", "an override must be section.key=value, got 'seed'"),
        ("out.name=x", "out is a value, not a section"),
        ("seed=[1", "seed=[1, line 1: "),
        ("start.framework=nowhere", "cannot read nowhere/config.json"),
    ],
)
def test_bad_configurations_are_refused_by_name(config_file, tmp_path, capsys, override, message):
    assert train(config_file, tmp_path / "run", override) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m models train: error: ")
    assert message in error
    assert not (tmp_path / "run").exists(), "nothing was written"


def test_bad_files_are_refused_by_name(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    for content, message in {
        "seed: 1\nout: a\nseed: 2": "bad.yaml, line 1: seed is given twice",
        "data:\n  crop: [": "bad.yaml, line 2",
        "- a": "bad.yaml must hold a mapping of names to values, got list",
        "\xff": "cannot read",
    }.items():
        path.write_bytes(content.encode("latin-1"))
        assert main(["train", "--config", str(path)]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "--config", "nowhere"]) == 2
    recipes = "adapt, compact, demo, official, reblur, reblurring"
    message = f"cannot read nowhere: No such file or directory; there are the recipes {recipes}\n"
    assert capsys.readouterr().err.endswith(message)


def test_all_that_is_wrong_with_the_data_is_told_before_training(data, tmp_path, capsys):
    for name in ("blur", "gt"):
        (tmp_path / name).mkdir()
        for number in range(3):
            images.write(tmp_path / name / f"{number}.png", np.zeros((48, 48, 3), np.float32))
    (tmp_path / "gt" / "0.png").write_bytes((tmp_path / "gt" / "0.png").read_bytes()[:-20])
    images.write(tmp_path / "gt" / "1.png", np.zeros((48, 40, 3), np.float32))
    config = tmp_path / "c.yaml"
    folders = f"folders:{tmp_path}/blur,{tmp_path}/gt"
    config.write_text(f"data: {{train: ['sdd:{data}', '{folders}'], validation: ['dpdd:{tmp_path}/nothing']}}")
    assert train(config, tmp_path / "run", "data.decode=true") == 2
    error = capsys.readouterr().err
    assert "the data cannot be used: 3 problems" in error
    assert "gt/0.png does not decode" in error
    assert "gt/1.png is 40 × 48 pixels" in error
    assert "nothing is not a folder" in error
    assert not (tmp_path / "run").exists()
    assert train(config, tmp_path / "run", f"data.validation=['sdd/train:{data}']", f"data.train=['sdd:{data}']") == 2
    assert "is both to train on and to validate on" in capsys.readouterr().err
    aligned = ["data.target=aligned", f"data.train=['{folders}']", "data.validation=[]"]
    images.write(tmp_path / "gt" / "1.png", np.zeros((48, 48, 3), np.float32))
    assert train(config, tmp_path / "run", *aligned) == 2
    assert 'blur/0.png has no aligned truth, which data.target "aligned" needs' in capsys.readouterr().err


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_recipes_are_whole_and_print(recipe, tmp_path, capsys):
    assert main(["train", "--config", recipe, "--print-config", "optimizer.lr=3e-5"]) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    config = load_config(str(path))
    assert config == load_config(recipe, ["optimizer.lr=3e-5"])
    assert config.optimizer.lr == 3e-5
    assert load_config(str(path)) == config
    printed = path.read_text()
    assert "  batch: " in printed
    assert "# crops per step, all processes together" in printed  # behind, from a comment
    assert "# part of the samples without blur" in printed  # from a docstring
    lines = printed.splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(["", *lines])
        if "#" not in line + before and not line.endswith(":")  # sections tell nothing
    ]
    assert not bare, "each value says what it is"


def test_the_official_recipe_is_the_published_training():
    config = load_config("official")
    assert config.losses == PUBLISHED_LOSSES
    schedule, epoch = config.schedule, config.schedule.steps // 200
    assert schedule.steps % 200 == 0
    for number in (0, 7, 14, 15, 69, 70, 140, 199):
        for step in (number * epoch, (number + 1) * epoch - 1):
            assert schedule.stage(step) == ("deblur" if number < 15 else "joint")
            assert schedule.map_scale(step) == blur_map_ramp(number, 15)
            assert schedule.lr_factor(step) == 0.5 ** (number // 70)
    aligner = Aligner(config.alignment)
    assert isinstance(aligner.flow, DisFlow)
    assert 'PWC-Net has no weights here, so the flow is "dis"' in aligner.notice
    with pytest.raises(ValueError, match="alignment: flow \"pwc\": missing a required argument: 'weights'"):
        Aligner(AlignmentConfig("pwc"))


def test_the_recipe_adapt_begins_with_the_networks_in_the_box():
    made, box = make_state(load_config("adapt", []), torch.device("cpu")).framework, load_framework()
    assert made.config == replace(box.config, reblur=None)
    expected = box.state_dict()
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_there_are_no_more_loaders_than_processors(monkeypatch):
    monkeypatch.setattr(batches, "processors", lambda: 1)
    monkeypatch.setattr(batches, "TrainingSamples", lambda pairs, *_, **__: pairs)
    processes = Processes(0, 1, torch.device("cpu"))
    for asked, made in ((8, 1), (1, 1), (0, 0)):
        config = load_config("demo", [f"data.workers={asked}"])
        steps = StepBatches(4, 10, 0, 0, 1)
        assert batches.loaded_batches(config, range(8), steps, processes).num_workers == made


def test_the_flow_follows_the_device():
    names = {name: Aligner(AlignmentConfig(), device=torch.device(name)) for name in ("cpu", "cuda")}
    assert {name: aligner.name for name, aligner in names.items()} == {"cpu": "dis", "cuda": "variational"}
    assert all(aligner.notice is None for aligner in names.values())
    assert Aligner(AlignmentConfig(), "aligned", torch.device("cuda")).name == "none"


def test_schedules():
    schedule = ScheduleConfig(steps=100, boundary=0.4, warmup=10, final_lr=0.1, joint_lr=0.5)
    assert [schedule.stage(step) for step in (0, 39, 40, 99)] == ["deblur", "deblur", "joint", "joint"]
    assert ScheduleConfig(steps=100, boundary=40).stage(39) == "deblur"
    assert ScheduleConfig(steps=100, boundary=0).stage(0) == "joint"
    scales = [schedule.map_scale(step) for step in range(41)]
    assert scales[0] < 0.03
    assert scales == sorted(scales)
    assert scales[-2:] == [1, 1]
    factors = [schedule.lr_factor(step) for step in range(100)]
    cosine = [0.1 + 0.9 * (1 + np.cos(np.pi * step / 100)) / 2 for step in range(100)]
    rise = [(step + 1) / 11 for step in range(10)]
    shape = [*rise, *[1] * 30, *(0.5 * part for part in rise), *[0.5] * 50]
    assert factors == pytest.approx([part * factor for part, factor in zip(shape, cosine, strict=True)])
    assert ScheduleConfig(first="reblur").map_scale(0) == 1


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"avx512_bf16": True}, "bfloat16"), ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_the_precision_follows_the_device(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert precision_of(OptimizerConfig(precision="auto"), torch.device("cpu")) == precision
    assert precision_of(OptimizerConfig(precision="float16"), torch.device("cpu")) == "float16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert precision_of(OptimizerConfig(precision="auto"), torch.device("cpu")) == "float32"


def test_configurations_are_compared_but_for_what_is_free():
    first = {"seed": 0, "out": "a", "data": {"workers": 1, "crop": 2}, "output": {"keep": 1}}
    second = {"seed": 1, "out": "b", "data": {"workers": 2, "crop": 3}, "output": {"keep": 2}, "new": 1}
    assert differing_keys(first, second) == ["seed", "data.crop", "new"]


def test_a_folder_that_cannot_be_written_is_named(config_file, capsys):
    assert train(config_file, "/dev/null/run", "data.train=[sdd:nowhere]") == 2
    assert "error: cannot write to /dev/null/run: /dev/null is not a folder" in capsys.readouterr().err


def test_one_training_at_a_time_in_a_folder(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    with alone_in(run, "training"):
        assert train(config_file, run) == 2
    assert f"{run} is in use by another training" in capsys.readouterr().err
    assert not (run / "metrics.jsonl").exists()


# What it does


def test_it_learns_and_leaves_a_whole_run(config_file, data, tmp_path, capsys):
    run = tmp_path / "run"
    more = ["schedule.steps=60", "schedule.boundary=0.5", "output.validation=30", "output.checkpoints=20"]
    widths = ["framework.blur_map.width=8", "framework.reblur.width=8", "framework.deblur.options.width=8"]
    assert train(config_file, run, *more, *widths, "output.keep=1", "output.pictures=60", "output.metrics=5") == 0
    metrics = lines(run / "metrics.jsonl")
    assert [record["step"] for record in metrics] == list(range(5, 61, 5))
    assert [record["stage"] for record in metrics] == ["deblur"] * 6 + ["joint"] * 6
    joint = metrics[6:]
    blur_parts = ["reblurred_sharp", "blur_map", "seeds"]
    assert list(metrics[0]["parts"]) == ["deblurred", *blur_parts]
    assert list(joint[0]["parts"]) == ["deblurred", "sharp", "reblurred", *blur_parts]
    for record in metrics:
        assert record["loss"] == pytest.approx(sum(record["parts"].values()))
        assert record["images_per_second"] > 0
        assert record["memory_mb"] > 50
        assert record["skipped"] == 0
    assert metrics[5]["loss"] < 0.8 * metrics[0]["loss"]
    assert joint[-1]["parts"]["reblurred_sharp"] < 0.9 * metrics[0]["parts"]["reblurred_sharp"]

    validation = lines(run / "validation.jsonl")
    assert [record["step"] for record in validation] == [30, 60]
    assert validation[-1]["protocol"] == "aligned"
    assert validation[-1]["reblurred_psnr"] > validation[0]["reblurred_psnr"] + 1
    assert -1 <= validation[-1]["blur_radius_correlation"] <= 1
    best = max(validation, key=lambda record: record["deblurred_psnr"])["step"]
    assert (run / "latest").resolve().name == "step-0000060"
    assert (run / "best").resolve().name == f"step-{best:07d}"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-0000060", f"step-{best:07d}"}

    # The best checkpoint is what was validated.
    framework = Framework.from_pretrained(run / "best")
    config = load_config(str(run / "config.yaml"))
    processes = Processes(0, 1, torch.device("cpu"))
    pairs = spread(loop.find_pairs(config)[1], 2)
    scores = validate(framework, pairs, Aligner(config.alignment), processes)
    assert scores["deblurred_psnr"] == next(r for r in validation if r["step"] == best)["deblurred_psnr"]

    picture = cv2.imread(str(run / "samples" / "step-0000060.png"))
    assert picture.shape == (26 + 2 * 52, 7 * 52, 3)
    assert picture.std() > 20
    (environment,) = lines(run / "environment.jsonl")
    assert environment["torch"] == torch.__version__
    assert re.fullmatch(r"[0-9a-f]{40}\+?", environment["git_commit"] or "0" * 40)
    printed = capsys.readouterr().out
    assert "12 pairs to train on, 2 to validate on" in printed
    assert 'each step aligns its pairs by the flow "dis"; `align` does it once' in printed
    assert "step 60/60 joint: loss" in printed


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer.precision=bfloat16", "optimizer.ema=null", "data.workers=1"],
        ["optimizer.precision=float16", "optimizer.name=adam", "optimizer.clip=null"],
        ["data.target=aligned", "framework.reblur=null", "alignment.mask=none", "alignment.first_mask=consistency"],
        ["framework.blur_map=null", "framework.deblur.prior=false", "alignment={mask: calibration, grid: published}"],
        ["framework.blur_map=null", "framework.deblur.prior=false", "framework.reblur=null", "alignment.flow=none"],
        ["framework.deblur.prior=false", "data.augmentation=published", "schedule.boundary=0"],
        ["losses={blur_from: deblurred, seeds: 0}", "optimizer.precision=auto"],
        ["losses.blur_from=deblurred", "framework.blur_map=null", "framework.deblur.prior=false"],
    ],
)
def test_options_train(config_file, tmp_path, overrides):
    run = tmp_path / "run"
    assert train(config_file, run, "schedule.steps=2", "schedule.boundary=1", "output.pictures=2", *overrides) == 0
    metrics = lines(run / "metrics.jsonl")
    config = load_config(str(run / "config.yaml"))
    reblurring_parameters = {
        "reblurred": True,
        "reblurred_sharp": config.losses.blur_from == "sharp",
        "blur_map": config.framework.blur_map is not None,
        "seeds": config.losses.seeds > 0,
    }
    there = [name for name, is_there in reblurring_parameters.items() if is_there and config.framework.reblur]
    assert list(metrics[-1]["parts"]) == ["deblurred", "sharp", *there]
    assert metrics[-1]["skipped"] == 0
    assert all(np.isfinite(record["loss"]) for record in metrics)
    before, after = (make_state(config, torch.device("cpu")).framework, Framework.from_pretrained(run / "latest"))
    for name, part in before.named_children():
        trained = getattr(after, name).state_dict()
        changed = [not torch.equal(tensor, trained[key]) for key, tensor in part.state_dict().items()]
        assert sum(changed) > len(changed) / 2, name


def test_a_trained_deblurrer_is_frozen_while_the_reblurring_warms_up(config_file, tmp_path):
    torch.manual_seed(5)
    given = Framework(load_config(str(config_file), TINY).framework)
    given.save_pretrained(tmp_path / "framework")
    state = {f"module.{name}": tensor for name, tensor in given.deblur.state_dict().items()}
    torch.save({"params": state}, tmp_path / "deblur.pth")
    starts = {"framework": tmp_path / "framework", "deblur": tmp_path / "deblur.pth"}
    for name, path in starts.items():
        run = tmp_path / f"run-{name}"
        blur_from, part = ("sharp", "reblurred_sharp") if name == "framework" else ("deblurred", "reblurred")
        options = [f"start.{name}={path}", "schedule.first=reblur", "schedule.joint_lr=0.1", "optimizer.ema=null"]
        options.append(f"losses.blur_from={blur_from}")
        assert train(config_file, run, *options, "output.checkpoints=1", "output.keep=9") == 0
        metrics = lines(run / "metrics.jsonl")
        assert list(metrics[0]["parts"]) == [part, "blur_map", "seeds"]
        assert (metrics[0]["psnr"] is None) == (blur_from == "deblurred")
        assert metrics[3]["lr"] < 0.11 * metrics[2]["lr"]
        steps = {step: Framework.from_pretrained(run / "checkpoints" / f"step-{step:07d}") for step in (1, 3, 4)}
        for step, framework in steps.items():
            weights = zip(framework.deblur.parameters(), given.deblur.parameters(), strict=True)
            frozen = [torch.equal(one, other) for one, other in weights]
            assert all(frozen) == (step <= 3)
        assert not torch.equal(steps[1].reblur.seeds.first.weight, steps[3].reblur.seeds.first.weight)
        assert not torch.equal(steps[1].blur_map.net.first.weight, steps[3].blur_map.net.first.weight)


def test_parts_begin_with_other_weights_and_stay_as_they_are(config_file, tmp_path):
    torch.manual_seed(5)
    given = Framework(load_config(str(config_file), TINY).framework)
    given.save_pretrained(tmp_path / "framework")
    start = [f"start.framework={tmp_path}/framework", "start.parts=[blur_map,reblur]"]
    fresh = make_state(load_config(str(config_file), [*TINY, *start]), torch.device("cpu")).framework
    assert train(config_file, tmp_path / "run", *start, "schedule.frozen=[reblur]", "optimizer.ema=null") == 0
    trained = Framework.from_pretrained(tmp_path / "run/latest")

    def same(one, other, part):
        states = (getattr(each, part).state_dict().values() for each in (one, other))
        return all(torch.equal(*both) for both in zip(*states, strict=True))

    assert {part: same(fresh, given, part) for part in PARTS} == {"blur_map": True, "deblur": False, "reblur": True}
    assert {part: same(trained, fresh, part) for part in PARTS} == {"blur_map": False, "deblur": False, "reblur": True}


def test_what_warms_up_needs_a_deblurrer_among_the_parts(config_file, tmp_path, capsys):
    options = ["schedule.first=reblur", "start.framework=pretrained", "start.parts=[reblur]"]
    assert train(config_file, tmp_path / "run", *options) == 2
    assert 'must name weights for schedule.first "reblur"' in capsys.readouterr().err


def test_validation_without_truth_names_its_flow(config_file, data, tmp_path):
    for name in ("blur", "gt"):
        (tmp_path / name).symlink_to(data / "train_patches" / name)
    source = f"data.train=['folders:{tmp_path}/blur,{tmp_path}/gt']"
    assert train(config_file, tmp_path / "run", source, "schedule.steps=1", "schedule.boundary=0") == 0
    (record,) = lines(tmp_path / "run" / "validation.jsonl")
    assert record["protocol"] == "warped by dis"
    assert "blur_radius_correlation" not in record
    assert 15 < record["input_psnr"] < 60


# Nothing is lost


def interrupt_at(monkeypatch, step, number=signal.SIGINT):
    """A signal arrives in the middle of the step with this number."""
    seed = loop.seed_step

    def seed_and_interrupt(seed_value, at, rank):
        seed(seed_value, at, rank)
        if at == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop, "seed_step", seed_and_interrupt)


# A network with dropout: random numbers go on, too.
UNET = "framework.deblur={network: unet, options: {width: 4, depth: 2, dropout: 0.4}}"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_run_that_was_interrupted_goes_on_with_the_same_bits(
    config_file, tmp_path, monkeypatch, capsys, number, status
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    before = signal.getsignal(signal.SIGINT)  # a job in the background of a shell may ignore it
    monkeypatch.setattr(signals, "getsignal", lambda _: signal.SIG_DFL)  # and under nohup SIGHUP is
    assert train(config_file, whole, UNET) == 0
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, number)
        assert train(config_file, parts, UNET) == status
    assert signal.getsignal(signal.SIGINT) is before
    assert saved(parts)["step"] == 5
    assert "stopped and saved after 5 of 6 steps; resume=auto goes on" in capsys.readouterr().out
    # As if it had been killed after logging more.
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": 1}\n{"ste')
    assert train(config_file, parts, UNET) == 2
    assert "holds a run of 5 steps: resume=auto goes on with it" in capsys.readouterr().err
    assert train(config_file, parts, UNET, "resume=auto", "optimizer.lr=1", "seed=4") == 2
    assert "seed, optimizer.lr differ" in capsys.readouterr().err
    assert train(config_file, parts, UNET, "resume=auto") == 0
    assert_same_bits(whole, parts)
    for name in ("metrics.jsonl", "validation.jsonl"):
        first, second = (list(map(without_timing, lines(run / name))) for run in (whole, parts))
        assert first == second
    assert [record["step"] for record in lines(parts / "environment.jsonl")] == [0, 5]
    assert train(config_file, parts, UNET, "resume=auto") == 0, "nothing is left to do"


def test_a_run_with_other_pairs_does_not_go_on(config_file, data, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(config_file, run, "schedule.steps=1", "schedule.boundary=0") == 0
    synthesize(data, patches=5)
    try:
        assert train(config_file, run, "schedule.steps=1", "schedule.boundary=0", "resume=auto") == 2
        assert "the pairs to train on are not those with which the run in" in capsys.readouterr().err
    finally:
        for path in data.rglob("*_00004.*"):
            path.unlink()


# Imports once, then forks: a process that trains is there at once, and can be killed while it does.
KILLING = """
import os, random, signal, sys, time
from models.__main__ import main
arguments, random_moments = sys.argv[1:], random.Random(int(sys.argv.pop(1)))
arguments = sys.argv[1:]
for round in range(5):
    child = os.fork()
    if child == 0:
        os._exit(main(["train", *arguments]))
    if round < 4:
        time.sleep(random_moments.uniform(0.05, 1.0))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    checkpoints = os.path.join(arguments[-1].removeprefix("out="), "checkpoints")
    names = [name for name in os.listdir(checkpoints) if name.startswith("step-")] if os.path.isdir(checkpoints) else []
    print("round", round, os.waitstatus_to_exitcode(status), max(names, default="none"), flush=True)
    for name in names:
        from models.framework import Framework
        Framework.from_pretrained(os.path.join(checkpoints, name))
"""


def test_killed_at_random_moments_it_ends_with_the_same_bits(config_file, tmp_path):
    longer = ["schedule.steps=16", "output.checkpoints=1", "output.validation=4", "output.validation_pairs=1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(config_file, whole, *longer) == 0
    arguments = ["--config", str(config_file), *TINY, *longer, "resume=auto", f"out={killed}"]
    command = [sys.executable, "-c", KILLING, "3", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    rounds = re.findall(r"^round \d (-?\d+) (\S+)$", result.stdout, re.M)
    assert rounds[-1] == ("0", "step-0000016")
    assert sum(status == "-9" for status, _ in rounds) >= 2, result.stdout
    assert_same_bits(whole, killed)
    assert [record["step"] for record in lines(killed / "metrics.jsonl")] == list(range(1, 17))
    assert [path.name for path in killed.rglob(".*")] == [".training.lock"], "nothing half done is left"


def test_a_full_disk_is_an_error_and_the_run_goes_on(config_file, tmp_path, monkeypatch, capsys):
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(config_file, whole) == 0
    with monkeypatch.context() as patch:
        write = folder_module.write_torch

        def full(value, file):
            if value.get("step") == 4:
                file.write(b"as far as it went")
                raise OSError(28, "No space left on device")
            write(value, file)

        patch.setattr(folder_module, "write_torch", full)
        assert train(config_file, run) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "resume=auto goes on after step 3" in error
    assert saved(run)["step"] == 3  # the best so far
    assert not list((run / "checkpoints").glob(".*"))
    assert train(config_file, run, "resume=auto") == 0
    assert_same_bits(whole, run)


@pytest.fixture
def poisoned(data, tmp_path):
    """Folders of pairs, one of them with values that no network survives; and the name of that pair."""
    for source, name in (("blur", "blur"), ("gt", "gt")):
        (tmp_path / name).mkdir()
        for path in sorted((data / "train_patches" / source).iterdir())[:8]:
            (tmp_path / name / path.name).symlink_to(path)
    name = sorted((tmp_path / "blur").iterdir())[1].stem
    (tmp_path / "blur" / f"{name}.png").unlink()
    bad = np.full((48, 48, 3), 1e30, np.float32)
    images.write(tmp_path / "blur" / f"{name}.tif", bad, images.Encoding(depth=32))
    return [f"data.train=['folders:{tmp_path}/blur,{tmp_path}/gt']", "data.held_out=0.25"], name


def test_a_loss_that_is_not_finite_is_named_and_kept(config_file, tmp_path, poisoned, capsys):
    overrides, name = poisoned
    run = tmp_path / "run"
    assert train(config_file, run, *overrides) == 0
    printed = capsys.readouterr().out
    message = re.search(rf"step (\d), process 0: (.*) not finite; pairs (.*{name}.*); kept in (\S+); skipped", printed)
    assert "deblurred" in message[2]
    kept = read_torch(message[4])
    assert name in kept["name"]
    assert kept["step"] == int(message[1])
    assert kept["blurry"].max() > 1e29
    metrics = lines(run / "metrics.jsonl")
    assert metrics[-1]["skipped"] == printed.count("; skipped") >= 1
    assert all(tensor.isfinite().all() for tensor in tensors(saved(run)))

    assert train(config_file, tmp_path / "stopped", *overrides, "optimizer.nonfinite=stop") == 1
    error = capsys.readouterr().err
    assert re.search(rf"step {message[1]}, process 0: .* not finite; pairs .*{name}.*; kept in ", error)


def test_too_many_skipped_steps_end_the_run(config_file, tmp_path, poisoned, capsys, monkeypatch):
    monkeypatch.setattr(loop, "MOST_SKIPPED", 2)
    monkeypatch.setattr(State, "backward", lambda *_: float("nan"))
    assert train(config_file, tmp_path / "run") == 1
    captured = capsys.readouterr()
    assert "step 0: the gradient is not finite, though the loss is; skipped" in captured.out
    assert "the run has diverged: the last 2 steps up to step 1 were not finite; begin anew" in captured.err


def test_a_run_that_has_diverged_keeps_what_was_sound_and_does_not_go_on(config_file, tmp_path, capsys, monkeypatch):
    run, backward = tmp_path / "run", State.backward
    monkeypatch.setattr(loop, "MOST_SKIPPED", 4)

    def diverging(state, *arguments):
        norm = backward(state, *arguments)
        return norm if state.step < 1 else float("nan")

    monkeypatch.setattr(State, "backward", diverging)
    options = ["output.checkpoints=1", "output.keep=1", "output.validation=0", "schedule.steps=9"]
    assert train(config_file, run, *options) == 1
    error = capsys.readouterr().err
    advice = f"start.framework={run}/checkpoints/step-0000001 out=FOLDER with an optimizer.lr below 0.002"
    assert "the last 4 steps up to step 4 were not finite" in error
    assert advice in error
    assert "resume=auto" not in error
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-0000001", "step-0000004"]
    # Nothing was learnt in between, and what was not there is not 0.
    assert [record["loss"] is None for record in lines(run / "metrics.jsonl")] == [False, True, True, True]
    # The streak goes on where it was.
    assert train(config_file, run, *options, "resume=auto") == 1
    assert "the last 4 steps" in capsys.readouterr().err
    monkeypatch.setattr(loop, "MOST_SKIPPED", 3)
    assert train(config_file, run, *options, "resume=auto") == 2
    assert advice in capsys.readouterr().err


def test_a_score_that_is_not_finite_is_null_and_never_the_best(config_file, tmp_path, monkeypatch):
    run, validate = tmp_path / "run", loop.validate
    monkeypatch.setattr(loop, "validate", lambda *args: validate(*args) | {"deblurred_psnr": float("nan")})
    assert train(config_file, run) == 0
    told = [(record["deblurred_psnr"], record["best"]) for record in lines(run / "validation.jsonl")]
    assert told == [(None, False)] * 2
    assert not (run / "best").exists()


def test_a_damaged_checkpoint_names_the_last_whole_one(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(config_file, run) == 0
    weights = run / "checkpoints/step-0000006/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert train(config_file, run, "resume=auto") == 2
    error = capsys.readouterr().err
    assert "model.safetensors" in error
    assert f"without the folder {run}/checkpoints/step-0000006, resume=auto goes on after step 4" in error


def test_pairs_that_have_moved_are_the_same_pairs(config_file, data, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    options = ["schedule.steps=4", "output.checkpoints=2"]
    assert train(config_file, run, *options) == 0
    moved.symlink_to(data)
    (run / "checkpoints/step-0000004").rename(tmp_path / "gone")
    assert train(config_file, run, *options, f"data.train=['sdd:{moved}']", "resume=auto") == 0
    assert [record["step"] for record in lines(run / "environment.jsonl")] == [0, 3]


def test_another_schedule_is_another_run_and_told_how_to_begin(config_file, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(config_file, run) == 0
    assert train(config_file, run, "schedule.steps=9", "resume=auto") == 2
    error = capsys.readouterr().err
    assert f"schedule.steps differ; {run}/config.yaml has it" in error
    assert f"start.framework={run}/latest out=FOLDER begins another run with its weights" in error


# At any scale


def torchrun(count, *arguments):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*launcher, "-m", "models", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_to_all_processes_saves_with_loader_workers(config_file, tmp_path, count):
    """As a scheduler and torchrun send it: to each process, and to those that load for it."""
    run = tmp_path / "run"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if count == 2 else []
    options = ["data.workers=1", "schedule.steps=100000", "output.validation=0", "output.checkpoints=0", f"out={run}"]
    command = [sys.executable, *launcher, "-m", "models", "train", "--config", str(config_file), *TINY, *options]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    assert b"resume=auto goes on" in printed, printed.decode()
    assert b"DataLoader worker" not in printed
    assert process.returncode == 143 or count == 2  # torchrun has a status of its own
    assert saved(run)["step"] == lines(run / "metrics.jsonl")[-1]["step"] >= 1


def test_two_processes_follow_one(config_file, tmp_path, poisoned):
    """Through both stages, validation, and a step that is not finite in one of the two."""
    overrides, name = poisoned
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(config_file, one, *overrides) == 0
    result = torchrun(2, "train", "--config", str(config_file), *TINY, *overrides, f"out={two}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("; skipped") == lines(one / "metrics.jsonl")[-1]["skipped"] >= 1
    assert name in result.stdout
    for log in ("metrics.jsonl", "validation.jsonl"):
        first, second = (list(map(without_timing, lines(run / log))) for run in (one, two))
        assert [record["step"] for record in first] == [record["step"] for record in second]
        for mine, other in zip(first, second, strict=True):
            assert flat(other) == pytest.approx(flat(mine), rel=1e-3)
    weights = [Framework.from_pretrained(run / "latest").state_dict() for run in (one, two)]
    for key, tensor in weights[0].items():
        assert torch.allclose(weights[1][key], tensor, atol=1e-4), key
    assert lines(two / "environment.jsonl")[0]["processes"] == 2


def flat(record):
    numbers = {key: value for key, value in record.items() if isinstance(value, (int, float))}
    return numbers | {f"parts.{key}": value for key, value in record.get("parts", {}).items()}


def test_two_processes_end_together_by_one_that_fails(config_file, tmp_path, poisoned):
    overrides, name = poisoned
    result = torchrun(
        2, "train", "--config", str(config_file), *TINY, *overrides, f"out={tmp_path}/run", "optimizer.nonfinite=stop"
    )
    assert result.returncode != 0
    assert re.search(rf"not finite; pairs {name}", result.stderr)


def test_a_batch_that_processes_cannot_share_is_refused(config_file):
    config = load_config(str(config_file), [*TINY, "data.batch=3"])
    with pytest.raises(ValueError, match=r"data\.batch must be a multiple of the 2 processes, which share it, got 3"):
        loop.prepare(config, Processes(1, 2, torch.device("cpu")))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_trains_and_goes_on(config_file, tmp_path, monkeypatch, precision):
    run = tmp_path / "run"
    overrides = ["device=cuda", f"optimizer.precision={precision}", "output.pictures=6", "data.workers=1"]
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        assert train(config_file, run, *overrides) == 130
    assert train(config_file, run, *overrides, "resume=auto") == 0
    metrics = lines(run / "metrics.jsonl")
    assert [record["step"] for record in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1]["skipped"] == 0
    assert "deblurred_psnr" in lines(run / "validation.jsonl")[-1]


def test_data_errors_travel_between_processes():
    import pickle

    error = DataError(["one", "two"])
    assert pickle.loads(pickle.dumps(error)).problems == ["one", "two"]
    assert str(DataError("what a loader says")) == "the data cannot be used: what a loader says"


# Photographs alone


@pytest.fixture
def photographs(data, tmp_path):
    """A configuration that makes pairs of two photographs, and judges them by pairs in files."""
    import skimage.data

    (tmp_path / "photographs").mkdir()
    for name in ("astronaut", "coffee"):
        picture = np.asarray(getattr(skimage.data, name)()[:160, :160], np.float32) / np.float32(255)
        images.write(tmp_path / "photographs" / f"{name}.png", picture)
    path = tmp_path / "photographs.yaml"
    path.write_text(
        f"data: {{train: 'photographs:{tmp_path}/photographs', validation: ['sdd/train:{data}'], target: aligned,\n"
        "  generator: {blur: 3, shift: 3}}\n"
    )
    return path


RADIUS = [
    "framework.blur_map={form: radius, width: 8, blocks: 1}",
    "framework.reblur={form: radius, max_radius: 3, width: 8, blocks: 1}",
]


def test_photographs_train_and_a_run_goes_on_with_the_same_bits(photographs, tmp_path, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(photographs, whole, *RADIUS) == 0
    printed = capsys.readouterr().out
    assert "2 photographs to make pairs of, 2 to validate on" in printed
    assert "`align` does it once" not in printed
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert train(photographs, parts, *RADIUS) == 130
    assert train(photographs, parts, *RADIUS, "resume=auto") == 0
    assert_same_bits(whole, parts)
    metrics = lines(whole / "metrics.jsonl")
    assert set(metrics[0]["parts"]) == {"deblurred", "blur_map", "reblurred_sharp", "radius"}
    validation = lines(whole / "validation.jsonl")[-1]
    assert validation["protocol"] == "aligned"
    assert validation["effective_blurs"] >= 1
    assert -1 <= validation["map_radius_correlation"] <= 1


def test_the_misaligned_picture_of_generated_pairs_trains_too(photographs, tmp_path):
    assert train(photographs, tmp_path / "run", *RADIUS, "data.target=sharp", "schedule.steps=4") == 0
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert set(metrics[-1]["parts"]) >= {"deblurred", "sharp", "reblurred", "reblurred_sharp", "blur_map", "radius"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.validation=[]"], "data.validation must name pairs where train names photographs, got none"),
        (["data.train=[photographs:x, sdd:y]"], "data.train must be photographs or pairs, not both"),
        (["data.validation=[photographs:x]"], "data.validation must name pairs, so that all runs are judged"),
        (["data.train=photographs:nowhere"], "nowhere cannot be read"),
        (["data.generator.blur=70"], "data.generator.blur must be from 0.5 to 64, got 70"),
        (["data.crop=512"], "must have"),
    ],
)
def test_photographs_that_cannot_be_used_are_refused(photographs, tmp_path, capsys, overrides, message):
    assert train(photographs, tmp_path / "run", *RADIUS, *overrides) in (1, 2)
    assert message in capsys.readouterr().err
