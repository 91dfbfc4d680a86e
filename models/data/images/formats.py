"""Shared by all readers and writers of images: formats, contents of files, and errors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ...core.errors import UserError

Array = NDArray[np.float32]
T = TypeVar("T")

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
# Of the formats, the bits of a channel that one holds.
DEPTHS = {".png": (8, 16), ".tif": (8, 16, 32), ".tiff": (8, 16, 32), ".jpg": (8,), ".jpeg": (8,), ".webp": (8,)}

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BIGTIFF_SIGNATURES = TIFF_SIGNATURES[2:]
EXIF_SIGNATURE = b"Exif\0\0"

# A TIFF file keeps EXIF among the tags that say how its pixels lie. These tell of the photograph, not of the file.
DESCRIPTIVE_TAGS = frozenset(
    {0x010E, 0x010F, 0x0110, 0x0112, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298}
    | set(range(0x9C9B, 0x9CA0))
)
NESTED_TAGS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709; float64, so that grey gives back itself

LARGEST = 16.0  # beyond 1, highlights are clipped; so far beyond, it was not 0 … 1

# Pillow takes large pictures for attacks; here they are the user's own, and panoramas are large. The limit is ours.
Image.MAX_IMAGE_PIXELS = None
_largest = [10**9]


def check_values(name: str, image: NDArray[Any], types: str = "floating point") -> None:
    """Raise TypeError unless an image in memory is floating point, or ValueError unless it may be one of 0 … 1.

    Args:
        types: what is accepted, for the message.
    """
    if not np.issubdtype(image.dtype, np.floating):
        raise TypeError(f"{name} must be {types} of 0 … 1, got {image.dtype}")
    if not np.isfinite(image).all() or (image.size and image.max() > LARGEST):
        got = f"{image.min():g} to {image.max():g}" if np.isfinite(image).all() else "NaN or infinity"
        raise ValueError(f"{name} must be finite, and of 0 … 1 where it is floating point, got {got}")


class ImageError(UserError):
    """A file that is no picture this module can read or write. The message names it."""


@dataclass(frozen=True)
class Encoding:
    """The encoding of a file: all that it holds besides RGB.

    Attributes:
        depth: bits of a channel: 8 or 16, integers, or 32, floating point.
        grey: whether it has one channel for R, G and B.
        alpha: (H, W), 0 … 1, the opacity; None without.
        exif: a TIFF structure, orientation already honoured; empty without.
        icc: the colour profile; empty without. Pixels are in the colours of this profile, sRGB without.
        xmp: an XMP packet; empty without.
        dpi: pixels per inch, across and down; None without.
        lossless: whether the format, which can be either, loses nothing: of WebP.
    """

    depth: int = 8
    grey: bool = False
    alpha: Array | None = None
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    lossless: bool = False


@dataclass(frozen=True)
class Photograph:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3), RGB, 0 … 1, upright. Only floating-point files hold what is beyond.
        encoding: what else its file holds.
        notices: what a user should know: what of the file is not in the picture. A line each.
    """

    pixels: Array
    encoding: Encoding
    notices: tuple[str, ...] = ()


def decoding(path: Path, decode: Callable[[], T]) -> T:
    try:
        return decode()
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} does not decode: it is not a picture of a known format") from error
    except OSError as error:
        if error.strerror:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        raise ImageError(f"{path} does not decode: {first_line(error)}") from error
    except Exception as error:  # a decoder may stumble over a broken file in any way
        raise ImageError(f"{path} does not decode: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def file_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if not data:
        raise ImageError("does not decode: it is empty")
    return data


def limit_pixels(count: int) -> None:
    """Refuse pictures of more pixels than this from now on, before they take memory. At first a billion."""
    if count < 1:
        raise ValueError(f"the limit must be at least 1 pixel, got {count}")
    _largest[0] = count


def check_pixels(height: int, width: int) -> None:
    """Raise ImageError for a picture of more pixels than the limit: a few bytes may claim to be any size."""
    if height * width > _largest[0]:
        raise ImageError(f"has {width} × {height} pixels, more than the limit of {_largest[0]}; --max-pixels raises it")
