"""Scores on pairs held apart."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.layouts import Pair
from ..data.samples import WholePairs
from ..flow import inside_mask
from ..framework import Framework
from .objective import Aligner
from .processes import Processes


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """As many of the pairs, evenly spread over them; all if 0."""
    if not 0 < count < len(pairs):
        return list(pairs)
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, count).round().astype(int)]


def psnr(mean_squared_error: float) -> float:
    """dB, for pictures of 0 … 1; at most 100."""
    return float(-10 * np.log10(max(mean_squared_error, 1e-10)))


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """While the block lasts; afterwards each part is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@torch.no_grad()
def validate(framework: Framework, pairs: Sequence[Pair], aligner: Aligner, processes: Processes) -> dict[str, Any]:
    """Deblur pairs whole, each process its share, and score the results.

    Where the aligned truth is known, that is what pictures are compared with. Else the sharp picture is warped to
    each of them by the flow of training, and compared where the flow stays inside; the protocol then names the flow,
    as scores by another are not comparable.

    Args:
        framework: its weights are left as they are.

    Returns:
        The same in all processes, means over pairs: `pairs`, `protocol`, `deblurred_psnr`, `input_psnr`; with a
        reblurring network `reblurred_psnr`, of the deblurred picture reblurred, to the blurry one; and where the truth
        is known too `blur_radius_correlation`, over all pixels of all pairs.
    """
    own = WholePairs(pairs)
    with evaluation_mode(framework):
        results = [
            _score(framework, own[number], aligner, processes.device)
            for number in range(processes.rank, len(pairs), processes.count)
        ]
    gathered = [result for part in processes.gather(results) for result in part]
    names = [name for name in gathered[0] if name != "radius_moments"]
    scores: dict[str, Any] = {
        "pairs": len(pairs),
        "protocol": "aligned" if "aligned" in own.truths else f"warped by {aligner.name}",
    }
    # Sorted: sums of floats depend on the order, and that on how many processes there are.
    for name in names:
        scores[name] = float(np.mean(sorted(result[name] for result in gathered)))
    if "radius_moments" in gathered[0]:
        scores["blur_radius_correlation"] = _correlation([result["radius_moments"] for result in gathered])
    return scores


def _score(framework: Framework, sample: Any, aligner: Aligner, device: torch.device) -> dict[str, Any]:
    blurry, sharp = (sample[name][None].to(device) for name in ("blurry", "sharp"))
    aligned = sample["aligned"][None].to(device) if "aligned" in sample else None
    deblurred = framework(blurry)

    def score(image: Tensor) -> float:
        if aligned is not None:
            return psnr(float((image - aligned).square().mean()))
        flow = aligner.flow(image, sharp)
        mask = inside_mask(flow)
        error = (mask * (image - aligner.warp(sharp, flow))).square().sum() / (3 * mask.sum()).clamp_min(1)
        return psnr(float(error))

    scores: dict[str, Any] = {"deblurred_psnr": score(deblurred), "input_psnr": score(blurry)}
    if framework.reblur is not None:
        reblurred = framework.reblur(deblurred, blurry)
        scores["reblurred_psnr"] = psnr(float((reblurred.image - blurry).square().mean()))
        if "blur_radius" in sample:
            scores["radius_moments"] = _moments(reblurred.radius[0, 0].cpu().numpy(), sample["blur_radius"][0].numpy())
    return scores


def _moments(found: Any, true: Any) -> list[float]:
    """Sums of which a correlation over several pairs can be made."""
    x, y = found.astype(np.float64).ravel(), true.astype(np.float64).ravel()
    return [float(value) for value in (x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y)]


def _correlation(moments: list[list[float]]) -> float | None:
    """Pearson's; None where one side does not vary."""
    n, x, y, xx, yy, xy = np.sum(sorted(moments), axis=0)
    variances = (xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)
    return float((xy / n - x * y / n**2) / np.sqrt(variances)) if variances > 0 else None
