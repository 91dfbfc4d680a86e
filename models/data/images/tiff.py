"""TIFF: deeper than 8 bits, or larger than 4 GB, by tifffile; and its tags."""

import io
import zlib
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from .formats import DESCRIPTIVE_TAGS, EXIF_SIGNATURE, NESTED_TAGS, Encoding, ImageError
from .metadata import Metadata
from .opencv import decode_opencv

XMP = 700  # tag


def first_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """The first of several pages of a file."""
    page = tiff.pages.first
    assert isinstance(page, tifffile.TiffPage)
    return page


def read_samples(data: bytes, page: tifffile.TiffPage) -> tuple[NDArray[Any], bool, bool]:
    """(H, W, C) of a grey or RGB page, and whether that is grey, and whether the last channel is opacity.

    Colours are as they are to be seen, not multiplied by the opacity.
    """
    photometric = page.photometric
    grey = photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
    if not grey and photometric != tifffile.PHOTOMETRIC.RGB:
        raise ImageError(f"must be grey or RGB, got {getattr(photometric, 'name', photometric)}")
    if not all(page.databytecounts):
        raise ImageError("does not decode: a strip or tile of it is empty")
    samples = tiff_samples(data, page)
    if samples.shape[2] not in ((1, 2) if grey else (3, 4)):
        raise ImageError(f"must have 1 or 3 channels, with or without opacity, got {samples.shape[2]}")
    if not np.isfinite(samples).all():
        raise ImageError("holds NaN or infinity")
    alpha = samples.shape[2] in (2, 4)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        white = np.iinfo(samples.dtype).max if np.issubdtype(samples.dtype, np.integer) else 1
        samples = np.concatenate([white - samples[..., :1], samples[..., 1:]], axis=2)
    if alpha and tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        samples = _divided_by_alpha(samples)
    return samples, grey, alpha


def _divided_by_alpha(samples: NDArray[Any]) -> NDArray[Any]:
    """Colours that were stored multiplied by the opacity; where it is 0, 0."""
    integers = np.issubdtype(samples.dtype, np.integer)
    white = np.iinfo(samples.dtype).max if integers else 1
    alpha = samples[..., -1:].astype(np.float64)
    colours = samples[..., :-1] * np.divide(white, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    if integers:
        colours = np.rint(colours).clip(0, white)
    return np.concatenate([colours.astype(samples.dtype), samples[..., -1:]], axis=2)


def tiff_samples(data: bytes, page: tifffile.TiffPage) -> NDArray[Any]:
    """(H, W, C), as stored."""
    try:
        samples = page.asarray()
    except (ImportError, NotImplementedError, ValueError) as error:
        if "imagecodecs" not in str(error):
            raise
        if page.bitspersample not in (8, 16, 32):
            raise ImageError(
                f"holds {page.bitspersample} bits a channel: convert it to 16 bits, or install the package imagecodecs"
            ) from error
        return decode_opencv(data)  # LZW, for example
    if samples.ndim == 2:
        return samples[..., None]
    return np.moveaxis(samples, 0, 2) if page.axes == "SYX" else samples


def read_metadata(data: bytes, page: tifffile.TiffPage) -> Metadata:
    """Read the metadata in the tags of a TIFF."""
    metadata = Metadata.from_exif(lambda: _tiff_exif(data))
    metadata.icc = page.iccprofile or b""
    orientation = page.tags.get(int(ExifTags.Base.Orientation))
    if orientation is not None and isinstance(orientation.value, int):  # BigTIFF, too, whose EXIF Pillow cannot read
        metadata.orientation = int(orientation.value)
    xmp = page.tags.get("XMP")
    metadata.xmp = bytes(xmp.value) if xmp is not None and isinstance(xmp.value, (bytes, bytearray)) else b""
    return metadata


def _tiff_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load_from_fp(io.BytesIO(data))
    for tag in list(exif):
        if tag not in DESCRIPTIVE_TAGS and tag not in NESTED_TAGS:
            del exif[tag]
    return exif


def encode_tiff(samples: NDArray[Any], encoding: Encoding) -> bytes:
    """Encode as one deflated strip. Tag by tag, since tifffile has no EXIF and Pillow no RGB deeper than 8 bits."""
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
    if encoding.xmp:
        tags[XMP] = encoding.xmp
    data = io.BytesIO()
    tags.save(data)
    data.write(strip)
    return data.getvalue()


def _deflated(samples: NDArray[Any]) -> bytes:
    return zlib.compress(samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes(), 6)
