"""The page of a run says what the run left behind, and works in a browser."""

import base64
import html.parser
import json
import re

import cv2
import numpy as np
import pytest
import torch

import reblur_ops
from models.__main__ import main
from models.checkpoints.load import load_framework
from models.core.errors import UserError
from models.data.layouts import load_pairs
from models.data.samples import WholePairs
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig
from models.inference.tiling import TiledFramework
from models.reporting import page, training_run
from models.reporting.page import Series
from tests import browser

pytestmark = pytest.mark.slow

SMALL = FrameworkConfig(
    radii=(1, 3),
    blur_map=BlurMapConfig(4, 1),
    deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}),
    reblur=ReblurConfig(4, 1, support="disk"),
)
needs_browser = pytest.mark.skipif(browser.BINARY is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """As training leaves it, with data in the layout that it was trained on."""
    folder = tmp_path_factory.mktemp("run")
    data = tmp_path_factory.mktemp("data")
    options = ["--patch", "64", "--patches", "3", "--misalignment", "1", "--test-fraction", "0.1"]
    assert main(["synthesize", "--out", str(data), *options, "--workers", "1"]) == 0
    torch.manual_seed(0)
    Framework(SMALL).save_pretrained(folder / "checkpoints/step-0000040")
    (folder / "config.yaml").write_text(f"data:\n  train: ['sdd/train:{data}']\n")
    metrics = [
        {"step": step, "loss": 3 / step, "parts": {"deblurred": 2 / step, "reblurred": 1 / step}, "psnr": 20 + step / 8}
        for step in range(10, 50, 10)
    ]
    metrics[2]["psnr"] = None
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, metrics)) + '\n{"step": 50, "lo')
    start = {
        "step": 0,
        "time": "2026-01-02T03:04:05",
        "command": ["python", "-m", "models", "train", "--config", "x"],
        "git_commit": "abc1234",
        "device": "cpu",
        "processes": 1,
        "torch": "2.0",
    }
    (folder / "environment.jsonl").write_text(json.dumps(start) + "\n")
    scores = {"step": 40, "deblurred_psnr": 25.5, "input_psnr": 24.25, "blur_radius_correlation": 0.5}
    (folder / "validation.jsonl").write_text(json.dumps(scores) + "\n")
    return folder


@pytest.fixture(scope="module")
def written(run):
    assert main(["report", str(run), "--pictures", "2"]) == 0
    return run / "report.html"


def test_it_says_what_the_run_left_behind(written):
    text = written.read_text()
    assert "25.50 dB" in text
    assert "+1.25 dB" in text
    for part in (
        "Loss",
        "PSNR in training (dB)",
        "PSNR in validation (dB)",
        "Correlation of the blur radius with the truth",
    ):
        assert f'aria-label="{part}"' in text
    assert text.count("<polyline") == 3 + 1 + 2 + 1
    for protocol in ("raw", "aligned", "warped", "shift"):
        assert text.count(f"<td>{protocol}</td>") == 3  # of two pictures, and their mean
    means = re.findall(r"<tr><td>mean</td><td>aligned</td><td>([\d.]+) dB</td><td>([\d.]+) dB</td>", text)
    each = re.findall(r"<tr><td>(?!mean)[^<]+</td><td>aligned</td><td>([\d.]+) dB</td><td>([\d.]+) dB</td>", text)
    assert np.allclose(np.array(means, float), np.array(each, float).mean(0), atol=0.011)
    for part in ("2026-01-02T03:04:05", "python -m models train --config x", "abc1234", "torch 2.0", "Configuration"):
        assert part in text
    assert text.count('class="comparison"') == text.count('class="probe"') == 2
    assert text.count("deblurred and blurred again") == text.count(">blur radius, true<") == 2


def test_it_needs_nothing_else(written):
    class Tags(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open_tags = []

        def handle_starttag(self, tag, attributes):
            for name, value in attributes:
                assert name not in ("src", "href") or value.startswith("data:")
            if tag not in ("meta", "img", "input", "link", "br"):
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

        def handle_startendtag(self, tag, attributes):
            pass  # of drawings

    tags = Tags()
    tags.feed(written.read_text())
    assert tags.open_tags == []


@needs_browser
def test_it_works_in_a_browser(written, tmp_path):
    with browser.Browser() as chromium:
        chromium.open(written)
        assert chromium.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        clip = "getComputedStyle(document.querySelector('.wipe img.left')).clipPath"
        assert "50%" in chromium.evaluate(clip)

        slider = chromium.box(".wipe input")
        middle = slider["y"] + slider["height"] / 2
        before = shot(chromium, tmp_path)
        chromium.mouse("mousePressed", slider["x"] + 0.5 * slider["width"], middle)
        chromium.mouse("mouseMoved", slider["x"] + 0.2 * slider["width"], middle)
        chromium.mouse("mouseReleased", slider["x"] + 0.2 * slider["width"], middle)
        at = float(chromium.evaluate("document.querySelector('.wipe').style.getPropertyValue('--at')").rstrip("%"))
        assert 15 < at < 25
        after = shot(chromium, tmp_path)
        # The line between the pictures has moved.
        line = round(slider["x"] + at / 100 * slider["width"])
        row = round(middle)
        assert np.abs(after[row, line - 3 : line + 4].astype(int) - before[row, line - 3 : line + 4]).max() > 50

        labels = "[...document.querySelectorAll('.wipe output')].slice(0, 2).map(label => label.value)"
        assert chromium.evaluate(labels) == ["blurry", "deblurred"]
        second = chromium.box(".choice button:nth-child(2)")
        chromium.click(second["x"] + 5, second["y"] + 5)
        assert chromium.evaluate(labels) == ["deblurred", "aligned truth"]
        assert not chromium.errors


@needs_browser
def test_the_kernel_under_the_pointer_is_the_kernel_there(run, written):
    kernels = []
    with browser.Browser() as chromium:
        chromium.open(written)
        area = chromium.box(".probe .map")
        for x, y in ((0.1, 0.2), (0.9, 0.8)):
            chromium.mouse("mouseMoved", area["x"] + x * area["width"], area["y"] + y * area["height"])
            pixels = chromium.evaluate(
                "(() => { const canvas = document.querySelector('.probe canvas');"
                " return [canvas.toDataURL(), document.querySelector('.probe output').value]; })()"
            )
            data, label = pixels
            png = np.frombuffer(base64.b64decode(data.partition(",")[2]), np.uint8)
            kernels.append((cv2.imdecode(png, cv2.IMREAD_GRAYSCALE), float(label.removesuffix(" px"))))
        assert not chromium.errors

    sample = shown(run)
    tiled = TiledFramework(load_framework(run))
    deblurred = tiled.deblur(sample["blurry"])
    with torch.no_grad():
        found = tiled.framework.reblur(deblurred[None], sample["blurry"][None])
    height, width = sample["blurry"].shape[1:]
    for (kernel, radius), (x, y) in zip(kernels, ((0.1, 0.2), (0.9, 0.8)), strict=True):
        place = (int(y * height), int(x * width))
        options = {"radii": found.radii, "support": found.support}
        expected = reblur_ops.kernel_image(found.seeds, found.weights, [(0, *place)], **options)[0]
        assert kernel.shape == expected.shape == (7, 7)
        assert np.abs(kernel - 255 * (expected / expected.max()).numpy()).max() <= 1
        assert radius == pytest.approx(found.radius[0, 0][place].item(), abs=0.01)


def shot(chromium, folder):
    chromium.screenshot(folder / "shot.png")
    return cv2.imread(str(folder / "shot.png"))


def shown(run):
    pairs = load_pairs(training_run.sources_of(run), "test", truth=True)
    return WholePairs(pairs)[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([3.0], None),
        ([0.0], None),
        ([-7e-5, 2e-5], None),
        ([24.3, 31.2], None),
        ([1e5, 3.7e6], None),
    ],
)
def test_ticks_are_few_and_enclose_the_values(values, expected):
    ticks = page._ticks(values)
    assert 4 <= len(ticks) <= 10
    assert ticks[0] <= min(values)
    assert ticks[-1] >= max(values)
    if expected:
        assert ticks == pytest.approx(expected)


def test_a_chart_shows_its_values():
    drawing = page.chart("A <title>", [Series("loss", [0, 50, 100], [1.0, 0.5, 0.0])])
    assert "A &lt;title&gt;" in drawing
    points = re.search(r'points="([^"]*)"', drawing)[1].split()
    xs, ys = np.array([point.split(",") for point in points], float).T
    assert np.allclose(np.diff(xs, 2), 0, atol=0.2)
    assert np.allclose(np.diff(ys, 2), 0, atol=0.2)
    assert xs[0] < xs[1]
    assert ys[0] < ys[1], "less is lower"


def test_lines_that_are_no_json_are_refused_but_the_last(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2, must be JSON"):
        training_run.read_lines(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ABSENT"], "is not the folder of a training run"),
        (["EMPTY"], "config.yaml does not tell the data: give --data LAYOUT:DIR"),
        (["EMPTY", "--data", "sdd:ABSENT"], "is not a folder"),
        (["ALIGNED"], "there must be test/blur with test/gt; --data names other pairs, LAYOUT:DIR"),
    ],
)
def test_bad_input_gets_one_error_before_any_work(tmp_path, capsys, arguments, message):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "ALIGNED/train_patches").mkdir(parents=True)  # as `align` leaves it, and a run trained on that
    (tmp_path / "ALIGNED/config.yaml").write_text(f"data:\n  train: ['sdd:{tmp_path}/ALIGNED']\n")
    for name in ("ABSENT", "EMPTY", "ALIGNED"):
        arguments = [argument.replace(name, str(tmp_path / name)) for argument in arguments]
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m models report: error: ")
    assert message in error
    assert len(error.splitlines()) == 1
