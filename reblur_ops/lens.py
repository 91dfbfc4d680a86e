"""A thin lens: how far out of focus a depth is, and the picture that comes of it."""

import math
import numbers

import torch
from torch import Tensor

from reblur_ops import checks
from reblur_ops.functional import disk_blur, gaussian_blur
from reblur_ops.geometry import MAX_ANALYTIC_RADIUS
from reblur_ops.options import LENS_KERNELS, Direction, LensKernel, Padding

_HALF = (torch.float16, torch.bfloat16)


def coc_radius(
    depth: Tensor,
    focus: float | Tensor,
    aperture: float | Tensor,
    focal_length: float | Tensor,
    pixel_pitch: float | Tensor,
) -> Tensor:
    """The radius of the circle of confusion, in pixels.

    A thin lens of focal length f and aperture A, focused at depth s, images a point at depth z as a disk of radius::

        ρ = A/2 · f / (s - f) · |z - s| / z  / pixel_pitch

    All lengths are in one unit, say metres. Each argument may be a tensor: one that broadcasts with depth, or, where
    depth is (N, 1, H, W), one of shape (N,), a value for each image. Differentiable in all of them.

    Args:
        depth: z, of any shape, floating point: the distance from the lens, > 0. Infinity is far away.
        focus: s, the distance in focus, > focal_length. It may be infinite, too.
        aperture: A, the diameter of the entrance pupil: focal length divided by f-number.
        focal_length: f, > 0.
        pixel_pitch: the distance from pixel to pixel on the sensor, > 0.

    Returns:
        In the shape and dtype that the arguments broadcast and promote to, in pixels, >= 0. float16 and bfloat16 are
        computed in float32.

    Raises:
        TypeError: depth is not a floating point tensor, or another argument neither a number nor a tensor.
        ValueError: a tensor whose shape does not broadcast, or a number out of its range; values in tensors are not
            looked at.
    """
    if not isinstance(depth, Tensor) or not depth.is_floating_point():
        raise TypeError(f"depth must be a floating point torch.Tensor, got {getattr(depth, 'dtype', type(depth))}")
    check_numbers(aperture=aperture, focal_length=focal_length, pixel_pitch=pixel_pitch, focus=focus)
    if not isinstance(focus, Tensor) and not isinstance(focal_length, Tensor) and focus <= focal_length:
        raise ValueError(f"focus must be farther than the focal length, {focal_length}, got {focus}")
    s, a, f, pitch = (
        _beside(depth, name, value)
        for name, value in {
            "focus": focus, "aperture": aperture, "focal_length": focal_length, "pixel_pitch": pixel_pitch,
        }.items()
    )  # fmt: skip
    z = depth.float() if depth.dtype in _HALF else depth
    # With s/(s - f) as 1/(1 - f/s), and |z - s|/(z s) as |1/s - 1/z|: either distance may be infinite. The factor
    # first, as of numbers it is computed in double precision.
    radius = a * f / (1 - f / s) / (2 * pitch) * (1 / s - 1 / z).abs()
    # A tensor without dimensions does not promote, no more than a number does.
    wider = any(
        isinstance(t, Tensor) and t.dim() and t.is_floating_point() and t.dtype != depth.dtype
        for t in (focus, aperture, focal_length, pixel_pitch)
    )
    return radius if wider else radius.to(depth.dtype)


def _beside(depth: Tensor, name: str, value: float | Tensor) -> float | Tensor:
    """A length in a shape that broadcasts with depth, in 32 bits or more."""
    if not isinstance(value, Tensor):
        return value
    shape = value.shape
    if value.dim() == 1 and depth.dim() == 4:
        value = value[:, None, None, None]
    try:
        torch.broadcast_shapes(value.shape, depth.shape)
    except RuntimeError:
        images = ", or has shape (N,)" if depth.dim() == 4 else ""
        raise ValueError(
            f"{name} must be a number or a tensor that broadcasts with depth, {tuple(depth.shape)}{images}, got "
            f"{tuple(shape)}"
        ) from None
    return value.float() if value.dtype in _HALF else value


def check_numbers(**lengths: float | Tensor) -> None:
    """Check an aperture, which may be 0, and other lengths, which may not; values in tensors are not looked at."""
    for name, value in lengths.items():
        if isinstance(value, Tensor):
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be a number or a torch.Tensor, got {value!r}")
        if not (value >= 0 if name == "aperture" else value > 0):
            raise ValueError(f"{name} must be {'>= 0' if name == 'aperture' else '> 0'}, got {value}")


def defocus(
    image: Tensor,
    depth: Tensor | float,
    focus: float | Tensor,
    aperture: float | Tensor,
    focal_length: float | Tensor,
    pixel_pitch: float | Tensor,
    *,
    max_radius: int,
    kernel: LensKernel = "disk",
    direction: Direction = "scatter",
    padding: Padding = "replicate",
    normalize_scatter: bool | Tensor | None = None,
) -> Tensor:
    """The picture of a scene by a thin lens: `coc_radius`, then `disk_blur` or `gaussian_blur`.

    It blurs what the picture shows, and knows nothing of what something near hides. A lens adds light: give linear
    values, not sRGB.

    Args:
        image: (N, C, H, W), floating point, linear light.
        depth: as for `coc_radius`, (N, 1, H, W) or any other form that sigma of `gaussian_blur` may have.
        focus, aperture, focal_length, pixel_pitch: as for `coc_radius`. A focus of shape (1, C, 1, 1) is one for each
            channel, as a lens has that is not corrected for colour.
        max_radius: 1 to 64, pixels: larger circles of confusion count as this.
        kernel: "disk" or "gaussian", with a σ of half the circle's radius, so that both have the same RMS radius, and a
            window of 3σ, at most 64.
        direction: as for `reblur`. "scatter", as light does: what is out of focus spreads over what is in focus.
        padding: as for `reblur`.
        normalize_scatter: as for `reblur`; None is True for direction "scatter".

    Returns:
        (N, C, H, W), as `disk_blur`.

    Raises:
        TypeError, ValueError: as `coc_radius` and `disk_blur`.
    """
    checks.choice("kernel", kernel, LENS_KERNELS)
    largest = checks.radius("max_radius", max_radius, MAX_ANALYTIC_RADIUS)
    depth = checks.scalar_map("depth", depth, image)
    normalize = direction == "scatter" if normalize_scatter is None else normalize_scatter
    checks.blur(image, "depth", depth, largest, padding, direction, normalize)
    radius = coc_radius(depth, focus, aperture, focal_length, pixel_pitch).to(depth.dtype)
    if radius.shape not in (depth.shape, image.shape):
        raise ValueError(
            f"the tensors of the lens must broadcast with depth to its shape, {tuple(depth.shape)}, or that of image, "
            f"{tuple(image.shape)}, got {tuple(radius.shape)}"
        )
    if kernel == "disk":
        return disk_blur(
            image, radius, max_radius=largest, direction=direction, padding=padding, normalize_scatter=normalize
        )
    return gaussian_blur(
        image,
        radius.clamp(max=largest) / 2,
        radius=min(math.ceil(1.5 * largest), MAX_ANALYTIC_RADIUS),
        direction=direction,
        padding=padding,
        normalize_scatter=normalize,
    )
