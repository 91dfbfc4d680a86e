"""The reblurring network whose blur is a radius: from what each candidate radius explains, as stereo networks do."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blur.disks import blur_by, disk_tap_weights, rms_of_disks
from ..blur.light import Light, check_light
from ..blur.search import CELL, SHARPNESS, SPREAD, candidate_radii, matching_costs
from ..core.tensors import IMAGE_CHANNELS, check_image, check_integer, check_same_size, pad_to_multiple
from .blur_radius import NormalizedBlock

WINDOW = 5  # pixels; the network gathers what lies around


@dataclass(frozen=True)
class ReblurredByDisks:
    """The result of `RadiusReblurringNet` for two images."""

    image: Tensor  # (N, 3, H, W), the sharp image reblurred
    coc: Tensor  # (N, 1, H, W), radius of the circle of confusion in pixels
    radius: Tensor  # (N, 1, H, W), RMS radius in pixels
    confidence: Tensor  # (N, 1, H, W), 0 … 1
    max_radius: int
    light: Light

    def again(self, image: Tensor) -> Tensor:
        """Another image, (N, 3, H, W), sRGB values 0 … 1, blurred by the same blur, which gets no gradient."""
        return blur_by(image, self.coc.detach(), max_radius=self.max_radius, light=self.light)

    def tap_weights(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(N, S, len(rows), len(columns)): the weights of the taps by their distance, at some pixels."""
        return disk_tap_weights(self.coc[:, :, rows][..., columns], self.max_radius)

    def float(self) -> "ReblurredByDisks":
        """Itself: it is in float32."""
        return self


class RadiusReblurringNet(nn.Module):
    """(sharp, blurry) -> the sharp image, blurred at each pixel by the disk that explains the blurry one.

    Each candidate radius is tried in linear light, and its errors in small windows, (N, K, H/2, W/2), go into a small U
    beside both images. It says how much likelier each candidate is than its error alone makes it; the radius is the
    mean of the candidates by their likelihood, and what spreads over many candidates has little confidence. So the blur
    is one of the candidates by construction, it cannot collapse into a kernel that explains nothing, and before any
    training the network is the search.

    Args:
        max_radius: largest circle of confusion in pixels, 1 to 64.
        light: where the blur is computed: `blur.light.decode`.
        width: channels inside.
        blocks: residual blocks at a quarter of the size, where each 3×3 convolution reaches 4 pixels far.

    Attributes:
        reach: how far away, in pixels, an output pixel can see.
        multiple: a tile that starts at a multiple of it gives the same.
        largest_radius: an upper bound of the RMS radius of its disks, pixels.
    """

    multiple = 2 * CELL

    def __init__(self, max_radius: int = 7, *, light: Light = "linear", width: int = 48, blocks: int = 4) -> None:
        super().__init__()
        check_integer("max_radius", max_radius)
        check_light(light)
        check_integer("width", width)
        check_integer("blocks", blocks, 0)
        self.max_radius, self.light = max_radius, light
        self.register_buffer("candidates", candidate_radii(max_radius), persistent=False)
        self.candidates: Tensor
        count = len(self.candidates)
        self.first = nn.Conv2d(count + 1 + 2 * IMAGE_CHANNELS * CELL**2, width, 3, padding=1)
        self.fine = NormalizedBlock(width)
        self.down = nn.Conv2d(width, width, 2, stride=2)
        self.blocks = nn.Sequential(*(NormalizedBlock(width) for _ in range(blocks)))
        self.up = nn.Conv2d(width, 4 * width, 1)
        self.last_block = NormalizedBlock(width)
        self.last = nn.Conv2d(width, count, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.largest_radius = max_radius
        self.reach = CELL * (2 * 2 + 2 + 2 * 2 * blocks + 4) + 2 * max_radius + WINDOW

    def forward(self, sharp: Tensor, blurry: Tensor) -> ReblurredByDisks:
        """Reblur (N, 3, H, W), sRGB values 0 … 1, towards another, both of any size."""
        check_image("sharp", sharp, IMAGE_CHANNELS)
        check_image("blurry", blurry, IMAGE_CHANNELS)
        check_same_size("blurry", blurry, "sharp", sharp)
        height, width = blurry.shape[2:]
        padded = [pad_to_multiple(image.detach().float(), 2 * CELL) for image in (sharp, blurry)]
        likelihood = self.likelihood(*padded)
        radii = self.candidates[:, None, None]
        mean = (likelihood * radii).sum(1, keepdim=True)
        spread = (likelihood * (radii - mean).square()).sum(1, keepdim=True)
        both = torch.cat([mean, spread], dim=1)
        both = F.interpolate(both, scale_factor=CELL, mode="bilinear", align_corners=False)[..., :height, :width]
        coc, spread = both.split(1, 1)
        confidence = 1 / (1 + spread / SPREAD**2)
        image = blur_by(sharp.float(), coc, max_radius=self.max_radius, light=self.light)
        radius = rms_of_disks(coc, self.candidates)
        return ReblurredByDisks(image, coc, radius, confidence, self.max_radius, self.light)

    def likelihood(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Weights of candidates in cells of 2 × 2 pixels: (N, K, H/2, W/2), sum 1 over K; H and W multiples of 4."""
        with torch.no_grad():
            costs = matching_costs(sharp, blurry, self.candidates, window=WINDOW, slack=0, light=self.light)
        best = costs.amin(1, keepdim=True)
        inputs = [costs - best, (best + 8) / 4, *(F.pixel_unshuffle(image, CELL) - 0.5 for image in (sharp, blurry))]
        x = self.fine(F.relu(self.first(torch.cat(inputs, dim=1))))
        coarse = self.blocks(F.relu(self.down(x)))
        x = self.last_block(x + F.pixel_shuffle(self.up(coarse), 2))
        return (self.last(x).float() - SHARPNESS * (costs - best)).softmax(1)
