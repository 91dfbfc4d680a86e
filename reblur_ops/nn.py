"""Module forms of the operators."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reblur_ops import checks
from reblur_ops.functional import PUBLISHED_RADII, map_channels, reblur


class Reblur(torch.nn.Module):
    """`reblur_ops.reblur` with its options kept.

    Args:
        radii, support, padding, direction, normalize_scatter: as for `reblur_ops.reblur`.

    Attributes:
        seed_channels: channels that `seeds` must have, Σ(r+1).
        weight_channels: channels that `weights` must have, S+1.
    """

    def __init__(
        self,
        radii: Sequence[int] = PUBLISHED_RADII,
        support: str = "square",
        padding: str = "zeros",
        direction: str = "gather",
        normalize_scatter: bool = False,
    ) -> None:
        super().__init__()
        self.radii = checks.radii_tuple(radii)
        checks.choice("support", support, checks.SUPPORTS)
        checks.choice("padding", padding, checks.PADDINGS)
        checks.choice("direction", direction, checks.DIRECTIONS)
        self.support = support
        self.padding = padding
        self.direction = direction
        self.normalize_scatter = normalize_scatter
        self.seed_channels, self.weight_channels = map_channels(self.radii)

    def forward(self, image: Tensor, seeds: Tensor, weights: Tensor) -> Tensor:
        """Blur (N, C, H, W) with (N, seed_channels, H, W) and (N, weight_channels, H, W)."""
        return reblur(
            image,
            seeds,
            weights,
            radii=self.radii,
            support=self.support,
            padding=self.padding,
            direction=self.direction,
            normalize_scatter=self.normalize_scatter,
        )

    def extra_repr(self) -> str:
        text = f"radii={self.radii}, support={self.support!r}, padding={self.padding!r}"
        if self.direction == "scatter":
            text += f", direction='scatter', normalize_scatter={self.normalize_scatter}"
        return text
