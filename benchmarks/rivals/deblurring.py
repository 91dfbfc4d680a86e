"""Deblurring networks after the literature, of about the size of `compact`, behind the fusion of `own` networks.

Written from the papers' descriptions, at the depth and width of `CompactNet`, so that what differs is the idea.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.layers import ChannelNorm


class NafBlock(nn.Module):
    """Chen et al., "Simple Baselines for Image Restoration", ECCV 2022: the whole image's statistics weigh channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.expand1, self.expand2 = (nn.Conv2d(channels, 2 * channels, 1) for _ in range(2))
        self.dwconv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project1, self.project2 = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.scale1, self.scale2 = (nn.Parameter(torch.full((channels, 1, 1), 0.1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        spatial = gate(self.dwconv(self.expand1(self.norm1(x))))
        spatial = spatial * self.attention(spatial.mean((2, 3), keepdim=True))
        x = x + self.project1(spatial) * self.scale1
        return x + self.project2(gate(self.expand2(self.norm2(x)))) * self.scale2


class KernelSharingBlock(nn.Module):
    """Son et al., "Single Image Defocus Deblurring Using Kernel-Sharing Parallel Atrous Convolutions", ICCV 2021.

    One 5×5 kernel, dilated 1 to 5 times, as the inverses of blurs of one shape are one kernel at several sizes; which
    size counts is told at each pixel, and which channels, for all of them together.
    """

    DILATIONS = (1, 2, 3, 4, 5)

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.norm = ChannelNorm(channels)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.weight = nn.Parameter(torch.empty(inner, inner, 5, 5))
        nn.init.kaiming_normal_(self.weight)
        self.sizes = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1), nn.ReLU(), nn.Conv2d(inner, len(self.DILATIONS), 3, padding=1)
        )
        self.shape = nn.Conv2d(channels, inner, 1)
        self.expand = nn.Conv2d(inner * len(self.DILATIONS), channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        reduced, sizes = self.reduce(normed), self.sizes(normed).sigmoid()
        shape = self.shape(normed.mean((2, 3), keepdim=True)).sigmoid()
        found = [
            F.relu(F.conv2d(reduced, self.weight, padding=2 * dilation, dilation=dilation))
            * shape
            * sizes[:, k : k + 1]
            for k, dilation in enumerate(self.DILATIONS)
        ]
        return x + self.expand(torch.cat(found, dim=1)) * self.scale


class Unet(nn.Module):
    """A U of blocks from half size down, (N, channels, H, W) -> (N, 3, H, W); heights and widths: multiples of 16.

    Args:
        channels: that come in.
        block: "naf", or "sharing": NAF blocks, but in the middle kernels that share.
        width: channels at half size.
        encoder, middle, decoder: blocks, as for `CompactNet`.
    """

    def __init__(
        self,
        channels: int = 16,
        block: str = "naf",
        width: int = 32,
        encoder: Sequence[int] = (2, 2, 2),
        middle: int = 4,
        decoder: Sequence[int] = (2, 2, 2),
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(len(encoder) + 1)]
        lowest = {"naf": NafBlock, "sharing": KernelSharingBlock}[block]
        self.first = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.encoder = nn.ModuleList(stage(NafBlock, c, n) for c, n in zip(widths, encoder, strict=False))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle = stage(lowest, widths[-1], middle)
        self.up = nn.ModuleList(nn.Conv2d(2 * c, 4 * c, 1) for c in widths[:-1])
        self.decoder = nn.ModuleList(stage(NafBlock, c, n) for c, n in zip(widths, decoder, strict=False))
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        with torch.no_grad():
            self.last.weight.mul_(0.1)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, blocks in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = blocks(F.pixel_shuffle(up(x), 2) + skips.pop())
        return F.pixel_shuffle(self.last(x), 2)


def stage(block: type[nn.Module], channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(block(channels) for _ in range(count)))


def gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second
