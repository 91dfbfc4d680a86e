"""The operators that people call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reblur_ops import backend, checks, reference, torch_backend
from reblur_ops.geometry import class_map, distance_classes

PUBLISHED_RADII: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)


def map_channels(radii: Sequence[int] = PUBLISHED_RADII) -> tuple[int, int]:
    """The number of channels of `seeds` and of `weights` for these radii: Σ(r+1), and S+1. (35, 8) for 1 … 7."""
    values = checks.radii_tuple(radii)
    return sum(values) + len(values), len(values) + 1


def reblur(
    image: Tensor,
    seeds: Tensor,
    weights: Tensor,
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: str = "square",
    padding: str = "zeros",
) -> Tensor:
    r"""Blur every pixel with its own isotropic kernel, a mix of softmax kernels of several radii and no blur.

    At pixel p, with taps u at Euclidean distance d = |u|, j = ⌊d⌋, t = d - j and the seeds s_n of radius r_n::

        logit_n(d) = (1 - t)·|s_n[j]| + t·|s_n[j+1]|                          d <= r_n
        k_n        = softmax over the taps u of logit_n(|u|)
        y(p)       = w_0(p)·x(p) + Σ_n w_n(p) Σ_u k_n(p, u)·x(p + u)

    A gather: a pixel uses its own kernel. It is the reblurring module of "Reblurring-Guided Single Image Defocus
    Deblurring" (arXiv 2409.17792). With weights that sum to one, brightness is kept away from the border.

    Differentiable in image, seeds and weights; each gradient is computed only if it is needed. Results and gradients
    repeat bit for bit, whatever the number of threads. Under autocast it computes in float32 and returns that.

    Args:
        image: (N, C, H, W), floating point, any C and any strides.
        seeds: (N, Σ(r_n+1), H, W), one value for each integer distance 0 … r_n of each radius. Any range; the sign is
            ignored.
        weights: (N, S+1, H, W) for S radii; plane 0 weighs the unblurred image. Usually a softmax over dimension 1.
        radii: increasing, from 1 to 15, in pixels.
        support: what is beyond d = r_n in the (2 r_n + 1)² window. "square", as published: logit 0, so such a corner
            tap weighs e⁰, not nothing. "disk": left out.
        padding: beyond the image lie "zeros" (as published), or its edge is repeated ("replicate") or mirrored
            ("reflect", for images larger than the largest radius).

    Returns:
        (N, C, H, W), contiguous, in the image's dtype. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: shapes, channels, devices or options that do not fit. The message says which and how.
    """
    values = checks.radii_tuple(radii)
    checks.choice("support", support, checks.SUPPORTS)
    checks.maps(seeds, weights, values)
    checks.image(image, seeds, values, padding)
    name = backend.select(image.device)
    if checks.autocasting(image.device):
        with torch.autocast(image.device.type, enabled=False):
            return _reblur(name, _autocast(image), _autocast(seeds), _autocast(weights), values, support, padding)
    return _reblur(name, image, seeds, weights, values, support, padding)


def _reblur(
    name: str, image: Tensor, seeds: Tensor, weights: Tensor, radii: tuple[int, ...], support: str, padding: str
) -> Tensor:
    if name == "native":
        return torch.ops.reblur_ops.reblur(image, seeds, weights, radii, support, padding)
    implementation = torch_backend.reblur if name == "torch" else reference.reblur
    return implementation(image, seeds, weights, radii=radii, support=support, padding=padding)


def class_weights(
    seeds: Tensor,
    weights: Tensor,
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: str = "square",
) -> Tensor:
    """The kernel of every pixel, as the weight of each tap by distance class.

    Class (a, b), 0 <= a <= b <= R, holds the 1, 4 or 8 taps (±a, ±b) and (±b, ±a) and has number b(b+1)/2 + a. Its
    weight is Σ_n w_n k_n at that distance, plus w_0 for class 0. Differentiable.

    Args:
        seeds, weights, radii, support: as for `reblur`.

    Returns:
        (N, (R+1)(R+2)/2, H, W), R the largest radius; 36 planes for R = 7.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    values = checks.radii_tuple(radii)
    checks.choice("support", support, checks.SUPPORTS)
    checks.maps(seeds, weights, values)
    name = backend.select(seeds.device)
    if checks.autocasting(seeds.device):
        with torch.autocast(seeds.device.type, enabled=False):
            return _class_weights(name, _autocast(seeds), _autocast(weights), values, support)
    return _class_weights(name, seeds, weights, values, support)


def _class_weights(name: str, seeds: Tensor, weights: Tensor, radii: tuple[int, ...], support: str) -> Tensor:
    if name == "native":
        return torch.ops.reblur_ops.class_weights(seeds, weights, radii, support)
    implementation = torch_backend.class_weights if name == "torch" else reference.class_weights
    return implementation(seeds, weights, radii=radii, support=support)


def _autocast(tensor: Tensor) -> Tensor:
    """The autocast rule: float32, as for softmax; float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def blur_radius(
    seeds: Tensor,
    weights: Tensor,
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: str = "square",
) -> Tensor:
    """The RMS radius of every pixel's kernel, in pixels: a defocus map to look at and to compare.

    The root of the mean squared distance of the taps from the centre, weighed by the kernel divided by its sum. A
    uniform disk of radius ρ has ρ/√2, a Gaussian σ√2. 0 where the kernel is the identity, with gradient 0 there.

    Args:
        seeds, weights, radii, support: as for `reblur`. Weights that sum to 0 give NaN or Inf at that pixel.

    Returns:
        (N, 1, H, W), from 0 to √2·R for weights that are not negative. Differentiable.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    values = checks.radii_tuple(radii)
    half = seeds.dtype in (torch.float16, torch.bfloat16)
    # Squared distances in half precision would cost the radius its digits.
    kernel = class_weights(
        *((seeds.float(), weights.float()) if half else (seeds, weights)), radii=values, support=support
    )
    taps = kernel.new_tensor([[1, k.squared_distance] for k in distance_classes(values[-1])])
    taps = taps * kernel.new_tensor([[k.multiplicity] for k in distance_classes(values[-1])])
    total, second_moment = torch.einsum("nkhw,km->mnhw", kernel, taps)
    variance = (second_moment / total).unsqueeze(1)
    # Twice `where`: the root's gradient is infinite at 0, and infinite times 0 is not 0.
    blurred = variance != 0
    radius = torch.where(blurred, torch.where(blurred, variance, 1).sqrt(), 0)
    return radius.to(seeds.dtype) if half else radius


def kernel_image(
    seeds: Tensor,
    weights: Tensor,
    pixels: Tensor | Sequence[tuple[int, int, int]],
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: str = "square",
) -> Tensor:
    """The kernels at some pixels as pictures.

    Args:
        seeds, weights, radii, support: as for `reblur`.
        pixels: (P, 3) integers, each row (n, y, x): image in the batch, row, column.

    Returns:
        (P, 2R+1, 2R+1), R the largest radius. Each sums to the sum of the pixel's weights. Differentiable.

    Raises:
        TypeError, ValueError: as `reblur`, and for pixels of another shape or type.
        IndexError: a pixel outside the maps.
    """
    values = checks.radii_tuple(radii)
    checks.maps(seeds, weights, values)
    index = torch.as_tensor(pixels, device=seeds.device)
    if index.dim() != 2 or index.shape[1] != 3:
        raise ValueError(f"pixels must have shape (P, 3), each row (n, y, x), got {tuple(index.shape)}")
    if index.is_floating_point() or index.dtype == torch.bool:
        raise TypeError(f"pixels must be integers, got {index.dtype}")
    size = torch.tensor([seeds.shape[0], seeds.shape[2], seeds.shape[3]], device=index.device)
    outside = ((index < 0) | (index >= size)).any(dim=1)
    if outside.any():
        raise IndexError(f"pixels must lie within (n, y, x) < {tuple(size.tolist())}, got {index[outside][0].tolist()}")
    n, y, x = index.long().unbind(1)
    kernel = class_weights(
        seeds[n, :, y, x][:, :, None, None], weights[n, :, y, x][:, :, None, None], radii=values, support=support
    )
    return kernel[:, class_map(values[-1], kernel.device), 0, 0]
