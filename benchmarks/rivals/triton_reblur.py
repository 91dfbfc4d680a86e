# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The fused operator in Triton: what a good engineer would try before CUDA.

For NVIDIA GPUs, where triton is installed; radii up to 7, float32 inside, zeros beyond the image, support "square".
A program works on a run of pixels of one row, with the distance classes along the other axis of its tiles: a class's
weight, and the sum of its taps, are then elements of one tile, and sums over classes are reductions of it.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

import reblur_ops
from reblur_ops.geometry import distance_classes, interpolation

CLASSES = 64  # lanes along the axis of classes: a power of two, 36 of them in use for R = 7
RINGS = 16  # at least 16 rows for tl.dot
MAX_RADIUS = 7
BLOCK = 32  # pixels of a program


@triton.jit
def class_kernel(seeds, planes, offset, radius, pixel, inside, ring, fraction, squared, times, CLASSES: tl.constexpr):
    """One softmax kernel: the weight of a tap of each class, [CLASSES, BLOCK]; 0 for classes beyond the window."""
    near = tl.abs(tl.load(seeds + (offset + tl.minimum(ring, radius)[:, None]) * planes + pixel, inside, 0.0))
    far = tl.abs(tl.load(seeds + (offset + tl.minimum(ring + 1, radius)[:, None]) * planes + pixel, inside, 0.0))
    within = (squared <= radius * radius)[:, None]
    logit = tl.where(within, near.to(tl.float32) + fraction[:, None] * (far.to(tl.float32) - near.to(tl.float32)), 0.0)
    # Taps of this window: class (a, b) has b <= radius. `times` is 0 for lanes that are no class.
    window = (times > 0)[:, None] & (tl.arange(0, CLASSES) < (radius + 1) * (radius + 2) // 2)[:, None]
    logit = tl.where(window, logit, -float("inf"))
    weight = tl.exp(logit - tl.max(logit, axis=0)[None, :])
    return weight / tl.sum(weight * times[:, None], axis=0)[None, :], within & window


@triton.jit
def kernel_weights(
    seeds, weights, radii, planes, pixel, inside, ring, fraction, squared, times,
    COUNT: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """The pixels' kernels, [CLASSES, BLOCK]: Σ w_n k_n, and w_0 at the centre."""
    lanes = tl.arange(0, CLASSES)
    total = tl.where((lanes == 0)[:, None], tl.load(weights + pixel, inside, 0.0).to(tl.float32), 0.0)
    offset = 0
    for n in range(COUNT):
        radius = tl.load(radii + n)
        taps, _ = class_kernel(seeds, planes, offset, radius, pixel, inside, ring, fraction, squared, times, CLASSES)
        total += tl.load(weights + (n + 1) * planes + pixel, inside, 0.0).to(tl.float32) * taps
        offset += radius + 1
    return total


@triton.jit
def class_sums(image, y, x, height, width, a, b, times):
    """The image summed over the taps of each class, [CLASSES, BLOCK]: up to eight loads for each element."""
    total = tl.zeros([a.shape[0], x.shape[0]], tl.float32)
    for swapped in tl.static_range(2):
        dy0 = b if swapped else a
        dx0 = a if swapped else b
        for sign_y in tl.static_range(2):
            for sign_x in tl.static_range(2):
                dy = -dy0 if sign_y else dy0
                dx = -dx0 if sign_x else dx0
                # Each tap once: not the mirror image of a tap on an axis, nor the swap of one on the diagonal.
                distinct = times > 0
                if sign_y:
                    distinct = distinct & (dy0 != 0)
                if sign_x:
                    distinct = distinct & (dx0 != 0)
                if swapped:
                    distinct = distinct & (a != b)
                row, column = y + dy, x[None, :] + dx[:, None]
                mask = (distinct & (row >= 0) & (row < height))[:, None] & (column >= 0) & (column < width)
                total += tl.load(image + row[:, None] * width + column, mask, 0.0).to(tl.float32)
    return total


@triton.jit
def forward_kernel(
    image, seeds, weights, output, tables, fractions, radii, seed_channels, height, width, planes,
    CHANNELS: tl.constexpr, COUNT: tl.constexpr, CLASSES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    lanes = tl.arange(0, CLASSES)
    a, b = tl.load(tables + lanes), tl.load(tables + CLASSES + lanes)
    ring, times = tl.load(tables + 2 * CLASSES + lanes), tl.load(tables + 3 * CLASSES + lanes)
    fraction = tl.load(fractions + lanes)
    inside, pixel = (x < width)[None, :], (y * width + x)[None, :]
    kernel = kernel_weights(
        seeds + n * seed_channels * planes, weights + n * (COUNT + 1) * planes, radii, planes, pixel, inside,
        ring, fraction, a * a + b * b, times, COUNT, CLASSES,
    )  # fmt: skip
    for c in range(CHANNELS):
        plane = (n * CHANNELS + c) * planes
        value = tl.sum(kernel * class_sums(image + plane, y, x, height, width, a, b, times), axis=0)
        tl.store(output + plane + y * width + x, value.to(output.dtype.element_ty), x < width)


@triton.jit
def parameter_gradients_kernel(
    image, seeds, weights, grad_output, grad_seeds, grad_weights, by_class, tables, fractions, radii,
    seed_channels, classes, height, width, planes,
    CHANNELS: tl.constexpr, COUNT: tl.constexpr, CLASSES: tl.constexpr, RINGS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    lanes, rings = tl.arange(0, CLASSES), tl.arange(0, RINGS)
    a, b = tl.load(tables + lanes), tl.load(tables + CLASSES + lanes)
    ring, times = tl.load(tables + 2 * CLASSES + lanes), tl.load(tables + 3 * CLASSES + lanes)
    fraction = tl.load(fractions + lanes)
    squared = a * a + b * b
    inside, pixel = (x < width)[None, :], (y * width + x)[None, :]
    seeds += n * seed_channels * planes
    grad_seeds += n * seed_channels * planes
    weights += n * (COUNT + 1) * planes
    grad_weights += n * (COUNT + 1) * planes

    # D_k = Σ_c g_c S_k, the gradient to each class weight.
    gradient = tl.zeros([CLASSES, BLOCK], tl.float32)
    for c in range(CHANNELS):
        plane = (n * CHANNELS + c) * planes
        g = tl.load(grad_output + plane + y * width + x, x < width, 0.0).to(tl.float32)
        gradient += g[None, :] * class_sums(image + plane, y, x, height, width, a, b, times)

    centre = (lanes == 0)[:, None]
    total = tl.where(centre, tl.load(weights + pixel, inside, 0.0).to(tl.float32), 0.0)
    centre_gradient = tl.sum(tl.where(centre, gradient, 0.0), axis=0)
    tl.store(grad_weights + y * width + x, centre_gradient.to(grad_weights.dtype.element_ty), x < width)
    offset = 0
    for index in range(COUNT):
        radius = tl.load(radii + index)
        taps, within = class_kernel(
            seeds, planes, offset, radius, pixel, inside, ring, fraction, squared, times, CLASSES
        )
        weight = tl.load(weights + (index + 1) * planes + pixel, inside, 0.0).to(tl.float32)
        total += weight * taps
        grad_weight = tl.sum(taps * gradient, axis=0)
        at = (index + 1) * planes + y * width + x
        tl.store(grad_weights + at, grad_weight.to(grad_weights.dtype.element_ty), x < width)
        logit = weight * taps * (gradient - times[:, None] * grad_weight[None, :])
        logit = tl.where(within, logit, 0.0)
        # A class's gradient goes to the two seeds that it lies between: a product with their shares, [RINGS, CLASSES].
        share = tl.where(ring[None, :] == rings[:, None], 1.0 - fraction[None, :], 0.0)
        share += tl.where(ring[None, :] + 1 == rings[:, None], fraction[None, :], 0.0)
        seed_gradients = tl.dot(share, logit, input_precision="ieee")
        own = inside & (rings <= radius)[:, None]
        at = (offset + rings)[:, None] * planes + pixel
        seed = tl.load(seeds + at, own, 0.0).to(tl.float32)
        sign = tl.where(seed > 0, 1.0, tl.where(seed < 0, -1.0, 0.0))
        tl.store(grad_seeds + at, (seed_gradients * sign).to(grad_seeds.dtype.element_ty), own)
        offset += radius + 1
    at = n * classes * planes + lanes[:, None].to(tl.int64) * planes + pixel
    tl.store(by_class + at, total, inside & (lanes < classes)[:, None])


@triton.jit
def scatter_kernel(
    by_class, grad_output, grad_image, channels, classes, height, width, planes,
    RADIUS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y(q) = Σ_u T(q - u, |u|) g(q - u), of one channel: gathered, so no two programs write to one place."""
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, plane = tl.program_id(1), tl.program_id(2).to(tl.int64)
    grad_output += plane * planes
    by_class += (plane // channels) * classes * planes
    total = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(2 * RADIUS + 1):
        row = y + i - RADIUS
        down = tl.maximum(i - RADIUS, RADIUS - i)
        for j in tl.static_range(2 * RADIUS + 1):
            column = x + j - RADIUS
            across = tl.maximum(j - RADIUS, RADIUS - j)
            low, high = tl.minimum(down, across), tl.maximum(down, across)
            mask = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = row * width + column
            kernel = tl.load(by_class + (high * (high + 1) // 2 + low) * planes + at, mask, 0.0)
            total += kernel * tl.load(grad_output + at, mask, 0.0).to(tl.float32)
    tl.store(grad_image + plane * planes + y * width + x, total.to(grad_image.dtype.element_ty), x < width)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """a, b, ring and multiplicity of each class, (4, CLASSES), and the fractions, (CLASSES,); 0 where there is none."""
    classes = distance_classes(MAX_RADIUS)
    places = [interpolation(cls.squared_distance) for cls in classes]
    columns = [(cls.a, cls.b, place.ring, cls.multiplicity) for cls, place in zip(classes, places, strict=True)]
    columns += [(0, 0, 0, 0)] * (CLASSES - len(classes))
    fractions = [place.fraction for place in places] + [0.0] * (CLASSES - len(classes))
    table = torch.tensor(columns, dtype=torch.int32).T.contiguous()
    return table.to(device), torch.tensor(fractions, dtype=torch.float32, device=device)


@cache
def _radii(radii: tuple[int, ...], device: torch.device) -> Tensor:
    """On the device: a copy waits for it, and would be timed."""
    return torch.tensor(radii, dtype=torch.int32, device=device)


class _Reblur(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, seeds: Tensor, weights: Tensor, radii: tuple[int, ...]) -> Tensor:
        n, channels, height, width = image.shape
        output = torch.empty_like(image)
        radii_tensor = _radii(radii, image.device)
        grid = (math.ceil(width / BLOCK), height, n)
        forward_kernel[grid](
            image, seeds, weights, output, *_tables(image.device), radii_tensor, seeds.shape[1], height, width,
            height * width, CHANNELS=channels, COUNT=len(radii), CLASSES=CLASSES, BLOCK=BLOCK,
        )  # fmt: skip
        ctx.save_for_backward(image, seeds, weights, radii_tensor)
        ctx.radius = radii[-1]
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        image, seeds, weights, radii_tensor = ctx.saved_tensors
        grad_output = grad_output.contiguous()
        n, channels, height, width = image.shape
        grad_image, grad_seeds, grad_weights = (torch.empty_like(tensor) for tensor in (image, seeds, weights))
        classes = len(distance_classes(ctx.radius))
        by_class = torch.empty(n, classes, height, width, device=image.device)
        columns = math.ceil(width / BLOCK)
        parameter_gradients_kernel[(columns, height, n)](
            image, seeds, weights, grad_output, grad_seeds, grad_weights, by_class, *_tables(image.device),
            radii_tensor, seeds.shape[1], classes, height, width, height * width, CHANNELS=channels,
            COUNT=len(radii_tensor), CLASSES=CLASSES, RINGS=RINGS, BLOCK=BLOCK,
        )  # fmt: skip
        scatter_kernel[(columns, height, n * channels)](
            by_class, grad_output, grad_image, channels, classes, height, width, height * width,
            RADIUS=ctx.radius, BLOCK=BLOCK,
        )  # fmt: skip
        return grad_image, grad_seeds, grad_weights, None


def reblur(
    image: Tensor, seeds: Tensor, weights: Tensor, *, radii: Sequence[int] = reblur_ops.PUBLISHED_RADII
) -> Tensor:
    """Compute `reblur_ops.reblur` with its defaults, on contiguous tensors.

    Raises:
        ValueError: a radius above 7, for which there are too many classes.
    """
    if radii[-1] > MAX_RADIUS:
        raise ValueError(f"radii must be at most {MAX_RADIUS}, got {radii[-1]}")
    result: Tensor = _Reblur.apply(image, seeds, weights, tuple(radii))  # type: ignore[no-untyped-call]
    return result
