"""The published deblurring Restormer: the public one (Zamir et al., CVPR 2022) behind the blur map."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.tensors import IMAGE_CHANNELS, check_integer, pad_to_multiple
from .layers import ChannelNorm
from .prior import PUBLISHED_MAP_CHANNELS, DeblurringNetwork, Fusion


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention: channels attend to channels (Restormer, section 3.1).

    (N, C, H, W) -> (N, C, H, W). The attention itself has (C/heads)² entries a head, whatever the size of the image;
    the memory goes to queries, keys and values at full size.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.temperature.shape[0]
        # (N, heads, C/heads, H·W) each.
        query, key, value = (
            part.unflatten(1, (heads, -1)).flatten(3) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        attention = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * self.temperature
        attended = attention.softmax(dim=-1) @ value
        return self.project_out(attended.reshape(x.shape))


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network (Restormer, section 3.2). (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Attention and feed-forward network, each behind a norm and added to what came in."""

    def __init__(self, channels: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attn = ChannelAttention(channels, heads)
        self.norm2 = ChannelNorm(channels)
        self.ffn = GatedFeedForward(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Restormer(DeblurringNetwork):
    """The Restormer of the framework (arXiv 2409.17792): cat(blurry, blur_map) -> 3 channels -> Restormer -> + blurry.

    With the defaults 26.13 M parameters. The blocks at full size on the way up have twice the width, as the public
    Restormer has them.

    Memory without gradients, float32: about 5.6 KB a pixel at width 48, 47 GB for a 4K image (3840 × 2160), most of it
    in the feed-forward networks at full size; half in bfloat16. The attention sees the whole of what it is given: tiles
    differ from the whole even with `pooled`.

    Args:
        map_channels: as for `DeblurringNetwork`. With 0 the blurry image is the input, as in the public Restormer.
        width: channels at full size; they double with each size down. A multiple of heads[0], and of 2.
        blocks: of each size, from the full one down; images are padded to multiples of 2^(len(blocks)-1).
        heads: of each size; as many as blocks.
        refinement: blocks at full size before the output.
        expansion: of the feed-forward networks' channels.
    """

    def __init__(
        self,
        map_channels: int = PUBLISHED_MAP_CHANNELS,
        *,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        refinement: int = 4,
        expansion: float = 2.66,
    ) -> None:
        super().__init__(map_channels)
        _check_arguments(width, blocks, heads, refinement, expansion)
        widths = [width * 2**level for level in range(len(blocks))]
        # At full size the skip and what comes up are not reduced after they are joined.
        up_widths = [2 * width if level == 0 else channels for level, channels in enumerate(widths[:-1])]
        self.multiple = 2 ** (len(blocks) - 1)

        def stage(channels: int, level: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(channels, heads[level], expansion) for _ in range(count)))

        self.fusion = Fusion(map_channels) if map_channels else None
        self.embed = _conv(IMAGE_CHANNELS, width)
        self.encoder = nn.ModuleList(
            stage(channels, level, blocks[level]) for level, channels in enumerate(widths[:-1])
        )
        self.down = nn.ModuleList(_conv(channels, channels // 2) for channels in widths[:-1])
        self.latent = stage(widths[-1], len(blocks) - 1, blocks[-1])
        self.up = nn.ModuleList(_conv(channels, 2 * channels) for channels in widths[1:])
        self.reduce = nn.ModuleList(nn.Conv2d(2 * channels, channels, 1, bias=False) for channels in widths[1:-1])
        self.decoder = nn.ModuleList(stage(channels, level, blocks[level]) for level, channels in enumerate(up_widths))
        top = up_widths[0] if up_widths else width
        self.refinement = stage(top, 0, refinement)
        self.last = _conv(top, IMAGE_CHANNELS)

    def forward(self, blurry: Tensor, blur_map: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        x = self.join(blurry, blur_map)
        if self.fusion is not None:
            x = self.fusion(x, pooled)  # before padding, which would count in the means
        x = self.embed(pad_to_multiple(x, self.multiple))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = F.pixel_unshuffle(down(skips[-1]), 2)
        x = self.latent(x)
        for level in reversed(range(len(skips))):
            x = torch.cat([F.pixel_shuffle(self.up[level](x), 2), skips.pop()], dim=1)
            if level:
                x = self.reduce[level - 1](x)
            x = self.decoder[level](x)
        height, width = blurry.shape[2:]
        return self.last(self.refinement(x))[..., :height, :width] + blurry


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=False)


def _check_arguments(
    width: int, blocks: Sequence[int], heads: Sequence[int], refinement: int, expansion: float
) -> None:
    check_integer("width", width)
    check_integer("refinement", refinement, 0)
    if not blocks or len(blocks) != len(heads):
        raise ValueError(f"blocks and heads must be of one length, at least 1, got {tuple(blocks)} and {tuple(heads)}")
    for level, (count, head) in enumerate(zip(blocks, heads, strict=True)):
        check_integer(f"blocks[{level}]", count, 0)
        check_integer(f"heads[{level}]", head)
        if width * 2**level % head:
            raise ValueError(f"heads[{level}] must divide the {width * 2**level} channels of its size, got {head}")
    if len(blocks) > 1 and width % 2:
        raise ValueError(f"width must be even, got {width}")
    if not int(width * expansion) >= 1:
        raise ValueError(f"expansion must leave at least one of {width} channels, got {expansion}")
