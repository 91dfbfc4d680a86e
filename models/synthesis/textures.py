"""Photographs kept decoded on a device, at several sizes, and sharp crops of them."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.pairs import DataError
from .defocus import Array
from .photographs import Original

SCALES = (1.0, 0.7, 0.5, 0.35, 0.25)  # a photograph's fine detail is often soft at its full size
BLOCK = 32  # pixels
SHARP = 1.8  # ratio of the steepest slope to that after a Gaussian of σ 2: about 3 at a sharp edge, 1.2 at a soft one
FLAT = 0.02  # slope after the Gaussian below which a block tells nothing of sharpness
TRIES = 8


class Texture(NamedTuple):
    """A photograph at one size: (3, H, W), uint8, on the device; and for each block 1 sharp, 0 soft, NaN flat."""

    pixels: Tensor
    sharpness: Array


class Textures:
    """Crops of photographs, drawn at random; those that are soft themselves are left out.

    Args:
        originals: photographs; decoded once.
        extent: height and width of crops, pixels.
        device: where they are kept and cropped.
        full_size: part of the crops that are tried at full size; the others at any size, as probable.
        sharp: part of the blocks with edges that must be sharp in a crop.

    Raises:
        DataError: a photograph is smaller than a crop; ImageError: it does not decode.
    """

    def __init__(
        self,
        originals: Sequence[Original],
        extent: int,
        device: torch.device,
        full_size: float = 0.0,
        sharp: float = 0.5,
    ) -> None:
        self.extent = extent
        self.full_size = full_size
        self.sharp = sharp
        self.photographs = [_sizes(original, extent, device) for original in originals]
        small = [original for original, sizes in zip(originals, self.photographs, strict=True) if not sizes]
        if small:
            raise DataError(
                [
                    f"{one.photograph or one.name} must have {extent} pixels each way, the size that crops need"
                    for one in small
                ]
            )

    def draw(self, generator: np.random.Generator, soft: bool = False) -> Tensor:
        """(3, extent, extent), uint8, sRGB, turned and mirrored at random.

        Args:
            soft: whether a crop that is soft itself will do.
        """
        tries = 1 if soft else TRIES
        texture, top, left = max((self._candidate(generator) for _ in range(tries)), key=self._sharp_enough)
        crop = texture.pixels[:, top : top + self.extent, left : left + self.extent]
        crop = torch.rot90(crop, int(generator.integers(4)), (1, 2))
        return crop.flip(2) if generator.integers(2) else crop

    def _candidate(self, generator: np.random.Generator) -> tuple[Texture, int, int]:
        sizes = self.photographs[int(generator.integers(len(self.photographs)))]
        texture = sizes[0 if generator.random() < self.full_size else int(generator.integers(len(sizes)))]
        top, left = (int(generator.integers(side - self.extent + 1)) for side in texture.pixels.shape[1:])
        return texture, top, left

    def _sharp_enough(self, candidate: tuple[Texture, int, int]) -> bool:
        texture, top, left = candidate
        rows, columns = (slice(start // BLOCK, -(-(start + self.extent) // BLOCK)) for start in (top, left))
        blocks = texture.sharpness[rows, columns]
        known = blocks[np.isfinite(blocks)]
        return not known.size or float(known.mean()) >= self.sharp


def _sizes(original: Original, extent: int, device: torch.device) -> list[Texture]:
    photograph, _ = original.load()
    textures = []
    for scale in SCALES:
        size = tuple(round(side * scale) for side in photograph.shape[1::-1])
        if min(size) < extent:
            break
        scaled = photograph
        if scale != 1:
            scaled = np.asarray(cv2.resize(photograph, size, interpolation=cv2.INTER_AREA), np.float32)
        pixels = torch.from_numpy((255 * scaled).round().astype(np.uint8)).permute(2, 0, 1).contiguous()
        textures.append(Texture(pixels.to(device), block_sharpness(scaled)))
    return textures


def block_sharpness(photograph: Array) -> Array:
    """For each block of 32 × 32 pixels 1 where its edges are sharp, 0 where they are soft, NaN where it has none."""
    grey = photograph.mean(axis=2, dtype=np.float32)
    fine = _steepest(cv2.GaussianBlur(grey, (0, 0), 0.7))
    coarse = _steepest(cv2.GaussianBlur(grey, (0, 0), 2.0))
    sharp = (fine > SHARP * coarse).astype(np.float32)
    return np.where(coarse < FLAT, np.float32(np.nan), sharp)


def _steepest(grey: NDArray[np.float32]) -> Array:
    """The largest slope in each block, the last ones cut off by the border."""
    y, x = np.gradient(grey)
    slope = np.hypot(y, x)
    height, width = (-(-side // BLOCK) * BLOCK for side in slope.shape)
    padded = np.zeros((height, width), np.float32)
    padded[: slope.shape[0], : slope.shape[1]] = slope
    return np.asarray(padded.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).max(axis=(1, 3)))
