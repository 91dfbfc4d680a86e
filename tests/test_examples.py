"""The examples run, and do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_reblurring_loss():
    lines = [line for line in (EXAMPLES / "reblurring_loss.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 40
    losses = [float(value) for value in re.findall(r"blurry one (\S+)", run("reblurring_loss.py"))]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 4


def test_depth_from_defocus(tmp_path):
    printed = run("depth_from_defocus.py", tmp_path)
    assert float(re.search(r"correlation (\S+),", printed)[1]) > 0.8
    assert float(re.search(r"median error (\S+) cm", printed)[1]) < 12
    photograph, truth, found = np.split(cv2.imread(str(tmp_path / "depth-from-defocus.png")), 3, axis=1)
    assert photograph.std() > 20
    assert np.abs(truth.astype(float) - found).mean() < np.abs(truth.astype(float) - truth.mean((0, 1))).mean() / 2


def test_recover_blur(tmp_path):
    printed = run("recover_blur.py", tmp_path, "--scale", "0.3", "--steps", "40")
    before, after = map(float, re.findall(r"to out of focus: PSNR (\S+)", printed))
    assert after > before + 15
    assert float(re.search(r"correlation (\S+),", printed)[1]) > 0.9
    assert float(re.search(r"mean error (\S+) px", printed)[1]) < 0.35
    picture = cv2.imread(str(tmp_path / "recover-blur.png")).astype(float)
    sharp, blurry, found, true = (picture[:, 230 * index : 230 * index + 222] for index in range(4))
    assert picture.shape == (150, 4 * 230 + 102, 3)
    assert np.abs(np.diff(blurry, axis=1)).mean() < 0.8 * np.abs(np.diff(sharp, axis=1)).mean()
    assert np.abs(found - true).mean() < np.abs(true - true.mean((0, 1))).mean() / 2


def test_bokeh(tmp_path):
    kept = float(re.search(r"light kept: (\S+) %", run("bokeh.py", tmp_path))[1])
    assert 95 < kept < 105
    before, after = np.split(cv2.imread(str(tmp_path / "bokeh.png")).astype(float), 2, axis=1)

    def sharpness(picture, rows, columns):
        return np.abs(np.diff(picture[rows, columns], axis=1)).mean()

    engine, shelf = (slice(290, 370), slice(330, 410)), (slice(60, 140), slice(580, 660))
    assert sharpness(after, *engine) > 0.7 * sharpness(before, *engine)
    assert sharpness(after, *shelf) < 0.3 * sharpness(before, *shelf)
