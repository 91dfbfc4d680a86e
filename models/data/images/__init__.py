"""Photographs and maps in files: PNG, TIFF, JPEG, WebP.

A photograph is float32 RGB, and what else its file holds is remembered, for what is made of it to be written alike.
Pillow decodes 8 bits, OpenCV PNG of 16 bits, which Pillow cuts down to 8, and tifffile deeper TIFF.

A map is float32 numbers as they are, a radius or a displacement in pixels for example, in a TIFF.
"""

from .formats import LUMA, SUFFIXES, Array, Encoding, ImageError, Photograph, check_values, limit_pixels
from .maps import read_map, write_map
from .reading import list_images, read, read_size
from .writing import write

__all__ = [
    "LUMA",
    "SUFFIXES",
    "Array",
    "Encoding",
    "ImageError",
    "Photograph",
    "check_values",
    "limit_pixels",
    "list_images",
    "read",
    "read_map",
    "read_size",
    "write",
    "write_map",
]
