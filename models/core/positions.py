"""The eight positions of an image: turned by quarters, and mirrored.

A network was trained on images in all of them, but answers a little differently to each. The mean of its answers,
turned back, is without the errors that it makes in one position alone: the geometric self-ensemble of Lim et al., CVPRW
2017.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Position(NamedTuple):
    """How an image is held."""

    quarters: int
    mirrored: bool

    def turned(self, image: Tensor) -> Tensor:
        """An image, (..., H, W), in this position, (..., H, W) or (..., W, H)."""
        turned = torch.rot90(image, self.quarters, (-2, -1))
        return turned.flip(-1) if self.mirrored else turned

    def turned_back(self, image: Tensor) -> Tensor:
        """The inverse of `turned`."""
        return torch.rot90(image.flip(-1) if self.mirrored else image, -self.quarters, (-2, -1))


# The image itself first. The first two differ by the mirror image; the first four see both axes both ways.
POSITIONS = tuple(Position(quarters, mirrored) for quarters in range(4) for mirrored in (False, True))
COPIES = (1, 2, 4, 8)  # how many of them there may be


def check_copies(copies: object) -> None:
    """Raise ValueError unless it is one of COPIES."""
    if isinstance(copies, bool) or copies not in COPIES:
        raise ValueError(f"copies must be one of {', '.join(map(str, COPIES))}, got {copies!r}")
