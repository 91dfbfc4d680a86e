"""Writing photographs."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.files import replacing
from .formats import DEPTHS, EXIF_SIGNATURE, LUMA, SUFFIXES, Array, Encoding, ImageError
from .tiff import encode_tiff

LARGEST_EXIF = 65533 - len(EXIF_SIGNATURE)  # bytes of a segment of JPEG


def write(path: Path, pixels: Array, encoding: Encoding | None = None, quality: int = 95) -> list[str]:
    """Write a photograph, whole or not at all, in the format that the suffix says.

    What a format cannot hold is left out: alpha in JPEG, and in JPEG and WebP more than 8 bits; floating point becomes
    16 bits in PNG, and grey with alpha, of 16 bits, RGB with alpha there. Integers are rounded; what is beyond 0 … 1
    is clipped, but not in floating point.

    Args:
        pixels: (H, W, 3), RGB, 0 … 1.
        encoding: as remembered by `read`; 8 bits and nothing else without. A grey one gets the luma (BT.709).
        quality: of JPEG and WebP, to 100. TIFF, PNG and a WebP whose encoding is lossless lose nothing.

    Returns:
        What of the encoding beside the pixels the format does not hold: a line each.

    Raises:
        ImageError: the suffix is of no such format, or the pixels or the alpha do not fit.
        OSError: it cannot be written.
    """
    encoding = encoding or Encoding()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(f"{path}: pixels must be (H, W, 3), got {pixels.shape}")
    if encoding.alpha is not None and encoding.alpha.shape != pixels.shape[:2]:
        raise ImageError(f"{path}: alpha is {encoding.alpha.shape} and the pixels are {pixels.shape[:2]}")
    if not np.isfinite(pixels).all():
        raise ImageError(f"{path}: pixels must be finite, got NaN or infinity")
    depth = min(encoding.depth, DEPTHS[suffix][-1])
    samples = _quantised(_channels(pixels, encoding, alpha=suffix not in (".jpg", ".jpeg")), depth)
    if suffix in (".tif", ".tiff"):
        data = encode_tiff(samples, encoding)
    elif depth == 16:
        data = _encode_png16(samples, encoding)
    else:
        data = _encode_pillow(samples, encoding, suffix, quality)
    with replacing(path) as file:
        file.write(data)
    return _dropped(encoding, suffix, depth)


def _dropped(encoding: Encoding, suffix: str, depth: int) -> list[str]:
    lines = []
    if suffix in (".jpg", ".jpeg") and len(encoding.exif) > LARGEST_EXIF:
        lines.append(f"its EXIF data, {len(encoding.exif)} bytes, is too long for JPEG and was dropped")
    if encoding.xmp and suffix == ".png":
        lines.append("its XMP data was dropped: PNG is written without")
    return lines


def _channels(pixels: Array, encoding: Encoding, alpha: bool) -> Array:
    """(H, W, C): grey or RGB, then opacity."""
    channels = (pixels @ LUMA)[..., None].astype(np.float32) if encoding.grey else pixels
    if encoding.alpha is None or not alpha:
        return channels
    return np.concatenate([channels, encoding.alpha[..., None]], axis=2)


def _quantised(values: Array, depth: int) -> NDArray[Any]:
    if depth == 32:
        return np.asarray(values, np.float32)
    # In place: a photograph of 24 megapixels is 288 MB here, and each step would make another.
    scaled = np.clip(values, 0, 1)
    scaled *= np.float32(2**depth - 1)
    return np.rint(scaled, out=scaled).astype(np.uint8 if depth == 8 else np.uint16)


def _encode_png16(samples: NDArray[Any], encoding: Encoding) -> bytes:
    channels = samples.shape[2]
    if channels == 2:  # OpenCV has no grey with opacity
        samples = samples[..., [0, 0, 0, 1]]
    elif channels >= 3:
        samples = samples[..., [2, 1, 0, 3][:channels]]
    metadata = {cv2.IMAGE_METADATA_EXIF: encoding.exif, cv2.IMAGE_METADATA_ICCP: encoding.icc}
    kinds = [kind for kind, content in metadata.items() if content]
    done, data = cv2.imencodeWithMetadata(
        ".png", np.ascontiguousarray(samples), kinds, [np.frombuffer(metadata[kind], np.uint8) for kind in kinds]
    )
    if not done:
        raise ImageError("OpenCV could not encode a PNG")
    return bytes(data)


def _encode_pillow(samples: NDArray[Any], encoding: Encoding, suffix: str, quality: int) -> bytes:
    picture = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    options: dict[str, Any] = {}
    jpeg = suffix in (".jpg", ".jpeg")
    if encoding.exif and not (jpeg and len(encoding.exif) > LARGEST_EXIF):
        options["exif"] = EXIF_SIGNATURE + encoding.exif
    if encoding.icc:
        options["icc_profile"] = encoding.icc
    if encoding.xmp and suffix != ".png":
        options["xmp"] = encoding.xmp
    if encoding.dpi and suffix != ".webp":
        options["dpi"] = encoding.dpi
    if jpeg:
        options |= {"quality": quality, "subsampling": 0}
    elif suffix == ".webp":
        # `exact` keeps the colours of what is transparent, as other formats do.
        options |= {"lossless": True, "exact": True} if encoding.lossless else {"quality": quality}
    else:
        options |= {"compress_level": 4}  # as small as 6, the default, in little more than half the time
    data = io.BytesIO()
    picture.save(data, {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG"), **options)
    return data.getvalue()
