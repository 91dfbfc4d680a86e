"""Pairs of pictures, and whether their files are fit for use."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..core.errors import UserError
from . import images
from .images import ImageError

TRUTHS = ("aligned", "blur_radius", "flow", "confidence")


class DataError(UserError):
    """All problems of the data.

    Attributes:
        problems: one line each, with the names of the files.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        # A text: so PyTorch's loader raises it again that met it in a worker.
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        count = len(self.problems)
        head = "the data cannot be used" if count == 1 else f"the data cannot be used: {count} problems"
        super().__init__("\n  ".join([f"{head}:", *self.problems]) if count > 1 else f"{head}: {self.problems[0]}")

    def __reduce__(self) -> tuple[type["DataError"], tuple[list[str]]]:  # from one process to another
        return DataError, (self.problems,)


@dataclass(frozen=True)
class Pair:
    """Two pictures of one scene, of one size, not necessarily aligned, and where it is known, the truth about them.

    Attributes:
        name: unique within its source.
        blurry, sharp: files.
        aligned: the sharp picture, lined up with the blurry one.
        blur_radius: a map, (H, W), the RMS radius of the blur in pixels, as `reblur_ops.blur_radius`; a disk of radius
            c has c/√2.
        confidence: a map, (H, W), 0 … 1, of how far `aligned` can be trusted where it was not known but found.
        flow: a map, (H, W, 2), x and y in pixels: `sharp` at p + flow(p) shows what `blurry` and `aligned` show at p.
    """

    name: str
    blurry: Path
    sharp: Path
    aligned: Path | None = None
    blur_radius: Path | None = None
    flow: Path | None = None
    confidence: Path | None = None

    @property
    def truth(self) -> dict[str, Path]:
        """The files of TRUTHS that there are."""
        files = {name: getattr(self, name) for name in TRUTHS}
        return {name: path for name, path in files.items() if path}


def check_pairs(
    pairs: Sequence[Pair], smallest: int = 1, truth: bool = False, decode: bool = False, threads: int = 8
) -> list[str]:
    """The problems of the files of pairs, a line each, in the order of pairs; see `layouts.load_pairs`."""
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda pair: _problems_of(pair, smallest, truth, decode), pairs)
        # Only what takes more than a few seconds shows a bar.
        problems = [line for lines in tqdm(found, "checking pairs", len(pairs), unit="pair", delay=3) for line in lines]
    # A file may belong to several pairs.
    return list(Counter(problems))


def _problems_of(pair: Pair, smallest: int, truth: bool, decode: bool) -> list[str]:
    problems = []
    sizes = {}
    for path in [pair.blurry, pair.sharp, *(pair.truth.values() if truth else ())]:
        try:
            sizes[path] = images.read_size(path)
            if decode and path in (pair.blur_radius, pair.flow, pair.confidence):
                images.read_map(path)
            elif decode:
                images.read(path)
        except ImageError as error:
            problems.append(str(error))
    expected = sizes.get(pair.blurry)
    for path, size in sizes.items():
        if expected and size != expected:
            problems.append(f"{path} is {_spelt(size)} pixels, and {pair.blurry} is {_spelt(expected)}")
        elif min(size) < smallest:
            problems.append(f"{path} is {_spelt(size)} pixels, and must have at least {smallest} each way")
    return problems


def _spelt(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} × {height}"


def hold_out(pairs: Sequence[Pair], fraction: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and the last ones, held apart to validate on: at least one of each.

    They are cut in their order, so that of photographs cut into patches, whose names follow each other, at most one has
    patches on both sides.

    Args:
        fraction: the part to hold apart, between 0 and 1.
    """
    if len(pairs) < 2 or not 0 < fraction < 1:
        raise ValueError(
            f"a fraction between 0 and 1 of at least 2 pairs is held apart, got {fraction} of {len(pairs)}"
        )
    held = min(max(round(fraction * len(pairs)), 1), len(pairs) - 1)
    return list(pairs[:-held]), list(pairs[-held:])


def median_likeness(pairs: Sequence[Pair], count: int = 8, size: int = 16) -> float:
    """The correlation of the two pictures of a pair, shrunk to a few pixels: the median over some of the pairs."""
    chosen = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)]
    likenesses = []
    for pair in chosen:
        try:
            pictures = [images.read(path).pixels.clip(0, 1).mean(axis=2) for path in (pair.blurry, pair.sharp)]
        except ImageError:  # whoever decodes it tells
            continue
        small = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).ravel() for picture in pictures]
        if all(float(part.std()) > 0.01 for part in small):  # else there is nothing to compare
            likenesses.append(float(np.corrcoef(*small)[0, 1]))
    return float(np.median(likenesses)) if likenesses else 1.0
