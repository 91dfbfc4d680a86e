"""The reblurring network: which blur takes the sharp image to the blurry one, and the sharp image so blurred."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import reblur_ops
from reblur_ops.options import Padding, Support

from ..blur.light import Light, check_light, decode, encode
from ..core.tensors import IMAGE_CHANNELS, check_image, check_same_size
from .layers import ResidualNet


@dataclass(frozen=True)
class Reblurred:
    """The kernels that the reblurring network found between two images."""

    image: Tensor  # (N, 3, H, W), the sharp image reblurred
    seeds: Tensor  # (N, Σ(r+1), H, W), for `reblur_ops`
    weights: Tensor  # (N, S+1, H, W), each pixel's sum to 1
    radii: tuple[int, ...]
    support: Support
    padding: Padding = "zeros"
    light: Light = "srgb"

    confidence = None  # unknown

    @property
    def radius(self) -> Tensor:
        """(N, 1, H, W), the RMS radius of the blur in pixels. Computed at each call; differentiable."""
        return reblur_ops.blur_radius(self.seeds, self.weights, radii=self.radii, support=self.support)

    def again(self, image: Tensor) -> Tensor:
        """Another image, (N, 3, H, W), sRGB values 0 … 1, blurred by the same blur, which gets no gradient."""
        blurred = reblur_ops.reblur(
            decode(image, self.light),
            self.seeds.detach(),
            self.weights.detach(),
            radii=self.radii,
            support=self.support,
            padding=self.padding,
        )
        return encode(blurred, self.light)

    def tap_weights(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(N, S, len(rows), len(columns)): the weights of the taps by their distance, at some pixels."""
        seeds, weights = (maps[:, :, rows][..., columns].contiguous() for maps in (self.seeds, self.weights))
        return reblur_ops.tap_weights(seeds, weights, radii=self.radii, support=self.support)

    def float(self) -> "Reblurred":
        """The same in float32."""
        return replace(self, image=self.image.float(), seeds=self.seeds.float(), weights=self.weights.float())


class ReblurringNet(nn.Module):
    """(sharp, blurry) -> the sharp image, blurred at each pixel as the blurry one is (arXiv 2409.17792).

    Two bodies alike see both images: one gives the seeds, the other the weights through a softmax over the channels.
    `reblur_ops.reblur` then blurs the sharp image.

    Args:
        radii, support, padding: as for `reblur_ops.reblur`, radii in pixels.
        width: channels inside each body.
        blocks: residual blocks of each.
        light: where the blur is computed: `blur.light.decode`. As published "srgb", although lenses add light.

    Attributes:
        reach: how far away, in pixels, an output pixel can see.
        multiple: a tile that starts at a multiple of it gives the same.
        largest_radius: an upper bound of the RMS radius of its kernels, pixels.
    """

    multiple = 1

    def __init__(
        self,
        radii: Sequence[int] = reblur_ops.PUBLISHED_RADII,
        *,
        support: Support = "square",
        padding: Padding = "zeros",
        width: int = 64,
        blocks: int = 3,
        light: Light = "srgb",
    ) -> None:
        super().__init__()
        check_light(light)
        self.light = light
        self.reblur = reblur_ops.nn.Reblur(radii, support, padding)
        self.seeds = ResidualNet(2 * IMAGE_CHANNELS, self.reblur.seed_channels, width, blocks)
        self.weights = ResidualNet(2 * IMAGE_CHANNELS, self.reblur.weight_channels, width, blocks)
        self.largest_radius = max(self.reblur.radii)
        self.reach = max(self.seeds.reach, self.largest_radius)

    def forward(self, sharp: Tensor, blurry: Tensor) -> Reblurred:
        """Reblur (N, 3, H, W), 0 … 1, towards another, both of any size (larger than the radii if padding reflects)."""
        check_image("sharp", sharp, IMAGE_CHANNELS)
        check_image("blurry", blurry, IMAGE_CHANNELS)
        check_same_size("blurry", blurry, "sharp", sharp)
        both = torch.cat([sharp, blurry], dim=1)
        seeds = self.seeds(both)
        weights = self.weights(both).softmax(dim=1)
        image = encode(self.reblur(decode(sharp, self.light), seeds, weights), self.light)
        settings = self.reblur
        return Reblurred(image, seeds, weights, settings.radii, settings.support, settings.padding, self.light)
