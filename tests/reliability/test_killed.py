"""Commands that are killed at random moments: the same command goes on, and the end is as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from models.__main__ import main
from tests.reliability.runs import (
    children,
    launched,
    make_checkpoint,
    make_pairs,
    make_photographs,
    needs_proc,
    steps_of,
    training,
    wait_for_steps,
)
from tests.reliability.sizes import KILLS, LAUNCHER_KILLS, TRAINING_KILLS

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
    print(f"killed {killed} times")
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
    make_checkpoint(tmp_path / "checkpoint")
    make_photographs(tmp_path / "photographs", 12)
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
    arguments = training(make_pairs(tmp_path / "data"), 24 + 2 * TRAINING_KILLS, workers)
    assert main([*arguments, f"out={tmp_path / 'whole'}"]) == 0
    began = time.monotonic()
    killed, status = kill(TRAINING_KILLS, 1.5, *arguments, f"out={tmp_path / 'killed'}")
    assert status == 0
    assert killed >= 1, f"it took {time.monotonic() - began:.1f} s"
    assert_trained_alike(tmp_path / "killed", tmp_path / "whole")


@needs_proc
def test_train_in_two_processes(tmp_path):
    """The launcher and all that it has started are killed at once, as when the power fails."""
    arguments = training(make_pairs(tmp_path / "data"), 24 + 6 * LAUNCHER_KILLS, 1)
    assert subprocess.run(launched(*arguments, f"out={tmp_path / 'whole'}"), capture_output=True).returncode == 0
    chance, killed, began = random.Random(5), 0, 0
    while True:
        command = launched(*arguments, f"out={tmp_path / 'killed'}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if killed < LAUNCHER_KILLS:
            wait_for_steps(tmp_path / "killed", began, process)
            time.sleep(chance.uniform(0, 1))
            # The launcher gives each process a session of its own.
            for each in [process.pid, *(children(process.pid) if process.poll() is None else [])]:
                with suppress(ProcessLookupError):  # it may have come to its end by now
                    os.kill(each, signal.SIGKILL)
        printed, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        killed, began = killed + 1, steps_of(tmp_path / "killed")
    print(f"killed {killed} times")
    assert process.returncode == 0, printed.decode()
    assert killed >= 1
    assert_trained_alike(tmp_path / "killed", tmp_path / "whole")


def assert_trained_alike(found, whole):
    weights = [(run / "latest" / "model.safetensors").read_bytes() for run in (found, whole)]
    assert weights[0] == weights[1]
    steps = [json.loads(line)["step"] for line in (found / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
