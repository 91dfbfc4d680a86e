"""Deblurring in one call."""

import functools
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoints.load import load_framework
from ..data import images
from ..framework import Framework
from .tiling import TiledFramework


def deblur(
    image: NDArray[np.uint8] | NDArray[np.float32] | str | os.PathLike[str],
    framework: Framework | None = None,
    *,
    device: torch.device | str = "cpu",
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Deblur a photograph.

    Args:
        image: a file, or an array (H, W, 3), RGB: uint8, or floating point of 0 … 1.
        framework: such as `load_framework("runs/mine")`; None: the one that comes with the package. It is moved to the
            device.
        device: where it computes, in tiles that fit into the memory that is free.

    Returns:
        (H, W, 3), RGB: uint8 for uint8, and float32 of 0 … 1 for floating point. For a file: float32, as files may be
        deeper than 8 bits.

    Raises:
        TypeError, ValueError: an array of another type, shape or range. Values a little beyond 0 … 1 are clipped.
        ImageError: a file that does not decode.
        UserError: there is too little memory.
    """
    pixels = images.read(Path(image)).pixels if isinstance(image, str | os.PathLike) else _as_float(image)
    tiled = _default(str(device)) if framework is None else TiledFramework(framework, device)
    deblurred = tiled.deblur(torch.from_numpy(pixels.clip(0, 1)).permute(2, 0, 1))
    result = np.ascontiguousarray(deblurred.permute(1, 2, 0).numpy(), np.float32)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return np.rint(result * 255).astype(np.uint8)
    return result


def _as_float(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be a file or a NumPy array, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (H, W, 3), got {image.shape}")
    if image.dtype == np.uint8:
        return np.asarray(image / np.float32(255), np.float32)
    images.check_values("image", image, "uint8 or floating point")
    return np.asarray(image, np.float32)


@functools.lru_cache(maxsize=1)
def _default(device: str) -> TiledFramework:
    return TiledFramework(load_framework(), device)
