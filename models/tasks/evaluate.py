"""The task that scores a checkpoint, or other people's pictures, by named protocols."""

import argparse
import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from ..core.errors import UserError
from ..core.files import replacing, writable_folder
from ..data import images
from ..data.images import Array
from ..data.layouts import NOTATION, DataError, Pair, describe_layouts, load_pairs
from ..data.samples import Sample, WholePairs
from ..evaluation.metrics import (
    PROTOCOLS,
    SMALLEST,
    Lpips,
    RadiusScore,
    Score,
    Shift,
    load_lpips,
    score,
    score_radius,
    shifted,
    warped,
)
from ..flow import Flow, load_flow
from ..flow.load import FLOWS
from ..inference.tiling import TiledFramework
from ..reporting.pictures import Picture, side_by_side, to_bytes, write_picture
from .arguments import integer
from .deblur import add_framework_arguments, load_tiled

# By which protocol pictures are the best and the worst: the first of these that is there.
RANKING = ("aligned", "shift", "warped", "raw")
METRICS = tuple(metric.name for metric in dataclasses.fields(Score))


@dataclass(frozen=True)
class Result:
    """The scores of one picture."""

    name: str
    scores: dict[str, Score]  # by protocol
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
        """As best-1-NAME.png, worst-1-NAME.png, …; those of an evaluation before go."""
        for kind, entries in (("best", self.best), ("worst", self.worst)):
            for path in folder.glob(f"{kind}-*.png"):
                path.unlink()
            for rank, (_, name, picture) in enumerate(entries, 1):
                write_picture(folder / f"{kind}-{rank}-{name.replace('/', '-')}.png", picture)


def outputs_of(pairs: Sequence[Pair], folder: Path) -> dict[str, Path]:
    """Other people's pictures, named as the blurry ones, whatever their suffix.

    Raises:
        DataError: some are missing, do not decode or differ in size; says which.
    """
    found, problems = {}, []
    for pair in pairs:
        names = (folder / f"{name}{suffix}" for name in (pair.name, pair.blurry.stem) for suffix in images.SUFFIXES)
        path = next((path for path in names if path.is_file()), None)
        if path is None:
            problems.append(f"{folder} has no {pair.name}.png, nor with another suffix")
            continue
        try:
            size, needed = images.read_size(path), images.read_size(pair.blurry)
            if size != needed:
                problems.append(f"{path} is {size[1]} × {size[0]} pixels, and {pair.blurry} {needed[1]} × {needed[0]}")
        except images.ImageError as error:
            problems.append(str(error))
        found[pair.name] = path
    if problems:
        raise DataError(problems)
    return found


def score_picture(
    picture: Array, sample: Sample, protocols: Iterable[str], flow: Flow, lpips: Lpips | None
) -> tuple[dict[str, Score], Shift | None]:
    """The scores of a picture, (H, W, 3), by each protocol, and what the protocol `shift` found."""
    sharp = to_array(sample["sharp"])
    scores, shift = {}, None
    for protocol in protocols:
        one, target = picture, sharp
        if protocol == "aligned":
            target = to_array(sample["aligned"])
        elif protocol == "warped":
            one, target = warped(picture, sharp, flow)
        elif protocol == "shift":
            one, target, shift = shifted(picture, sharp)
        scores[protocol] = score(one, target, lpips)
    return scores, shift


def to_array(tensor: torch.Tensor) -> Array:
    """(H, W, C) of (C, H, W)."""
    return np.asarray(tensor.permute(1, 2, 0).numpy(), np.float32)


def means(results: Sequence[Result]) -> dict[str, dict[str, float | None]]:
    """The mean of each score over all pictures, by protocol, and of the blur radius; None where no picture has it."""
    table: dict[str, dict[str, float | None]] = {}
    for protocol in results[0].scores:
        table[protocol] = {
            metric: _mean(getattr(result.scores[protocol], metric) for result in results) for metric in METRICS
        }
    if radii := [result.radius for result in results if result.radius]:
        table["blur_radius"] = {
            "correlation": _mean(radius.correlation for radius in radii),
            "mae": _mean(radius.mae for radius in radii),
        }
    return table


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def table(scores: dict[str, dict[str, float | None]]) -> str:
    """The means for people, in Markdown."""
    lines = ["| protocol | PSNR (dB) | SSIM | MAE | LPIPS |", "|---|---:|---:|---:|---:|"]
    for protocol, values in scores.items():
        if protocol != "blur_radius":
            cells = [_cell(values[metric], digits) for metric, digits in zip(METRICS, (2, 4, 4, 4), strict=True)]
            lines.append(f"| {protocol} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    if radius := scores.get("blur_radius"):
        text += f"\n\nblur radius: correlation {_cell(radius['correlation'], 3)}, MAE {_cell(radius['mae'], 3)} px"
    return text


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def write_results(folder: Path, description: dict[str, Any], results: Sequence[Result]) -> None:
    """Write scores.json, with definitions and means, and scores.csv, a line for each picture."""
    names = {protocol: PROTOCOLS[protocol] for protocol in results[0].scores}
    rows = [dataclasses.asdict(result) for result in results]
    document = {**description, "protocols": names, "mean": means(results), "pictures": rows}
    with replacing(folder / "scores.json") as file:
        text = json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)
        file.write(text.encode() + b"\n")
    lines = io.StringIO()
    writer = csv.writer(lines)
    columns = [f"{protocol}_{metric}" for protocol in names for metric in METRICS]
    writer.writerow(["name", *columns, "shift_x", "shift_y", "shift_gain", "radius_correlation", "radius_mae"])
    for result in results:
        cells = [getattr(result.scores[protocol], metric) for protocol in names for metric in METRICS]
        for part, count in ((result.shift, 3), (result.radius, 2)):
            cells += dataclasses.astuple(part) if part else [None] * count
        writer.writerow([result.name, *cells])
    with replacing(folder / "scores.csv") as file:
        file.write(lines.getvalue().encode())


def _finite(value: Any) -> Any:
    """JSON has no infinity, the PSNR of equal pictures: a text says so."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    protocols = "\n".join(f"  {name}: {definition}" for name, definition in PROTOCOLS.items())
    parser.epilog = f"protocols:\n{protocols}\n\nlayouts:\n{describe_layouts()}"
    parser.add_argument("--data", nargs="+", required=True, metavar="SOURCE", help=f"{NOTATION}; split: test")
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help="score the pictures in this folder, named as the blurry ones, in place of a checkpoint",
    )
    add_framework_arguments(parser)
    parser.add_argument(
        "--protocols",
        nargs="+",
        choices=tuple(PROTOCOLS),
        metavar="PROTOCOL",
        help="of those below; by default all for which the data has what they need",
    )
    parser.add_argument("--flow", choices=tuple(FLOWS), default="dis", help="of the protocol warped (default: dis)")
    parser.add_argument("--flow-weights", type=Path, metavar="FILE", help="of the flow pwc")
    parser.add_argument("--round", action="store_true", help="round the deblurred pictures to 8 bits first")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/evaluation"),
        metavar="DIR",
        help="folder for scores.json, scores.csv and pictures (default: runs/evaluation)",
    )
    parser.add_argument(
        "--pictures", type=integer(0, 1000), default=3, metavar="N", help="how many of the best and the worst to show"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate. The exit status: 0."""
    if args.outputs and args.checkpoint:
        raise UserError("either --checkpoint or --outputs is evaluated, got both")
    pairs = load_pairs(args.data, "test", smallest=SMALLEST, truth=True)
    protocols = choose_protocols(pairs, args.protocols)
    outputs = outputs_of(pairs, args.outputs) if args.outputs else None
    framework = None if args.outputs else load_tiled(args)
    flow = make_flow(args.flow, args.flow_weights)
    lpips = load_lpips()
    writable_folder(args.out)

    results, extremes = [], Extremes(args.pictures)
    ranking = next(name for name in RANKING if name in protocols)
    samples = WholePairs(pairs)
    for number in tqdm(range(len(pairs)), "evaluating", unit="picture"):
        sample = samples[number]
        if framework:
            picture = to_array(framework.deblur(sample["blurry"]))
        else:
            assert outputs is not None
            picture = np.clip(images.read(outputs[sample["name"]]).pixels, 0, 1)
        if args.round:
            picture = to_bytes(picture) / np.float32(255)
        scores, shift = score_picture(picture, sample, protocols, flow, lpips)
        radius = radius_score(framework, picture, sample) if framework else None
        results.append(Result(sample["name"], scores, shift, radius))
        psnr = scores[ranking].psnr
        captions = ["blurry", f"deblurred: {psnr:.2f} dB ({ranking})", "sharp"]
        shown = [to_bytes(image) for image in (to_array(sample["blurry"]), picture, to_array(sample["sharp"]))]
        extremes.add(psnr, sample["name"], side_by_side(captions, shown))

    description = {
        "data": args.data,
        "evaluated": str(args.outputs or args.checkpoint or "the framework of the project"),
        "flow": args.flow,
        "rounded": args.round,
    }
    write_results(args.out, description, results)
    extremes.write(args.out)
    print(f"{len(results)} pictures, flow of the protocol warped: {args.flow}\n\n{table(means(results))}\n\n{args.out}")
    return 0


def choose_protocols(pairs: Sequence[Pair], wanted: Sequence[str] | None) -> list[str]:
    """The protocols to score by, in the order of PROTOCOLS, those asked for or all that can be.

    Raises:
        UserError: `aligned` was asked for, and not all pairs have that truth.
    """
    has_aligned = all(pair.aligned for pair in pairs)
    if wanted and "aligned" in wanted and not has_aligned:
        raise UserError(
            "the protocol aligned needs the aligned truth of all pairs, in folders aligned/ beside the others"
        )
    return [name for name in PROTOCOLS if (name in wanted if wanted else name != "aligned" or has_aligned)]


def make_flow(name: str, weights: Path | None) -> Flow:
    """The flow of the protocol `warped`.

    Raises:
        UserError: it needs weights that were not given, or is not installed.
    """
    if (name == "pwc") != (weights is not None):
        raise UserError("--flow pwc needs --flow-weights, and no other flow takes them")
    try:
        return load_flow(name, **({"weights": weights} if weights else {}))
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from error


def radius_score(framework: TiledFramework, picture: Array, sample: Sample) -> RadiusScore | None:
    """That of the reblurring network, where there is one and the truth is known."""
    if "blur_radius" not in sample or framework.framework.reblur is None:
        return None
    deblurred = torch.from_numpy(picture).permute(2, 0, 1)
    radius = framework.blur_radius(deblurred, sample["blurry"])
    return score_radius(cast(Array, radius[0].numpy()), cast(Array, sample["blur_radius"][0].numpy()))
