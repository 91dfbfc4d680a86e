"""Commands that are killed at random moments: the same command goes on, and the end is as if nothing had happened."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from models.__main__ import main
from models.data import images
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig
from tests.reliability.sizes import KILLS, TRAINING_KILLS

pytestmark = pytest.mark.slow

# Imports once, then forks: the child is at work at once, and can be killed while it is. Prints how often it was.
KILLING = """
import os, random, signal, sys, time
from models.__main__ import main
seed, kills, longest, *arguments = sys.argv[1:]
chance, killed = random.Random(int(seed)), 0
while True:
    child = os.fork()
    if child == 0:
        os._exit(main(arguments))
    if killed < int(kills):
        time.sleep(chance.uniform(0.02, float(longest)))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != -9:
        print(killed, os.waitstatus_to_exitcode(status))
        break
    killed += 1
"""


def kill(kills, longest, *arguments):
    """How often a command was killed before it came to its end, and its status."""
    command = [sys.executable, "-c", KILLING, "5", str(kills), str(longest), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    killed, status = map(int, result.stdout.strip().splitlines()[-1].split())
    return killed, status


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_synthesize(tmp_path):
    options = ["--patch", 48, "--patches", 3, "--blur", 2, "--misalignment", 1.5, "--workers", 1]
    assert main(["synthesize", "--out", str(tmp_path / "whole"), *map(str, options)]) == 0
    killed, status = kill(KILLS, 0.5, "synthesize", "--out", tmp_path / "killed", *options)
    assert status == 0
    assert killed >= 1
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_deblur(tmp_path):
    config = FrameworkConfig(
        radii=(1,),
        blur_map=BlurMapConfig(width=4, blocks=1),
        deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}),
        reblur=None,
    )
    Framework(config).save_pretrained(tmp_path / "checkpoint")
    generator = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for number in range(12):
        picture = generator.random((120, 160, 3), np.float32)
        images.write(tmp_path / "photographs" / f"{number}.png", picture)
    options = [tmp_path / "photographs", "--checkpoint", tmp_path / "checkpoint", "--out"]
    assert main(["deblur", *map(str, options), str(tmp_path / "whole")]) == 0
    killed, status = kill(KILLS, 0.3, "deblur", *options, tmp_path / "killed")
    assert status == 0
    assert killed >= 1
    # Hidden remains of a killed run that ended a moment ago may still belong to one that is alive.
    found = {path: data for path, data in contents(tmp_path / "killed").items() if not path.name.startswith(".")}
    assert found == contents(tmp_path / "whole")


@pytest.mark.parametrize("workers", [0, 1])
def test_train(tmp_path, workers):
    data = tmp_path / "data"
    grey = ["--test", "brick", "camera", "coins", "grass", "gravel"]
    options = ["--patch", "48", "--misalignment", "1.5", "--blur", "2", "--workers", "1", "--patches", "2", *grey]
    assert main(["synthesize", "--out", str(data), *options]) == 0
    arguments = [
        "train",
        "--config",
        "demo",
        f"data={{train: ['sdd:{data}'], batch: 2, crop: 32, workers: {workers}, decode: false}}",
        "framework={radii: [1, 2], blur_map: {width: 4, blocks: 1}, reblur: {width: 4, blocks: 1, max_radius: 2}}",
        "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
        f"schedule={{steps: {24 + 2 * TRAINING_KILLS}, boundary: 4}}",
        "optimizer.precision=float32",
        "output={metrics: 1, validation: 8, validation_pairs: 1, checkpoints: 1, pictures: 0}",
        "resume=auto",
    ]
    assert main([*arguments, f"out={tmp_path / 'whole'}"]) == 0
    began = time.monotonic()
    killed, status = kill(TRAINING_KILLS, 1.5, *arguments, f"out={tmp_path / 'killed'}")
    assert status == 0
    assert killed >= 1, f"it took {time.monotonic() - began:.1f} s"
    whole, found = (tmp_path / name / "latest" for name in ("whole", "killed"))
    assert (found / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
