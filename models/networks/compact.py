"""A small deblurring network, made for CPUs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.tensors import IMAGE_CHANNELS, check_integer, pad_to_multiple
from .layers import ChannelNorm
from .prior import PUBLISHED_MAP_CHANNELS, DeblurringNetwork


class GatedBlock(nn.Module):
    """A block of NAFNet (Chen et al., ECCV 2022), whose channel weights come from the blur at the pixel.

    NAFNet weighs channels by what the whole image looks like; here a 1×1 convolution of the prior does: how to deblur
    depends on the blur at a pixel, and without statistics of the whole image tiles agree with it.

    (N, C, H, W) and (N, P, H, W) -> (N, C, H, W).
    """

    # How much each half adds at first. NAFNet starts from 0, at which nothing inside would get a gradient.
    INITIAL_SCALE = 0.1

    def __init__(self, channels: int, prior_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.expand1 = nn.Conv2d(channels, 2 * channels, 1)
        self.dwconv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.prior = nn.Conv2d(prior_channels, channels, 1)
        self.project1 = nn.Conv2d(channels, channels, 1)
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), self.INITIAL_SCALE))
        self.norm2 = ChannelNorm(channels)
        self.expand2 = nn.Conv2d(channels, 2 * channels, 1)
        self.project2 = nn.Conv2d(channels, channels, 1)
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), self.INITIAL_SCALE))
        nn.init.ones_(self.prior.bias)  # type: ignore[arg-type]  # at first, channels count about 1

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        spatial = _gate(self.dwconv(self.expand1(self.norm1(x)))) * self.prior(prior)
        x = _added(x, spatial, self.project1, self.scale1)
        return _added(x, _gate(self.expand2(self.norm2(x))), self.project2, self.scale2)


class CompactNet(DeblurringNetwork):
    """A small U of gated blocks with the blur map in each of them. With the defaults 1.1 M parameters.

    What makes it fast on a CPU: nothing is computed at full size; patches of 2 × 2 pixels are the channels of the
    first and the last convolution (pixel unshuffle and shuffle). Most blocks work at an eighth of the size, where a
    step reaches 8 pixels far, as blur of radius 7 and more asks for. Gates are products, not exponentials. The output
    is added to the blurry image: what is in focus needs no work.

    It has no statistics of the whole image: a tile agrees with the whole from `reach` pixels off its edges, if it
    starts at a multiple of `multiple`. Memory without gradients, float32: 0.44 KB a pixel, 3.7 GB for a 4K image
    (3840 × 2160).

    Args:
        map_channels: as for `DeblurringNetwork`.
        width: channels at half size; they double with each size down.
        encoder: blocks at each size on the way down, from half size; images are padded to multiples of
            2^(len(encoder) + 1).
        middle: blocks at the lowest size.
        decoder: blocks at each size on the way up, in the order of `encoder`.
        prior_width: channels of the prior inside.
    """

    def __init__(
        self,
        map_channels: int = PUBLISHED_MAP_CHANNELS,
        *,
        width: int = 32,
        encoder: Sequence[int] = (2, 2),
        middle: int = 8,
        decoder: Sequence[int] = (2, 2),
        prior_width: int = 16,
    ) -> None:
        super().__init__(map_channels)
        _check_arguments(width, encoder, middle, decoder, prior_width)
        widths = [width * 2**level for level in range(len(encoder) + 1)]
        patch_channels = 4 * (IMAGE_CHANNELS + map_channels)
        self.multiple = 2 ** len(widths)
        self.reach = _reach(encoder, middle, decoder)
        self.prior = nn.Conv2d(patch_channels, prior_width, 1)
        self.first = nn.Conv2d(patch_channels, width, 3, padding=1)
        self.encoder = nn.ModuleList(map(_Stage, widths, encoder, [prior_width] * len(encoder)))
        self.down = nn.ModuleList(nn.Conv2d(channels, 2 * channels, 2, stride=2) for channels in widths[:-1])
        self.middle = _Stage(widths[-1], middle, prior_width)
        self.up = nn.ModuleList(nn.Conv2d(2 * channels, 4 * channels, 1) for channels in widths[:-1])
        self.decoder = nn.ModuleList(map(_Stage, widths, decoder, [prior_width] * len(decoder)))
        self.last = nn.Conv2d(width, 4 * IMAGE_CHANNELS, 3, padding=1)
        # Training starts near the blurry image, not from noise added to it.
        with torch.no_grad():
            self.last.weight.mul_(0.1)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, blurry: Tensor, blur_map: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        patches = F.pixel_unshuffle(pad_to_multiple(self.join(blurry, blur_map), self.multiple), 2)
        # Norms and 1×1 convolutions read the channels of a pixel: with those side by side a CPU is a third faster.
        patches = patches.contiguous(memory_format=torch.channels_last)
        x, prior = self.first(patches), F.relu(self.prior(patches))
        x = x.to(self.first.weight.dtype)  # sums of blocks stay exact under autocast
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            x = stage(x, prior)
            skips.append((x, prior))
            x, prior = down(x), F.avg_pool2d(prior, 2)
        x = self.middle(x, prior)
        for up, stage in zip(reversed(self.up), reversed(self.decoder), strict=True):
            skip, prior = skips.pop()
            x = stage(F.pixel_shuffle(up(x), 2) + skip, prior)
        height, width = blurry.shape[2:]
        return blurry + F.pixel_shuffle(self.last(x), 2)[..., :height, :width]


class _Stage(nn.Module):
    """Blocks at one size."""

    def __init__(self, channels: int, count: int, prior_channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GatedBlock(channels, prior_channels) for _ in range(count))

    def forward(self, x: Tensor, prior: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, prior)
        return x


def _added(x: Tensor, part: Tensor, project: nn.Conv2d, scale: Tensor) -> Tensor:
    """x + project(part) · scale, with a 1×1 convolution. Its weights are scaled: they are fewer than pixels."""
    assert project.bias is not None
    projected = F.conv2d(part, project.weight * scale[..., None], project.bias * scale.flatten())
    return projected.add_(x) if projected.dtype == x.dtype else x + projected


def _gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def _reach(encoder: Sequence[int], middle: int, decoder: Sequence[int]) -> int:
    """Pixels: each 3×3 convolution reaches one step of its size far, and patches end up to a step off."""
    steps = 2 * 2 + sum(2 ** (level + 1) * (e + d) for level, (e, d) in enumerate(zip(encoder, decoder, strict=True)))
    lowest = 2 ** (len(encoder) + 1)
    return steps + lowest * middle + lowest - 1


def _check_arguments(width: int, encoder: Sequence[int], middle: int, decoder: Sequence[int], prior_width: int) -> None:
    check_integer("width", width)
    check_integer("prior_width", prior_width)
    if len(encoder) != len(decoder):
        raise ValueError(f"encoder and decoder must be of one length, got {tuple(encoder)} and {tuple(decoder)}")
    for name, counts in (("encoder", encoder), ("middle", (middle,)), ("decoder", decoder)):
        for count in counts:
            check_integer(name, count, 0)
