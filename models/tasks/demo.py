"""The demonstration: a framework learns to deblur from pairs that do not line up, and deblurs what it has never seen.

    OUT/
        pairs/          misaligned pairs of the photographs that scikit-image installs: models.tasks.synthesize
        aligned/        those to train on, aligned by reblurring: models.tasks.align
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
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ..alignment import AlignmentSettings, align_dataset
from ..core.errors import UserError
from ..core.files import replacing, writable_folder
from ..core.parallel import processors
from ..data.layouts import load_pairs
from ..data.pairs import Pair
from ..data.samples import WholePairs
from ..flow import load_flow
from ..framework import Framework
from ..inference.tiling import TiledFramework
from ..reporting import page
from ..reporting.demonstration import Metrics, headline, measure, measure_targets, page_body
from ..reporting.restored import restore
from ..reporting.training_run import read_lines
from ..synthesis.dataset import write_dataset
from ..synthesis.photographs import find_originals, split_photographs
from ..synthesis.settings import Settings
from ..training.config import TrainingConfig, load_config
from ..training.execute import execute
from ..training.folder import RunFolder
from ..training.state import load_start
from .arguments import integer

RECIPE = "demo"
PAIRS = Settings(
    patch=128,
    patches=40,
    scale=(1.0, 0.6),
    test=("astronaut", "coffee"),
    test_patch=256,
    test_patches=4,
)
ALIGNMENT = AlignmentSettings(max_radius=8)
KILLED = "a process was killed, perhaps for want of memory; the same command goes on"


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
        "data.train": [f"sdd:{args.out / 'aligned'}"],
    }
    if args.steps is not None:
        given["schedule.steps"] = args.steps
    # JSON is YAML, whatever the folder is called.
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
    try:
        config = load_config(RECIPE, [*overrides, *args.overrides])
        load_start(Framework(config.framework), config.start)  # before pairs are made for nothing
    except ValueError as error:
        raise UserError(str(error)) from error
    return config


def synthesize(settings: Settings, out: Path) -> None:
    """Make the pairs that are not there yet.

    Raises:
        UserError: the folder holds others, or a process was killed.
    """
    print(f"pairs of photographs, up to {settings.misalignment:g} pixels out of line: {out}", flush=True)
    try:
        write_dataset(find_originals(None, None), settings, out, processors())
    except BrokenProcessPool as error:
        raise UserError(KILLED) from error


def align(out: Path) -> None:
    """Align the pairs to train on that are not aligned yet.

    Raises:
        UserError: a process was killed.
    """
    print(f"alignment by reblurring: {out / 'aligned'}", flush=True)
    try:
        align_dataset(training_pairs(out), ALIGNMENT, out / "aligned", processors())
    except BrokenProcessPool as error:
        raise UserError(KILLED) from error


def training_pairs(out: Path) -> list[Pair]:
    """The misaligned pairs to train on, with the truth about them, which training does not see."""
    return load_pairs([f"sdd:{out / 'pairs'}"], "train", truth=True)


def learn(config: TrainingConfig) -> int:
    """Train up to the last step. The exit status of `train.execute`."""
    if RunFolder(Path(config.out)).steps()[-1:] == [config.schedule.steps]:
        print(f"{config.out} is trained already: only the page is written anew")
    status = execute(config, "demo")
    if status >= 128:
        print("interrupted; the same command goes on", file=sys.stderr)
    return status


def training_seconds(config: TrainingConfig) -> float:
    """By the log, each line of which tells the images a second since the one before."""
    lines = read_lines(Path(config.out) / "metrics.jsonl")
    before = [0, *(line["step"] for line in lines)]
    steps = [(line["step"] - step, line["images_per_second"]) for line, step in zip(lines, before, strict=False)]
    return sum(count * config.data.batch / rate for count, rate in steps)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for data, run and page")
    parser.add_argument("--steps", type=integer(1, 10**9), help="steps of training; if not given, those of the recipe")
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, help="seed of the pairs and of training")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where PyTorch computes; auto: a GPU if any"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=f"overrides of the recipe {RECIPE}, as for the task train",
    )


def run(args: argparse.Namespace) -> int:
    """Make pairs, align them, train, deblur what was held out, and show it.

    The exit status: 0, or that of `train.execute`. After a signal the same command goes on.
    """
    config, settings = configure(args), dataclasses.replace(PAIRS, seed=args.seed)
    writable_folder(args.out)
    began = perf_counter()
    try:
        synthesize(settings, args.out / "pairs")
        seconds = {"pairs": perf_counter() - began}
        began = perf_counter()
        align(args.out)
        seconds["alignment"] = perf_counter() - began
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
    flow = load_flow("reblur", max_radius=float(ALIGNMENT.max_radius))
    pictures = restore(tiled, (samples[number] for number in range(len(samples))), len(samples), flow)
    pairs = training_pairs(out)
    aligned = load_pairs([f"sdd:{out / 'aligned'}"], "train", truth=True)
    # Of the last start of the training: one that only writes the page anew begins after the last step.
    starts = [line for line in read_lines(trained / "environment.jsonl") if line["step"] < config.schedule.steps]
    metrics = Metrics(
        **measure(pictures),
        **measure_targets(pairs, aligned, margin=round(2 * settings.misalignment)),
        pictures=len(pictures),
        photographs=[original.name for original in split_photographs(find_originals(None, None), settings)["test"]],
        pairs=len(pairs),
        steps=config.schedule.steps,
        parameters=sum(parameter.numel() for parameter in tiled.framework.parameters()),
        seconds=seconds | {"deblurring": perf_counter() - began},
        device=f"{starts[-1]['device']}, {starts[-1]['threads']} thread{'' if starts[-1]['threads'] == 1 else 's'}",
        versions={name: starts[-1][name] for name in ("python", "torch", "reblur_ops", "git_commit")},
    )
    with replacing(out / "metrics.json") as file:
        file.write(json.dumps(dataclasses.asdict(metrics), indent=2, allow_nan=False).encode() + b"\n")
    begun = config.start == load_config(RECIPE).start
    body = page_body(metrics, trained, tiled, pictures, aligned, begun)
    page.write(out / "report.html", "Deblurring, learnt from pairs that do not line up", body)
    for name, value in headline(metrics).items():
        print(f"{value}: {name}")
    print(out / "report.html")
