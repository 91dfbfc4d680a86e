"""The checkpoint in the box."""

from pathlib import Path

import cv2
import numpy as np
import torch

from models.__main__ import main
from models.checkpoints.load import DEFAULT_CHECKPOINT, load_framework
from models.data import images
from models.synthesis.pairs import make_pair
from models.synthesis.photographs import Original
from models.synthesis.settings import Settings

BOX = Path(__file__).parents[2] / DEFAULT_CHECKPOINT


def psnr(picture, target):
    return -10 * np.log10(np.mean((picture - target) ** 2))


def test_it_is_small_and_has_a_card():
    assert sum(path.stat().st_size for path in BOX.iterdir()) < 12e6
    card = (BOX / "README.md").read_text(encoding="utf-8")
    tasks = ("train --config compact", "synthesize", "evaluate")
    for part in (*(f"-m models {task}" for task in tasks), "cannot"):
        assert part in card


def test_it_sharpens_photographs_that_it_has_not_seen(tmp_path):
    generator = np.random.default_rng(3)
    gains = []
    for name in ("astronaut", "coffee"):
        photograph, disparity = Original(name).load()
        pair = make_pair(photograph, disparity, Settings(patch=256), generator)
        images.write(tmp_path / f"{name}.png", pair.blurry)
        assert main(["deblur", str(tmp_path / f"{name}.png"), "--out", str(tmp_path / "out")]) == 0
        deblurred = images.read(tmp_path / "out" / f"{name}.png").pixels
        gains.append(psnr(deblurred, pair.aligned) - psnr(pair.blurry, pair.aligned))
    assert min(gains) > 0
    assert sum(gains) > 2 * 0.5


def test_it_leaves_a_picture_without_blur_nearly_as_it_is():
    photograph, _ = Original("coffee").load()
    with torch.no_grad():
        deblurred = load_framework()(torch.from_numpy(photograph).permute(2, 0, 1)[None])
    assert psnr(deblurred[0].permute(1, 2, 0).numpy(), photograph) > 28


def test_it_finds_where_a_picture_is_blurred():
    photograph, _ = Original("astronaut").load()
    half = photograph.copy()
    half[:, 256:] = cv2.GaussianBlur(photograph, (0, 0), 2.5)[:, 256:]
    with torch.no_grad():
        radius = load_framework().blur_radius(torch.from_numpy(half).permute(2, 0, 1)[None])[0, 0]
    assert radius[:, 270:].mean() > 1.5 * radius[:, :242].mean()
