"""The reblurring network: which blur takes the sharp image to the blurry one, and the sharp image so blurred."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import reblur_ops

from .layers import IMAGE_CHANNELS, ResidualNet, check_image, check_same_size


@dataclass(frozen=True)
class Reblurred:
    """What the reblurring network found."""

    image: Tensor  # (N, 3, H, W), the sharp image reblurred
    seeds: Tensor  # (N, Σ(r+1), H, W), for `reblur_ops`
    weights: Tensor  # (N, S+1, H, W), each pixel's sum to 1
    radii: tuple[int, ...]
    support: str

    @property
    def radius(self) -> Tensor:
        """(N, 1, H, W), the RMS radius of the blur in pixels. Computed at each call; differentiable."""
        return reblur_ops.blur_radius(self.seeds, self.weights, radii=self.radii, support=self.support)


class ReblurringNet(nn.Module):
    """(sharp, blurry) -> the sharp image, blurred at each pixel as the blurry one is (arXiv 2409.17792).

    Two bodies alike see both images: one gives the seeds, the other the weights through a softmax over the channels.
    `reblur_ops.reblur` then blurs the sharp image.

    Args:
        radii, support, padding: as for `reblur_ops.reblur`, radii in pixels.
        width: channels inside each body.
        blocks: residual blocks of each.
    """

    def __init__(
        self,
        radii: Sequence[int] = reblur_ops.PUBLISHED_RADII,
        *,
        support: str = "square",
        padding: str = "zeros",
        width: int = 64,
        blocks: int = 3,
    ) -> None:
        super().__init__()
        self.reblur = reblur_ops.nn.Reblur(radii, support, padding)
        self.seeds = ResidualNet(2 * IMAGE_CHANNELS, self.reblur.seed_channels, width, blocks)
        self.weights = ResidualNet(2 * IMAGE_CHANNELS, self.reblur.weight_channels, width, blocks)

    def forward(self, sharp: Tensor, blurry: Tensor) -> Reblurred:
        """Reblur (N, 3, H, W), 0 … 1, towards another, both of any size (larger than the radii if padding reflects)."""
        check_image("sharp", sharp, IMAGE_CHANNELS)
        check_image("blurry", blurry, IMAGE_CHANNELS)
        check_same_size("blurry", blurry, "sharp", sharp)
        both = torch.cat([sharp, blurry], dim=1)
        seeds = self.seeds(both)
        weights = self.weights(both).softmax(dim=1)
        image = self.reblur(sharp, seeds, weights)
        return Reblurred(image, seeds, weights, self.reblur.radii, self.reblur.support)
