"""Per-pixel spatially variant isotropic blur, forward and backward, as PyTorch operators."""

from reblur_ops import nn, reference
from reblur_ops.backend import backends, build_info, use_backend
from reblur_ops.functional import (
    PUBLISHED_RADII,
    blur_radius,
    class_weights,
    kernel_image,
    map_channels,
    reblur,
)

__version__ = "0.1.0"

__all__ = [
    "PUBLISHED_RADII",
    "backends",
    "blur_radius",
    "build_info",
    "class_weights",
    "kernel_image",
    "map_channels",
    "nn",
    "reblur",
    "reference",
    "use_backend",
]
