"""Alignment by reblurring: the flow sees two images that are equally blurred, and the reblurring error judges it."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

import reblur_ops

from ..blur import blur_by, search_radius
from .base import Flow
from .dis import DisFlow, grey
from .global_motion import fit_homographies
from .warping import resized, warp

JUDGED = 25  # pixels: side of the windows over which the reblurring error of two flows is compared
BETTER = 0.5  # fall of the logarithm of that error which is no accident
PARALLAX = 0.05  # part of the image where it falls by so much, from which on motion is not global
MARGINS = (1.5, 0.15)  # by how much it must fall for the flow that is less smooth: global motion, and not global
FLOOR = (2.5 / 255) ** 2  # error below which no flow is told from another
SHARPNESS = 12.0  # of the choice between two flows, as a logistic function of that logarithm
SMALLER = (2, 4)  # divisors of the size at which DIS is tried, too
SMALLEST = 48  # pixels: no side is made smaller for it
CELL = 4  # pixels: flow is smoothed at this part of the size
FINEST = 6.0  # pixels: radius of a blur that hides no motion that dense flow finds
SMOOTHNESS = 1.0  # standard deviation of the smoothing by the radius of the blur
LARGEST_SIGMA = 8.0  # cells
LEAST_WEIGHT = 1e-5  # of flow where there is no gradient


class ReblurFlow(Flow):
    """Flow from a blurry to a sharp image, refined by reblurring.

    DIS comes first, at full size, half or a quarter, whichever explains the blurry image best once reblurred: in an
    image made smaller strong blur is as weak as DIS knows it. Then comes the homography that it follows. From each of
    these the blur is searched (`search_radius`), the warped sharp image is blurred by it, and DIS finds what motion is
    left between two equally blurred images: so the homography is fitted again, and the dense flow refined. Of these
    flows the smoothest is kept at each place unless another explains the blurry image better in linear light.

    What differs from the homography is as smooth as the blur, as finer motion cannot be seen through it.

    Some 230 disks are tried at each pixel: a pair of 0.3 megapixels takes 5 to 12 s on one core.

    Args:
        rounds: refinements of each flow, at least 0.
        max_radius: largest circle of confusion that is searched, 0.25 to 64 pixels.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, rounds: int = 2, max_radius: float = 16.0) -> None:
        super().__init__()
        if rounds < 0:
            raise ValueError(f"rounds must be at least 0, got {rounds}")
        if not 0.25 <= max_radius <= 64:
            raise ValueError(f"max_radius must be from 0.25 to 64 pixels, got {max_radius}")
        self.rounds = rounds
        self.max_radius = max_radius
        self.first = DisFlow()
        self.residual = DisFlow(equalise=False)

    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        dense = self._start(first, second)
        best = smooth = self._global(first, second, dense)
        best_error = self._error(first, second, best)
        for flow in (self._refined(first, second, smooth, smooth), self._repeatedly(first, second, dense, smooth)):
            error = self._error(first, second, flow)
            share = _share(best_error - error)
            best, best_error = torch.lerp(best, flow, share), torch.lerp(best_error, error, share)
        return best

    def _start(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow of DIS, at the size that explains each of the first images best."""
        best = self.first(first, second)
        best_error = self._error(first, second, best).mean(dim=(1, 2, 3), keepdim=True)
        for divisor in SMALLER:
            if min(first.shape[2:]) < divisor * SMALLEST:
                break
            small = (F.interpolate(image, scale_factor=1 / divisor, mode="area") for image in (first, second))
            flow = resized(self.first(*small), first.shape[2:])
            error = self._error(first, second, flow).mean(dim=(1, 2, 3), keepdim=True)
            best, best_error = torch.where(error < best_error, flow, best), torch.minimum(error, best_error)
        return best

    def _global(self, first: Tensor, second: Tensor, dense: Tensor) -> Tensor:
        """The homography that dense flow follows, fitted again to the flow between equally blurred images."""
        flow = fit_homographies(dense, first)
        for _ in range(self.rounds):
            flow = fit_homographies(self._refined(first, second, flow, flow), first)
        return flow

    def _repeatedly(self, first: Tensor, second: Tensor, flow: Tensor, smooth: Tensor) -> Tensor:
        """The flow refined in all rounds, around a smooth one."""
        for _ in range(self.rounds):
            flow = self._refined(first, second, flow, smooth)
        return flow

    def _refined(self, first: Tensor, second: Tensor, flow: Tensor, smooth: Tensor) -> Tensor:
        """The flow composed with what motion is left between equally blurred images.

        What it differs by from a smooth flow is smoothed by the blur: where that is strong, optical flow tears the
        sharp image until it explains the blurry one.
        """
        blurred, coc = self._blurred(first, second, flow)
        composed = _composed(flow, self.residual(first, blurred))
        return smooth + as_smooth_as_blur(composed - smooth, coc, grey(first))

    def _blurred(self, first: Tensor, second: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The second image warped to the first and as blurred as it; the circles of confusion found."""
        warped = _warped(second, flow)
        coc = search_radius(warped, first, max_radius=self.max_radius).coc
        return blur_by(warped, coc, max_radius=math.ceil(self.max_radius)).clamp(0, 1), coc

    def _error(self, first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
        """The logarithm of the reblurring error around each pixel, (N, 1, H, W)."""
        found = search_radius(_warped(second, flow), first, max_radius=self.max_radius, slack=0)
        return F.avg_pool2d((found.error + FLOOR).log(), JUDGED, 1, JUDGED // 2, count_include_pad=False)


def _share(gain: Tensor) -> Tensor:
    """The share of the less smooth of two flows, 0 … 1, by the fall of the logarithm of the error, (N, 1, H, W).

    Where hardly any place gains, the motion is that of the smoother flow, and the rest is noise that looks like motion.
    """
    parallax = ((gain > BETTER).float().mean(dim=(1, 2, 3), keepdim=True) / PARALLAX).clamp(0, 1)
    margin = MARGINS[0] + (MARGINS[1] - MARGINS[0]) * parallax
    return torch.sigmoid(SHARPNESS * (gain - margin))


def _warped(image: Tensor, flow: Tensor) -> Tensor:
    return warp(image, flow, padding="border", interpolation="bicubic").clamp(0, 1)


def _composed(flow: Tensor, correction: Tensor) -> Tensor:
    """The flow after a correction from the first image to the second one, warped by the flow."""
    return correction + warp(flow, correction, padding="border")


def as_smooth_as_blur(flow: Tensor, coc: Tensor, image: Tensor) -> Tensor:
    """Smooth a flow by a Gaussian of the size of the blur, as finer motion cannot be seen through it.

    Args:
        flow: (N, 2, H, W), pixels.
        coc: (N, 1, H, W), radius of the circle of confusion, pixels.
        image: (N, 1, H, W), grey, 0 … 1; where it has more gradient the flow counts for more.
    """
    if min(flow.shape[2:]) < 2 * CELL:
        return flow
    gradients = (F.pad(image.diff(dim=dim), pad) for dim, pad in ((2, (0, 0, 0, 1)), (3, (0, 1))))
    weight = _cells(torch.stack([gradient.square() for gradient in gradients]).sum(0) + LEAST_WEIGHT)
    sigma = (SMOOTHNESS / CELL * _cells(coc)).clamp(0.3, LARGEST_SIGMA)
    sums = torch.cat([weight * _cells(flow), weight], dim=1)
    sums = reblur_ops.gaussian_blur(sums, sigma, radius=math.ceil(3 * LARGEST_SIGMA), padding="replicate")
    smooth = F.interpolate(sums[:, :2] / sums[:, 2:], size=flow.shape[2:], mode="bilinear", align_corners=False)
    return torch.lerp(flow, smooth, ((coc - FINEST) / FINEST).clamp(0, 1))


def _cells(planes: Tensor) -> Tensor:
    return F.avg_pool2d(planes, CELL, ceil_mode=True)
