"""The published deblurring U-Net."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.tensors import IMAGE_CHANNELS, check_integer, pad_to_multiple
from .layers import SqueezeExcite
from .prior import PUBLISHED_MAP_CHANNELS, DeblurringNetwork


class UNet(DeblurringNetwork):
    """The U-Net of the framework (arXiv 2409.17792); without the prior, that of JDRL (arXiv 2211.14502).

    Squeeze-excite on cat(blurry, blur_map), blocks of two 3×3 convolutions at halving sizes, and back up. The output
    is the image itself, through a sigmoid. With the defaults 31.05 M parameters.

    Memory without gradients, float32: about 1.7 KB a pixel at width 64, 14 GB for a 4K image (3840 × 2160).

    Args:
        map_channels: as for `DeblurringNetwork`. With 0 there is no squeeze-excite either.
        width: channels at full size; they double with each size down.
        depth: sizes; images are padded to multiples of 2^(depth-1).
        dropout: of the two lowest encoder blocks' outputs, in training.
    """

    def __init__(
        self, map_channels: int = PUBLISHED_MAP_CHANNELS, *, width: int = 64, depth: int = 5, dropout: float = 0.4
    ) -> None:
        super().__init__(map_channels)
        check_integer("width", width)
        check_integer("depth", depth)
        widths = [width * 2**level for level in range(depth)]
        in_channels = IMAGE_CHANNELS + map_channels
        self.multiple = 2 ** (depth - 1)
        self.reach = _reach(depth)
        self.squeeze_excite = SqueezeExcite(in_channels) if map_channels else None
        self.encoder = nn.ModuleList(
            _double_conv(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        # From the lowest size up.
        self.up = nn.ModuleList(nn.Conv2d(2 * after, after, 2) for after in reversed(widths[:-1]))
        self.decoder = nn.ModuleList(_double_conv(2 * after, after) for after in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, IMAGE_CHANNELS, 3, padding=1)

    def forward(self, blurry: Tensor, blur_map: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        x = self.join(blurry, blur_map)
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(x, pooled)  # before padding, which would count in the means
        x = pad_to_multiple(x, self.multiple)
        skips = []
        for level, block in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = F.max_pool2d(x, 2)
            x = block(x)
            if level >= len(self.encoder) - 2:
                x = self.dropout(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            # A 2×2 kernel has no middle: the padding that keeps the size goes to the right and below.
            x = up(F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (0, 1, 0, 1)))
            x = block(torch.cat([x, skips.pop()], dim=1))
        height, width = blurry.shape[2:]
        return torch.sigmoid(self.last(x))[..., :height, :width]


def _reach(depth: int) -> int:
    """Pixels: each convolution, 3×3 or 2×2, reaches one step of its size far, and pooling ends up to a step off."""
    encoder = sum(2 * 2**level for level in range(depth))
    decoder = sum(3 * 2**level for level in range(depth - 1))
    return encoder + decoder + 2 ** (depth - 1)


def _double_conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1), nn.ReLU()
    )
