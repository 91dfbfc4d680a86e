"""Disks of the circle of confusion, as `reblur_ops.disk_blur` draws them on the pixel grid."""

import math

import torch
from torch import Tensor

import reblur_ops

from .light import Light, decode, encode


def blur_by(image: Tensor, coc: Tensor, *, max_radius: int, light: Light = "linear") -> Tensor:
    """Blur each pixel of an image by a disk.

    Args:
        image: (N, 3, H, W), sRGB values 0 … 1.
        coc: (N, 1, H, W), radius of the circle of confusion in pixels.
        max_radius: 1 to 64, pixels; larger coc count as this.
        light: where the blur is computed: `decode`.

    Returns:
        (N, 3, H, W), differentiable in image and coc.
    """
    blurred = reblur_ops.disk_blur(decode(image, light), coc, max_radius=max_radius, padding="replicate")
    return encode(blurred, light)


def disk_rms(coc: Tensor) -> Tensor:
    """RMS radius of the disks of `reblur_ops.disk_blur`, pixels, same shape: on the pixel grid it is not coc/√2."""
    reach = math.ceil(float(coc.max()) + 0.5) if coc.numel() else 0
    offset = torch.arange(-reach, reach + 1, device=coc.device, dtype=torch.float32)
    distance = torch.hypot(offset[:, None], offset[None]).flatten()
    taps = (coc.float().clamp_min(0.5)[..., None] + 0.5 - distance).clamp(0, 1)
    return ((taps * distance.square()).sum(-1) / taps.sum(-1)).sqrt()


def rms_of_disks(coc: Tensor, candidates: Tensor) -> Tensor:
    """`disk_rms` of each pixel, interpolated between candidates."""
    table = disk_rms(candidates)
    below = (torch.bucketize(coc.contiguous(), candidates, right=True) - 1).clamp(0, len(candidates) - 2)
    share = (coc - candidates[below]) / (candidates[below + 1] - candidates[below])
    return torch.lerp(table[below], table[below + 1], share)


def disk_tap_weights(coc: Tensor, max_radius: int) -> Tensor:
    """The weights of the taps by their distance, numbered as `reblur_ops.tap_weights` does.

    Args:
        coc: (N, 1, H, W), radii of the circles of confusion in pixels, up to max_radius.
        max_radius: pixels.

    Returns:
        (N, (R+1)(R+2)/2, H, W) with R = max_radius; of each pixel, times how many taps have the distance, the sum is 1.
    """
    taps = [(a, b) for b in range(max_radius + 1) for a in range(b + 1)]
    counts = [(1 if b == 0 else 4) if a in (0, b) else 8 for a, b in taps]
    distance = torch.tensor([math.hypot(*tap) for tap in taps], device=coc.device)[:, None, None]
    weights = (coc.clamp_min(0.5) + 0.5 - distance).clamp(0, 1)
    total = (weights * torch.tensor(counts, device=coc.device)[:, None, None]).sum(1, keepdim=True)
    return weights / total


def disk_bank(radii: Tensor, max_radius: int) -> Tensor:
    """(K, (R+1)(R+2)/2), R = max_radius: disks of K radii in pixels, (K,), as `reblur_ops.cost_volume` takes them."""
    return disk_tap_weights(radii[:, None, None, None], max_radius)[..., 0, 0]
