"""Blocks that several networks share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.tensors import check_integer


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, with scale and shift: (N, C, H, W) -> (N, C, H, W).

    Variance without Bessel's correction and 1e-5 added to it, as `torch.nn.LayerNorm`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-5)
        return normal.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, added to what came in. No norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class ResidualNet(nn.Module):
    """3×3 convolution, residual blocks, 3×3 convolution, at the size of the image.

    A pixel depends on those up to `reach`, 2·(blocks + 1), away, and there are no statistics of the whole image.

    Args:
        in_channels, out_channels, width: channels at the start, at the end and between.
        blocks: residual blocks, of two 3×3 convolutions each.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, blocks: int) -> None:
        super().__init__()
        check_integer("width", width)
        check_integer("blocks", blocks, 0)
        self.reach = 2 * (blocks + 1)
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.last = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.first(x)))


def pooled_statistics(blurry: Tensor, blur_map: Tensor) -> Tensor:
    """The values that squeeze-excite pools: the mean of each channel of cat(blurry, blur_map), in float32.

    Computed once over a whole image, it is what `pooled` of the deblurring networks takes for each of its tiles.

    Args:
        blurry: (N, 3, H, W), 0 … 1.
        blur_map: (N, M, H, W).

    Returns:
        (N, 3 + M).
    """
    return torch.cat([part.mean((2, 3), dtype=torch.float32) for part in (blurry, blur_map)], dim=1)


class SqueezeExcite(nn.Module):
    """Each channel times a number from 0 to 1 that depends on the means of all (Hu et al., CVPR 2018).

    (N, C, H, W) -> (N, C, H, W), with C → C/reduction → C between, without biases.

    Memory: the input and a scaled copy, 8·C bytes a pixel in float32; for a 4K image (3840 × 2160) and the 38 channels
    of picture and blur map 2.5 GB. The means make a tile's result depend on the tile; hence `pooled`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)
        # Means of pictures are positive. Weights of either sign would leave each of the few hidden channels dead from
        # the start, behind its ReLU, in one of two cases.
        with torch.no_grad():
            self.squeeze.weight.abs_()

    def forward(self, x: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Scale the channels by their means, or, if given, by means (N, C) taken elsewhere: over the whole image."""
        if pooled is None:
            pooled = x.mean((2, 3), dtype=torch.float32)
        elif pooled.shape != x.shape[:2]:
            raise ValueError(f"pooled must have shape (N, C), {tuple(x.shape[:2])}, got {tuple(pooled.shape)}")
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(pooled.to(self.squeeze.weight.dtype)))))
        return x * scale[:, :, None, None].to(x.dtype)
