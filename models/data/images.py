"""Photographs and maps in files: PNG, TIFF, JPEG, WebP.

A photograph is float32 RGB, and what else its file holds is remembered, for what is made of it to be written alike.
Pillow decodes 8 bits, OpenCV PNG of 16 bits, which Pillow cuts down to 8, and tifffile deeper TIFF.

A map is float32 numbers as they are, a radius or a displacement in pixels for example, in a TIFF.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from ..core.errors import UserError
from ..core.files import replacing

Array = NDArray[np.float32]
T = TypeVar("T")

# Pillow takes large pictures for attacks; here they are the user's own, and panoramas are large.
Image.MAX_IMAGE_PIXELS = None

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
# Of the formats, the bits of a channel that one holds.
DEPTHS = {".png": (8, 16), ".tif": (8, 16, 32), ".tiff": (8, 16, 32), ".jpg": (8,), ".jpeg": (8,), ".webp": (8,)}

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXIF_SIGNATURE = b"Exif\0\0"

# A TIFF file keeps EXIF among the tags that say how its pixels lie. These tell of the photograph, not of the file.
DESCRIPTIVE_TAGS = frozenset(
    {0x010E, 0x010F, 0x0110, 0x0112, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298}
    | set(range(0x9C9B, 0x9CA0))
)
NESTED_TAGS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709; float64, so that grey gives back itself


class ImageError(UserError):
    """A file that is no picture this module can read or write. The message names it."""


@dataclass(frozen=True)
class Encoding:
    """What a file holds besides RGB.

    Attributes:
        depth: bits of a channel: 8 or 16, integers, or 32, floating point.
        grey: whether it has one channel for R, G and B.
        alpha: (H, W), 0 … 1, the opacity; None without.
        exif: a TIFF structure, orientation already honoured; empty without.
        icc: the colour profile; empty without. Pixels are in the colours of this profile, sRGB without.
    """

    depth: int = 8
    grey: bool = False
    alpha: Array | None = None
    exif: bytes = b""
    icc: bytes = b""


@dataclass(frozen=True)
class Photograph:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3), RGB, 0 … 1, upright. Only floating-point files hold what is beyond.
        encoding: what else its file holds.
    """

    pixels: Array
    encoding: Encoding


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
        ImageError: it cannot be opened, is broken or cut short, or holds no grey or RGB picture: CMYK for example.
    """
    return _decoding(path, lambda: _read(_bytes(path)))


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture once upright, from the head of its file: what follows may still be broken.

    Raises:
        ImageError: it cannot be opened, or is no picture.
    """
    return _decoding(path, lambda: _read_size(path))


def write(path: Path, pixels: Array, encoding: Encoding | None = None, quality: int = 95) -> None:
    """Write a photograph, whole or not at all, in the format that the suffix says.

    What a format cannot hold is left out: alpha in JPEG, and in JPEG and WebP more than 8 bits; floating point becomes
    16 bits in PNG, and grey with alpha, of 16 bits, RGB with alpha there. Integers are rounded; what is beyond 0 … 1
    is clipped, but not in floating point.

    Args:
        pixels: (H, W, 3), RGB, 0 … 1.
        encoding: as remembered by `read`; 8 bits and nothing else without. A grey one gets the luma (BT.709).
        quality: of JPEG and WebP, to 100. TIFF and PNG lose nothing.

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
        data = _encode_tiff(samples, encoding)
    elif depth == 16:
        data = _encode_png16(samples, encoding)
    else:
        data = _encode_pillow(samples, encoding, suffix, quality)
    with replacing(path) as file:
        file.write(data)


def read_map(path: Path) -> Array:
    """The numbers of a map as they are stored, not scaled: (H, W), or (H, W, C), float32.

    TIFF as `write_map` writes it and any other of numbers, PFM, and grey PNG of 8 or 16 bits.

    Raises:
        ImageError: it cannot be opened, is broken or cut short, or is of another format.
    """
    return _decoding(path, lambda: _read_map(path))


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


def _decoding(path: Path, decode: Callable[[], T]) -> T:
    try:
        return decode()
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} does not decode: it is no picture of a known format") from error
    except OSError as error:
        if error.strerror:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        raise ImageError(f"{path} does not decode: {_first_line(error)}") from error
    except Exception as error:  # a decoder may stumble over a broken file in any way
        raise ImageError(f"{path} does not decode: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if not data:
        raise ImageError("does not decode: it is empty")
    return data


def _read(data: bytes) -> Photograph:
    if data.startswith(PNG_SIGNATURE):
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()  # every chunk is there and sums up: decoders are not so strict
        if data[24] == 16:
            return _read_png16(data)
    if data.startswith(TIFF_SIGNATURES):
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = _first_page(tiff)
            if page.bitspersample > 8:
                return _read_deep_tiff(data, page)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        samples, grey, alpha = _pillow_samples(picture)
        exif = picture.getexif()
        if data.startswith(TIFF_SIGNATURES):
            exif = _tiff_exif(data)
            if ExifTags.Base.Orientation in exif:
                exif[ExifTags.Base.Orientation] = 1  # Pillow has turned the pixels, of TIFF alone
        return _photograph(samples, grey, alpha, exif, picture.info.get("icc_profile") or b"")


def _read_size(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:
        if file.read(4) in TIFF_SIGNATURES:
            with tifffile.TiffFile(path) as tiff:
                page = _first_page(tiff)
                height, width = page.imagelength, page.imagewidth
                tag = page.tags.get(ExifTags.Base.Orientation)
                orientation = tag.value if tag else 1
        else:
            with Image.open(path) as picture:
                width, height = picture.size
                # The method of PNG itself would decode all in search of EXIF behind the pixels.
                orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    page = tiff.pages.first
    assert isinstance(page, tifffile.TiffPage)
    return page


def _read_png16(data: bytes) -> Photograph:
    with Image.open(io.BytesIO(data)) as picture:
        exif, icc = picture.getexif(), picture.info.get("icc_profile") or b""
    colour_type = data[25]
    return _photograph(_decode_opencv(data), colour_type in (0, 4), colour_type in (4, 6), exif, icc)


def _decode_opencv(data: bytes) -> NDArray[Any]:
    """(H, W, C), RGB or RGBA; a grey one may have come as RGB."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise ImageError("does not decode")
    if samples.ndim == 2:
        return samples[..., None]
    return samples[..., [2, 1, 0, 3][: samples.shape[2]]]


def _read_deep_tiff(data: bytes, page: tifffile.TiffPage) -> Photograph:
    photometric = page.photometric
    grey = photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
    if not grey and photometric != tifffile.PHOTOMETRIC.RGB:
        raise ImageError(f"must be grey or RGB, and is {getattr(photometric, 'name', photometric)}")
    samples = _tiff_samples(data, page)
    if samples.shape[2] not in ((1, 2) if grey else (3, 4)):
        raise ImageError(f"must have 1 channel or 3, and opacity at most, and has {samples.shape[2]}")
    if not np.isfinite(samples).all():
        raise ImageError("holds NaN or infinity")
    alpha = samples.shape[2] in (2, 4)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        white = np.iinfo(samples.dtype).max if np.issubdtype(samples.dtype, np.integer) else 1
        samples = np.concatenate([white - samples[..., :1], samples[..., 1:]], axis=2)
    return _photograph(samples, grey, alpha, _tiff_exif(data), page.iccprofile or b"")


def _tiff_samples(data: bytes, page: tifffile.TiffPage) -> NDArray[Any]:
    """(H, W, C), as stored."""
    try:
        samples = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _decode_opencv(data)  # LZW, for example
    if samples.ndim == 2:
        return samples[..., None]
    return np.moveaxis(samples, 0, 2) if page.axes == "SYX" else samples


def _tiff_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load_from_fp(io.BytesIO(data))
    for tag in list(exif):
        if tag not in DESCRIPTIVE_TAGS and tag not in NESTED_TAGS:
            del exif[tag]
    return exif


def _pillow_samples(picture: Image.Image) -> tuple[NDArray[np.uint8], bool, bool]:
    """(H, W, C), and whether that is grey, and whether the last channel is opacity."""
    mode = picture.mode
    alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info
    if mode in ("1", "L", "LA", "La"):
        target = "LA" if alpha else "L"
    elif mode in ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr"):
        target = "RGBA" if alpha else "RGB"
    else:
        raise ImageError(f"must be grey or RGB, and is {mode}")
    if mode != target:
        picture = picture.convert(target)
    samples = np.asarray(picture)
    return samples[..., None] if samples.ndim == 2 else samples, target in ("L", "LA"), alpha


def _photograph(samples: NDArray[Any], grey: bool, alpha: bool, exif: Image.Exif, icc: bytes) -> Photograph:
    """Of (H, W, C) samples as stored, of any type; the last channel is opacity if `alpha`."""
    if samples.dtype in (np.uint8, np.uint16):
        depth = 8 * samples.dtype.itemsize
        values = samples * np.float32(1 / np.iinfo(samples.dtype).max)
    elif np.issubdtype(samples.dtype, np.floating):
        depth, values = 32, samples.astype(np.float32)
    else:
        raise ImageError(f"must hold 8 or 16 bits or floating point, and holds {samples.dtype}")
    values = _upright(values, exif.get(ExifTags.Base.Orientation, 1))
    if ExifTags.Base.Orientation in exif:
        exif[ExifTags.Base.Orientation] = 1
    pixels = values[..., [0, 0, 0]] if grey else values[..., :3]
    return Photograph(
        np.ascontiguousarray(pixels),
        Encoding(depth, grey, np.ascontiguousarray(values[..., -1]) if alpha else None, _exif_bytes(exif), icc),
    )


def _upright(values: Array, orientation: int) -> Array:
    """(H, W, C) as it is to be seen; orientation as in EXIF 2.32, 4.6.4."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _exif_bytes(exif: Image.Exif) -> bytes:
    if not len(exif):
        return b""
    return exif.tobytes().removeprefix(EXIF_SIGNATURE)


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
    if encoding.exif:
        options["exif"] = EXIF_SIGNATURE + encoding.exif
    if encoding.icc:
        options["icc_profile"] = encoding.icc
    if suffix in (".jpg", ".jpeg"):
        options |= {"quality": quality, "subsampling": 0}
    elif suffix == ".webp":
        options |= {"quality": quality}
    else:
        options |= {"compress_level": 4}  # as small as 6, the default, in little more than half the time
    data = io.BytesIO()
    picture.save(data, {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG"), **options)
    return data.getvalue()


def _encode_tiff(samples: NDArray[Any], encoding: Encoding) -> bytes:
    """As one deflated strip. Tag by tag, since tifffile has no EXIF and Pillow no RGB deeper than 8 bits."""
    height, width, channels = samples.shape
    grey, alpha = channels <= 2, channels in (2, 4)
    strip = _deflated(samples)
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    exif = Image.Exif()
    if encoding.exif:
        exif.load(EXIF_SIGNATURE + encoding.exif)
        for tag in exif:
            if tag in DESCRIPTIVE_TAGS:
                tags[tag] = exif[tag]
        for tag in NESTED_TAGS:
            if nested := dict(exif.get_ifd(tag)):
                nested.pop(ExifTags.IFD.Interop, None)  # it is an offset in the file it came from
                tags[tag] = nested
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (8 * samples.dtype.itemsize,) * channels
    tags[TiffImagePlugin.COMPRESSION] = int(tifffile.COMPRESSION.ADOBE_DEFLATE)
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = int(
        tifffile.PHOTOMETRIC.MINISBLACK if grey else tifffile.PHOTOMETRIC.RGB
    )
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    tags[TiffImagePlugin.ROWSPERSTRIP] = height
    tags[TiffImagePlugin.STRIPOFFSETS] = 0  # Pillow counts it from the end of the tags
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = len(strip)
    tags[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    floating = samples.dtype == np.float32
    tags[TiffImagePlugin.SAMPLEFORMAT] = (
        int(tifffile.SAMPLEFORMAT.IEEEFP if floating else tifffile.SAMPLEFORMAT.UINT),
    ) * channels
    if alpha:
        tags[TiffImagePlugin.EXTRASAMPLES] = int(tifffile.EXTRASAMPLE.UNASSALPHA)
    if encoding.icc:
        tags[TiffImagePlugin.ICCPROFILE] = encoding.icc
    data = io.BytesIO()
    tags.save(data)
    data.write(strip)
    return data.getvalue()


def _deflated(samples: NDArray[Any]) -> bytes:
    return zlib.compress(samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes(), 6)


def _read_map(path: Path) -> Array:
    data = _bytes(path)
    if data.startswith(TIFF_SIGNATURES):
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            samples = _tiff_samples(data, _first_page(tiff))
    elif data.startswith((PNG_SIGNATURE, b"Pf", b"PF")):
        samples = _decode_opencv(data)
    else:
        raise ImageError("must be TIFF, PFM or PNG")
    return np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples, np.float32)
