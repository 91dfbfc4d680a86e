"""The pairs of a study: made once, aligned once in each way that a variant asks for.

A setting says where pairs come from: `Scenes` here, or those of `benchmarks.ablation.real`.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.ablation.real import TRAIN, RealPairs
from benchmarks.ablation.variants import Target, Variant
from models.alignment import AlignmentSettings, align_dataset
from models.blur import decode, encode, match_exposure
from models.data import images
from models.data.images import Encoding
from models.data.layouts import load_pairs
from models.data.pairs import Pair
from models.flow import warp
from models.synthesis import dataset, photographs
from models.synthesis.settings import Settings

SMOOTH = 4.0  # pixels: displacement of pairs without layers


@dataclass(frozen=True)
class Scenes:
    """Layered scenes of one parallax, or smooth pairs, made of photographs.

    Attributes:
        parallax: largest displacement between layers, pixels; 0: no layers, all moved smoothly.
        scale_pairs: how pairs of the study are made; `misalignment` and, of smooth pairs, `scenes` play no part.
        photos: folder of photographs; None for those that scikit-image installs.
    """

    parallax: float
    scale_pairs: Settings
    photos: Path | None = None

    max_radius = 8  # pixels, that alignment searches

    @property
    def name(self) -> str:
        return f"{self.parallax:g}px"

    @property
    def title(self) -> str:
        if self.parallax:
            return f"Parallax of up to {self.parallax:g} pixels"
        return f"Smooth pairs, moved by up to {SMOOTH:g} pixels"

    @property
    def settings(self) -> Settings:
        if self.parallax:
            return replace(self.scale_pairs, misalignment=self.parallax)
        return replace(self.scale_pairs, misalignment=SMOOTH, scenes=False)

    @property
    def text(self) -> str:
        pairs = self.settings
        kind = "Layered scenes" if pairs.scenes else "Pairs"
        changes = "zoom, another exposure and noise" if pairs.scenes else "noise"
        option = " --scenes" if pairs.scenes else ""
        return (
            f"{kind} of {pairs.patch} × {pairs.patch} pixels with circles of confusion of up to {pairs.blur:g} pixels, "
            f"{changes}, made by `python -m models synthesize{option}`; scored are pairs of other photographs."
        )

    def offers(self, _: Target) -> bool:
        return True

    def make(self, out: Path, workers: int) -> None:
        """Write the pairs that are not there yet.

        Raises:
            DataError: photographs cannot be used, or `out` holds pairs of other settings.
        """
        dataset.write_dataset(photographs.find_originals(self.photos, None), self.settings, out, workers)

    def describe(self, out: Path) -> dict[str, Any]:
        """The pairs by `synthesize`'s own description."""
        return dict(json.loads((out / dataset.SETTINGS_FILE).read_text()))


Setting = Scenes | RealPairs


def folder_of(data: Path, name: str, target: Target = "sharp", trusted: bool = False) -> Path:
    """The folder of a setting's pairs whose sharp pictures are like that. Confidence lies only where it counts."""
    if target in ("sharp", "truth"):
        return data / name
    return data / f"{name}-{target.replace(' ', '-')}{'' if trusted else '-everywhere'}"


def make_pairs(settings: Iterable[Setting], variants: Iterable[Variant], data: Path, workers: int) -> None:
    """Make and align the pairs that are not there yet.

    Raises:
        DataError: photographs or pairs cannot be used, or a folder holds pairs of other settings.
    """
    targets = dict.fromkeys((variant.target, variant.trusted) for variant in variants)
    for setting in settings:
        made = folder_of(data, setting.name)
        setting.make(made, workers)
        pairs = load_pairs([f"sdd:{made}"], "train", smallest=16)
        for target, trusted in targets:
            out = folder_of(data, setting.name, target, True)
            if not setting.offers(target):
                continue
            if target == "true flow":
                _warp_truly(pairs, made / TRAIN, out / TRAIN)
            elif target in ("dis", "reblur"):
                align_dataset(pairs, AlignmentSettings(target, setting.max_radius), out, workers)
            if not trusted and target in ("dis", "reblur"):
                _link(out / TRAIN, folder_of(data, setting.name, target, False) / TRAIN)


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
