"""Maps of numbers in files: TIFF, PFM, PNG."""

import io
from pathlib import Path

import numpy as np
import tifffile

from ...core.files import replacing
from .formats import PNG_SIGNATURE, TIFF_SIGNATURES, Array, ImageError, decoding, file_bytes
from .opencv import decode_opencv
from .tiff import first_page, tiff_samples


def read_map(path: Path) -> Array:
    """The numbers of a map as they are stored, not scaled: (H, W), or (H, W, C), float32.

    TIFF as `write_map` writes it and any other of numbers, PFM, and grey PNG of 8 or 16 bits.

    Raises:
        ImageError: it cannot be opened, is broken or cut short, or is of another format.
    """
    return decoding(path, lambda: _read_map(path))


def write_map(path: Path, values: Array) -> None:
    """Write a map as a floating-point TIFF, compressed, whole or not at all.

    Args:
        path: ends with .tif or .tiff.
        values: (H, W) or (H, W, C).

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        tifffile.imwrite(
            file,
            np.asarray(values, np.float32),
            photometric="minisblack",
            planarconfig="contig" if values.ndim == 3 else None,
            compression="zlib",
            compressionargs={"level": 1},  # the others hardly make such numbers smaller
            metadata=None,
        )


def _read_map(path: Path) -> Array:
    data = file_bytes(path)
    if data.startswith(TIFF_SIGNATURES):
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            samples = tiff_samples(data, first_page(tiff))
    elif data.startswith((PNG_SIGNATURE, b"Pf", b"PF")):
        samples = decode_opencv(data)
    else:
        raise ImageError("must be TIFF, PFM or PNG")
    return np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples, np.float32)
