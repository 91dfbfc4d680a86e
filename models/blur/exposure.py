"""Exposure: two shots of a scene differ by a gain beside their blur, and some by a haze and a tone curve, too."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.windows import box_mean

CELL = 6  # pixels; places that are compared are so far apart
WINDOW = 5  # cells; means over such windows hardly depend on the blur, and on misalignment of a few pixels
USUAL = (0.3, 0.02, 0.3)  # standard deviations of gain, haze and curve from none
GAINS = (0.5, 2.0)  # of a gain alone; what is beyond is taken as haze and curve are, where it explains far more
FAINT = 1e-2  # light that is as good as none
ROUNDING = 1 / 255  # least standard deviation of what no curve explains, roots of light
ITERATIONS = 4
# What a gain leaves unexplained falls to this part by haze and curve: from the first on they are taken, wholly from the
# second on. On scenes of one tone curve it falls to 0.78 at least; with an exponent of 1.05 between them to 0.57.
WORTH = (0.8, 0.6)


def match_exposure(values: Tensor, target: Tensor) -> Tensor:
    """Expose and develop values as the target is: b·v of each channel, or a + b·v + c·√v where that explains far more.

    Blur keeps means over large windows, so it need not be known. The gain alone is the median of their ratios; the
    means of a + b·v + c·√v are linear in haze a, gain b and curve c, which are fitted. But blur happens before the tone
    curve, and so looks a little like haze: haze and curve are taken as far as they are worth it.

    Args:
        values, target: (N, C, H, W), linear light, 0 … 1, aligned to some pixels, however blurred each is.

    Returns:
        (N, C, H, W), at least 0.
    """
    root = (values.clamp_min(0) + 1e-4).sqrt()
    means, wanted = _low_pass(values), _low_pass(target)
    means = torch.stack([means, torch.ones_like(means), _low_pass(root)], dim=-1)  # of gain, haze and curve
    ratio = ((wanted + FAINT) / (means[..., 0] + FAINT)).median(dim=2).values.clamp(*GAINS)
    exposed = F.pad(ratio[..., None], (0, 2))  # a gain without haze and curve
    scale = 0.5 / (wanted + FAINT).sqrt()  # from light to its root, in which errors count about as the eye sees them
    means, wanted = means * scale[..., None], wanted * scale
    independent = max(values.shape[2] * values.shape[3] / (CELL * WINDOW) ** 2, 1)
    developed = _fitted(means, wanted, exposed, independent)
    first, whole = WORTH
    share = (first - _error(means, wanted, developed) / _error(means, wanted, exposed)) / (first - whole)
    amounts = torch.lerp(exposed, developed, share.clamp(0, 1))
    gain, haze, curve = amounts[..., None, None].unbind(2)
    return (gain * values + haze + curve * root).clamp_min(0)


def _low_pass(planes: Tensor) -> Tensor:
    """Means over windows, (N, C, number of windows)."""
    return box_mean(F.avg_pool2d(planes, CELL, ceil_mode=True, count_include_pad=False), WINDOW).flatten(2)


def _fitted(means: Tensor, wanted: Tensor, amounts: Tensor, independent: float) -> Tensor:
    """Least squares, reweighted so that places with another content count for little (Cauchy's weights).

    Args:
        means: (N, C, W, 3), of gain, haze and curve in W windows.
        wanted: (N, C, W).
        amounts: (N, C, 3), where the fit begins.
        independent: of how many windows that do not overlap the image consists. Where these are few, the fit is drawn
            to a gain of 1 without haze and curve.

    Returns:
        (N, C, 3), how much of each.
    """
    usual, none = means.new_tensor(USUAL), means.new_tensor([1.0, 0.0, 0.0])
    for _ in range(ITERATIONS):
        error = wanted - (means * amounts[:, :, None]).sum(-1)
        deviation = (1.5 * error.abs().median(dim=2, keepdim=True).values).clamp_min(ROUNDING)
        weight = independent / wanted.shape[2] / (deviation.square() + (error / 2).square())
        # Sums of products, and no matrix products, which autocast would round.
        normal = (weight[..., None, None] * means[..., None] * means[..., None, :]).sum(2) + usual.pow(-2).diag()
        moment = ((weight * (wanted - means[..., 0]))[..., None] * means).sum(2)
        amounts = none + torch.linalg.solve_ex(normal, moment[..., None]).result[..., 0]
    return amounts


def _error(means: Tensor, wanted: Tensor, amounts: Tensor) -> Tensor:
    """(N, 1, 1), the geometric mean of errors: places with another content do not outweigh the rest."""
    error = wanted - (means * amounts[:, :, None]).sum(-1)
    return (error.abs() + ROUNDING / 4).log().mean(dim=(1, 2), keepdim=True).exp()
