"""Scores of pictures against targets, and the protocols that bring the two together before.

Pictures are (H, W, 3), RGB, 0 … 1, floating point, computed in float64 and never rounded here.

- PSNR: 10·log₁₀(1 / MSE), dB, the mean squared error over pixels and channels; infinite for equal pictures.
- SSIM: Wang et al., IEEE TIP 2004: Gaussian window of 11 × 11 with σ = 1.5, K₁ = 0.01, K₂ = 0.03, range 1, variances
  without Bessel's correction; on each channel, and the mean over channels and over the pixels whose window is inside.
- MAE: the mean absolute difference over pixels and channels.
- HaarPSI: Reisenhofer et al., Signal Processing: Image Communication 2018, in colour: Haar wavelets of two scales are
  compared where a third is strong; 0 … 1. Closer to what people see than PSNR, and without weights.
- LPIPS: Zhang et al., CVPR 2018, version 0.1 with AlexNet, by the package lpips; only where that is installed.
"""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import registration
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ..core.errors import UserError
from ..data.images import LUMA, Array, check_values
from ..flow import Flow, warp

Array64 = NDArray[np.float64]
Lpips = Callable[[Array64, Array64], float]

SSIM_WINDOW = 11  # pixels
HAARPSI_C, HAARPSI_ALPHA = 30.0, 4.2  # as published, chosen there on four collections of judgements
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
LARGEST_SHIFT = 8  # pixels, each way, that the protocol `shift` looks for
GAINS = (0.8, 1.25)  # that it may find: what is beyond is no exposure; a dark picture times anything fits another
SHIFT_MARGIN = LARGEST_SHIFT + 2  # pixels at each border that it leaves out: what the shift and the spline reach
SMALLEST = 4 * SHIFT_MARGIN  # pixels that a picture must have, each way: a quarter of it is scored, at least
PUBLISHED_MULTIPLE = 16  # what the protocol `warped` crops to

PROTOCOLS = {
    "raw": "the picture against the sharp one, as they are",
    "aligned": "the picture against the aligned truth, as they are",
    "warped": "as published: both cropped to multiples of 16 from the top left, and the sharp picture warped to the "
    "picture by optical flow between the two, bilinearly, its edge repeated, on the published grid, which moves pixels "
    "by up to half a pixel",
    "shift": f"the sharp picture shifted by the best vector, of up to {LARGEST_SHIFT} pixels each way, by cubic "
    f"splines, and the picture times the best gain of {GAINS[0]} to {GAINS[1]}, both of least squares; "
    f"{SHIFT_MARGIN} pixels at each border are left out",
}


@dataclass(frozen=True)
class Score:
    """The closeness of an image to its target, as defined at the head of this module."""

    psnr: float  # dB
    ssim: float
    mae: float
    haarpsi: float
    lpips: float | None = None


@dataclass(frozen=True)
class Shift:
    """The result of the protocol `shift`: the displacement into the target, pixels right and down, and the gain."""

    x: float
    y: float
    gain: float


def score(picture: Array, target: Array, lpips: Lpips | None = None) -> Score:
    """Score a picture.

    Args:
        picture, target: (H, W, 3), 0 … 1, at least 11 pixels each way.
        lpips: from `load_lpips`, or None.

    Raises:
        TypeError: pictures that are not floating point.
        ValueError: shapes that differ or are too small; or values that are not those of 0 … 1.
    """
    if picture.shape != target.shape or picture.ndim != 3 or min(picture.shape[:2]) < SSIM_WINDOW:
        raise ValueError(
            f"picture and target must be (H, W, 3), alike, of {SSIM_WINDOW} pixels each way at least, "
            f"got {picture.shape} and {target.shape}"
        )
    for name, values in (("picture", picture), ("target", target)):
        check_values(name, values)
    one, other = picture.astype(np.float64), target.astype(np.float64)
    with np.errstate(divide="ignore"):
        psnr = float(peak_signal_noise_ratio(other, one, data_range=1))
    ssim = structural_similarity(
        other, one, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    mae = float(np.abs(one - other).mean())
    return Score(psnr, float(ssim), mae, haarpsi(one, other), lpips(one, other) if lpips else None)


def haarpsi(picture: Array | Array64, target: Array | Array64) -> float:
    """HaarPSI in colour, on luma and chroma of NTSC, at half the size as published.

    Args:
        picture, target: (H, W, 3), 0 … 1, of one shape.

    Returns:
        0 … 1; 1 for equal pictures. Either may stand first.
    """
    luma, *chroma = ([_pairs(255 * p.astype(np.float64) @ row)[::2, ::2] for p in (picture, target)] for row in YIQ)

    def similarity(first: Array64, second: Array64) -> Array64:
        return (2 * first * second + HAARPSI_C) / (first**2 + second**2 + HAARPSI_C)

    maps, weights = [], []
    for axis in (0, 1):
        one, other = ([np.abs(_haar(plane, scale, axis)) for scale in (1, 2, 3)] for plane in luma)
        maps.append((similarity(one[0], other[0]) + similarity(one[1], other[1])) / 2)
        weights.append(np.maximum(one[2], other[2]))
    colours = [similarity(*(np.abs(_pairs(plane)) for plane in both)) for both in chroma]
    maps.append((colours[0] + colours[1]) / 2)
    weights.append((weights[0] + weights[1]) / 2)
    shares = 1 / (1 + np.exp(-HAARPSI_ALPHA * np.array(maps)))
    total = np.sum(weights)
    mean = float((shares * weights).sum() / total) if total else float(shares.mean())  # equal flat pictures
    return min(1.0, (math.log(mean / (1 - mean)) / HAARPSI_ALPHA) ** 2)


def _pairs(plane: Array64) -> Array64:
    """Means of 2 × 2 pixels, to the right and below; zeros beyond the edges."""
    return np.asarray(ndimage.uniform_filter(plane, 2, mode="constant", origin=-1))


def _haar(plane: Array64, scale: int, axis: int) -> Array64:
    """Coefficients at each pixel: what is before it less what is behind it, along an axis, in squares of 2^scale."""
    side = 2**scale
    taps = np.ones(side)
    signed = np.where(np.arange(side) < side // 2, -1.0, 1.0)
    filtered = ndimage.convolve1d(plane, signed, axis=axis, mode="constant")
    return np.asarray(ndimage.convolve1d(filtered, taps, axis=1 - axis, mode="constant") / side)


def warped(picture: Array, sharp: Array, flow: Flow) -> tuple[Array, Array]:
    """The picture and its target by the protocol `warped`, both cropped.

    Args:
        picture, sharp: (H, W, 3), 0 … 1, at least 16 pixels each way.
        flow: from `models.flow.load_flow`.
    """
    height, width = (extent // PUBLISHED_MULTIPLE * PUBLISHED_MULTIPLE for extent in picture.shape[:2])
    first, second = (
        torch.from_numpy(np.ascontiguousarray(image[:height, :width].transpose(2, 0, 1)))[None]
        for image in (picture, sharp)
    )
    with torch.no_grad():
        target = warp(second, flow(first, second), padding="border", grid="published")
    return picture[:height, :width], np.asarray(target[0].permute(1, 2, 0).cpu().numpy(), np.float32)


def shifted(picture: Array, sharp: Array) -> tuple[Array, Array, Shift]:
    """The picture and its target by the protocol `shift`, both without their borders, and what was found.

    Gauss-Newton on vector and gain together, from the peak of the phase correlation and from zero; the better counts,
    and never less than no shift and no gain.

    Args:
        picture, sharp: (H, W, 3), 0 … 1, at least `SMALLEST` pixels each way.
    """
    inside = (slice(SHIFT_MARGIN, -SHIFT_MARGIN),) * 2
    one = picture.astype(np.float64)[inside]
    splines = [ndimage.spline_filter(sharp[..., channel].astype(np.float64), mode="mirror") for channel in range(3)]

    def moved(shift: Shift) -> Array64:
        channels = [
            ndimage.shift(spline, (-shift.y, -shift.x), mode="mirror", prefilter=False)[inside] for spline in splines
        ]
        return np.stack(channels, axis=2)

    def error(shift: Shift) -> float:
        return float(np.mean((shift.gain * one - moved(shift)) ** 2))

    still = Shift(0.0, 0.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a picture is black, and its error unknown
        peak = registration.phase_cross_correlation(sharp @ LUMA, picture @ LUMA, normalization=None)[0]
    starts = [still]
    if np.abs(peak).max() <= LARGEST_SHIFT:
        starts.append(Shift(float(peak[1]), float(peak[0]), 1.0))
    found = min([still, *(_refined(one, moved, start) for start in starts)], key=error)
    return (found.gain * one).astype(np.float32), moved(found).astype(np.float32), found


def _refined(picture: Array64, moved: Callable[[Shift], Array64], shift: Shift, steps: int = 20) -> Shift:
    """Least squares of gain·picture - moved(shift), by Gauss-Newton."""
    for _ in range(steps):
        target = moved(shift)
        down, right = np.gradient(target, axis=(0, 1))
        unknowns = np.stack([picture.ravel(), -right.ravel(), -down.ravel()])
        gain, x, y = np.linalg.lstsq(unknowns @ unknowns.T, unknowns @ target.ravel(), rcond=None)[0]
        limited = np.clip([shift.x + x, shift.y + y], -LARGEST_SHIFT, LARGEST_SHIFT)
        shift = Shift(float(limited[0]), float(limited[1]), float(np.clip(gain, *GAINS)))
        if math.hypot(x, y) < 1e-4:
            break
    return shift


@dataclass(frozen=True)
class RadiusScore:
    """The closeness of a map of blur radii to the truth."""

    correlation: float | None  # Pearson's, over pixels; None where one of the two is the same everywhere
    mae: float  # pixels


def score_radius(radius: Array, truth: Array) -> RadiusScore:
    """Score blur radii, RMS, pixels, (H, W) each."""
    varies = min(radius.std(), truth.std()) > 1e-6
    correlation = float(np.corrcoef(radius.ravel(), truth.ravel())[0, 1]) if varies else None
    return RadiusScore(correlation, float(np.abs(radius.astype(np.float64) - truth).mean()))


@functools.cache
def load_lpips() -> Lpips | None:
    """LPIPS, or None where its package is not installed.

    Raises:
        UserError: it is, and its weights cannot be had.
    """
    try:
        import lpips
    except ImportError:
        return None
    try:
        network = lpips.LPIPS(net="alex", verbose=False).eval()
    except Exception as error:  # whatever a download that fails raises
        raise UserError(f"the package lpips is installed, and its weights cannot be loaded: {error}") from error

    def distance(picture: Array64, target: Array64) -> float:
        one, other = (torch.from_numpy(image.transpose(2, 0, 1)[None]).float() * 2 - 1 for image in (picture, target))
        with torch.no_grad():
            return float(network(one, other))

    return distance
