"""Which deblurring network learns most in the same time?

    python -m benchmarks.candidates --photographs DIR --validation DIR [--minutes 12]

Each is trained from nothing by the recipe `compact`, on pairs made of the photographs while it trains, with the same
blur map, that of the checkpoint in the box, which stays as it is; for as many steps as fit into the minutes of one core
of this machine. Scored on photographs degraded in known ways (`benchmarks.degradations`). Interrupted, the same command
goes on.

    compact      channels weighted by the blur map at each pixel and scale
    no map       the same without the map
    wide         the same, with more channels and fewer blocks
    NAFNet       channels weighted by what the whole image looks like; the map comes in at the front alone
    sharing      NAFNet, but at the lowest scale kernels shared by dilations (KPAC)
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import degradations, harness
from benchmarks.training_throughput import WARM_UP, Training
from models.checkpoints.load import load_framework
from models.inference.tiling import TiledFramework
from models.tasks.arguments import number

COMPACT: dict[str, Any] = {"encoder": [2, 2, 2], "middle": 4, "decoder": [2, 2, 2]}
RIVAL = "benchmarks.rivals.deblurring.Unet"


def rival(block: str) -> dict[str, Any]:
    options = {"class_path": RIVAL, "arguments": {"channels": 16, "block": block}}
    return {"network": "own", "options": {**options, "channels": 16, "multiple": 16, "residual": True}}


# Of framework.deblur.
CANDIDATES: dict[str, dict[str, Any]] = {
    "compact": {"network": "compact", "options": COMPACT},
    "no map": {"network": "compact", "options": COMPACT, "prior": False},
    "wide": {
        "network": "compact",
        "options": {"width": 44, "encoder": [1, 1, 1], "middle": 2, "decoder": [1, 1, 1]},
    },
    "NAFNet": rival("naf"),
    "sharing": rival("sharing"),
}
SCORED = ("disk 2", "disk 4", "disk 6", "disk 9", "disk 4, JPEG 75", "disk 4, noise 5", "hexagon 4", "ring 4")
TIMED = 6  # steps whose median tells how many fit


@dataclass
class Row:
    """A candidate after its training."""

    candidate: str
    parameters: int
    steps: int
    gains: dict[str, float]  # dB, by degradation
    gain: float  # dB, their mean


def settings_for(deblur: dict[str, Any], photographs: Path, validation: Path) -> list[str]:
    """The recipe's settings for a deblurring network, with the blur map of the checkpoint in the box unless it has
    no use for one.
    """
    start = ["start.framework=pretrained", "start.parts=[blur_map]", "schedule.frozen=[blur_map]"]
    if not deblur.get("prior", True):
        start = ["framework.blur_map=null"]
    return [
        f"data.train=[photographs:{photographs}]",
        f"data.validation=[sdd/train:{validation}]",
        f"framework.deblur={json.dumps(deblur)}",
        *start,
    ]


def steps_in(seconds: float, photographs: Path, settings: list[str]) -> int:
    """How many steps take that time of a core, on a machine that others may keep busy."""
    training = Training(photographs, 8, torch.device("cpu"), settings)
    times = []
    for _ in range(WARM_UP + TIMED):
        begun = time.process_time()
        training.learn(training.make())
        times.append(time.process_time() - begun)
    return max(1, int(seconds / float(np.median(times[WARM_UP:]))))


def train(folder: Path, steps: int, settings: list[str]) -> None:
    """Train by the recipe `compact` into a folder, or go on there."""
    own = [f"out={folder}", "resume=auto", f"schedule.steps={steps}", f"schedule.boundary={steps}"]
    own += ["output.validation=1000000", "output.pictures=0"]
    subprocess.run([sys.executable, "-m", "models", "train", "--config", "compact", *own, *settings], check=True)


def candidate(name: str, args: argparse.Namespace) -> Row:
    """The row of a candidate, trained where it is not trained yet."""
    folder = args.out / name.replace(" ", "-")
    planned = args.out / f"{folder.name}.json"
    settings = settings_for(CANDIDATES[name], args.photographs, args.validation)
    if not planned.exists():
        planned.write_text(json.dumps(steps_in(60 * args.minutes, args.photographs, settings)))
    steps = int(json.loads(planned.read_text()))
    train(folder, steps, settings)
    return score(name, steps, folder)


def score(name: str, steps: int, folder: Path) -> Row:
    framework = load_framework(folder / "latest", [RIVAL])
    tiled = TiledFramework(framework)
    gains = {degradation: degradations.measure(tiled, degradation).gain for degradation in SCORED}
    parameters = sum(parameter.numel() for parameter in framework.deblur.parameters())
    return Row(name, parameters, steps, gains, float(np.mean(list(gains.values()))))


def page(rows: list[Row], minutes: float) -> str:
    heads = ("parameters:", "steps:", *(f"{degradation}:" for degradation in SCORED), "mean:")
    cells = [
        [row.candidate, f"{row.parameters / 1e6:.2f} M", str(row.steps)]
        + [f"{row.gains[degradation]:+.2f}" for degradation in SCORED]
        + [f"{row.gain:+.2f}"]
        for row in rows
    ]
    return "\n".join(
        [
            "# Deblurring networks, trained for the same time",
            "",
            harness.setting(),
            "",
            f"{minutes:g} minutes of one core each, batches of 8 crops of 128 pixels made while training, one seed.",
            "Gain in dB over the degraded crop, means over twelve crops (`benchmarks.degradations`).",
            "",
            harness.markdown(("network", *heads), cells),
            "",
        ]
    )


def add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photographs", type=Path, required=True, metavar="DIR", help="to train on")
    parser.add_argument("--validation", type=Path, required=True, metavar="DIR", help="pairs, by `models synthesize`")


def check_folders(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for option in ("photographs", "validation"):
        if not getattr(args, option).is_dir():
            parser.error(f"--{option} must name a folder, got {getattr(args, option)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--minutes", type=number(0.01, 10**5), default=12, help="of one core, each (default: 12)")
    parser.add_argument("--candidates", nargs="+", choices=tuple(CANDIDATES), default=list(CANDIDATES), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/candidates"), metavar="DIR", help="folder for the runs")
    harness.add_results(parser)
    args = parser.parse_args()
    check_folders(parser, args)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [candidate(name, args) for name in tqdm(args.candidates, "candidates")]
    harness.save("candidates", rows, page(rows, args.minutes), args.results)


if __name__ == "__main__":
    main()
