"""Per-pixel spatially variant isotropic blur, forward and backward, as PyTorch operators."""

from reblur_ops import nn, reference
from reblur_ops.backend import backends, build_info, explain_backend, use_backend
from reblur_ops.functional import (
    PUBLISHED_RADII,
    blur_radius,
    class_weights,
    cost_volume,
    disk_blur,
    disk_kernel,
    gaussian_blur,
    gaussian_kernel,
    isotropic_blur,
    isotropic_kernel,
    kernel_image,
    map_channels,
    radial_blur,
    radial_kernel,
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
    "cost_volume",
    "defocus",
    "disk_blur",
    "disk_kernel",
    "explain_backend",
    "gaussian_blur",
    "gaussian_kernel",
    "isotropic_blur",
    "isotropic_kernel",
    "kernel_image",
    "map_channels",
    "nn",
    "radial_blur",
    "radial_kernel",
    "reblur",
    "reference",
    "tap_weights",
    "use_backend",
]
