"""The naive operators: the definition in code, and the baseline of the benchmarks.

Shaped like the published algorithm: for every radius, a tensor of K² shifted images and a tensor of K² weights. Slow
and large on purpose; read it to know what the operators compute.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reblur_ops.families import Kernel
from reblur_ops.geometry import class_map, distance_classes, interpolation

Offset = tuple[int, int]


class Component(NamedTuple):
    """A part of every pixel's kernel: Σ of these is the kernel."""

    radius: int
    taps: list[Offset]  # (dy, dx)
    kernels: Tensor  # (N, taps, H, W)
    weight: Tensor | None  # (N, 1, H, W); None for 1


def pad(image: Tensor, radius: int, padding: str) -> Tensor:
    """The image with `radius` pixels more on each side; zeros, replicate or reflect."""
    mode = "constant" if padding == "zeros" else padding
    return F.pad(image, (radius, radius, radius, radius), mode=mode)


def unpad(image: Tensor, radius: int, padding: str) -> Tensor:
    """The adjoint of `pad`: what stands beyond the border goes to the pixel that it was a copy of, or nowhere."""
    if padding == "zeros":
        return image[:, :, radius : image.shape[2] - radius, radius : image.shape[3] - radius]
    for axis in (2, 3):
        size = image.shape[axis] - 2 * radius
        index = torch.arange(-radius, size + radius, device=image.device)
        mirrored = size - 1 - (size - 1 - index.abs()).abs()
        source = index.clamp(0, size - 1) if padding == "replicate" else mirrored
        shape = [*image.shape]
        shape[axis] = size
        image = image.new_zeros(shape).index_add(axis, source, image)
    return image


def taps_of(radius: int, support: str) -> list[Offset]:
    """The offsets (dy, dx) that a kernel has a weight for."""
    window = range(-radius, radius + 1)
    taps = [(dy, dx) for dy in window for dx in window]
    return taps if support == "square" else [(dy, dx) for dy, dx in taps if dy**2 + dx**2 <= radius**2]


def interpolated(profile: Tensor, radius: int, taps: list[Offset]) -> Tensor:
    """The profile, (N, radius+1, H, W), linear between integer distances and 0 beyond the last: (N, taps, H, W)."""
    values = []
    for dy, dx in taps:
        ring, fraction = interpolation(dy**2 + dx**2)
        if dy**2 + dx**2 > radius**2:
            values.append(torch.zeros_like(profile[:, 0]))
        elif fraction == 0:
            values.append(profile[:, ring])
        else:
            values.append((1 - fraction) * profile[:, ring] + fraction * profile[:, ring + 1])
    return torch.stack(values, dim=1)


def clamped(values: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Compute `torch.clamp`, with derivative 1 at the bounds, and NaN where the value is NaN, in every PyTorch."""
    if low > -math.inf:
        values = torch.where(values < low, low, values)
    return torch.where(values > high, high, values) if high < math.inf else values


def components(parameters: Tensor, weights: Tensor | None, kernel: Kernel) -> Iterator[Component]:
    """The kernels of all pixels, by the formulas of the functions in `functional`."""
    radius = kernel.radius
    if kernel.family == "seeds":
        assert weights is not None
        yield Component(0, [(0, 0)], torch.ones_like(weights[:, :1]), weights[:, :1])
        blocks = parameters.abs().split([radius + 1 for radius in kernel.radii], dim=1)
        for n, (radius, block) in enumerate(zip(kernel.radii, blocks, strict=True)):
            taps = taps_of(radius, kernel.support)
            yield Component(radius, taps, interpolated(block, radius, taps).softmax(dim=1), weights[:, n + 1 : n + 2])
        return
    taps = taps_of(radius, kernel.support if kernel.family == "radial" else "square")
    if kernel.family == "taps":
        plane_of = class_map(radius, parameters.device)
        planes = torch.stack([plane_of[radius + dy, radius + dx] for dy, dx in taps])
        yield Component(radius, taps, parameters[:, planes], None)
        return
    if kernel.family == "radial":
        values = interpolated(parameters, radius, taps)
        if kernel.normalize == "softmax":
            yield Component(radius, taps, values.softmax(dim=1), None)
            return
        if kernel.normalize == "none":
            yield Component(radius, taps, values, None)
            return
    else:
        squared = parameters.new_tensor([dy**2 + dx**2 for dy, dx in taps])[:, None, None]
        if kernel.family == "gaussian":
            # With a smaller σ, exp would give 0 for all taps but the centre's: the same without a division by 0.
            sigma = clamped(parameters.abs(), low=0.025)
            values = torch.exp(-squared / (2 * sigma**2))
        else:
            rho = clamped(parameters.abs(), high=radius)
            values = clamped(rho + 0.5 - squared.sqrt(), 0, 1)
    yield Component(radius, taps, values / values.sum(dim=1, keepdim=True), None)


def unblurred(image: Tensor, parameters: Tensor, weights: Tensor | None) -> Tensor:
    """A copy of an empty image that depends on all arguments, so that each has a gradient: zeros of its shape."""
    for tensor in (parameters, weights):
        if tensor is not None:
            image = image + 0 * tensor.sum().to(image.dtype)
    return image.clone()


def gather(image: Tensor, parameters: Tensor, weights: Tensor | None, kernel: Kernel, padding: str) -> Tensor:
    """y(p) = Σ_u k(p, u)·x(p + u): a pixel uses its own kernel. Without checks, as all here.

    Args:
        image: (N, C, H, W).
        parameters: (N, kernel.parameter_channels, H, W).
        weights: (N, S+1, H, W), for seeds alone.
    """
    if image.numel() == 0:
        return unblurred(image, parameters, weights)
    if image.dtype in (torch.float16, torch.bfloat16):
        weights = None if weights is None else weights.float()
        return gather(image.float(), parameters.float(), weights, kernel, padding).to(image.dtype)
    h, w = image.shape[2:]
    output = torch.zeros_like(image)
    for radius, taps, kernels, weight in components(parameters, weights, kernel):
        padded = pad(image, radius, padding)
        shifted = torch.stack(
            [padded[:, :, radius + dy : radius + dy + h, radius + dx : radius + dx + w] for dy, dx in taps], dim=2
        )
        blurred = (shifted * kernels.unsqueeze(1)).sum(dim=2)
        output = output + (blurred if weight is None else weight * blurred)
    return output


def scatter(image: Tensor, parameters: Tensor, weights: Tensor | None, kernel: Kernel, padding: str) -> Tensor:
    """y(q) = Σ_p k(p, q - p)·x(p): a pixel spreads its value with its own kernel. The adjoint of `gather` in the image.

    Padding is adjoint, too: what falls beyond the border goes to the pixel that the padding there is a copy of; with
    zeros it is lost.
    """
    if image.numel() == 0:
        return unblurred(image, parameters, weights)
    if image.dtype in (torch.float16, torch.bfloat16):
        weights = None if weights is None else weights.float()
        return scatter(image.float(), parameters.float(), weights, kernel, padding).to(image.dtype)
    output = torch.zeros_like(image)
    for radius, taps, kernels, weight in components(parameters, weights, kernel):
        spread = (image if weight is None else weight * image).unsqueeze(2) * kernels.unsqueeze(1)
        canvas = sum(
            F.pad(plane, (radius + dx, radius - dx, radius + dy, radius - dy))
            for (dy, dx), plane in zip(taps, spread.unbind(2), strict=True)
        )
        assert isinstance(canvas, Tensor)
        output = output + unpad(canvas, radius, padding)
    return output


def cost_volume(
    image: Tensor, target: Tensor, bank: Tensor, radius: int, slack: int, cell: int, root: bool, padding: str
) -> Tensor:
    """The error of the image, blurred by each kernel of the bank and displaced, against the target, in cells."""
    if image.dtype in (torch.float16, torch.bfloat16):
        tensors = image.float(), target.float(), bank.float()
        return cost_volume(*tensors, radius, slack, cell, root, padding).to(image.dtype)
    if image.numel() == 0 or not len(bank) or image.is_meta:
        return image.new_zeros(compared_shape(image, len(bank), slack, cell))
    h, w = image.shape[2:]
    planes = class_map(radius, image.device).flatten().tolist()
    offsets = [(dy, dx) for dy in range(2 * radius + 1) for dx in range(2 * radius + 1)]
    padded = pad(image, radius, padding)
    costs = []
    for weights in bank:
        blurred = torch.zeros_like(image)
        for plane, (dy, dx) in zip(planes, offsets, strict=True):
            if weights[plane] != 0:
                blurred = blurred + weights[plane] * padded[:, :, dy : dy + h, dx : dx + w]
        costs.append(displaced_errors(blurred, target, slack, cell, root))
    return torch.stack(costs, dim=1)


def displaced_errors(blurred: Tensor, target: Tensor, slack: int, cell: int, root: bool) -> Tensor:
    """(N, (2 slack + 1)², H/cell, W/cell): the mean square error at each displacement of the blurred image."""
    if blurred.numel() == 0:
        return blurred.new_zeros(compared_shape(blurred, 1, slack, cell)).squeeze(1)
    if root:
        blurred, target = blurred.clamp_min(0).sqrt(), target.clamp_min(0).sqrt()
    h, w = target.shape[2:]
    padded = F.pad(blurred, (slack,) * 4, mode="replicate")
    side = range(2 * slack + 1)
    errors = [(padded[..., y : y + h, x : x + w] - target).square().mean(1) for y in side for x in side]
    return F.avg_pool2d(torch.stack(errors, dim=1), cell)


def compared_shape(image: Tensor, kernels: int, slack: int, cell: int) -> tuple[int, int, int, int, int]:
    """The shape of a cost volume."""
    n, _, h, w = image.shape
    return n, kernels, (2 * slack + 1) ** 2, h // cell, w // cell


def class_weights(parameters: Tensor, weights: Tensor | None, kernel: Kernel) -> Tensor:
    """(N, classes, H, W): each class's weight, read off one of its taps."""
    if parameters.dtype in (torch.float16, torch.bfloat16):
        weights = None if weights is None else weights.float()
        return class_weights(parameters.float(), weights, kernel).to(parameters.dtype)
    planes = {cls: torch.zeros_like(parameters[:, 0]) for cls in distance_classes(kernel.radius)}
    for _, taps, kernels, weight in components(parameters, weights, kernel):
        by_tap = dict(zip(taps, (kernels if weight is None else weight * kernels).unbind(1), strict=True))
        for cls in planes:
            if cls in by_tap:
                planes[cls] = planes[cls] + by_tap[cls]
    return torch.stack(list(planes.values()), dim=1)
