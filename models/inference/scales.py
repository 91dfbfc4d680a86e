"""Blur that is too large for the networks, where it is as small as they know: in the image made smaller.

A network reaches so far and no further. At half the size a blur has half the radius. So where the blur map of the
halved image tells a large one, the change that deblurring makes is taken from the halved image, and so on.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# RMS radii in pixels between which the halved image takes over. On crops blurred by known disks the two gain alike at
# 7; above 8, the networks tell no larger radius and leave such blur alone (`benchmarks/LOG.md`).
LARGE = (5.0, 8.0)
HALVINGS = 2  # of a photograph that is deblurred, unless its user asks for less, and of the radius that is told
SMALLEST = 96  # pixels: no side is halved below this


@torch.inference_mode()
def at_scales(
    image: Tensor,
    function: Callable[[Tensor], Tensor],
    radius: Callable[[Tensor], Tensor],
    halvings: int,
    *,
    lengths: bool = False,
) -> Tensor:
    """A function of an image, where its blur is large of the image made smaller.

    Args:
        image: (3, H, W), float32.
        function: of an image, to another, or to lengths in pixels, (C, H, W).
        radius: of an image to (1, H, W), its RMS radius in pixels.
        halvings: how often the image may be halved.
        lengths: whether the function tells lengths. Those of the halved image double; of images the change is taken.

    Returns:
        (C, H, W), images within 0 … 1.
    """
    result = function(image)
    if halvings == 0 or min(image.shape[1:]) < 2 * SMALLEST:
        return result
    small = halved(image)
    share = _share(2 * doubled(radius(small), image))
    if not bool((share > 0).any()):
        return result
    coarse = at_scales(small, function, radius, halvings - 1, lengths=lengths)
    coarse = 2 * coarse if lengths else coarse - small
    for channel in range(len(result)):  # one after the other, as photographs are large
        large = doubled(coarse[channel : channel + 1], image)
        if not lengths:
            large += image[channel : channel + 1]
        result[channel : channel + 1].lerp_(large, share)
    return result if lengths else result.clamp_(0, 1)


def halved(image: Tensor) -> Tensor:
    """(C, ⌈H/2⌉, ⌈W/2⌉), means of pixels."""
    size = [-(-extent // 2) for extent in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="area")[0]


def doubled(planes: Tensor, like: Tensor) -> Tensor:
    """(C, h, w) at the height and width of another."""
    return F.interpolate(planes[None], size=like.shape[1:], mode="bicubic", align_corners=False)[0]


def _share(radius: Tensor) -> Tensor:
    """The share of the halved image, 0 … 1."""
    low, high = LARGE
    return ((radius - low) / (high - low)).clamp_(0, 1)
