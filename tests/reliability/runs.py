"""Small runs that the tests of reliability start, end and begin anew."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.__main__ import main
from models.data import images
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")


def make_checkpoint(folder: Path) -> Path:
    """An untrained framework of a few weights."""
    config = FrameworkConfig(
        radii=(1,),
        blur_map=BlurMapConfig(width=4, blocks=1),
        deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}),
        reblur=None,
    )
    Framework(config).save_pretrained(folder)
    return folder


def make_photographs(folder: Path, count: int) -> Path:
    """Noise in `count` files, 120 × 160 pixels."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        images.write(folder / f"{number}.png", generator.random((120, 160, 3), np.float32))
    return folder


def make_pairs(folder: Path) -> Path:
    """A data set of misaligned pairs of 48 × 48 pixels, in the layout sdd."""
    grey = ["--test", "brick", "camera", "coins", "grass", "gravel"]
    options = ["--patch", "48", "--misalignment", "1.5", "--blur", "2", "--workers", "1", "--patches", "2", *grey]
    assert main(["synthesize", "--out", str(folder), *options]) == 0
    return folder


def training(data: Path, steps: int, workers: int = 0) -> list[str]:
    """The arguments of a training that takes milliseconds a step, saves each, and goes on where it ended."""
    return [
        "train",
        "--config",
        "demo",
        f"data={{train: ['sdd:{data}'], target: sharp, batch: 2, crop: 32, workers: {workers}, decode: false}}",
        "framework={radii: [1, 2], blur_map: {width: 4, blocks: 1}, reblur: {width: 4, blocks: 1, max_radius: 2}}",
        "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
        "start.framework=null",
        f"schedule={{steps: {steps}, boundary: 4, frozen: []}}",
        "optimizer.precision=float32",
        "output={metrics: 1, validation: 8, validation_pairs: 1, checkpoints: 1, pictures: 0}",
        "resume=auto",
    ]


def launched(*arguments: str) -> list[str]:
    """The command that runs a task in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "-m", "models", *arguments]


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def steps_of(run: Path) -> int:
    """The last step that a run has logged; 0 for none."""
    try:
        return int(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"])
    except (FileNotFoundError, IndexError, json.JSONDecodeError):  # none, or a line that is being written
        return 0


def wait_for_steps(run: Path, done: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the run has done more than `done` steps, or has ended."""
    while process.poll() is None and steps_of(run) <= done:
        time.sleep(0.02)
