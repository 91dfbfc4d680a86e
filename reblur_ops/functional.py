"""The operators that people call."""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from reblur_ops import backend, checks, families, reference, torch_backend
from reblur_ops.families import Kernel
from reblur_ops.geometry import MAX_ANALYTIC_RADIUS, MAX_RADIUS, class_map, distance_classes
from reblur_ops.options import NORMALIZATIONS, SUPPORTS, Direction, Normalization, Padding, Support

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
    support: Support = "square",
    padding: Padding = "zeros",
    direction: Direction = "gather",
    normalize_scatter: bool | Tensor = False,
) -> Tensor:
    r"""Blur every pixel with its own isotropic kernel, a mix of softmax kernels of several radii and no blur.

    At pixel p, with taps u at Euclidean distance d = |u|, j = ⌊d⌋, t = d - j and the seeds s_n of radius r_n::

        logit_n(d) = (1 - t)·|s_n[j]| + t·|s_n[j+1]|                          d <= r_n
        k_n        = softmax over the taps u of logit_n(|u|)
        k(p, u)    = w_0(p)·[u = 0] + Σ_n w_n(p)·k_n(p, u)
        y(p)       = Σ_u k(p, u)·x(p + u)                                     direction "gather"
        y(q)       = Σ_p k(p, q - p)·x(p)                                     direction "scatter"

    The gather is the reblurring module of "Reblurring-Guided Single Image Defocus Deblurring" (arXiv 2409.17792). With
    weights that sum to one, it keeps brightness away from the border.

    Differentiable in image, seeds and weights; each gradient is computed only if it is needed. Native results and
    gradients repeat bit for bit, whatever the number of threads. Second derivatives and forward mode are there, too,
    computed in pure PyTorch, at its cost in time and memory; third derivatives and `torch.func.grad` only with
    `use_backend("torch")`. `torch.func.vmap` runs natively. Under autocast it computes in float32 and
    returns that, of any mix of dtypes but float64, which stays; natively, seeds and weights of 16 bits are read as they
    are.

    Args:
        image: (N, C, H, W), floating point, any C and any strides.
        seeds: (N, Σ(r_n+1), H, W), one value for each integer distance 0 … r_n of each radius, up to 1e38; the sign is
            ignored.
        weights: (N, S+1, H, W) for S radii; plane 0 weighs the unblurred image. Usually a softmax over dimension 1.
        radii: increasing, from 1 to 15, in pixels.
        support: what is beyond d = r_n in the (2 r_n + 1)² window. "square", as published: logit 0, so such a corner
            tap weighs e⁰, not nothing. "disk": left out.
        padding: beyond the image lie "zeros" (as published), or its edge is repeated ("replicate") or mirrored
            ("reflect", for images larger than the largest radius). In a scatter, what falls beyond the border goes to
            the pixel that the padding there is a copy of; with zeros it is lost.
        direction: "gather", a pixel uses its own kernel, or "scatter", a pixel spreads its value with its own kernel,
            as light does. Either is the other's adjoint in the image: ⟨gather(x), z⟩ = ⟨x, scatter(z)⟩.
        normalize_scatter: divide a scatter by the scatter of ones, as is usual in rendering: brightness is kept where
            the blur changes, and at a border with zeros. 0 where nothing arrives. A tensor (N, 1, H, W) is a weight
            for each pixel that spreads its value, as the opacity of a layer: scatter(weight · image) /
            scatter(weight). Differentiable in it, too.

    Returns:
        (N, C, H, W), contiguous, in the image's dtype. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: shapes, channels, devices or options that do not fit. The message says which and how.
    """
    values = checks.radii_tuple(radii)
    checks.choice("support", support, SUPPORTS)
    checks.maps(seeds, weights, values)
    checks.blur(image, "seeds", seeds, values[-1], padding, direction, normalize_scatter)
    kernel = families.seeds(values, support)
    return _blur(image, seeds, weights, kernel, padding, direction, normalize_scatter)


def gaussian_blur(
    image: Tensor,
    sigma: Tensor | float,
    *,
    radius: int | None = None,
    direction: Direction = "gather",
    padding: Padding = "zeros",
    normalize_scatter: bool | Tensor = False,
) -> Tensor:
    """Blur every pixel with its own Gaussian.

    The kernel over the taps u of the (2R + 1)² window::

        k(p, u) = exp(-|u|² / 2σ(p)²) / Σ_v exp(-|v|² / 2σ(p)²)

    σ = 0 is the identity, with gradient 0. Differentiable as `reblur` is, in image and sigma.

    Args:
        image: (N, C, H, W), floating point, any C and any strides.
        sigma: the standard deviation in pixels along each axis, before the window cuts it off: (N, 1, H, W); or a
            number, (N,), (1, 1, H, W) or (N, H, W), for all pixels, for each image, for all images, and without the
            channel; or (N, C, H, W), a map for each channel of the image. A lower floating type is cast up. The sign is
            ignored.
        radius: R, 1 to 64. None takes ⌈3·max σ⌉, from 1 to 64, which waits for the device to know σ, and keeps
            `torch.compile` from one graph: give a radius where that matters. What a window of 3σ cuts off is 0.5 % of
            the kernel, and is given back by the normalisation.
        direction, padding, normalize_scatter: as for `reblur`.

    Returns:
        (N, C, H, W), contiguous, in the image's dtype. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: as `reblur`; ValueError, too, for a sigma that is not finite with radius None.
    """
    sigma = checks.scalar_map("sigma", sigma, image)
    reach = _largest_radius(sigma) if radius is None else checks.radius("radius", radius, MAX_ANALYTIC_RADIUS)
    return _blur_by_map(image, "sigma", sigma, families.gaussian(reach), reach, padding, direction, normalize_scatter)


def _largest_radius(sigma: Tensor) -> int:
    if sigma.is_meta:
        raise ValueError("radius must be given on device meta, where sigma has no values")
    largest = float(sigma.detach().abs().max()) if sigma.numel() else 0.0
    if not math.isfinite(largest):
        raise ValueError(f"sigma must be finite where radius is None, got {largest}")
    wanted = max(1, math.ceil(3 * largest))
    if wanted > MAX_ANALYTIC_RADIUS:
        warnings.warn(
            f"gaussian_blur: a sigma of {largest:g} pixels is cut off at {MAX_ANALYTIC_RADIUS} pixels, "
            f"{MAX_ANALYTIC_RADIUS / largest:.2f} sigma; radius={MAX_ANALYTIC_RADIUS} says that this is meant",
            stacklevel=backend.frames_here(),
        )
    return min(wanted, MAX_ANALYTIC_RADIUS)


def disk_blur(
    image: Tensor,
    radius_map: Tensor | float,
    *,
    max_radius: int,
    direction: Direction = "gather",
    padding: Padding = "zeros",
    normalize_scatter: bool | Tensor = False,
) -> Tensor:
    """Blur every pixel with its own disk, the circle of confusion of a lens, with an antialiased edge.

    The kernel over the taps u::

        k(p, u) = f(|u|) / Σ_v f(|v|),    f(d) = clamp(ρ(p) + ½ - d, 0, 1)

    ρ <= ½ is the identity, with gradient 0: a disk within a pixel. Differentiable as `reblur` is, in image and
    radius_map: through the soft edge, on which f falls with slope 1.

    The time grows with the area of the disks, not with max_radius², and the native kernels take no memory for the
    window. A CPU computes what is near each other together: there the largest disk of 4 to 16 neighbours counts.

    Args:
        image: (N, C, H, W), floating point, any C and any strides.
        radius_map: ρ in pixels, (N, 1, H, W) or any other form that sigma of `gaussian_blur` may have. The sign is
            ignored, so a signed circle of confusion may be given.
        max_radius: 1 to 64; a larger ρ counts as this one, with gradient 0.
        direction, padding, normalize_scatter: as for `reblur`.

    Returns:
        (N, C, H, W), contiguous, in the image's dtype. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    reach = checks.radius("max_radius", max_radius, MAX_ANALYTIC_RADIUS)
    radii = checks.scalar_map("radius_map", radius_map, image)
    return _blur_by_map(image, "radius_map", radii, families.disk(reach), reach, padding, direction, normalize_scatter)


def radial_blur(
    image: Tensor,
    profile: Tensor,
    *,
    normalize: Normalization = "softmax",
    support: Support = "disk",
    direction: Direction = "gather",
    padding: Padding = "zeros",
    normalize_scatter: bool | Tensor = False,
) -> Tensor:
    """Blur every pixel with a kernel given by its profile: a value for each integer distance, linear in between.

    With taps u at distance d = |u|, j = ⌊d⌋, t = d - j and the profile f of a pixel::

        f(d)    = (1 - t)·f[j] + t·f[j+1]  for d <= R;  0 beyond
        k(p, u) = exp f(|u|) / Σ_v exp f(|v|)        normalize "softmax"
                  f(|u|) / Σ_v f(|v|)                normalize "sum"
                  f(|u|)                             normalize "none"

    Differentiable as `reblur` is, in image and profile.

    Args:
        image: (N, C, H, W), floating point, any C and any strides.
        profile: (N, R+1, H, W), R from 1 to 15. For "sum" its sum over the taps must not be 0: such a pixel becomes NaN
            or infinite. For "softmax" the outermost value may be -∞, which leaves that ring out.
        normalize: "softmax", "sum" or "none".
        support: what is beyond d = R in the (2R + 1)² window. "disk": left out. "square": f = 0, which matters for
            "softmax", where such a corner tap weighs e⁰.
        direction, padding, normalize_scatter: as for `reblur`.

    Returns:
        (N, C, H, W), contiguous, in the image's dtype. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    checks.choice("normalize", normalize, NORMALIZATIONS)
    checks.choice("support", support, SUPPORTS)
    checks.parameter_map("profile", profile, (2, MAX_RADIUS + 1))
    reach = profile.shape[1] - 1
    checks.blur(image, "profile", profile, reach, padding, direction, normalize_scatter)
    kernel = families.radial(reach, support, normalize)
    return _blur(image, profile, None, kernel, padding, direction, normalize_scatter)


def isotropic_blur(
    image: Tensor,
    tap_weights: Tensor,
    radius: int,
    *,
    direction: Direction = "gather",
    padding: Padding = "zeros",
    normalize_scatter: bool | Tensor = False,
) -> Tensor:
    """Blur every pixel with any isotropic kernel, given by the weights of its taps.

    Plane b(b+1)/2 + a, 0 <= a <= b <= R, is the weight of each of the 1, 4 or 8 taps (±a, ±b) and (±b, ±a), as
    `tap_weights` gives them. So a bank of isotropic kernels can be mixed at each pixel: the planes are the product of
    the bank's, (K, planes), and the pixel's shares, (N, K, H, W). Nothing is normalized.

    Differentiable as `reblur` is, in image and tap_weights.

    Args:
        image: (N, C, H, W), floating point, any C and any strides.
        tap_weights: (N, (R+1)(R+2)/2, H, W), any values.
        radius: R, 1 to 15.
        direction, padding, normalize_scatter: as for `reblur`.

    Returns:
        (N, C, H, W), contiguous, in the image's dtype. float16 and bfloat16 are computed in float32.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    reach = checks.radius("radius", radius, MAX_RADIUS)
    kernel = families.taps(reach)
    checks.parameter_map("tap_weights", tap_weights, (kernel.parameter_channels, kernel.parameter_channels))
    checks.blur(image, "tap_weights", tap_weights, reach, padding, direction, normalize_scatter)
    return _blur(image, tap_weights, None, kernel, padding, direction, normalize_scatter)


@torch.no_grad()
def cost_volume(
    image: Tensor,
    target: Tensor,
    bank: Tensor,
    radius: int,
    *,
    slack: int = 0,
    cell: int = 1,
    root: bool = False,
    padding: Padding = "zeros",
) -> Tensor:
    """How far an image, blurred by each of K fixed isotropic kernels, is from another one, at each pixel.

    What the search of a blur looks at, as stereo matching looks at its cost volume. The blurred images are never in
    memory: natively on the CPU one pass over the image serves all kernels, and a kernel that is flat inside, as a disk
    is, costs little more than its edge. Elsewhere each kernel is a convolution.

    Args:
        image, target: (N, C, H, W), floating point, of one dtype.
        bank: (K, (R+1)(R+2)/2), the weights of each kernel's taps, numbered as `tap_weights` does.
        radius: R, 1 to 64.
        slack: 0 to 8, pixels. Every displacement of the blurred image by up to this, in either direction, is a cost of
            its own; beyond the border the blurred image is repeated.
        cell: 1 or 2, pixels. Costs are means over cells of this side, of which H and W are multiples.
        root: whether square roots are compared, of values that count as at least 0. Of linear light they are near to
            what the eye sees.
        padding: what the kernels see beyond the image: "zeros", "replicate" or "reflect".

    Returns:
        (N, K, (2 slack + 1)², H/cell, W/cell), the mean square error over the channels of a cell, in the image's dtype.
        Displacements count row by row: cost d compares `target` at (y, x) with the blurred image at (y + d // side -
        slack, x + d % side - slack), side = 2 slack + 1. It has no gradient.

    Raises:
        TypeError, ValueError: an argument that does not fit.
    """
    reach = checks.cost_volume(image, target, bank, radius, slack, cell, root, padding)
    name = backend.select(image, target, bank)
    if name == "native" and image.device.type in ("cpu", "meta"):
        return torch.ops.reblur_ops.cost_volume(image, target, bank, reach, slack, cell, root, padding)
    compute = reference.cost_volume if name == "reference" else torch_backend.cost_volume
    with checks.without_autocast(image.device):
        return compute(image, target, bank, reach, slack, cell, root, padding)


def _blur_by_map(
    image: Tensor,
    name: str,
    values: Tensor,
    kernel: Kernel,
    radius: int,
    padding: str,
    direction: str,
    normalize_scatter: bool | Tensor,
) -> Tensor:
    """A blur by one value a pixel; with a map for each channel, channels are images of their own."""
    if values.shape[1] == 1:
        checks.blur(image, name, values, radius, padding, direction, normalize_scatter)
        return _blur(image, values, None, kernel, padding, direction, normalize_scatter)
    shape = image.shape
    apart = [tensor.flatten(0, 1).unsqueeze(1) for tensor in (image, values)]
    if isinstance(normalize_scatter, Tensor):
        checks.source_weight(normalize_scatter, image)
        normalize_scatter = normalize_scatter.repeat_interleave(shape[1], dim=0)
    checks.blur(apart[0], name, apart[1], radius, padding, direction, normalize_scatter)
    return _blur(apart[0], apart[1], None, kernel, padding, direction, normalize_scatter).reshape(shape)


def _blur(
    image: Tensor,
    parameters: Tensor,
    weights: Tensor | None,
    kernel: Kernel,
    padding: str,
    direction: str,
    normalize_scatter: bool | Tensor,
) -> Tensor:
    """Run a blur after its checks: backend, autocast, direction."""
    tensors = [tensor for tensor in (image, parameters, weights, normalize_scatter) if isinstance(tensor, Tensor)]
    name = backend.select(*tensors)
    if name == "native":
        checks.no_functional_gradient(*tensors)
    if checks.autocasting(image.device):
        image = _autocast(image)
        if not (name == "native" and _reads_as_they_are(image, parameters, weights)):
            parameters, weights = _autocast(parameters), None if weights is None else _autocast(weights)
    with checks.without_autocast(image.device):
        blurred = _directed(name, image, parameters, weights, kernel, padding, direction, normalize_scatter)
    return blurred.contiguous()


def _directed(
    name: str,
    image: Tensor,
    parameters: Tensor,
    weights: Tensor | None,
    kernel: Kernel,
    padding: str,
    direction: str,
    normalize_scatter: bool | Tensor,
) -> Tensor:
    if normalize_scatter is False:
        return _implementation(name, direction)(image, parameters, weights, kernel, padding)
    if image.dtype in (torch.float16, torch.bfloat16):  # rounded once, not before the division
        weights = None if weights is None else weights.float()
        tensors = image.float(), parameters.float(), weights
        return _directed(name, *tensors, kernel, padding, direction, normalize_scatter).to(image.dtype)
    if isinstance(normalize_scatter, Tensor):
        weight = normalize_scatter.to(image.dtype)
        image = image * weight
    else:
        weight = image.new_ones(image.shape[0], 1, *image.shape[2:])
    spread = _implementation(name, direction)(torch.cat((image, weight), dim=1), parameters, weights, kernel, padding)
    values, total = spread[:, :-1], spread[:, -1:]
    nothing = total == 0
    return (values / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)  # with gradient 0, too


def _implementation(name: str, direction: str):  # type: ignore[no-untyped-def]
    if name == "native":
        return _native_gather if direction == "gather" else _native_scatter
    return getattr(torch_backend if name == "torch" else reference, direction)


def _native_gather(image: Tensor, parameters: Tensor, weights: Tensor | None, kernel: Kernel, padding: str) -> Tensor:
    return torch.ops.reblur_ops.gather(image, parameters, weights, *kernel, padding)


def _native_scatter(image: Tensor, parameters: Tensor, weights: Tensor | None, kernel: Kernel, padding: str) -> Tensor:
    return torch.ops.reblur_ops.scatter(image, parameters, weights, *kernel, padding)


def tap_weights(
    seeds: Tensor,
    weights: Tensor,
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: Support = "square",
) -> Tensor:
    """The kernel of every pixel, as the weights of its taps.

    Taps that are mirrored at the axes and the diagonals weigh the same. Plane b(b+1)/2 + a, 0 <= a <= b <= R, is the
    weight of each of the 1, 4 or 8 taps (±a, ±b) and (±b, ±a): Σ_n w_n k_n at their distance, plus w_0 for plane 0.
    Differentiable as `reblur` is.

    Args:
        seeds, weights, radii, support: as for `reblur`.

    Returns:
        (N, (R+1)(R+2)/2, H, W), R the largest radius; 36 planes for R = 7.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    values = checks.radii_tuple(radii)
    checks.choice("support", support, SUPPORTS)
    checks.maps(seeds, weights, values)
    name = backend.select(seeds, weights)
    if name == "native":
        checks.no_functional_gradient(seeds, weights)
    kernel = families.seeds(values, support)
    if checks.autocasting(seeds.device):
        seeds, weights = _autocast(seeds), _autocast(weights)
    with checks.without_autocast(seeds.device):
        return _tap_weights(name, seeds, weights, kernel)


def class_weights(
    seeds: Tensor,
    weights: Tensor,
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: Support = "square",
) -> Tensor:
    """The former name of `tap_weights`, which is to be used."""
    warnings.warn("reblur_ops.class_weights is now called tap_weights", DeprecationWarning, stacklevel=2)
    return tap_weights(seeds, weights, radii=radii, support=support)


def _tap_weights(name: str, seeds: Tensor, weights: Tensor, kernel: Kernel) -> Tensor:
    if name == "native":
        return torch.ops.reblur_ops.class_weights(seeds, weights, *kernel)
    return (torch_backend if name == "torch" else reference).class_weights(seeds, weights, kernel)


def _autocast(tensor: Tensor) -> Tensor:
    """The autocast rule: float32, as for softmax; float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _reads_as_they_are(image: Tensor, parameters: Tensor, weights: Tensor | None) -> bool:
    """Whether native kernels, which compute in float32, take these parameters of 16 bits without a copy of twice the
    size.
    """
    dtypes = {parameters.dtype} if weights is None else {parameters.dtype, weights.dtype}
    return image.dtype == torch.float32 and len(dtypes) == 1 and dtypes <= {torch.float16, torch.bfloat16}


def blur_radius(
    seeds: Tensor,
    weights: Tensor,
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: Support = "square",
) -> Tensor:
    """The RMS radius of every pixel's kernel, in pixels: a defocus map to look at and to compare.

    The root of the mean squared distance of the taps from the centre, weighed by the kernel divided by its sum. A
    uniform disk of radius ρ has ρ/√2, a Gaussian σ√2. 0 where the kernel is the identity, with gradient 0 there.
    Differentiable as `reblur` is.

    Args:
        seeds, weights, radii, support: as for `reblur`. Weights that sum to 0 give NaN or Inf at that pixel; negative
            ones may give NaN, where the mean squared distance is below 0.

    Returns:
        (N, 1, H, W), from 0 to √2·R for weights that are not negative; float32 under autocast.

    Raises:
        TypeError, ValueError: as `reblur`.
    """
    values = checks.radii_tuple(radii)
    checks.choice("support", support, SUPPORTS)
    checks.maps(seeds, weights, values)
    half = seeds.dtype in (torch.float16, torch.bfloat16)
    # Squared distances in half precision would cost the radius its digits.
    kernel = tap_weights(
        *((seeds.float(), weights.float()) if half else (seeds, weights)), radii=values, support=support
    )
    classes = distance_classes(values[-1])
    taps = kernel.new_tensor([[k.multiplicity, k.multiplicity * k.squared_distance] for k in classes])
    with checks.without_autocast(kernel.device):
        total, second_moment = torch.einsum("nkhw,km->mnhw", kernel, taps)
    variance = (second_moment / total).unsqueeze(1)
    # Twice `where`: the root's gradient is infinite at 0, and infinite times 0 is not 0.
    blurred = variance != 0
    radius = torch.where(blurred, torch.where(blurred, variance, 1).sqrt(), 0)
    return radius.to(seeds.dtype) if half and not checks.autocasting(seeds.device) else radius


def kernel_image(
    seeds: Tensor,
    weights: Tensor,
    pixels: Tensor | Sequence[tuple[int, int, int]],
    *,
    radii: Sequence[int] = PUBLISHED_RADII,
    support: Support = "square",
) -> Tensor:
    """The kernels at some pixels as pictures.

    Waits for the device to know that the pixels lie within the maps, and keeps `torch.compile` from one graph.

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
    checks.choice("support", support, SUPPORTS)
    checks.maps(seeds, weights, values)
    index = torch.as_tensor(pixels, device=seeds.device)
    if isinstance(pixels, Sequence) and not len(pixels):
        index = index.reshape(0, 3).long()
    if index.dim() != 2 or index.shape[1] != 3:
        raise ValueError(f"pixels must have shape (P, 3), each row (n, y, x), got {tuple(index.shape)}")
    if index.is_floating_point() or index.dtype == torch.bool:
        raise TypeError(f"pixels must be integers, got {index.dtype}")
    if index.is_meta:
        raise ValueError("seeds must have values, got device meta")
    size = torch.tensor([seeds.shape[0], seeds.shape[2], seeds.shape[3]], device=index.device)
    outside = ((index < 0) | (index >= size)).any(dim=1)
    if outside.any():
        raise IndexError(f"pixels must lie within (n, y, x) < {tuple(size.tolist())}, got {index[outside][0].tolist()}")
    n, y, x = index.long().unbind(1)
    kernel = tap_weights(
        seeds[n, :, y, x][:, :, None, None], weights[n, :, y, x][:, :, None, None], radii=values, support=support
    )
    return kernel[:, class_map(values[-1], kernel.device), 0, 0]


def gaussian_kernel(sigma: Tensor, *, radius: int) -> Tensor:
    """The kernels of `gaussian_blur`, as pictures.

    Args:
        sigma: (P,), pixels: the map's values at P pixels.
        radius: R, 1 to 64.

    Returns:
        (P, 2R+1, 2R+1), each of sum 1, in the dtype of sigma. Differentiable.

    Raises:
        TypeError, ValueError: arguments that do not fit.
    """
    return _kernels("sigma", sigma, None, families.gaussian(checks.radius("radius", radius, MAX_ANALYTIC_RADIUS)))


def disk_kernel(radii: Tensor, *, max_radius: int) -> Tensor:
    """The kernels of `disk_blur`, as pictures.

    Args:
        radii: (P,), pixels: the map's values at P pixels.
        max_radius: R, 1 to 64.

    Returns, raises: as `gaussian_kernel`.
    """
    return _kernels("radii", radii, None, families.disk(checks.radius("max_radius", max_radius, MAX_ANALYTIC_RADIUS)))


def radial_kernel(profile: Tensor, *, normalize: Normalization = "softmax", support: Support = "disk") -> Tensor:
    """The kernels of `radial_blur`, as pictures.

    Args:
        profile: (P, R+1): the map's values at P pixels.
        normalize, support: as for `radial_blur`.

    Returns, raises: as `gaussian_kernel`, but with normalize "none" their sum is what it is.
    """
    checks.choice("normalize", normalize, NORMALIZATIONS)
    checks.choice("support", support, SUPPORTS)
    checks.vectors("profile", profile, (2, MAX_RADIUS + 1))
    return _kernels("profile", profile, profile.shape[1], families.radial(profile.shape[1] - 1, support, normalize))


def isotropic_kernel(tap_weights: Tensor, radius: int) -> Tensor:
    """The kernels of `isotropic_blur`, as pictures.

    Args:
        tap_weights: (P, (R+1)(R+2)/2): the map's values at P pixels.
        radius: R, 1 to 15.

    Returns, raises: as `gaussian_kernel`, but their sum is what it is.
    """
    kernel = families.taps(checks.radius("radius", radius, MAX_RADIUS))
    return _kernels("tap_weights", tap_weights, kernel.parameter_channels, kernel)


def _kernels(name: str, values: Tensor, channels: int | None, kernel: Kernel) -> Tensor:
    """The kernels from (P,), where channels is None, or (P, channels)."""
    checks.vectors(name, values, None if channels is None else (channels, channels))
    if values.dtype in (torch.float16, torch.bfloat16):
        return _kernels(name, values.float(), channels, kernel).to(values.dtype)
    return torch_backend.kernels(values[:, None] if channels is None else values, kernel)
