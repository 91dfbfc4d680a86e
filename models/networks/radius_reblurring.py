"""The reblurring network whose blur is a radius: from what each candidate radius explains, as stereo networks do."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblur_ops.geometry import MAX_ANALYTIC_RADIUS

from ..blur.disks import blur_by, disk_tap_weights, rms_of_disks
from ..blur.light import Light, check_light
from ..blur.search import CELL, SHARPNESS, SPREAD, candidate_radii, matching_costs
from ..core.positions import POSITIONS, check_copies
from ..core.tensors import IMAGE_CHANNELS, check_image, check_integer, check_same_size, pad_to_multiple
from ..core.windows import box_mean
from .blur_radius import NormalizedBlock

WINDOW = 3  # cells; before training, candidates are compared in such windows
NEIGHBOURS = 9  # cells from which a pixel takes its radius
LARGE = (0.7, 1.0)  # of the largest candidate: circles of confusion between which halved images take over
SMALLEST = 48  # pixels: no side is halved below this


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

    Each candidate radius is tried in linear light, and its errors in cells of 2 × 2 pixels, (N, K, H/2, W/2), go into a
    small U beside both images. It says how much likelier each candidate is than its error alone makes it; the radius of
    a cell is the mean of the candidates by their likelihood, and what spreads over many candidates has little
    confidence. A pixel takes the radius of cells around it, by weights that the network gives it, so that a depth edge
    need not be blurred (Teed and Deng, RAFT, ECCV 2020, section 3.3). So the blur is one of the candidates by
    construction and cannot collapse into a kernel that explains nothing. Before any training the network is the search.

    Blur that is larger than any candidate is one of them in both images made smaller.

    Args:
        max_radius: largest candidate, a circle of confusion in pixels, 1 to 64.
        halvings: how often both images may be halved: the largest circle of confusion is max_radius · 2^halvings
            pixels, at most 64.
        copies: 1, 2, 4 or 8: of both images, turned and mirrored, over which the mean is taken (`core.positions`).
        light: where the blur is computed: `blur.light.decode`.
        width: channels at half size; 4/3 of it at a quarter, 2 of it at an eighth.
        blocks: residual blocks at an eighth of the size, where each 3×3 convolution reaches 8 pixels far.

    Attributes:
        reach: how far away, in pixels, an output pixel can see.
        multiple: a tile that starts at a multiple of it gives the same.
        largest_radius: an upper bound of its circles of confusion, and so of their RMS radius, pixels.
    """

    def __init__(
        self,
        max_radius: int = 7,
        *,
        halvings: int = 0,
        copies: int = 1,
        light: Light = "linear",
        width: int = 48,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        check_integer("max_radius", max_radius)
        check_integer("halvings", halvings, 0)
        check_copies(copies)
        check_light(light)
        check_integer("width", width)
        check_integer("blocks", blocks, 0)
        self.max_radius, self.halvings, self.copies, self.light = max_radius, halvings, copies, light
        self.largest_radius = max_radius * 2**halvings
        if self.largest_radius > MAX_ANALYTIC_RADIUS:
            raise ValueError(
                f"max_radius · 2^halvings must be at most {MAX_ANALYTIC_RADIUS} pixels, got {max_radius} and {halvings}"
            )
        self.register_buffer("candidates", candidate_radii(max_radius), persistent=False)
        self.register_buffer("disks", candidate_radii(self.largest_radius), persistent=False)
        self.candidates: Tensor
        self.disks: Tensor
        count, middle, low = len(self.candidates), width * 4 // 3, width * 2
        self.first = nn.Conv2d(2 * (count + 1) + 2 * IMAGE_CHANNELS * CELL**2, width, 3, padding=1)
        self.fine = NormalizedBlock(width)
        self.down1 = nn.Conv2d(width, middle, 2, stride=2)
        self.middle = NormalizedBlock(middle)
        self.down2 = nn.Conv2d(middle, low, 2, stride=2)
        self.coarse = nn.Sequential(*(NormalizedBlock(low) for _ in range(blocks)))
        self.up2 = nn.Conv2d(low, 4 * middle, 1)
        self.middle_again = NormalizedBlock(middle)
        self.up1 = nn.Conv2d(middle, 4 * width, 1)
        self.fine_again = nn.Sequential(NormalizedBlock(width), NormalizedBlock(width))
        self.last = nn.Conv2d(width, count, 3, padding=1)
        self.upsampling = nn.Conv2d(width, NEIGHBOURS * CELL**2, 3, padding=1)
        for layer in (self.last, self.upsampling):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        cells = 2 + 2 * (1 + 2 * 1 + 4 * blocks + 2 * 1 + 2) + 2  # from first to last, and the upsampling
        self.reach = (CELL * (cells + WINDOW // 2 + 1) + max_radius + 4 * CELL) * 2**halvings
        self.multiple = 4 * CELL * 2**halvings

    def forward(self, sharp: Tensor, blurry: Tensor) -> ReblurredByDisks:
        """Reblur (N, 3, H, W), sRGB values 0 … 1, towards another, both of any size."""
        check_image("sharp", sharp, IMAGE_CHANNELS)
        check_image("blurry", blurry, IMAGE_CHANNELS)
        check_same_size("blurry", blurry, "sharp", sharp)
        height, width = blurry.shape[2:]
        padded = [pad_to_multiple(image.detach().float(), self.multiple) for image in (sharp, blurry)]
        coc, spread = self._mean_found(*padded)[..., :height, :width].split(1, 1)
        confidence = 1 / (1 + spread / SPREAD**2)
        image = blur_by(sharp.float(), coc, max_radius=self.largest_radius, light=self.light)
        radius = rms_of_disks(coc, self.disks)
        return ReblurredByDisks(image, coc, radius, confidence, self.largest_radius, self.light)

    def _mean_found(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """`_found` over all copies: the mean of the circles of confusion, and the variance around that."""
        found = [
            position.turned_back(self._found(self.halvings, position.turned(sharp), position.turned(blurry)))
            for position in POSITIONS[: self.copies]
        ]
        if len(found) == 1:
            return found[0]
        coc, spread = torch.stack(found).split(1, 2)
        variance, mean = torch.var_mean(coc, 0, correction=0)
        return torch.cat([mean, spread.mean(0) + variance], dim=1)

    def _found(self, halvings: int, sharp: Tensor, blurry: Tensor) -> Tensor:
        """(N, 2, H, W): the circle of confusion in pixels, and the variance of the candidates around it.

        Args:
            halvings: how often these images may be halved.
            sharp, blurry: (N, 3, H, W), sides that are multiples of 8 · 2^halvings.
        """
        likelihood, neighbours = self.likelihood(sharp, blurry)
        radii = self.candidates[:, None, None]
        mean = (likelihood * radii).sum(1, keepdim=True)
        spread = (likelihood * (radii - mean).square()).sum(1, keepdim=True)
        found = _upsampled(torch.cat([mean, spread], dim=1), neighbours)
        if halvings == 0 or min(sharp.shape[2:]) < 2 * SMALLEST:
            return found
        small = (F.avg_pool2d(image, 2) for image in (sharp, blurry))
        coarse = self._found(halvings - 1, *small)
        coarse = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        coarse = torch.cat([2 * coarse[:, :1], 4 * coarse[:, 1:]], dim=1)  # radius, variance
        low, high = (part * self.max_radius for part in LARGE)
        return torch.lerp(found, coarse, ((coarse[:, :1] - low) / (high - low)).clamp(0, 1))

    def likelihood(self, sharp: Tensor, blurry: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on images whose sides are multiples of 8.

        Returns:
            Weights of candidates in cells of 2 × 2 pixels, (N, K, H/2, W/2), sum 1 over K. And weights of the 3 × 3
            cells around each pixel's, (N, 9, 4, H/2, W/2), sum 1 over the nine, pixels as `F.pixel_shuffle` takes them.
        """
        with torch.no_grad():
            costs = matching_costs(sharp, blurry, self.candidates, window=1, slack=0, light=self.light)
            windowed = box_mean(costs, WINDOW)
        inputs = [image for each in (costs, windowed) for image in _relative(each)]
        inputs += [F.pixel_unshuffle(image, CELL) - 0.5 for image in (sharp, blurry)]
        fine = self.fine(F.relu(self.first(torch.cat(inputs, dim=1))))
        middle = self.middle(F.relu(self.down1(fine)))
        coarse = self.coarse(F.relu(self.down2(middle)))
        middle = self.middle_again(middle + F.pixel_shuffle(self.up2(coarse), 2))
        fine = self.fine_again(fine + F.pixel_shuffle(self.up1(middle), 2))
        logits = self.last(fine).float() - SHARPNESS * _relative(windowed)[0]
        neighbours = self.upsampling(fine).float().unflatten(1, (NEIGHBOURS, CELL**2)) + _bilinear(fine.device)
        return logits.softmax(1), neighbours.softmax(1)


def _relative(costs: Tensor) -> tuple[Tensor, Tensor]:
    """How much worse than the best each candidate is, (N, K, H, W), and how good the best is, (N, 1, H, W)."""
    best = costs.amin(1, keepdim=True)
    return costs - best, (best + 8) / 4


def _bilinear(device: torch.device) -> Tensor:
    """(9, 4, 1, 1): logarithms of the weights of bilinear upsampling by 2, of which none may be 0."""
    near, far = 0.75, 0.25
    sides = torch.tensor([[far, near, 1e-3], [1e-3, near, far]], device=device)  # by the pixel's place in its cell
    weights = sides[:, None, :, None] * sides[None, :, None, :]  # row, column of the pixel; row, column of the cell
    return weights.reshape(CELL**2, NEIGHBOURS).log().T[..., None, None]


def _upsampled(cells: Tensor, weights: Tensor) -> Tensor:
    """(N, C, 2H, 2W): each pixel a mean of the 3 × 3 cells (N, C, H, W) around its own, by weights (N, 9, 4, H, W)."""
    n, channels, height, width = cells.shape
    around = F.unfold(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 3)
    around = around.reshape(n, channels, NEIGHBOURS, 1, height, width)
    pixels = (around * weights[:, None]).sum(2)  # (N, C, 4, H, W)
    return F.pixel_shuffle(pixels.flatten(1, 2), CELL)
