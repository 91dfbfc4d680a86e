"""The demonstration, small: its numbers are those of what it leaves behind; it goes on, and refuses what cannot be."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.__main__ import TASKS, main, parse
from models.checkpoints.load import load_framework
from models.data import images
from models.data.layouts import load_pairs
from models.framework import Framework
from models.tasks import demo
from models.training import loop
from models.training.config import load_config
from models.training.state import make_state
from tests import browser

pytestmark = pytest.mark.slow

PAIRS = replace(demo.PAIRS, patch=48, patches=2, test_patch=64, test_patches=2)
TINY = [
    "--device=cpu",
    "--steps=6",
    "framework.radii=[1,2,3]",
    "framework.blur_map={form: seeds, width: 4, blocks: 1}",
    "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
    "framework.reblur={form: kernels, width: 4, blocks: 1, support: disk, padding: replicate}",
    "start.framework=null",
    "schedule.frozen=[]",
    "data.batch=2",
    "data.crop=32",
    "data.held_out=0.15",
    "schedule.boundary=3",
    "schedule.warmup=0",
    "optimizer.precision=float32",
    "optimizer.ema=0.9",
    "output={metrics: 1, validation: 3, validation_pairs: 2, checkpoints: 2, pictures: 0}",
]
needs_browser = pytest.mark.skipif(browser.BINARY is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module", autouse=True)
def few_pairs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PAIRS", PAIRS)
        patch.setattr(demo, "processors", lambda: 1)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo [1], it's")
    assert main(["demo", "--out", str(folder), *TINY]) == 0
    return folder


def test_its_numbers_are_those_of_the_checkpoint_on_the_pictures_held_out(out):
    metrics = json.loads((out / "metrics.json").read_text())
    framework = Framework.from_pretrained(out / "training/checkpoints/step-0000006")
    pairs = load_pairs([f"sdd:{out / 'pairs'}"], "test", truth=True)
    assert {pair.name.rpartition("_")[0] for pair in pairs} == {"astronaut", "coffee"} == set(metrics["photographs"])
    expected, radii = [], []
    for pair in pairs:
        blurry, truth = (images.read(path).pixels for path in (pair.blurry, pair.aligned))
        assert blurry.shape == (64, 64, 3)
        with torch.no_grad():
            tensor = torch.from_numpy(blurry.transpose(2, 0, 1))[None]
            deblurred = framework(tensor)
            reblurred = framework.reblur(deblurred, tensor)
        found, again = (each[0].permute(1, 2, 0).numpy() for each in (deblurred, reblurred.image))
        ssim = {"data_range": 1, "channel_axis": 2, "gaussian_weights": True, "use_sample_covariance": False}
        expected.append({
            "input_psnr": peak_signal_noise_ratio(truth, blurry, data_range=1),
            "deblurred_psnr": peak_signal_noise_ratio(truth, found, data_range=1),
            "reblurred_psnr": peak_signal_noise_ratio(blurry, again, data_range=1),
            "input_ssim": structural_similarity(truth, blurry, **ssim),
            "deblurred_ssim": structural_similarity(truth, found, **ssim),
        })  # fmt: skip
        radii.append((reblurred.radius[0, 0].numpy(), images.read_map(pair.blur_radius)))
    for name in expected[0]:
        assert metrics[name] == pytest.approx(np.mean([each[name] for each in expected]), abs=1e-4), name
    assert metrics["gain_db"] == pytest.approx(metrics["deblurred_psnr"] - metrics["input_psnr"])
    found, true = (np.stack(side).ravel() for side in zip(*radii, strict=True))
    assert metrics["blur_radius_correlation"] == pytest.approx(np.corrcoef(found, true)[0, 1], abs=1e-4)
    assert metrics["blur_radius_mae"] == pytest.approx(np.abs(found - true).mean(), abs=1e-4)


def test_it_says_what_was_done(out):
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["pictures"], metrics["pairs"], metrics["steps"]) == (4, 14, 6)
    assert set(metrics["seconds"]) == {"pairs", "alignment", "training", "deblurring"}
    assert min(metrics["seconds"].values()) > 0
    assert metrics["versions"]["torch"] == torch.__version__
    assert metrics["parameters"] < 1e5
    assert metrics["device"]
    page = (out / "report.html").read_text()
    for number in (f"{metrics['gain_db']:+.2f} dB", f"{metrics['reblurred_psnr']:.2f} dB",
                   f"{metrics['blur_radius_correlation']:.3f}", "astronaut and coffee", "14 such pairs"):  # fmt: skip
        assert number in page
    assert page.count('class="comparison"') == 4 + 2
    assert page.count("<polyline") >= 5


def test_the_scores_of_targets_are_those_of_the_files(out):
    metrics = json.loads((out / "metrics.json").read_text())
    made, aligned = out / "pairs/train_patches", out / "aligned/train_patches"
    truths = sorted((made / "aligned").iterdir())
    assert len(truths) == metrics["pairs"]
    inner = (slice(8, -8), slice(8, -8))
    for name, folder in (("misaligned_psnr", made / "gt"), ("target_psnr", aligned / "aligned")):
        scores = [
            peak_signal_noise_ratio(
                images.read(path).pixels[inner], images.read(folder / path.name).pixels[inner], data_range=1
            )
            for path in truths
        ]
        assert metrics[name] == pytest.approx(np.mean(scores), abs=1e-4)
    assert metrics["misaligned_psnr"] < metrics["flow_psnr"] < metrics["target_psnr"]


def test_the_recipe_finds_the_blur_that_the_package_finds():
    """The reblurring network of the package is not trained: on pairs without truth it would get worse."""
    config = load_config("demo")
    state = make_state(config, torch.device("cpu"))
    box = load_framework()
    for name in ("blur_map", "reblur"):
        given = getattr(box, name).state_dict()
        assert all(torch.equal(value, given[key]) for key, value in getattr(state.framework, name).state_dict().items())
    assert config.schedule.frozen == ("reblur",)
    assert config.data.target == "aligned"


def test_what_it_is_scored_on_played_no_part_in_training(out):
    training, validation = loop.find_pairs(load_config(str(out / "training/config.yaml")))
    names = {pair.name.rpartition("_")[0] for pair in [*training, *validation]}
    assert len(names) == 7
    assert names.isdisjoint({"astronaut", "coffee"})


def test_done_already_it_writes_only_the_page_anew(out, capsys):
    def times():
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".png", ".tif", ".pt")}

    before, metrics = times(), json.loads((out / "metrics.json").read_text())
    (out / "report.html").unlink()
    assert main(["demo", "--out", str(out), *TINY]) == 0
    assert times() == before
    printed = capsys.readouterr().out
    assert "is trained already" in printed
    assert f"{metrics['gain_db']:+.2f} dB: PSNR gained" in printed
    assert printed.splitlines()[-1] == str(out / "report.html")
    again = json.loads((out / "metrics.json").read_text())
    assert again["seconds"]["training"] == metrics["seconds"]["training"]
    assert {**again, "seconds": 0} == {**metrics, "seconds": 0}
    assert (out / "report.html").is_file()


def test_interrupted_the_same_command_goes_on(out, tmp_path, monkeypatch, capsys):
    seed_step = loop.seed_step

    def interrupting(seed, step, rank):
        seed_step(seed, step, rank)
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "seed_step", interrupting)
    command = ["demo", "--out", str(tmp_path), *TINY]
    assert main(command) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.undo()
    assert main(command) == 0
    assert "going on after step 5 of 6" in capsys.readouterr().out
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (out, tmp_path))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_interrupted_before_training_it_says_so(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_dataset", interrupted)
    assert main(["demo", "--out", str(tmp_path), *TINY]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"


def test_without_a_reblurring_network_there_is_no_blur_radius(out, tmp_path):
    (tmp_path / "pairs").symlink_to(out / "pairs")
    assert main(["demo", "--out", str(tmp_path), *TINY, "framework.reblur=null", "--steps=3"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["reblurred_psnr"] is metrics["blur_radius_correlation"] is metrics["blur_radius_mae"] is None
    assert "None" not in re.sub(r'"data:[^"]*"', "", (tmp_path / "report.html").read_text())


@needs_browser
def test_the_page_works_in_a_browser(out):
    with browser.Browser() as chromium:
        chromium.open(out / "report.html")
        assert chromium.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        for index in (0, 4):  # of a picture held out, and of a pair to train on
            wipe = f"[...document.querySelectorAll('.wipe')][{index}]"
            chromium.evaluate(f"{wipe}.id = 'wipe{index}'")
            slider = chromium.box(f"#wipe{index} input")
            chromium.click(slider["x"] + 0.75 * slider["width"], slider["y"] + 0.5 * slider["height"])
            clip = chromium.evaluate(f"getComputedStyle({wipe}.querySelector('img.left')).clipPath")
            assert 20 < float(re.match(r"inset\(0px ([\d.]+)%", clip)[1]) < 30
        labels = "[...document.querySelectorAll('#wipe4 output')].map(label => label.value)"
        assert chromium.evaluate(labels) == ["blurry", "sharp"]
        assert not chromium.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "/dev/null/demo"], "cannot write to /dev/null/demo"),
        (["schedule.stepz=1"], "unknown in the configuration: schedule.stepz"),
        (["data.crop"], "an override must be section.key=value, got 'data.crop'"),
        (["data.batch=0"], "data.batch must be at least 1, got 0"),
        (["start.framework=nowhere"], "cannot read nowhere"),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda cannot be used",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_input_gets_one_error_before_any_work(arguments, message, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("python -m models demo: error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "1"], "holds pairs of other settings: seed was 0 and is 1"),
        (["--steps", "7"], "holds a run with another configuration"),
    ],
)
def test_what_is_there_and_differs_is_refused(out, arguments, message, capsys):
    assert main(["demo", "--out", str(out), *TINY, *arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]  # below a progress bar, perhaps
    assert last.startswith("python -m models demo: error: ")
    assert message in last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "must be an integer from 1 to"),
        (["--device", "abacus"], "invalid choice: 'abacus'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_impossible_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_help_names_defaults_that_say_something(task, capsys):
    with pytest.raises(SystemExit):
        main([task, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "show where in the code an error comes from" in text
    assert not re.search(r"\(default: (None|False|\[|\()", text)


def test_values_may_stand_before_and_after_options():
    args = parse(["train", "data.batch=2", "--config", "reblur", "out=runs/a", "--debug", "seed=1"])
    assert (args.task, args.overrides, args.config, args.debug) == (
        "train",
        ["data.batch=2", "out=runs/a", "seed=1"],
        "reblur",
        True,
    )


def test_help_does_not_load_torch():
    code = "import sys; from models.__main__ import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("False\n")
