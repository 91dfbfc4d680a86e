"""The blur between two images: light, and the search of its radius."""

from .disks import blur_by, disk_rms
from .exposure import match_exposure
from .light import LIGHTS, Light, decode, encode, to_linear, to_srgb
from .search import BlurEstimate, search_radius

__all__ = [
    "LIGHTS",
    "BlurEstimate",
    "Light",
    "blur_by",
    "decode",
    "disk_rms",
    "encode",
    "match_exposure",
    "search_radius",
    "to_linear",
    "to_srgb",
]
