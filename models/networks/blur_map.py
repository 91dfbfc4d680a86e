"""The blur map network: what the blur is at each pixel, from the blurry image alone."""

from collections.abc import Sequence

from torch import Tensor, nn

import reblur_ops

from ..core.tensors import IMAGE_CHANNELS, check_image
from .layers import ResidualNet


class BlurMapNet(nn.Module):
    """Blurry image -> blur map: a prediction of the reblurring network's seeds (arXiv 2409.17792).

    (N, 3, H, W), 0 … 1 -> (N, Σ(r+1), H, W), of any range. Any size.

    Memory without gradients, float32: 0.64 KB a pixel, 5.3 GB for a 4K image (3840 × 2160).

    Args:
        radii: those of the reblurring network, in pixels; they give the channels: 35 for 1 … 7.
        width: channels inside.
        blocks: residual blocks.
    """

    def __init__(self, radii: Sequence[int] = reblur_ops.PUBLISHED_RADII, *, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.channels, _ = reblur_ops.map_channels(radii)
        self.net = ResidualNet(IMAGE_CHANNELS, self.channels, width, blocks)
        self.reach = self.net.reach

    def forward(self, blurry: Tensor) -> Tensor:
        check_image("blurry", blurry, IMAGE_CHANNELS)
        return self.net(blurry)
