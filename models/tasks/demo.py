"""The demonstration: a framework learns to deblur from pairs that do not line up, and deblurs what it has never seen.

    OUT/
        pairs/          misaligned pairs of the photographs that scikit-image installs: models.tasks.synthesize
        training/       the run: models.training.folder
        metrics.json    `Metrics`
        report.html     the same for people, with pictures

What is there is used as it is: interrupted, the same command goes on, and where all is done it only deblurs again and
writes the last two anew.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from string import Template
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ..core.errors import UserError
from ..core.files import replacing, writable_folder
from ..data.layouts import Pair, load_pairs
from ..data.samples import Sample, WholePairs
from ..evaluation.metrics import RadiusScore, score_radius
from ..framework import Framework
from ..inference.tiling import TiledFramework
from ..reporting import page
from ..training.config import TrainingConfig, load_config
from ..training.folder import RunFolder
from ..training.loop import find_pairs
from . import train
from .arguments import integer
from .report import Restored, curves, enlarged, picture_section, read_lines, restore, score_table
from .synthesize import Settings, find_originals, processors, split_photographs, write_dataset

RECIPE = "demo"
PAIRS = Settings(
    patch=128,
    patches=40,
    scale=(1.0, 0.6),
    test=("astronaut", "coffee"),
    test_patch=256,
    test_patches=4,
)
SHOWN = 4  # of the pictures held out, on the page
SHOWN_PAIRS = ("motorcycle", "coins")  # photographs; of each the pair that is farthest out of line

INTRODUCTION = Template(
    """<p>A lens threw photographs out of focus, and the sharp picture of each pair was taken by a camera that had
moved: no two pictures line up. From $pairs such pairs, a framework of $parameters million parameters has learnt to
deblur, in $time on $device: what it made of a blurry picture had to be like the sharp one, warped to it by optical
flow, and, blurred again by <code>reblur_ops.reblur</code>, like the blurry one, pixel for pixel.</p>
<p>Below it deblurs photographs that it has never seen, $held_out; the numbers are means over $pictures pictures.</p>"""
)
LEARNT_FROM = """<h2>What it learnt from</h2>
<p>Two of the pairs. Drag across: things jump where the other picture takes over. The aligned truth is only for the
scores; training has not seen it.</p>"""


@dataclass(frozen=True)
class Metrics:
    """Scores of the held-out pictures: means of PSNR (dB) and SSIM to the aligned truth, `evaluation.metrics`.

    The radius of the blur that the reblurring network found, RMS, is compared with the true one over all pixels of all
    pictures. What needs that network is None without it.
    """

    input_psnr: float  # of the blurry pictures
    deblurred_psnr: float
    gain_db: float  # deblurred_psnr - input_psnr
    input_ssim: float
    deblurred_ssim: float
    reblurred_psnr: float | None  # of the deblurred pictures blurred again, to the blurry ones
    blur_radius_correlation: float | None
    blur_radius_mae: float | None  # pixels
    pictures: int
    photographs: list[str]  # which these are cut from
    pairs: int  # to train and to validate on
    steps: int
    parameters: int
    seconds: dict[str, float]  # of each phase of this call; "training" by its log, over all calls that it took
    device: str  # that trained
    versions: dict[str, str | None]


def configure(args: argparse.Namespace) -> TrainingConfig:
    """The recipe, with what the arguments say.

    Raises:
        UserError: it is impossible; says why.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda cannot be used: PyTorch finds no GPU")
    given: dict[str, Any] = {
        "out": str(args.out / "training"),
        "resume": "auto",
        "seed": args.seed,
        "device": args.device,
        "data.train": [f"sdd:{args.out / 'pairs'}"],
    }
    if args.steps is not None:
        given["schedule.steps"] = args.steps
    # JSON is YAML, whatever the folder is called.
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
    try:
        return load_config(RECIPE, [*overrides, *args.overrides])
    except ValueError as error:
        raise UserError(str(error)) from error


def synthesize(settings: Settings, out: Path) -> None:
    """Make the pairs that are not there yet.

    Raises:
        UserError: the folder holds others, or a process was killed.
    """
    print(f"pairs of photographs, up to {settings.misalignment:g} pixels out of line: {out}", flush=True)
    try:
        write_dataset(find_originals(None, None), settings, out, processors())
    except BrokenProcessPool as error:
        reason = "a process was killed, perhaps for want of memory; the same command goes on"
        raise UserError(reason) from error


def learn(config: TrainingConfig) -> int:
    """Train up to the last step. The exit status of `train.execute`."""
    if RunFolder(Path(config.out)).steps()[-1:] == [config.schedule.steps]:
        print(f"{config.out} is trained already: only the page is written anew")
    status = train.execute(config, "demo")
    if status >= 128:
        print("interrupted; the same command goes on", file=sys.stderr)
    return status


def training_seconds(config: TrainingConfig) -> float:
    """By the log, each line of which tells the images a second since the one before."""
    lines = read_lines(Path(config.out) / "metrics.jsonl")
    before = [0, *(line["step"] for line in lines)]
    steps = [(line["step"] - step, line["images_per_second"]) for line, step in zip(lines, before, strict=False)]
    return sum(count * config.data.batch / rate for count, rate in steps)


def measure(pictures: Sequence[Restored]) -> dict[str, Any]:
    """The scores in `Metrics`, of pictures whose truth is known."""
    before, after = zip(*(each.scores for each in pictures if each.scores), strict=True)
    input_psnr, deblurred_psnr = (_mean(each.psnr for each in scores) for scores in (before, after))
    radius = pooled_radius_score(pictures)
    return {
        "input_psnr": input_psnr,
        "deblurred_psnr": deblurred_psnr,
        "gain_db": deblurred_psnr - input_psnr,
        "input_ssim": _mean(each.ssim for each in before),
        "deblurred_ssim": _mean(each.ssim for each in after),
        "reblurred_psnr": _mean(each.reblurred_psnr or 0 for each in pictures) if radius else None,
        "blur_radius_correlation": radius.correlation if radius else None,
        "blur_radius_mae": radius.mae if radius else None,
    }


def pooled_radius_score(pictures: Sequence[Restored]) -> RadiusScore | None:
    """Over all pixels of all pictures; None without a reblurring network."""
    found = [each.radius.numpy().ravel() for each in pictures if each.radius is not None]
    true = [each.sample["blur_radius"].numpy().ravel() for each in pictures]
    return score_radius(np.concatenate(found), np.concatenate(true)) if found else None


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def headline(metrics: Metrics) -> dict[str, str]:
    """The numbers that count, by what they are."""
    deblurred = f"PSNR of the deblurred pictures, to the aligned truth; of the blurry ones {metrics.input_psnr:.2f} dB"
    numbers = {
        "PSNR gained over the blurry pictures": f"{metrics.gain_db:+.2f} dB",
        deblurred: f"{metrics.deblurred_psnr:.2f} dB",
        f"SSIM; of the blurry pictures {metrics.input_ssim:.3f}": f"{metrics.deblurred_ssim:.3f}",
    }
    if metrics.reblurred_psnr is not None:
        reblurred = "PSNR of the deblurred pictures, blurred again, to the blurry ones"
        numbers[reblurred] = f"{metrics.reblurred_psnr:.2f} dB"
    if metrics.blur_radius_correlation is not None:
        name = f"correlation of the blur radius found with the true one; mean error {metrics.blur_radius_mae:.2f} px"
        numbers[name] = f"{metrics.blur_radius_correlation:.3f}"
    return numbers


def page_body(
    metrics: Metrics, run: Path, tiled: TiledFramework, pictures: Sequence[Restored], pairs: Sequence[Pair]
) -> str:
    """What the page shows, of a run, of pictures held out, and of the pairs to train on."""
    introduction = INTRODUCTION.substitute(
        pairs=metrics.pairs,
        parameters=f"{metrics.parameters / 1e6:.2f}",
        time=_spoken(metrics.seconds["training"]),
        device=metrics.device,
        held_out=" and ".join(metrics.photographs),
        pictures=metrics.pictures,
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
        shown = {"blurry": sample["blurry"], "sharp": sample["sharp"], "aligned truth": sample["aligned"]}
        pictures = {name: enlarged(image) for name, image in shown.items()}
        caption = f"{sample['name']}: up to {_out_of_line(sample):.1f} pixels out of line"
        comparison = page.comparison(pictures, [("blurry", "sharp"), ("aligned truth", "sharp")])
        figures += f"<figure>{comparison}<figcaption>{caption}</figcaption></figure>"
    return f'<div class="pair">{figures}</div>'


def _out_of_line(sample: Sample) -> float:
    """The largest displacement between the two pictures, pixels."""
    return float(sample["flow"].norm(dim=0).max())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for all of it")
    parser.add_argument("--steps", type=integer(1, 10**9), help="of training; those of the recipe if not given")
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, help="of the pairs and of training")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where PyTorch computes; auto: a GPU if any"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=f"in the place of what the recipe {RECIPE} says, as for the task train",
    )


def run(args: argparse.Namespace) -> int:
    """Make pairs, train, deblur what was held out, and show it.

    The exit status: 0, or that of `train.execute`. After a signal the same command goes on.
    """
    config, settings = configure(args), dataclasses.replace(PAIRS, seed=args.seed)
    writable_folder(args.out)
    began = perf_counter()
    try:
        synthesize(settings, args.out / "pairs")
        seconds = {"pairs": perf_counter() - began}
        if status := learn(config):
            return status
        seconds["training"] = training_seconds(config)
        show(args.out, config, settings, seconds)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def show(out: Path, config: TrainingConfig, settings: Settings, seconds: dict[str, float]) -> None:
    """Deblur what was held out, and write what it came to.

    Args:
        seconds: of the phases so far.
    """
    began, trained = perf_counter(), Path(config.out)
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    tiled = TiledFramework(Framework.from_pretrained(trained / "latest"), device)
    samples = WholePairs(load_pairs([f"sdd:{out / 'pairs'}"], "test", truth=True))
    pictures = restore(tiled, (samples[number] for number in range(len(samples))), len(samples))
    pairs, validation_pairs = find_pairs(config)
    # Of the last start of the training: one that only writes the page anew begins after the last step.
    starts = [line for line in read_lines(trained / "environment.jsonl") if line["step"] < config.schedule.steps]
    metrics = Metrics(
        **measure(pictures),
        pictures=len(pictures),
        photographs=[original.name for original in split_photographs(find_originals(None, None), settings)["test"]],
        pairs=len(pairs) + len(validation_pairs),
        steps=config.schedule.steps,
        parameters=sum(parameter.numel() for parameter in tiled.framework.parameters()),
        seconds=seconds | {"deblurring": perf_counter() - began},
        device=f"{starts[-1]['device']}, {starts[-1]['threads']} threads",
        versions={name: starts[-1][name] for name in ("python", "torch", "reblur_ops", "git_commit")},
    )
    with replacing(out / "metrics.json") as file:
        file.write(json.dumps(dataclasses.asdict(metrics), indent=2, allow_nan=False).encode() + b"\n")
    body = page_body(metrics, trained, tiled, pictures, pairs)
    page.write(out / "report.html", "Deblurring, learnt from pairs that do not line up", body)
    for name, value in headline(metrics).items():
        print(f"{value}: {name}")
    print(out / "report.html")
