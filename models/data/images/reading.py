"""Reading photographs."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image

from . import tiff
from .formats import (
    BIGTIFF_SIGNATURES,
    PNG_SIGNATURE,
    SUFFIXES,
    TIFF_SIGNATURES,
    Array,
    Encoding,
    ImageError,
    Photograph,
    check_pixels,
    decoding,
    file_bytes,
)
from .metadata import Metadata
from .opencv import decode_opencv


def list_images(folder: Path) -> list[Path]:
    """The pictures in a folder, by suffix, in the order of their names. Hidden ones do not count.

    Raises:
        OSError: it is no folder that can be read.
    """
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def read(path: Path) -> Photograph:
    """Decode a photograph; of a file with several pictures, the first.

    Raises:
        ImageError: it cannot be opened, is broken or cut short, holds no grey or RGB picture, CMYK for example, or has
            more pixels than `limit_pixels` allows.
    """
    return decoding(path, lambda: _read(path))


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture once upright, from the head of its file: what follows may still be broken.

    Raises:
        ImageError: it cannot be opened, or is no picture.
    """
    return decoding(path, lambda: _read_size(path))


def _read(path: Path) -> Photograph:
    data = file_bytes(path)
    check_pixels(*_read_size(path))
    if data.startswith(PNG_SIGNATURE):
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()  # every chunk is there and sums up: decoders are not so strict
        if data[24] == 16:
            return _read_png16(data)
    if data.startswith(TIFF_SIGNATURES):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = tiff.first_page(file)
            metadata = tiff.read_metadata(data, page)
            if len(file.pages) > 1:
                metadata.dropped.append(f"only the first of its {len(file.pages)} pages is read")
            if page.bitspersample != 8 or data.startswith(BIGTIFF_SIGNATURES):
                return _photograph(*tiff.read_samples(data, page), metadata)
    with Image.open(io.BytesIO(data)) as picture:
        frames = getattr(picture, "n_frames", 1)
        picture.load()
        samples = _pillow_samples(picture)
        if data.startswith(TIFF_SIGNATURES):
            metadata.orientation = 1  # Pillow has turned the pixels, of TIFF alone
        else:
            metadata = Metadata.from_picture(picture)
            if frames > 1:
                metadata.dropped.append(f"only the first of its {frames} frames is read")
        return _photograph(*samples, metadata, _is_lossless_webp(data))


def _is_lossless_webp(data: bytes) -> bool:
    """Whether the pixels lie in a chunk VP8L, the first one or behind others (RFC 9649)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    place = 12
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        # A frame of an animation holds chunks of its own, behind sixteen bytes.
        place += 8 + (16 if name == b"ANMF" else size + size % 2)
    return False


def _read_size(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        if file.read(4) in TIFF_SIGNATURES:
            with tifffile.TiffFile(path) as opened:
                page = tiff.first_page(opened)
                height, width = page.imagelength, page.imagewidth
                tag = page.tags.get(int(ExifTags.Base.Orientation))
                orientation = tag.value if tag else 1
        else:
            with Image.open(path) as picture:
                width, height = picture.size
                # The method of PNG itself would decode all in search of EXIF behind the pixels.
                orientation = Metadata.from_exif(lambda: Image.Image.getexif(picture)).orientation
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _read_png16(data: bytes) -> Photograph:
    with Image.open(io.BytesIO(data)) as picture:
        metadata, transparent = Metadata.from_picture(picture), picture.info.get("transparency")
    colour_type = data[25]
    grey, alpha, samples = colour_type in (0, 4), colour_type in (4, 6), decode_opencv(data)
    if transparent is not None and not alpha:  # one colour stands for what is not there, which OpenCV does not know
        colour = np.atleast_1d(np.asarray(transparent, np.uint16))
        samples = samples[..., :1] if grey else samples[..., :3]
        opacity = np.where((samples == colour).all(axis=2, keepdims=True), 0, np.iinfo(np.uint16).max)
        samples, alpha = np.concatenate([samples, opacity.astype(np.uint16)], axis=2), True
    return _photograph(samples, grey, alpha, metadata)


def _pillow_samples(picture: Image.Image) -> tuple[NDArray[np.uint8], bool, bool]:
    """(H, W, C), and whether that is grey, and whether the last channel is opacity."""
    mode = picture.mode
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    if mode in ("1", "L", "LA", "La"):
        target = "LA" if alpha else "L"
    elif mode in ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"):
        target = "RGBA" if alpha else "RGB"
    else:
        raise ImageError(f"must be grey or RGB, got {mode}")
    if mode != target:
        picture = picture.convert(target)
    samples = np.asarray(picture)
    return samples[..., None] if samples.ndim == 2 else samples, target in ("L", "LA"), alpha


def _photograph(
    samples: NDArray[Any], grey: bool, alpha: bool, metadata: Metadata, lossless: bool = False
) -> Photograph:
    """Make a photograph of (H, W, C) samples as stored, of any type; the last channel is opacity if `alpha`."""
    if samples.dtype in (np.uint8, np.uint16):
        depth = 8 * samples.dtype.itemsize
        values = samples * np.float32(1 / np.iinfo(samples.dtype).max)
    elif np.issubdtype(samples.dtype, np.floating):
        depth, values = 32, samples.astype(np.float32)
        if (largest := float(values.max())) > 16:
            metadata.dropped.append(f"its values reach {largest:g}, and what is above 1 is clipped: was it meant so?")
    else:
        raise ImageError(f"must hold 8 or 16 bits or floating point, got {samples.dtype}")
    values = _upright(values, metadata.orientation)
    pixels = np.ascontiguousarray(values[..., [0, 0, 0]] if grey else values[..., :3])
    opacity = np.ascontiguousarray(values[..., -1]) if alpha else None
    exif = metadata.upright(*pixels.shape[:2])
    encoding = Encoding(depth, grey, opacity, exif, metadata.icc, metadata.xmp, metadata.dpi, lossless)
    return Photograph(pixels, encoding, tuple(metadata.dropped))


def _upright(values: Array, orientation: int) -> Array:
    """(H, W, C) as it is to be seen; orientation as in EXIF 2.32, 4.6.4."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
