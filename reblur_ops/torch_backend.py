"""The operator in pure PyTorch: class sums by fixed 0/1 convolutions, then a dot product per pixel.

For machines where nothing was compiled, and for export. Same results as the native kernels to rounding, and every
derivative that PyTorch has.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reblur_ops.geometry import class_map, distance_classes, interpolation
from reblur_ops.reference import pad


def _kernel_layout(radius: int, support: str) -> tuple[list[int], list[float], list[float], int, list[int]]:
    """How a kernel of one radius is put together from its seeds.

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


def class_weights(seeds: Tensor, weights: Tensor, *, radii: Sequence[int], support: str) -> Tensor:
    """As `reblur_ops.class_weights`, without its checks."""
    if seeds.dtype in (torch.float16, torch.bfloat16):
        return class_weights(seeds.float(), weights.float(), radii=radii, support=support).to(seeds.dtype)
    classes = len(distance_classes(radii[-1]))
    result = F.pad(weights[:, :1], (0, 0, 0, 0, 0, classes - 1))
    blocks = seeds.abs().split([radius + 1 for radius in radii], dim=1)
    for n, (radius, block) in enumerate(zip(radii, blocks, strict=True)):
        rings, fractions, log_multiplicity, beyond, entries = _kernel_layout(radius, support)
        ring = torch.tensor(rings, device=seeds.device)
        fraction = seeds.new_tensor(fractions)[:, None, None]
        # The largest is taken away first, so that rounding is relative to the differences, however large the seeds are.
        largest = block.amax(dim=1, keepdim=True)
        block = block - largest
        # The farther neighbour's share is 0 where the distance is an integer; `clamp` keeps its index inside.
        logits = torch.lerp(block[:, ring], block[:, (ring + 1).clamp(max=radius)], fraction)
        # A class's taps share its probability: softmax over classes with log-multiplicities, divided by multiplicities.
        log_taps = seeds.new_tensor(log_multiplicity)[:, None, None]
        logits = logits + log_taps
        if beyond:
            logits = torch.cat((logits, math.log(beyond) - largest), dim=1)
            log_taps = F.pad(log_taps, (0, 0, 0, 0, 0, 1), value=math.log(beyond))
        kernel = weights[:, n + 1 : n + 2] * logits.softmax(dim=1) / log_taps.exp()
        if support == "disk":
            kernel = F.pad(kernel, (0, 0, 0, 0, 0, 1))
        kernel = kernel[:, torch.tensor(entries, device=seeds.device)]
        result = result + F.pad(kernel, (0, 0, 0, 0, 0, classes - kernel.shape[1]))
    return result


def _class_filters(radius: int, like: Tensor) -> Tensor:
    """(classes, 1, 2R+1, 2R+1): 1 where a tap belongs to the class."""
    classes = torch.arange(len(distance_classes(radius)), device=like.device)
    return (class_map(radius, like.device) == classes[:, None, None]).to(like.dtype).unsqueeze(1)


def reblur(
    image: Tensor, seeds: Tensor, weights: Tensor, *, radii: Sequence[int], support: str, padding: str
) -> Tensor:
    """As `reblur_ops.reblur`, without its checks. Takes memory for the (R+1)(R+2)/2 class sums of each channel."""
    if image.numel() == 0:
        return image.clone()
    if image.dtype in (torch.float16, torch.bfloat16):
        options = {"radii": radii, "support": support, "padding": padding}
        return reblur(image.float(), seeds.float(), weights.float(), **options).to(image.dtype)  # type: ignore[arg-type]
    n, c, h, w = image.shape
    kernel = class_weights(seeds, weights, radii=radii, support=support)
    padded = pad(image, radii[-1], padding).reshape(n * c, 1, h + 2 * radii[-1], w + 2 * radii[-1])
    sums = F.conv2d(padded, _class_filters(radii[-1], image)).view(n, c, -1, h, w)
    return (sums * kernel.unsqueeze(1)).sum(dim=2)
