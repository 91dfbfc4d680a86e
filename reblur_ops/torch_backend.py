"""The operators in pure PyTorch: class sums by fixed 0/1 convolutions, then a dot product per pixel.

For machines where nothing was compiled, and for export. Same results as the native kernels to rounding, and every
derivative that PyTorch has. On a GPU rounding is that of its convolutions: ten bits where
`torch.backends.cudnn.allow_tf32` is on, as it is by default.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reblur_ops import checks
from reblur_ops.families import Kernel
from reblur_ops.geometry import MAX_RADIUS, DistanceClass, class_map, distance_classes, interpolation
from reblur_ops.reference import clamped, compared_shape, displaced_errors, pad, unblurred, unpad


def gather(image: Tensor, parameters: Tensor, weights: Tensor | None, kernel: Kernel, padding: str) -> Tensor:
    """Compute `reference.gather`. Takes memory for the (R+1)(R+2)/2 class sums of each channel, up to R = 15."""
    if image.numel() == 0:
        return unblurred(image, parameters, weights)
    if image.dtype in (torch.float16, torch.bfloat16):
        return gather(image.float(), *_float(parameters, weights), kernel, padding).to(image.dtype)
    n, c, h, w = image.shape
    r = kernel.radius
    padded = pad(image, r, padding)
    if r > MAX_RADIUS:
        return _gather_by_row(padded, parameters, kernel)
    weights_of_class = class_weights(parameters, weights, kernel)
    sums = F.conv2d(padded.reshape(n * c, 1, h + 2 * r, w + 2 * r), _class_filters(r, image)).view(n, c, -1, h, w)
    return (sums * weights_of_class.unsqueeze(1)).sum(dim=2)


def scatter(image: Tensor, parameters: Tensor, weights: Tensor | None, kernel: Kernel, padding: str) -> Tensor:
    """Compute `reference.scatter`. Takes memory for (R+1)(R+2)/2 planes of each channel, up to R = 15."""
    if image.numel() == 0:
        return unblurred(image, parameters, weights)
    if image.dtype in (torch.float16, torch.bfloat16):
        return scatter(image.float(), *_float(parameters, weights), kernel, padding).to(image.dtype)
    n, c, h, w = image.shape
    r = kernel.radius
    if r > MAX_RADIUS:
        return unpad(_scatter_by_row(image, parameters, kernel), r, padding)
    weights_of_class = class_weights(parameters, weights, kernel)
    filters = _class_filters(r, image)
    # The filters are 0 where a class has no tap, and 0 · NaN is NaN: weights that are not finite spoil their own taps,
    # which the filters tell, and not the window of the largest radius.
    finite = weights_of_class.detach().isfinite()
    spoilt = F.conv_transpose2d((~finite).to(image.dtype), filters) > 0.5  # a sum of ones, however it is computed
    weights_of_class = torch.where(finite, weights_of_class, 0)
    spread = (image.unsqueeze(2) * weights_of_class.unsqueeze(1)).reshape(n * c, -1, h, w)
    canvas = F.conv_transpose2d(spread, filters).view(n, c, h + 2 * r, w + 2 * r)
    # NaN is added, so that the gradients of the other pixels pass.
    return unpad(canvas + torch.where(spoilt, math.nan, 0).to(canvas.dtype), r, padding)


def class_weights(parameters: Tensor, weights: Tensor | None, kernel: Kernel) -> Tensor:
    """(N, classes, H, W): the weight of a tap of each distance class."""
    if parameters.dtype in (torch.float16, torch.bfloat16):
        return class_weights(*_float(parameters, weights), kernel).to(parameters.dtype)
    if kernel.family == "seeds":
        assert weights is not None
        return _seeds(parameters, weights, kernel)
    if kernel.family == "radial":
        return _radial(parameters, kernel)
    if kernel.family == "taps":
        return parameters
    classes = distance_classes(kernel.radius)
    return _normalised(_analytic(parameters, kernel, classes), classes)


def _float(parameters: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return parameters.float(), None if weights is None else weights.float()


def _class_filters(radius: int, like: Tensor) -> Tensor:
    """(classes, 1, 2R+1, 2R+1): 1 where a tap belongs to the class."""
    classes = torch.arange(len(distance_classes(radius)), device=like.device)
    return (class_map(radius, like.device) == classes[:, None, None]).to(like.dtype).unsqueeze(1)


def _multiplicities(classes: tuple[DistanceClass, ...], like: Tensor) -> Tensor:
    return like.new_tensor([cls.multiplicity for cls in classes])[:, None, None]


def _normalised(values: Tensor, classes: tuple[DistanceClass, ...]) -> Tensor:
    return values / (values * _multiplicities(classes, values)).sum(dim=1, keepdim=True)


def cost_volume(
    image: Tensor, target: Tensor, bank: Tensor, radius: int, slack: int, cell: int, root: bool, padding: str
) -> Tensor:
    """Compute `reference.cost_volume`: a convolution for each kernel, no larger than it reaches."""
    if image.dtype in (torch.float16, torch.bfloat16):
        tensors = image.float(), target.float(), bank.float()
        return cost_volume(*tensors, radius, slack, cell, root, padding).to(image.dtype)
    if image.numel() == 0 or not len(bank) or image.is_meta:
        return image.new_zeros(compared_shape(image, len(bank), slack, cell))
    costs = []
    for weights in bank:
        last = int(weights.nonzero()[-1]) if weights.any() else 0
        reach = (math.isqrt(8 * last + 1) - 1) // 2  # the b of class number b(b+1)/2 + a
        kernel = weights[class_map(reach, image.device)]
        padded = pad(image, reach, padding)
        blurred = F.conv2d(padded.flatten(0, 1).unsqueeze(1), kernel[None, None]).view(image.shape)
        costs.append(displaced_errors(blurred, target, slack, cell, root))
    return torch.stack(costs, dim=1)


def kernels(values: Tensor, kernel: Kernel) -> Tensor:
    """(P, 2R+1, 2R+1): the kernels of a family without weights, from P pixels' parameters, (P, channels)."""
    planes = values[..., None, None]
    if kernel.family in ("gaussian", "disk"):
        classes = distance_classes(kernel.radius)
        weights = _normalised(_analytic(planes, kernel, classes), classes)
    else:
        weights = class_weights(planes, None, kernel)
    return weights[:, class_map(kernel.radius, values.device), 0, 0]


# ---- Families given by class weights ----


def _kernel_layout(radius: int, support: str) -> tuple[list[int], list[float], list[float], int, list[int]]:
    """The recipe by which a kernel of one radius is made from its profile.

    Returns rings, fractions and log-multiplicities of the classes within the disk, the number of taps beyond it, and
    for each class of the window the index of its softmax entry; one past the classes within stands for the taps beyond.
    """
    classes = distance_classes(radius)
    within = [k for k, cls in enumerate(classes) if cls.squared_distance <= radius**2]
    places = [interpolation(classes[k].squared_distance) for k in within]
    beyond = sum(cls.multiplicity for cls in classes) - sum(classes[k].multiplicity for k in within)
    entry = {k: i for i, k in enumerate(within)}
    return (
        [place.ring for place in places],
        [place.fraction for place in places],
        [math.log(classes[k].multiplicity) for k in within],
        beyond if support == "square" else 0,
        [entry.get(k, len(within)) for k in range(len(classes))],
    )


def _interpolated(profile: Tensor, rings: list[int], fractions: list[float]) -> Tensor:
    ring = torch.tensor(rings, device=profile.device)
    # The farther neighbour's share is 0 where the distance is an integer; `clamp` keeps its index inside.
    farther = (ring + 1).clamp(max=profile.shape[1] - 1)
    near, far = profile.index_select(1, ring), profile.index_select(1, farther)
    share = profile.new_tensor(fractions)[:, None, None]
    # 0 · ∞ is NaN: a profile may be -∞ where there shall be no tap.
    return torch.where(share == 0, near, (1 - share) * near + share * far)


def _softmax_kernel(profile: Tensor, support: str) -> Tensor:
    """(N, classes, H, W): the softmax over the taps of the profile, (N, R+1, H, W), that is 0 beyond d = R."""
    rings, fractions, log_multiplicity, beyond, entries = _kernel_layout(profile.shape[1] - 1, support)
    # The largest is taken away first, so that rounding is relative to the differences, however large the profile is.
    largest = profile.amax(dim=1, keepdim=True)
    # A class's taps share its probability: softmax over classes with log-multiplicities, divided by multiplicities.
    log_taps = profile.new_tensor(log_multiplicity)[:, None, None]
    logits = _interpolated(profile - largest, rings, fractions) + log_taps
    if beyond:
        logits = torch.cat((logits, math.log(beyond) - largest), dim=1)
        log_taps = F.pad(log_taps, (0, 0, 0, 0, 0, 1), value=math.log(beyond))
    kernel = logits.softmax(dim=1) / log_taps.exp()
    if support == "disk":
        kernel = F.pad(kernel, (0, 0, 0, 0, 0, 1))
    return kernel.index_select(1, torch.tensor(entries, device=profile.device))


def _seeds(seeds: Tensor, weights: Tensor, kernel: Kernel) -> Tensor:
    classes = len(distance_classes(kernel.radius))
    result = F.pad(weights[:, :1], (0, 0, 0, 0, 0, classes - 1))
    blocks = seeds.abs().split([radius + 1 for radius in kernel.radii], dim=1)
    for n, block in enumerate(blocks):
        mixed_in = weights[:, n + 1 : n + 2] * _softmax_kernel(block, kernel.support)
        result = result + F.pad(mixed_in, (0, 0, 0, 0, 0, classes - mixed_in.shape[1]))
    return result


def _radial(profile: Tensor, kernel: Kernel) -> Tensor:
    if kernel.normalize == "softmax":
        return _softmax_kernel(profile, kernel.support)
    rings, fractions, _, _, entries = _kernel_layout(kernel.radius, "disk")
    values = _interpolated(profile, rings, fractions)
    if kernel.normalize == "sum":
        within = [cls for cls in distance_classes(kernel.radius) if cls.squared_distance <= kernel.radius**2]
        values = _normalised(values, tuple(within))
    # The taps beyond the disk are 0, even where the sum is not finite.
    return F.pad(values, (0, 0, 0, 0, 0, 1)).index_select(1, torch.tensor(entries, device=profile.device))


# ---- Families given by a formula ----


def _analytic(parameters: Tensor, kernel: Kernel, classes: tuple[DistanceClass, ...]) -> Tensor:
    """(N, classes, H, W): the weight before normalisation, from (N, 1, H, W)."""
    squared = parameters.new_tensor([cls.squared_distance for cls in classes])[:, None, None]
    if kernel.family == "gaussian":
        # See reference.components.
        return torch.exp(-squared / (2 * clamped(parameters.abs(), low=0.025) ** 2))
    return clamped(clamped(parameters.abs(), high=kernel.radius) + 0.5 - squared.sqrt(), 0, 1)


# With R = 64 there are 2145 classes, too many planes to keep. Row b of them, (0, b) … (b, b), is computed where it
# is needed, and again by a backward pass.


def _by_row(row: Callable[..., tuple[Tensor, ...]], image: Tensor, parameters: Tensor, radius: int) -> list[Tensor]:
    """The sums over b = 0 … radius of row(image, parameters, b), with memory for one of them."""
    # What is computed again must be computed as it was before; a transform, such as torch.func.jvp, may have ended by
    # then, and torch.func.grad knows nothing of the hooks.
    run = row if checks.in_transform() else partial(checkpoint, row, use_reentrant=False)
    totals: list[Tensor] = []
    for b in range(radius + 1):
        terms = run(image, parameters, b)
        totals = [t + term for t, term in zip(totals, terms, strict=True)] if totals else list(terms)
    return totals


def _offsets(cls: DistanceClass) -> list[tuple[int, int]]:
    a, b = cls
    return sorted({(sy * y, sx * x) for y, x in ((a, b), (b, a)) for sy in (-1, 1) for sx in (-1, 1)})


def _row_of(parameters: Tensor, kernel: Kernel, b: int) -> tuple[tuple[DistanceClass, ...], Tensor, Tensor]:
    """The classes (0, b) … (b, b), their weights before normalisation, and the sum of those over the taps."""
    classes = tuple(DistanceClass(a, b) for a in range(b + 1))
    values = _analytic(parameters, kernel, classes)
    return classes, values, (values * _multiplicities(classes, values)).sum(dim=1, keepdim=True)


def _gather_by_row(padded: Tensor, parameters: Tensor, kernel: Kernel) -> Tensor:
    h, w = parameters.shape[2:]
    r = kernel.radius

    def row(padded: Tensor, parameters: Tensor, b: int) -> tuple[Tensor, Tensor]:
        classes, values, total = _row_of(parameters, kernel, b)
        output = padded.new_zeros(*padded.shape[:2], h, w)
        for cls, value in zip(classes, values.unbind(1), strict=True):
            taps = [padded[:, :, r + y : r + y + h, r + x : r + x + w] for y, x in _offsets(cls)]
            output = output + value.unsqueeze(1) * torch.stack(taps).sum(dim=0)
        return output, total

    output, total = _by_row(row, padded, parameters, r)
    return output / total


def _scatter_by_row(image: Tensor, parameters: Tensor, kernel: Kernel) -> Tensor:
    r = kernel.radius
    total = sum(_row_of(parameters, kernel, b)[2] for b in range(r + 1))

    def row(image: Tensor, parameters: Tensor, b: int) -> tuple[Tensor]:
        classes, values, _ = _row_of(parameters, kernel, b)
        canvas = image.new_zeros(*image.shape[:2], image.shape[2] + 2 * r, image.shape[3] + 2 * r)
        for cls, value in zip(classes, values.unbind(1), strict=True):
            spread = image * value.unsqueeze(1)
            for y, x in _offsets(cls):
                canvas = canvas + F.pad(spread, (r + x, r - x, r + y, r - y))
        return (canvas,)

    (canvas,) = _by_row(row, image / total, parameters, r)
    return canvas
