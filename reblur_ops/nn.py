"""Module forms of the operators: what is the same at each call is kept, maps are given at the call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reblur_ops import checks
from reblur_ops.functional import (
    PUBLISHED_RADII,
    disk_blur,
    gaussian_blur,
    isotropic_blur,
    map_channels,
    radial_blur,
    reblur,
)
from reblur_ops.geometry import MAX_ANALYTIC_RADIUS, MAX_RADIUS
from reblur_ops.lens import check_numbers, defocus
from reblur_ops.options import (
    DIRECTIONS,
    LENS_KERNELS,
    NORMALIZATIONS,
    PADDINGS,
    SUPPORTS,
    Direction,
    LensKernel,
    Normalization,
    Padding,
    Support,
)


def _check_normalization(normalize_scatter: object, direction: str) -> None:
    if not isinstance(normalize_scatter, bool):
        kind = type(normalize_scatter).__name__
        raise TypeError(f"normalize_scatter must be a bool in a module, which keeps no maps, got {kind}")
    checks.normalization(normalize_scatter, direction)


class _Blur(torch.nn.Module):
    """Base of the modules: padding, direction and the normalisation of a scatter."""

    def __init__(self, padding: Padding, direction: Direction, normalize_scatter: bool) -> None:
        super().__init__()
        checks.choice("padding", padding, PADDINGS)
        checks.choice("direction", direction, DIRECTIONS)
        _check_normalization(normalize_scatter, direction)
        self.padding: Padding = padding
        self.direction: Direction = direction
        self.normalize_scatter = normalize_scatter

    def extra_repr(self) -> str:
        text = f"padding={self.padding!r}"
        if self.direction == "scatter":
            text += f", direction='scatter', normalize_scatter={self.normalize_scatter}"
        return text


class Reblur(_Blur):
    """`reblur_ops.reblur` with its options kept.

    Args:
        radii, support, padding, direction, normalize_scatter: as for `reblur_ops.reblur`.

    Attributes:
        seed_channels: channels that `seeds` must have, Σ(r+1).
        weight_channels: channels that `weights` must have, S+1.
    """

    def __init__(
        self,
        radii: Sequence[int] = PUBLISHED_RADII,
        support: Support = "square",
        padding: Padding = "zeros",
        direction: Direction = "gather",
        normalize_scatter: bool = False,
    ) -> None:
        super().__init__(padding, direction, normalize_scatter)
        self.radii = checks.radii_tuple(radii)
        checks.choice("support", support, SUPPORTS)
        self.support: Support = support
        self.seed_channels, self.weight_channels = map_channels(self.radii)

    def forward(self, image: Tensor, seeds: Tensor, weights: Tensor) -> Tensor:
        """Blur (N, C, H, W) with (N, seed_channels, H, W) and (N, weight_channels, H, W)."""
        return reblur(
            image,
            seeds,
            weights,
            radii=self.radii,
            support=self.support,
            padding=self.padding,
            direction=self.direction,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        return f"radii={self.radii}, support={self.support!r}, {super().extra_repr()}"


class GaussianBlur(_Blur):
    """`reblur_ops.gaussian_blur` with its options kept.

    Args:
        radius, direction, padding, normalize_scatter: as for `reblur_ops.gaussian_blur`.
    """

    def __init__(
        self,
        radius: int | None = None,
        direction: Direction = "gather",
        padding: Padding = "zeros",
        normalize_scatter: bool = False,
    ) -> None:
        super().__init__(padding, direction, normalize_scatter)
        self.radius = None if radius is None else checks.radius("radius", radius, MAX_ANALYTIC_RADIUS)

    def forward(self, image: Tensor, sigma: Tensor | float) -> Tensor:
        """Blur (N, C, H, W) with a standard deviation in pixels, of any form that `gaussian_blur` takes."""
        return gaussian_blur(
            image,
            sigma,
            radius=self.radius,
            direction=self.direction,
            padding=self.padding,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        return f"radius={self.radius}, {super().extra_repr()}"


class DiskBlur(_Blur):
    """`reblur_ops.disk_blur` with its options kept.

    Args:
        max_radius, direction, padding, normalize_scatter: as for `reblur_ops.disk_blur`.
    """

    def __init__(
        self,
        max_radius: int,
        direction: Direction = "gather",
        padding: Padding = "zeros",
        normalize_scatter: bool = False,
    ) -> None:
        super().__init__(padding, direction, normalize_scatter)
        self.max_radius = checks.radius("max_radius", max_radius, MAX_ANALYTIC_RADIUS)

    def forward(self, image: Tensor, radius_map: Tensor | float) -> Tensor:
        """Blur (N, C, H, W) with radii in pixels, of any form that `disk_blur` takes."""
        return disk_blur(
            image,
            radius_map,
            max_radius=self.max_radius,
            direction=self.direction,
            padding=self.padding,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        return f"max_radius={self.max_radius}, {super().extra_repr()}"


class RadialBlur(_Blur):
    """`reblur_ops.radial_blur` with its options kept.

    Args:
        normalize, support, direction, padding, normalize_scatter: as for `reblur_ops.radial_blur`.
    """

    def __init__(
        self,
        normalize: Normalization = "softmax",
        support: Support = "disk",
        direction: Direction = "gather",
        padding: Padding = "zeros",
        normalize_scatter: bool = False,
    ) -> None:
        super().__init__(padding, direction, normalize_scatter)
        checks.choice("normalize", normalize, NORMALIZATIONS)
        checks.choice("support", support, SUPPORTS)
        self.normalize: Normalization = normalize
        self.support: Support = support

    def forward(self, image: Tensor, profile: Tensor) -> Tensor:
        """Blur (N, C, H, W) with profiles (N, R+1, H, W)."""
        return radial_blur(
            image,
            profile,
            normalize=self.normalize,
            support=self.support,
            direction=self.direction,
            padding=self.padding,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        return f"normalize={self.normalize!r}, support={self.support!r}, {super().extra_repr()}"


class TapBlur(_Blur):
    """`reblur_ops.isotropic_blur` with its options kept.

    Args:
        radius, direction, padding, normalize_scatter: as for `reblur_ops.isotropic_blur`.
    """

    def __init__(
        self,
        radius: int,
        direction: Direction = "gather",
        padding: Padding = "zeros",
        normalize_scatter: bool = False,
    ) -> None:
        super().__init__(padding, direction, normalize_scatter)
        self.radius = checks.radius("radius", radius, MAX_RADIUS)

    def forward(self, image: Tensor, tap_weights: Tensor) -> Tensor:
        """Blur (N, C, H, W) with tap weights (N, (R+1)(R+2)/2, H, W)."""
        return isotropic_blur(
            image,
            tap_weights,
            self.radius,
            direction=self.direction,
            padding=self.padding,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        return f"radius={self.radius}, {super().extra_repr()}"


class Defocus(torch.nn.Module):
    """`reblur_ops.defocus` with its lens kept.

    Args:
        aperture, focal_length, pixel_pitch: of the lens and the sensor, in one unit, as for `reblur_ops.coc_radius`.
            Tensors are kept as buffers, or as parameters if that is what they are.
        max_radius, kernel, direction, padding, normalize_scatter: as for `reblur_ops.defocus`.
    """

    def __init__(
        self,
        aperture: float | Tensor,
        focal_length: float | Tensor,
        pixel_pitch: float | Tensor,
        *,
        max_radius: int,
        kernel: LensKernel = "disk",
        direction: Direction = "scatter",
        padding: Padding = "replicate",
        normalize_scatter: bool | None = None,
    ) -> None:
        super().__init__()
        checks.choice("kernel", kernel, LENS_KERNELS)
        checks.choice("padding", padding, PADDINGS)
        checks.choice("direction", direction, DIRECTIONS)
        if normalize_scatter is not None:
            _check_normalization(normalize_scatter, direction)
        check_numbers(aperture=aperture, focal_length=focal_length, pixel_pitch=pixel_pitch)
        self.aperture = self._kept("aperture", aperture)
        self.focal_length = self._kept("focal_length", focal_length)
        self.pixel_pitch = self._kept("pixel_pitch", pixel_pitch)
        self.max_radius = checks.radius("max_radius", max_radius, MAX_ANALYTIC_RADIUS)
        self.kernel: LensKernel = kernel
        self.direction: Direction = direction
        self.padding: Padding = padding
        self.normalize_scatter = normalize_scatter

    def _kept(self, name: str, value: float | Tensor) -> float | Tensor:
        if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
            self.register_buffer(name, value)
        return value

    def forward(self, image: Tensor, depth: Tensor | float, focus: float | Tensor) -> Tensor:
        """The picture of (N, C, H, W), linear light, of this depth, (N, 1, H, W), focused at a distance: a number, or
        (N,), one for each image.
        """
        return defocus(
            image,
            depth,
            focus,
            self.aperture,
            self.focal_length,
            self.pixel_pitch,
            max_radius=self.max_radius,
            kernel=self.kernel,
            direction=self.direction,
            padding=self.padding,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        kept = {"aperture": self.aperture, "focal_length": self.focal_length, "pixel_pitch": self.pixel_pitch}
        lens = ", ".join(f"{k}={f'Tensor{tuple(v.shape)}' if isinstance(v, Tensor) else v}" for k, v in kept.items())
        text = f"{lens}, max_radius={self.max_radius}, kernel={self.kernel!r}, direction={self.direction!r}"
        return f"{text}, padding={self.padding!r}, normalize_scatter={self.normalize_scatter}"
