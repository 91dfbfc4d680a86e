"""The naive operator: the definition in code, and the baseline of the benchmarks.

Shaped like the published algorithm: for every radius, a tensor of K² shifted images and a tensor of K² weights. Slow
and large on purpose; read it to know what `reblur_ops.reblur` computes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reblur_ops.geometry import distance_classes, interpolation

Offset = tuple[int, int]


def pad(image: Tensor, radius: int, padding: str) -> Tensor:
    """The image with `radius` pixels more on each side; zeros, replicate or reflect."""
    mode = "constant" if padding == "zeros" else padding
    return F.pad(image, (radius, radius, radius, radius), mode=mode)


def kernel_taps(radius: int, support: str) -> list[Offset]:
    """The offsets (dy, dx) that a kernel has a weight for."""
    window = range(-radius, radius + 1)
    taps = [(dy, dx) for dy in window for dx in window]
    return taps if support == "square" else [(dy, dx) for dy, dx in taps if dy**2 + dx**2 <= radius**2]


def kernel(seeds: Tensor, radius: int, support: str) -> Tensor:
    """One softmax kernel per pixel, (N, taps, H, W), from the seeds of its radius, (N, radius+1, H, W)."""
    seeds = seeds.abs()
    logits = []
    for dy, dx in kernel_taps(radius, support):
        ring, fraction = interpolation(dy**2 + dx**2)
        if dy**2 + dx**2 > radius**2:
            logits.append(torch.zeros_like(seeds[:, 0]))
        elif fraction == 0:
            logits.append(seeds[:, ring])
        else:
            logits.append((1 - fraction) * seeds[:, ring] + fraction * seeds[:, ring + 1])
    return torch.stack(logits, dim=1).softmax(dim=1)


def blur(image: Tensor, kernels: Tensor, radius: int, support: str, padding: str) -> Tensor:
    """Σ_u k(p, u)·x(p + u) at every pixel p, for kernels (N, taps, H, W)."""
    h, w = image.shape[2:]
    padded = pad(image, radius, padding)
    shifted = torch.stack(
        [
            padded[:, :, radius + dy : radius + dy + h, radius + dx : radius + dx + w]
            for dy, dx in kernel_taps(radius, support)
        ],
        dim=2,
    )
    return (shifted * kernels.unsqueeze(1)).sum(dim=2)


def reblur(
    image: Tensor, seeds: Tensor, weights: Tensor, *, radii: Sequence[int], support: str, padding: str
) -> Tensor:
    """As `reblur_ops.reblur`, without its checks."""
    if image.numel() == 0:
        return image.clone()
    if image.dtype in (torch.float16, torch.bfloat16):
        options = {"radii": radii, "support": support, "padding": padding}
        return reblur(image.float(), seeds.float(), weights.float(), **options).to(image.dtype)  # type: ignore[arg-type]
    output = weights[:, :1] * image
    blocks = seeds.split([radius + 1 for radius in radii], dim=1)
    for n, (radius, block) in enumerate(zip(radii, blocks, strict=True)):
        blurred = blur(image, kernel(block, radius, support), radius, support, padding)
        output = output + weights[:, n + 1 : n + 2] * blurred
    return output


def class_weights(seeds: Tensor, weights: Tensor, *, radii: Sequence[int], support: str) -> Tensor:
    """As `reblur_ops.class_weights`, without its checks: each class's weight read off one of its taps."""
    if seeds.dtype in (torch.float16, torch.bfloat16):
        return class_weights(seeds.float(), weights.float(), radii=radii, support=support).to(seeds.dtype)
    planes = {cls: torch.zeros_like(weights[:, 0]) for cls in distance_classes(radii[-1])}
    planes[distance_classes(0)[0]] = weights[:, 0]
    blocks = seeds.split([radius + 1 for radius in radii], dim=1)
    for n, (radius, block) in enumerate(zip(radii, blocks, strict=True)):
        kernels = dict(zip(kernel_taps(radius, support), kernel(block, radius, support).unbind(1), strict=True))
        for cls in planes:
            if cls in kernels:
                planes[cls] = planes[cls] + weights[:, n + 1] * kernels[cls]
    return torch.stack(list(planes.values()), dim=1)
