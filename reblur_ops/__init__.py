"""Per-pixel spatially variant isotropic blur, forward and backward, as PyTorch operators."""

from reblur_ops import nn, reference
from reblur_ops.backend import backends, build_info, explain_backend, use_backend
from reblur_ops.functional import (
    PUBLISHED_RADII,
    blur_radius,
    class_weights,
    disk_blur,
    gaussian_blur,
    isotropic_blur,
    kernel_image,
    map_channels,
    radial_blur,
    reblur,
    tap_weights,
)
from reblur_ops.lens import coc_radius, defocus

__version__ = "0.1.0"

__all__ = [
    "PUBLISHED_RADII",
    "backends",
    "blur_radius",
    "build_info",
    "class_weights",
    "coc_radius",
    "defocus",
    "disk_blur",
    "explain_backend",
    "gaussian_blur",
    "isotropic_blur",
    "kernel_image",
    "map_channels",
    "nn",
    "radial_blur",
    "reblur",
    "reference",
    "tap_weights",
    "use_backend",
]
