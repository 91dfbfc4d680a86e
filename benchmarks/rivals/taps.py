"""Explicit kernels: K² weights for every pixel, applied tap by tap, as kernel-prediction networks do."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import reblur_ops
from reblur_ops.geometry import class_map


def reblur(
    image: Tensor, seeds: Tensor, weights: Tensor, *, radii: Sequence[int] = reblur_ops.PUBLISHED_RADII
) -> Tensor:
    """Compute `reblur_ops.reblur` by default: the kernels spread out to (N, K², H, W), then a loop over the taps.

    Forward, nothing larger than the kernels is in memory.
    """
    if image.dtype in (torch.float16, torch.bfloat16):  # as all contenders: computed in float32, rounded once
        return reblur(image.float(), seeds.float(), weights.float(), radii=radii).to(image.dtype)
    radius = radii[-1]
    with reblur_ops.use_backend("torch"):
        by_class = reblur_ops.tap_weights(seeds, weights, radii=radii)
    # Split at once: to slice the kernels for each tap would make its gradient anew, all K² planes, for each tap.
    kernels = by_class.index_select(1, class_map(radius, image.device).flatten()).unbind(1)
    padded = F.pad(image, (radius,) * 4)
    height, width = image.shape[2:]
    size = 2 * radius + 1
    output = torch.zeros_like(image)
    for tap, kernel in enumerate(kernels):
        dy, dx = divmod(tap, size)
        output = output + kernel.unsqueeze(1) * padded[:, :, dy : dy + height, dx : dx + width]
    return output
