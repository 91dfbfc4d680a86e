"""Results of an evaluation: means, tables and files."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import replacing
from ..reporting.pictures import Picture, write_picture
from .metrics import (
    PROTOCOLS,
    RadiusScore,
    Score,
    Shift,
)

# By which protocol pictures are the best and the worst: the first of these that is there.
RANKING = ("aligned", "shift", "warped", "raw")
METRICS = tuple(metric.name for metric in dataclasses.fields(Score))


@dataclass(frozen=True)
class Result:
    """The scores of one picture."""

    name: str
    scores: dict[str, Score]  # by protocol
    blurry: dict[str, Score]  # of the blurry picture, by protocol
    shift: Shift | None = None
    radius: RadiusScore | None = None


@dataclass
class Extremes:
    """The best and the worst pictures so far.

    Attributes:
        count: of each that are kept.
    """

    count: int
    best: list[tuple[float, str, Picture]] = field(default_factory=list)
    worst: list[tuple[float, str, Picture]] = field(default_factory=list)

    def add(self, psnr: float, name: str, picture: Picture) -> None:
        entry = (psnr, name, picture)
        self.best = sorted([*self.best, entry], key=lambda other: -other[0])[: self.count]
        self.worst = sorted([*self.worst, entry], key=lambda other: other[0])[: self.count]

    def write(self, folder: Path) -> None:
        """Write best-1-NAME.png, worst-1-NAME.png, …, and remove those of an earlier evaluation."""
        for kind, entries in (("best", self.best), ("worst", self.worst)):
            for path in folder.glob(f"{kind}-*.png"):
                path.unlink()
            for rank, (_, name, picture) in enumerate(entries, 1):
                write_picture(folder / f"{kind}-{rank}-{name.replace('/', '-')}.png", picture)


def means(results: Sequence[Result], blurry: bool = False) -> dict[str, dict[str, float | None]]:
    """The mean of each score over all pictures, by protocol, and of the blur radius; None where no picture has it.

    Args:
        blurry: whether the scores are those of the blurry pictures.
    """
    table: dict[str, dict[str, float | None]] = {}
    for protocol in results[0].scores:
        scores = [(result.blurry if blurry else result.scores)[protocol] for result in results]
        table[protocol] = {metric: _mean(getattr(score, metric) for score in scores) for metric in METRICS}
    if blurry:
        return table
    if radii := [result.radius for result in results if result.radius]:
        table["blur_radius"] = {
            "correlation": _mean(radius.correlation for radius in radii),
            "mae": _mean(radius.mae for radius in radii),
        }
    return table


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def table(scores: dict[str, dict[str, float | None]], blurry: dict[str, dict[str, float | None]]) -> str:
    """The means for people, in Markdown: of each score the blurry and the deblurred pictures side by side."""
    names, digits = ("PSNR (dB)", "SSIM", "MAE", "HaarPSI", "LPIPS"), (2, 4, 4, 4, 4)
    head = [cell for name in names for cell in (f"{name}, blurry", "deblurred")]
    lines = [f"| protocol | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}"]
    for protocol, values in scores.items():
        if protocol != "blur_radius":
            both = [(blurry[protocol][metric], values[metric]) for metric in METRICS]
            cells = [_cell(value, count) for pair, count in zip(both, digits, strict=True) for value in pair]
            lines.append(f"| {protocol} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    if radius := scores.get("blur_radius"):
        text += f"\n\nblur radius: correlation {_cell(radius['correlation'], 3)}, MAE {_cell(radius['mae'], 3)} px"
    return text


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def means_as_json(results: Sequence[Result]) -> str:
    """The means of the deblurred and of the blurry pictures, in one line."""
    record = {"pictures": len(results), "mean": means(results), "mean_blurry": means(results, blurry=True)}
    return json.dumps(_finite(record), allow_nan=False)


def write_results(folder: Path, description: dict[str, Any], results: Sequence[Result]) -> None:
    """Write scores.json, with definitions and means, and scores.csv, a line for each picture."""
    names = {protocol: PROTOCOLS[protocol] for protocol in results[0].scores}
    rows = [dataclasses.asdict(result) for result in results]
    mean = {"mean": means(results), "mean_blurry": means(results, blurry=True)}
    document = {**description, "protocols": names, **mean, "pictures": rows}
    with replacing(folder / "scores.json") as file:
        text = json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)
        file.write(text.encode(errors="backslashreplace") + b"\n")  # names may be none of Unicode
    lines = io.StringIO()
    writer = csv.writer(lines)
    columns = [f"{protocol}_{metric}" for protocol in names for metric in METRICS]
    columns += [f"blurry_{column}" for column in columns]
    writer.writerow(["name", *columns, "shift_x", "shift_y", "shift_gain", "radius_correlation", "radius_mae"])
    for result in results:
        both = (result.scores, result.blurry)
        cells = [getattr(scores[protocol], metric) for scores in both for protocol in names for metric in METRICS]
        for part, count in ((result.shift, 3), (result.radius, 2)):
            cells += dataclasses.astuple(part) if part else [None] * count
        writer.writerow([result.name, *cells])
    with replacing(folder / "scores.csv") as file:
        file.write(lines.getvalue().encode(errors="backslashreplace"))


def _finite(value: Any) -> Any:
    """JSON has no infinity, the PSNR of equal pictures: a text says so."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
