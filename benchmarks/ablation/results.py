"""The tables of a study, with intervals by bootstrap over pictures and seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks import harness
from benchmarks.ablation.runs import Job, Result, Score, count_gpus, score, settings_of
from benchmarks.ablation.study import Study
from benchmarks.ablation.variants import VARIANTS
from models.framework import Framework
from models.training.environment import git_commit
from models.training.state import load_start

DRAWS = 2000
START = "start"  # in the place of a variant: the networks that all of them are trained on from


@dataclass(frozen=True)
class Row:
    """A run in the table of a setting."""

    variant: str
    setting: str
    seed: int
    result: Result


@dataclass(frozen=True)
class Interval:
    """A mean, and what holds 95 % of it."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} … {self.high:+.2f})"


def rows_of(jobs: Sequence[Job]) -> list[Row]:
    """The rows of the runs that are finished."""
    return [Row(job.variant.name, job.setting, job.seed, result) for job in jobs if (result := job.result) is not None]


def values_of(rows: Sequence[Row], variant: str, measure: str) -> dict[int, np.ndarray]:
    """The pictures' scores of each seed; NaN where there is nothing to score."""
    return {
        row.seed: np.array([getattr(each, measure) for each in row.result.scores], np.float64)
        for row in rows
        if row.variant == variant
    }


def drawn(rows: Sequence[Row], variants: Sequence[str], measure: str) -> np.ndarray | None:
    """Means of variants over pictures and seeds, (1 + DRAWS, variants): as they are, then drawn with replacement.

    Pictures and seeds are drawn for all variants alike, so that differences are paired. None if a run is missing.
    """
    runs = [values_of(rows, variant, measure) for variant in variants]
    seeds = sorted(set.intersection(*(set(run) for run in runs)))
    if not seeds:
        return None
    table = np.stack([[run[seed] for seed in seeds] for run in runs])  # variants, seeds, pictures
    table = table[:, :, np.isfinite(table).all(axis=(0, 1))]
    if not table.shape[2]:
        return None
    generator = np.random.default_rng(0)
    means = [table.mean(axis=(1, 2))]
    for _ in range(DRAWS):
        chosen = table[:, generator.integers(table.shape[1], size=table.shape[1])]
        means.append(chosen[:, :, generator.integers(table.shape[2], size=table.shape[2])].mean(axis=(1, 2)))
    return np.stack(means)


def interval(values: np.ndarray) -> Interval:
    """The interval of a statistic of `drawn`."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def gain(rows: Sequence[Row], variant: str, against: str, measure: str) -> Interval | None:
    """dB over another variant."""
    means = drawn(rows, (variant, against), measure)
    return None if means is None else interval(means[:, 0] - means[:, 1])


def recovered(rows: Sequence[Row], variant: str) -> Interval | None:
    """The share of what aligned pairs gain over flow that a variant gains over it."""
    means = drawn(rows, (variant, "aligned", "flow"), "psnr")
    if means is None:
        return None
    return interval((means[:, 0] - means[:, 2]) / (means[:, 1] - means[:, 2]))


def mean_of(scores: Sequence[Score], measure: str) -> float | None:
    values = [value for each in scores if (value := getattr(each, measure)) is not None]
    return statistics.fmean(values) if values else None


def table(rows: Sequence[Row], blurry: Sequence[Score], start: Sequence[Score] | None = None) -> str:
    """Markdown, of one setting: each variant, and what it gains over another, picture by picture, seed by seed.

    Args:
        blurry: of the blurry pictures.
        start: of the networks that training begins with, if they are not untrained.
    """

    def cells(scores: Sequence[Score]) -> list[str]:
        digits = {"psnr": 2, "ssim": 4, "hidden": 2, "strong": 2, "drift": 2}
        means = {measure: mean_of(scores, measure) for measure in digits}
        return ["" if mean is None else f"{mean:.{digits[measure]}f}" for measure, mean in means.items()]

    lines = [["", "the blurry pictures", "", *cells(blurry)]]
    if start:
        lines.append(["", "the networks that all are trained on from", "", *cells(start)])
        seeds = sorted({row.seed for row in rows})
        rows = [*rows, *(Row(START, "", seed, Result(list(start), None, 0, None)) for seed in seeds)]
    for variant in VARIANTS:
        results = [row.result for row in rows if row.variant == variant.name]
        if not results:
            continue
        scores = [each for result in results for each in result.scores]
        against = variant.against and gain(rows, variant.name, variant.against, "psnr")
        since = start and gain(rows, variant.name, START, "psnr")
        share = recovered(rows, variant.name) if variant.target not in ("truth", "sharp") else None
        times = [result.step_ms for result in results if result.step_ms is not None]
        lines.append(
            [
                variant.name,
                variant.description,
                str(len(results)),
                *cells(scores),
                f"{against}, {variant.against}" if against else "",
                str(share) if share and variant.name != "flow" else "",
                harness.milliseconds(statistics.median(times)) if times else "",
                *([str(since)] if since else []),
            ]
        )
    numbers = [
        "runs:",
        "PSNR, dB:",
        "SSIM:",
        "hidden:",
        "strong blur:",
        "drift, px:",
        "gain, dB, over:",
        "recovered:",
        "ms:",
        *(["gain, dB, over the start:"] if start else []),
    ]
    return harness.markdown(("variant", "", *numbers), lines)


def page(
    study: Study, rows: Sequence[Row], blurry: dict[str, list[Score]], start: dict[str, list[Score]], where: str
) -> str:
    """`blurry`, `start`: as for `table`, for each setting; `where`: about the machine."""
    base, scale = study.base, study.scale
    schedule, data = base.schedule, base.data
    text = (
        f'{where}\n\nThe deblurring network "{base.framework.deblur.network}", trained for {schedule.steps} steps of '
        f"{data.batch} crops of {data.crop} pixels; seeds: {scale.seeds}. Scored against the aligned truth: PSNR over "
        "all, where the misaligned picture does not show what is there, and where the RMS radius is above 3 pixels; "
        "the flow from the deblurred picture to the truth. Intervals: 95 %, drawn over pictures and seeds. Recovered: "
        "the share of what aligned pairs gain over flow."
    )
    parts = ["# What reblurring brings on misaligned pairs", text]
    for setting in study.settings:
        own = [row for row in rows if row.setting == setting.name]
        scored = len(blurry[setting.name])
        parts += [
            f"## {setting.title}",
            f"{setting.text} {scored} pictures.",
            table(own, blurry[setting.name], start.get(setting.name)),
        ]
    return "\n\n".join(parts) + "\n"


def start_of(study: Study) -> Framework | None:
    """The framework that the trainings begin with; None if its deblurring network is untrained."""
    framework, start = Framework(study.base.framework), study.base.start
    if start.deblur is None and (start.framework is None or "deblur" not in start.parts):
        return None
    load_start(framework, start)
    return framework


def save(study: Study, jobs: Sequence[Job], name: str, results: Path) -> None:
    """Write <name>.md and <name>.json of the runs that are finished."""
    rows = rows_of(jobs)
    pairs = {job.setting: job.scored_pairs() for job in jobs}
    blurry = {setting: score(of_setting, None) for setting, of_setting in pairs.items()}
    begun = start_of(study)
    start = {setting: score(of_setting, begun) for setting, of_setting in pairs.items()} if begun else {}
    device = "cuda" if count_gpus(study.device) else "cpu"
    more = {
        **harness.environment(device),
        "opencv": cv2.__version__,
        "commit": git_commit(Path(__file__).parent),
        "workers": study.workers,
        "scale": asdict(study.scale),
        "training": settings_of(study.base),
        "photographs": {job.setting: job.pairs["photographs"] for job in jobs},
        "variants": [asdict(variant) for variant in study.variants],
        "blurry": {setting: [asdict(each) for each in scores] for setting, scores in blurry.items()},
        "start": {setting: [asdict(each) for each in scores] for setting, scores in start.items()},
    }
    harness.save(name, rows, page(study, rows, blurry, start, harness.setting(device)), results, **more)
