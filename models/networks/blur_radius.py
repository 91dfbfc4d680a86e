"""The blur radius network: how strong the blur is at each pixel, from the blurry image alone."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.tensors import IMAGE_CHANNELS, check_image, check_integer, pad_to_multiple
from ..core.windows import box_mean
from .layers import ChannelNorm

SCALE = 4  # the radius is predicted at 1/4 of the size: blur changes slowly
OFFSET = 0.5  # pixels; added before the logarithm, so that in focus is finite
LOG_SPREADS = (-4.0, 3.0)  # bounds of the predicted logarithm of the spread
DILATIONS = (1, 2, 4, 8, 8)  # of the five taps that part one band of frequencies from the next
FLOOR = 1e-6  # energy of a band that 8 bits leave anywhere
NATURAL = (1.5, 2.0)  # pixels: radii between which softness is most often natural
DOUBT_WINDOW = 63  # pixels: doubt is a mean over such windows


class BlurRadiusNet(nn.Module):
    """Blurry image -> the logarithm of its blur radius at each pixel, and how far it may be off.

    (N, 3, H, W), 0 … 1 -> (N, 2, H, W), of any size: log(radius + 0.5), the RMS radius in pixels, and the logarithm of
    the spread of the first channel (the scale of a Laplace distribution), from -4 to 3.

    Blur shows in how the energy of the picture falls from one band of frequencies to the next, so the logarithms of
    these energies are given to the network, beside the patches of 4 × 4 pixels that are the channels of its first
    convolution. Without them it learns ten times slower. All works at a quarter of the size, where each 3×3 convolution
    reaches 4 pixels far; the result is interpolated bilinearly.

    Args:
        width: channels inside.
        blocks: residual blocks of two 3×3 convolutions.
        doubt: spread from which on `prior` says that there is no blur; None: never.

    Attributes:
        channels: of the map.
        multiple: a tile that starts at a multiple of it gives the same.
        reach: how far away, in pixels, an output pixel can see.
    """

    channels = 2
    multiple = SCALE

    def __init__(self, *, width: int = 48, blocks: int = 5, doubt: float | None = None) -> None:
        super().__init__()
        check_integer("width", width)
        check_integer("blocks", blocks, 0)
        if doubt is not None and not 0 < doubt < math.inf:
            raise ValueError(f"doubt must be above 0, or None, got {doubt}")
        self.doubt = doubt
        self.reach = 2 * SCALE * (blocks + 1) + 2 * sum(DILATIONS) + 3 * SCALE
        self.reach += 0 if doubt is None else DOUBT_WINDOW // 2
        self.first = nn.Conv2d(IMAGE_CHANNELS * SCALE**2 + len(DILATIONS), width, 3, padding=1)
        self.blocks = nn.Sequential(*(NormalizedBlock(width) for _ in range(blocks)))
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, blurry: Tensor) -> Tensor:
        check_image("blurry", blurry, IMAGE_CHANNELS)
        height, width = blurry.shape[2:]
        padded = pad_to_multiple(blurry, SCALE)
        features = torch.cat([F.pixel_unshuffle(padded, SCALE) - 0.5, band_energies(padded)], dim=1)
        features = features.contiguous(memory_format=torch.channels_last)
        radius, spread = self.last(self.blocks(F.relu(self.first(features)))).float().split(1, 1)
        both = torch.cat([radius, spread.clamp(*LOG_SPREADS)], dim=1)
        full = F.interpolate(both, scale_factor=SCALE, mode="bilinear", align_corners=False)
        return full[..., :height, :width].to(blurry.dtype)

    def prior(self, blur_map: Tensor) -> Tensor:
        """The map as the deblurring network is to see it after training: with less blur where the map is in doubt.

        What is soft by nature looks like weak blur, but not quite like it, and the spread tells: that of a mean over a
        window in which each pixel counts by its precision, 1/spread², so that flat places do not count. Up to half of
        `doubt` the radius stays, from there it falls to 0 at `doubt`. Strong blur is told less exactly, and nothing is
        so soft by nature: from a radius of 2 pixels on the limit grows with its square; and so it does below 1.5, where
        sharpening does little harm. A deblurring network leaves alone what the map calls sharp.

        Args:
            blur_map: (N, 2, H, W), from this network.

        Returns:
            (N, 2, H, W).
        """
        if self.doubt is None:
            return blur_map
        radius, log_spread = decode_radius(blur_map.float()), blur_map[:, 1:].float()
        precision = (-2 * log_spread).exp()
        total, weighted = box_mean(torch.cat([precision, precision * radius], dim=1), DOUBT_WINDOW).split(1, 1)
        spread, around = total.rsqrt(), weighted / total
        weak, strong = NATURAL
        usual = torch.maximum(weak / around.clamp_min(1e-3), around / strong).clamp_min(1)
        limit = self.doubt * usual.square()
        radius = radius * (2 - 2 * spread / limit).clamp(0, 1)
        return torch.cat([encode_radius(radius), log_spread], dim=1).to(blur_map.dtype)


class NormalizedBlock(nn.Module):
    """Norm over the channels, convolution, ReLU, convolution, scaled and added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(self.norm(x)))) * self.scale


def band_energies(image: Tensor) -> Tensor:
    """Logarithms of the energy of five bands of frequencies, in cells of 4 × 4 pixels, about -1.5 to 2.

    Args:
        image: (N, C, H, W), H and W multiples of 4; its channels are averaged.

    Returns:
        (N, 5, H/4, W/4), float32, the highest frequencies first.
    """
    grey = image.float().mean(1, keepdim=True)
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=image.device) / 16
    energies = []
    with torch.autocast(image.device.type, enabled=False):  # small differences of large numbers
        for dilation in DILATIONS:
            reach = 2 * dilation
            rows = F.pad(grey, (0, 0, reach, reach), mode="replicate")
            rows = F.conv2d(rows, taps.reshape(1, 1, 5, 1), dilation=(dilation, 1))
            columns = F.pad(rows, (reach, reach, 0, 0), mode="replicate")
            soft = F.conv2d(columns, taps.reshape(1, 1, 1, 5), dilation=(1, dilation))
            energy = F.avg_pool2d((grey - soft).square(), SCALE)
            energies.append(((energy + FLOOR).log() + 8) / 4)
            grey = soft
    return torch.cat(energies, dim=1)


def encode_radius(radius: Tensor) -> Tensor:
    """First channel of the map, log(radius + 0.5), of an RMS radius in pixels. Any shape."""
    return (radius + OFFSET).log()


def decode_radius(blur_map: Tensor) -> Tensor:
    """RMS radius in pixels, (N, 1, H, W), at least 0, of a map (N, 2, H, W)."""
    return (blur_map[:, :1].exp() - OFFSET).clamp_min(0)


def radius_likelihood(blur_map: Tensor, radius: Tensor, confidence: Tensor | None = None) -> Tensor:
    """The mean negative log-likelihood of a radius under a map: |difference of logarithms| / spread + log spread.

    Args:
        blur_map: (N, 2, H, W), from `BlurRadiusNet`.
        radius: (N, 1, H, W), RMS radius in pixels.
        confidence: (N, 1, H, W), 0 … 1: the weight of each pixel; 1 if None.

    Returns:
        A scalar of at least -4.
    """
    predicted, log_spread = blur_map.float().split(1, 1)
    loss = (predicted - encode_radius(radius)).abs() * (-log_spread).exp() + log_spread
    if confidence is None:
        return loss.mean()
    return (loss * confidence).sum() / confidence.sum().clamp_min(1)
