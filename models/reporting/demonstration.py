"""The page of the demonstration, and what it measures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ..alignment import AlignmentSettings, align_pair
from ..data.pairs import Pair
from ..data.samples import Sample, WholePairs
from ..evaluation.metrics import RadiusScore, score_radius
from ..inference.tiling import TiledFramework
from ..training.validation import psnr
from . import page
from .restored import Restored, enlarged, picture_section, score_table
from .training_run import curves

SHOWN = 4  # of the pictures held out, on the page
SHOWN_PAIRS = ("motorcycle", "coins")  # photographs; of each the pair that is farthest out of line
INTRODUCTION = Template(
    """<p>A lens threw photographs out of focus, and the sharp picture of each pair was taken by a camera that had
moved: no two pictures line up. From $pairs such pairs, a framework of $parameters million parameters has learnt to
deblur, in $time on $device: what it made of a blurry picture had to be like the sharp one, aligned by reblurring, and,
blurred again by <code>reblur_ops.reblur</code>, like the blurry one, pixel for pixel.$begun</p>
<p>Below it deblurs photographs that it has never seen, $held_out; the numbers are means over $pictures pictures.</p>"""
)
BEGUN = """ Its deblurring network began from nothing; the networks that find the blur, between two pictures and from
one, began as they come with the package."""
ALIGNED = "sharp, aligned by reblurring"
LEARNT_FROM = """<h2>What it learnt from</h2>
<p>Two of the pairs. Drag across: things jump where the other picture takes over. Aligned by reblurring, they stay: the
alignment searches the blur between the two, blurs the sharp picture by it, and lets optical flow compare pictures that
are equally blurred. Training has seen only what was found so, never the truth.</p>"""


@dataclass(frozen=True)
class Metrics:
    """Scores of the held-out pictures: means of PSNR (dB) and SSIM to the aligned truth, `evaluation.metrics`.

    The targets are what the pairs to train on are to become: their sharp pictures, as taken and aligned in two ways.
    The radius of the blur that the reblurring network found, RMS, is compared with the true one over all pixels of all
    pictures. What needs that network is None without it.
    """

    input_psnr: float  # of the blurry pictures
    deblurred_psnr: float
    gain_db: float  # deblurred_psnr - input_psnr
    input_ssim: float
    deblurred_ssim: float
    misaligned_psnr: float  # of the sharp pictures as they were taken
    flow_psnr: float  # warped by optical flow, DIS
    target_psnr: float  # aligned by reblurring: the targets
    reblurred_psnr: float | None  # of the aligned sharp pictures blurred again, to the blurry ones
    blur_radius_correlation: float | None  # found between the aligned sharp and the blurry picture
    blur_radius_mae: float | None  # pixels
    single_radius_correlation: float | None  # told from the blurry picture alone; None where the map tells no radius
    single_radius_mae: float | None
    pictures: int
    photographs: list[str]  # which these are cut from
    pairs: int  # to train and to validate on
    steps: int
    parameters: int
    seconds: dict[str, float]  # of each phase of this call; "training" by its log, over all calls that it took
    device: str  # that trained
    versions: dict[str, str | None]


def measure(pictures: Sequence[Restored]) -> dict[str, Any]:
    """The scores in `Metrics`, of pictures whose truth is known."""
    before, after = zip(*(each.scores for each in pictures if each.scores), strict=True)
    input_psnr, deblurred_psnr = (_mean(each.psnr for each in scores) for scores in (before, after))
    radius = pooled_radius_score(pictures, [each.radius for each in pictures])
    single = pooled_radius_score(pictures, [each.predicted for each in pictures])
    return {
        "input_psnr": input_psnr,
        "deblurred_psnr": deblurred_psnr,
        "gain_db": deblurred_psnr - input_psnr,
        "input_ssim": _mean(each.ssim for each in before),
        "deblurred_ssim": _mean(each.ssim for each in after),
        "reblurred_psnr": _mean(each.reblurred_psnr or 0 for each in pictures) if radius else None,
        "blur_radius_correlation": radius.correlation if radius else None,
        "blur_radius_mae": radius.mae if radius else None,
        "single_radius_correlation": single.correlation if single else None,
        "single_radius_mae": single.mae if single else None,
    }


def pooled_radius_score(pictures: Sequence[Restored], radii: Sequence[Tensor | None]) -> RadiusScore | None:
    """The score of the radii of pictures, over all pixels of all of them; None where a framework tells none."""
    found = [radius.numpy().ravel() for radius in radii if radius is not None]
    true = [each.sample["blur_radius"].numpy().ravel() for each in pictures]
    return score_radius(np.concatenate(found), np.concatenate(true)) if found else None


def measure_targets(pairs: Sequence[Pair], aligned: Sequence[Pair], margin: int) -> dict[str, float]:
    """The scores of the targets in `Metrics`: means of PSNR, dB.

    Args:
        pairs: as they were taken, with the aligned truth.
        aligned: the same pairs, by the same names, aligned by `models.alignment`.
        margin: pixels at each side that do not count, as the sharp picture may not show them.
    """
    found = {pair.name: pair for pair in aligned}
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    scores = []
    for pair in tqdm(pairs, "targets", unit="pair", delay=3):
        sample, target = (WholePairs([each])[0] for each in (pair, found[pair.name]))
        by_flow = align_pair(sample["blurry"][None], sample["sharp"][None], AlignmentSettings("dis")).aligned[0]
        candidates = (sample["sharp"], by_flow, target["aligned"])
        truth = sample["aligned"][inner]
        scores.append([psnr(float((each[inner] - truth).square().mean())) for each in candidates])
    names = ("misaligned_psnr", "flow_psnr", "target_psnr")
    return dict(zip(names, map(float, np.mean(scores, axis=0)), strict=True))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def headline(metrics: Metrics) -> dict[str, str]:
    """The numbers that count, by what they are."""
    gained = (
        "PSNR gained over the blurry pictures, to the aligned truth: "
        f"{metrics.input_psnr:.2f} dB to {metrics.deblurred_psnr:.2f} dB"
    )
    numbers = {
        gained: f"{metrics.gain_db:+.2f} dB",
        f"SSIM; of the blurry pictures {metrics.input_ssim:.3f}": f"{metrics.deblurred_ssim:.3f}",
    }
    if metrics.reblurred_psnr is not None:
        reblurred = "PSNR of the aligned sharp pictures, blurred again, to the blurry ones"
        numbers[reblurred] = f"{metrics.reblurred_psnr:.2f} dB"
    if metrics.blur_radius_correlation is not None:
        error = f"mean error {metrics.blur_radius_mae:.2f} px"
        name = f"correlation of the blur radius found between blurry and aligned picture with the true one; {error}"
        numbers[name] = f"{metrics.blur_radius_correlation:.3f}"
    if metrics.single_radius_correlation is not None:
        name = f"the same of the radius that the blurry picture alone tells; {metrics.single_radius_mae:.2f} px"
        numbers[name] = f"{metrics.single_radius_correlation:.3f}"
    targets = (
        "PSNR of the targets to train on, aligned by reblurring, to the aligned truth; "
        f"by optical flow alone {metrics.flow_psnr:.2f} dB, as they were taken {metrics.misaligned_psnr:.2f} dB"
    )
    return numbers | {targets: f"{metrics.target_psnr:.2f} dB"}


def page_body(
    metrics: Metrics,
    run: Path,
    tiled: TiledFramework,
    pictures: Sequence[Restored],
    pairs: Sequence[Pair],
    begun: bool,
) -> str:
    """The contents of the page: a run, pictures held out, and the pairs to train on.

    Args:
        begun: whether the networks that find the blur began as the recipe says, with the weights of the package.
    """
    introduction = INTRODUCTION.substitute(
        pairs=metrics.pairs,
        parameters=f"{metrics.parameters / 1e6:.2f}",
        time=_spoken(metrics.seconds["training"]),
        device=metrics.device,
        held_out=" and ".join(metrics.photographs),
        pictures=metrics.pictures,
        begun=BEGUN if begun else "",
    )
    seconds = ", ".join(f"{phase} {value:.0f} s" for phase, value in metrics.seconds.items())
    versions = ", ".join(f"{name} {metrics.versions[name]}" for name in ("python", "torch", "reblur_ops"))
    footer = f"<footer><p>{metrics.steps} steps. {seconds}. {versions}. Photographs: scikit-image.</p></footer>"
    every = -(-len(pictures) // SHOWN)
    held_out = [picture_section(tiled, restored) for restored in pictures[::every]]
    learnt_from = [LEARNT_FROM, pairs_section(pairs), curves(run)]
    parts = [introduction, page.numbers(headline(metrics)), *held_out, *learnt_from, score_table(pictures, ["aligned"])]
    return "\n".join([*parts, footer])


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds > 100 else f"{seconds:.0f} seconds"


def pairs_section(pairs: Sequence[Pair]) -> str:
    """Pairs to wipe, and how far out of line they are."""
    figures = ""
    for photograph in SHOWN_PAIRS:
        samples = WholePairs([pair for pair in pairs if pair.name.rpartition("_")[0] == photograph])
        if not len(samples):  # held out, or to validate on
            continue
        sample = max((samples[number] for number in range(len(samples))), key=_out_of_line)
        shown = {"blurry": sample["blurry"], "sharp": sample["sharp"], ALIGNED: sample["aligned"]}
        pictures = {name: enlarged(image) for name, image in shown.items()}
        caption = f"{sample['name']}: up to {_out_of_line(sample):.1f} pixels out of line"
        comparison = page.comparison(pictures, [("blurry", "sharp"), ("blurry", ALIGNED)])
        figures += f"<figure>{comparison}<figcaption>{caption}</figcaption></figure>"
    return f'<div class="pair">{figures}</div>'


def _out_of_line(sample: Sample) -> float:
    """The largest displacement between the two pictures, pixels."""
    return float(sample["flow"].norm(dim=0).max())
