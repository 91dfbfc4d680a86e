"""One pair aligned: the sharp image where the blurry one is, and how far that can be trusted."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..blur import decode, encode, match_exposure, search_radius
from ..checkpoints.load import load_framework
from ..flow import inside_mask, load_flow, warp
from ..networks import RadiusReblurringNet

FLOWS = ("reblur", "dis", "variational", "none")  # those that need no weights
REVISION = 3  # raised when a pair comes out otherwise than before, so that files tell
NOISE = (4 / 255) ** 2  # mean square error, of roots of light, at which half of the confidence is left


@dataclass(frozen=True)
class AlignmentSettings:
    """Options of the alignment of pairs.

    Attributes:
        flow: a name of `models.flow.load_flow` that needs no weights: "reblur"; "dis" or "variational", which are
            far faster; or "none".
        max_radius: largest circle of confusion that alignment looks for, pixels, 1 to 64.
    """

    flow: str = "reblur"
    max_radius: int = 16

    def __post_init__(self) -> None:
        if self.flow not in FLOWS:
            raise ValueError(f"flow must be one of {', '.join(map(repr, FLOWS))}, got {self.flow!r}")
        if not 1 <= self.max_radius <= 64:
            raise ValueError(f"max_radius must be from 1 to 64 pixels, got {self.max_radius}")


@dataclass(frozen=True)
class AlignedPair:
    """The alignment of a pair; all (N, C, H, W), float32.

    Attributes:
        aligned: three channels, the sharp image warped to the blurry one and exposed like it, sRGB 0 … 1.
        confidence: one channel, 0 … 1: 0 where the sharp image does not reach, and the less the worse it explains the
            blurry image once blurred, as where something hides what the other image shows.
        blur_radius: one channel, RMS radius in pixels of the blur between the two, as the reblurring network that comes
            with the package finds it: closer to the truth than the search, above all at depth edges.
        flow: two channels, x and y in pixels: the sharp image at p + flow(p) shows what the blurry one shows at p.
    """

    aligned: Tensor
    confidence: Tensor
    blur_radius: Tensor
    flow: Tensor


@torch.no_grad()
def align_pair(blurry: Tensor, sharp: Tensor, settings: AlignmentSettings | None = None) -> AlignedPair:
    """Align a sharp image with a blurry one.

    Args:
        blurry, sharp: (N, 3, H, W), sRGB 0 … 1, at least 16 pixels each way.
        settings: the defaults if None.

    Raises:
        TypeError, ValueError: images that do not fit.
    """
    settings = settings or AlignmentSettings()
    options = {"max_radius": float(settings.max_radius)} if settings.flow == "reblur" else {}
    flow = load_flow(settings.flow, **options)(blurry, sharp)
    warped = warp(sharp, flow, padding="border", interpolation="bicubic").clamp(0, 1)
    aligned = encode(match_exposure(decode(warped), decode(blurry))).clamp(0, 1)
    found = search_radius(aligned, blurry, max_radius=settings.max_radius)
    confidence = inside_mask(flow) / (1 + found.error / NOISE)
    radius = _reblurring_network(blurry.device)(aligned, blurry.float()).radius
    return AlignedPair(aligned, confidence, radius, flow)


@functools.lru_cache(maxsize=1)
def _reblurring_network(device: torch.device) -> RadiusReblurringNet:
    network = load_framework().reblur
    assert isinstance(network, RadiusReblurringNet)
    return network.to(device)
