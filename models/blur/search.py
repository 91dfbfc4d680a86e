"""Search of the blur radius: which disk takes the sharp image to the blurry one, at each pixel."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import reblur_ops

from ..core.tensors import IMAGE_CHANNELS, check_image, check_same_size, pad_to_multiple
from ..core.windows import box_mean
from .disks import disk_bank, rms_of_disks
from .exposure import match_exposure
from .light import Light, decode

STEP = 0.25  # pixels from one candidate to the next, up to where GROWTH makes a larger step
GROWTH = 1.1  # from one candidate to the next: what tells disks apart is the ratio of their radii
CELL = 2  # pixels; errors are compared in cells of this side: radii need no finer grid
TOGETHER = 8  # candidates that share a pass over the image, as their errors at all displacements take memory
NOISE = 1 / 255  # error that noise and rounding explain
SHARPNESS = 8.0  # how much likelier a candidate is whose error is smaller by a factor of e, as a logarithm
SPREAD = 0.5  # pixels; a radius known to this has half the confidence


@dataclass(frozen=True)
class BlurEstimate:
    """The blur found at each pixel. All (N, 1, H, W), float32."""

    radius: Tensor  # RMS radius in pixels
    coc: Tensor  # radius of the circle of confusion in pixels, as `reblur_ops.disk_blur` takes it
    confidence: Tensor  # 0 … 1; how sharply the candidates' errors single this radius out
    error: Tensor  # geometric mean of the best candidate's square error in the window, roots of light


@torch.no_grad()
def search_radius(
    sharp: Tensor,
    blurry: Tensor,
    *,
    max_radius: float = 7.0,
    window: int = 9,
    slack: int = 1,
    light: Light = "linear",
) -> BlurEstimate:
    """Find the disk that takes the sharp image to the blurry one.

    The sharp image is blurred by each candidate, 0 to max_radius (`candidate_radii`), and compared with
    the blurry one in windows, by the mean logarithm of the error: at a depth edge a few large errors do not outweigh
    the rest. The exposure is matched first (`match_exposure`).
    The radius is the mean of the candidates near the best one, each weighted by how well it explains the blurry image.
    Where no candidate stands out, it is filled in from confident pixels of similar colour nearby.

    Not differentiable in the images: the result is a target. `blur_by` is, in the radius.

    Args:
        sharp, blurry: (N, 3, H, W), sRGB values 0 … 1, of any size, aligned or warped.
        max_radius: largest circle of confusion in pixels, 0.25 to 64.
        window: side of the comparison windows in pixels, odd.
        slack: pixels of misalignment forgiven in each direction.
        light: where the blur is computed: `decode`.

    Raises:
        TypeError, ValueError: shapes or options that do not fit.
    """
    check_image("sharp", sharp, IMAGE_CHANNELS)
    check_image("blurry", blurry, IMAGE_CHANNELS)
    check_same_size("blurry", blurry, "sharp", sharp)
    _check_options(max_radius, window, slack)
    sharp, blurry = sharp.float(), blurry.float()
    candidates = candidate_radii(max_radius).to(sharp.device)
    costs = matching_costs(sharp, blurry, candidates, window=window, slack=slack, light=light)
    height, width = blurry.shape[2:]
    moments = torch.cat([*_refined(costs, candidates), costs.amin(1, keepdim=True)], dim=1)
    moments = F.interpolate(moments, scale_factor=CELL, mode="bilinear", align_corners=False)[..., :height, :width]
    coc, spread, error = moments.split(1, 1)
    confidence = 1 / (1 + (spread / SPREAD).square())
    coc = _filled(coc, confidence, blurry).clamp(0, max_radius)
    return BlurEstimate(rms_of_disks(coc, candidates), coc, confidence, error.exp())


def candidate_radii(max_radius: float) -> Tensor:
    """Radii of the circles of confusion that are tried, in pixels, from 0 to max_radius; (K,)."""
    radii = [0.0]
    while radii[-1] < max_radius:
        radii.append(max(radii[-1] + STEP, radii[-1] * GROWTH))
    return torch.tensor([*radii[:-1], max_radius])


def matching_costs(
    sharp: Tensor, blurry: Tensor, candidates: Tensor, *, window: int = 9, slack: int = 1, light: Light = "linear"
) -> Tensor:
    """Mean logarithm of the square error in windows, of disks of K radii in pixels, in cells of 2 × 2 pixels.

    Returns:
        (N, K, ⌈H/2⌉, ⌈W/2⌉).
    """
    values, target = decode(sharp, light), decode(blurry, light)
    values, target = pad_to_multiple(match_exposure(values, target), CELL), pad_to_multiple(target, CELL)
    radius = max(1, math.ceil(float(candidates.max())))
    bank = disk_bank(candidates, radius)
    costs = []
    for disks in bank.split(len(bank) if slack == 0 else TOGETHER):
        # The root of light is near sRGB, in which errors count about as the eye sees them, and far cheaper.
        errors = reblur_ops.cost_volume(
            values, target, disks, radius, slack=slack, cell=CELL, root=light != "srgb", padding="replicate"
        )
        logarithms = errors.add_(NOISE**2).log_()
        costs.append(box_mean(logarithms.flatten(1, 2), window // CELL | 1).view(errors.shape).amin(2))
    return torch.cat(costs, dim=1)


def _refined(costs: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in pixels of the candidates, weighted by their likelihood; (N, 1, H, W) each."""
    weights = (-SHARPNESS * costs).softmax(1)
    radii = candidates[:, None, None]
    mean = (weights * radii).sum(1, keepdim=True)
    variance = (weights * (radii - mean).square()).sum(1, keepdim=True)
    return mean, variance.sqrt()


def _filled(coc: Tensor, confidence: Tensor, guide: Tensor, window: int = 25) -> Tensor:
    """Replace unconfident radii by a fit to the guide's brightness over confident neighbours.

    A guided filter (He et al., TPAMI 2013) whose sums are weighted by the confidence.
    """
    grey, weight = guide.mean(1, keepdim=True), confidence.square() + 1e-4
    sums = box_mean(
        torch.cat([weight, weight * grey, weight * coc, weight * grey * coc, weight * grey * grey], 1), window
    )
    total, mean_grey, mean_coc, product, square = sums.split(1, 1)
    mean_grey, mean_coc = mean_grey / total, mean_coc / total
    slope = (product / total - mean_grey * mean_coc) / (square / total - mean_grey.square() + 1e-2)
    offset = mean_coc - slope * mean_grey
    fit = box_mean(torch.cat([total * slope, total * offset, total], 1), window)
    filled = (fit[:, :1] * grey + fit[:, 1:2]) / fit[:, 2:]
    return confidence * coc + (1 - confidence) * filled


def _check_options(max_radius: float, window: int, slack: int) -> None:
    if not STEP <= max_radius <= 64:
        raise ValueError(f"max_radius must be from {STEP} to 64 pixels, got {max_radius}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be an odd number of pixels, got {window}")
    if slack < 0:
        raise ValueError(f"slack must be at least 0 pixels, got {slack}")
