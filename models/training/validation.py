"""Scores on pairs held apart."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.pairs import Pair
from ..data.samples import WholePairs
from ..flow import inside_mask
from ..framework import Framework
from ..networks import BlurRadiusNet, RadiusReblurringNet, Reblurred, ReblurredByDisks, ReblurringNet
from .objective import Aligner
from .processes import Processes

# Sums of two radii over pixels, and what is told of them.
MOMENTS = {"radius_moments": "blur_radius_correlation", "map_moments": "map_radius_correlation"}
BIN = 0.25  # pixels: radii nearer than that count as one blur
COLLAPSED = 1.5  # effective blurs below which the blur found tells nothing of the place


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` of the pairs, evenly spread; all if 0."""
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
        is known too `blur_radius_correlation`, over all pixels of all pairs. Of the blur found, `effective_blurs`, how
        many different ones there are: `effective_number`; near 1 it has collapsed into a single one. Of a map of radii
        `map_radius_correlation`, of the radius that a single image tells.
    """
    own = WholePairs(pairs)
    with evaluation_mode(framework):
        results = [
            _score(framework, own[number], aligner, processes.device)
            for number in range(processes.rank, len(pairs), processes.count)
        ]
    gathered = [result for part in processes.gather(results) for result in part]
    names = [name for name in gathered[0] if name not in MOMENTS and name != "histogram"]
    scores: dict[str, Any] = {
        "pairs": len(pairs),
        "protocol": "aligned" if "aligned" in own.truths else f"warped by {aligner.name}",
    }
    # Sorted: sums of floats depend on the order, and that on how many processes there are.
    for name in names:
        scores[name] = float(np.mean(sorted(result[name] for result in gathered)))
    for moments, name in MOMENTS.items():
        if moments in gathered[0]:
            scores[name] = _correlation([result[moments] for result in gathered])
    if "histogram" in gathered[0]:
        scores["effective_blurs"] = effective_number(np.sum([result["histogram"] for result in gathered], axis=0))
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
        found, reblurred = _find_blur(
            framework.reblur, deblurred, blurry, sharp if aligned is None else aligned, aligner
        )
        scores["reblurred_psnr"] = psnr(float((reblurred - blurry).square().mean()))
        radius = found.radius[0, 0].cpu().numpy()
        scores["histogram"] = np.histogram(radius, np.arange(0, 64 + BIN, BIN))[0]
        if "blur_radius" in sample:
            scores["radius_moments"] = _moments(radius, sample["blur_radius"][0].numpy())
    if isinstance(framework.blur_map, BlurRadiusNet) and "blur_radius" in sample:
        predicted = framework.blur_radius(blurry)[0, 0].cpu().numpy()
        scores["map_moments"] = _moments(predicted, sample["blur_radius"][0].numpy())
    return scores


def _find_blur(
    network: ReblurringNet | RadiusReblurringNet, deblurred: Tensor, blurry: Tensor, sharp: Tensor, aligner: Aligner
) -> tuple[Reblurred | ReblurredByDisks, Tensor]:
    """The blur found, and the deblurred image blurred by it.

    The published network finds it from the deblurred image, disks are found from the sharp image, warped.
    """
    if isinstance(network, ReblurringNet):
        kernels = network(deblurred, blurry)
        return kernels, kernels.image
    disks = network(aligner.warp(sharp, aligner.flow(blurry, sharp)), blurry)
    return disks, disks.again(deblurred)


def effective_number(counts: NDArray[np.int64]) -> float:
    """The effective number of values in a histogram: e to the entropy of their shares; 1 for a single one."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _moments(found: Any, true: Any) -> list[float]:
    """Sums of which a correlation over several pairs can be made."""
    x, y = found.astype(np.float64).ravel(), true.astype(np.float64).ravel()
    return [float(value) for value in (x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y)]


def _correlation(moments: list[list[float]]) -> float | None:
    """Pearson's; None where one side does not vary."""
    n, x, y, xx, yy, xy = np.sum(sorted(moments), axis=0)
    variances = (xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)
    return float((xy / n - x * y / n**2) / np.sqrt(variances)) if variances > 0 else None
