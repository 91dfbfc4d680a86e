"""Global motion of a pair: the homography that a dense flow follows where there is texture."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .dis import grey

TEXTURED = 0.5  # part of the pixels, those with the largest gradient, that a homography is fitted to
SAMPLES = 4000  # of these; more make the fit slower and not better
TOLERANCES = (0.7, 3.0)  # pixels from the dense flow at which a pixel still votes; the larger where blur hides motion
SMALLEST_VOTE = 0.25  # part of the samples that must agree; else the motion is not global


def fit_homographies(flow: Tensor, image: Tensor) -> Tensor:
    """Flows of the homographies that dense flows follow, robustly fitted (MAGSAC, Barath et al., CVPR 2020).

    Args:
        flow: (N, 2, H, W), pixels.
        image: (N, 3, H, W), the first of the two images, 0 … 1: its gradient says where flow can be trusted.

    Returns:
        (N, 2, H, W), pixels. Where too few pixels agree on a homography, the flow as it was given.
    """
    fitted = [_fit(one, gradient) for one, gradient in zip(flow, _gradient(grey(image)), strict=True)]
    return torch.stack(fitted)


def _gradient(image: Tensor) -> Tensor:
    """The size of the gradient of (N, 1, H, W), smoothed; (N, H, W)."""
    smooth = F.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
    dy, dx = (F.pad(smooth.diff(dim=dim), pad) for dim, pad in ((2, (0, 0, 0, 1)), (3, (0, 1))))
    return torch.hypot(dx, dy)[:, 0]


def _fit(flow: Tensor, gradient: Tensor) -> Tensor:
    height, width = flow.shape[1:]
    strongest = gradient.flatten().argsort(descending=True)[: max(int(TEXTURED * height * width), 4)]
    chosen = strongest[:: max(len(strongest) // SAMPLES, 1)].cpu()
    places = torch.stack([chosen % width, chosen // width], dim=1).double()
    targets = places + flow.flatten(1).t().cpu()[chosen].double()
    if len(places) < 4:
        return flow
    for tolerance in TOLERANCES:
        homography, inliers = cv2.findHomography(
            places.numpy(), targets.numpy(), cv2.USAC_MAGSAC, tolerance, maxIters=2000, confidence=0.999
        )
        if homography is not None and inliers.mean() >= SMALLEST_VOTE:
            return torch.from_numpy(_displacement(homography, height, width)).to(flow)
    return flow


def _displacement(homography: np.ndarray, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    moved = np.tensordot(homography, np.stack([x, y, np.ones_like(x)]), 1)
    return np.asarray(moved[:2] / moved[2:] - np.stack([x, y]), np.float32)
