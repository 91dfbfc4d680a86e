"""The pairs of a study: made once, aligned once in each way that a variant asks for."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.ablation.variants import Scale, Target, Variant
from models.alignment import AlignmentSettings, align_dataset
from models.blur import decode, encode, match_exposure
from models.data import images
from models.data.images import Encoding
from models.data.layouts import load_pairs
from models.data.pairs import Pair
from models.flow import warp
from models.synthesis import dataset
from models.synthesis.photographs import Original
from models.synthesis.settings import Settings

SMOOTH = 4.0  # pixels: displacement of pairs without layers
TRAIN = "train_patches"


def settings_of(scale: Scale, parallax: float) -> Settings:
    """How the pairs of a parallax are made."""
    if parallax:
        return replace(scale.pairs, misalignment=parallax)
    return replace(scale.pairs, misalignment=SMOOTH, scenes=False)


def folder_of(data: Path, parallax: float, target: Target = "sharp", trusted: bool = False) -> Path:
    """The folder of pairs whose sharp pictures are like that. Confidence lies only where it counts."""
    name = f"{parallax:g}px"
    if target in ("sharp", "truth"):
        return data / name
    return data / f"{name}-{target.replace(' ', '-')}{'' if trusted else '-everywhere'}"


def make_pairs(scale: Scale, variants: Iterable[Variant], originals: list[Original], data: Path, workers: int) -> None:
    """Make and align the pairs that are not there yet.

    Raises:
        DataError: photographs cannot be used, or a folder holds pairs of other settings.
    """
    targets = dict.fromkeys((variant.target, variant.trusted) for variant in variants)
    for parallax in scale.parallaxes:
        made = folder_of(data, parallax)
        dataset.write_dataset(originals, settings_of(scale, parallax), made, workers)
        pairs = load_pairs([f"sdd:{made}"], "train", smallest=16)
        for target, trusted in targets:
            out = folder_of(data, parallax, target, True)
            if target == "true flow":
                _warp_truly(pairs, made / TRAIN, out / TRAIN)
            elif target in ("dis", "reblur"):
                align_dataset(pairs, AlignmentSettings(target, max_radius=8), out, workers)
            if not trusted and target in ("dis", "reblur"):
                _link(out / TRAIN, folder_of(data, parallax, target, False) / TRAIN)


def _warp_truly(pairs: list[Pair], made: Path, out: Path) -> None:
    """As `align_dataset` writes it, by the true flow; trusted is what the sharp picture shows."""
    for part in ("blur", "gt", "aligned", "confidence"):
        (out / part).mkdir(parents=True, exist_ok=True)
    for pair in tqdm(pairs, "warping by the true flow", disable=None):
        name = pair.blurry.stem
        if (out / "confidence" / f"{name}.tif").exists():
            continue
        for part, path in (("blur", pair.blurry), ("gt", pair.sharp)):
            (out / part / path.name).unlink(missing_ok=True)
            os.symlink(path.resolve(), out / part / path.name)
        flow = torch.from_numpy(images.read_map(made / "flow" / f"{name}.tif")).permute(2, 0, 1)[None]
        sharp = torch.from_numpy(images.read(pair.sharp).pixels).permute(2, 0, 1)[None]
        blurry = torch.from_numpy(images.read(pair.blurry).pixels).permute(2, 0, 1)[None]
        warped = warp(sharp.contiguous(), flow.contiguous(), padding="border", interpolation="bicubic").clamp(0, 1)
        target = encode(match_exposure(decode(warped), decode(blurry))).clamp(0, 1)
        images.write(out / "aligned" / f"{name}.png", target[0].permute(1, 2, 0).contiguous().numpy(), Encoding(16))
        seen = visible(pair)
        images.write_map(out / "confidence" / f"{name}.tif", seen.astype(np.float32))


def visible(pair: Pair) -> np.ndarray:
    """(H, W), bool: what the sharp picture of a scene shows, too; all of a pair without layers."""
    path = pair.blurry.parent.parent / "visible" / f"{pair.blurry.stem}.png"
    if not path.exists():
        height, width = images.read(pair.blurry).pixels.shape[:2]
        return np.ones((height, width), bool)
    return np.asarray(images.read(path).pixels[..., 0] > 0.5)


def _link(aligned: Path, out: Path) -> None:
    """The same pairs without confidence, and without what only it judges."""
    out.mkdir(parents=True, exist_ok=True)
    for part in ("blur", "gt", "aligned"):
        link = out / part
        if not link.is_symlink():
            link.symlink_to((aligned / part).resolve(), target_is_directory=True)
