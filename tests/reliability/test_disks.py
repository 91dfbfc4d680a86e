"""A disk that is full, and one that cannot be written: one line is printed, and what was there before is whole.

On file systems of their own, in memory, which Linux lets a process mount in a namespace of its own.
"""

import re
import shutil
import subprocess
import sys

import pytest

from models.__main__ import main
from tests.reliability.runs import make_checkpoint, make_pairs, make_photographs, training

NAMESPACE = ["unshare", "--map-root-user", "--mount"]

# Mounts the folder in its first argument. `fill` leaves 4 KB; `run` prints a line that tells the status.
PREAMBLE = """
import os, subprocess, sys, threading, time
from pathlib import Path
from models.__main__ import main
from tests.reliability.runs import steps_of
folder, *arguments = sys.argv[1:]
folder = Path(folder)

def mount(*options):
    subprocess.run(["mount", *options, str(folder)], check=True)

def fill():
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() - 4096)

def run(*given):
    print("status", main([*map(str, given)]), flush=True)

mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
"""


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount(), reason="this system lets nobody mount a file system of his own"),
]


def on_a_small_disk(folder, script, *arguments):
    """The statuses of the script's commands, and what it printed."""
    folder.mkdir()
    command = [*NAMESPACE, sys.executable, "-c", PREAMBLE + script, str(folder), *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("status ")], result.stdout


# The disk becomes full on the way, then cannot be written, then can again; each time by the same command.
TRAINING = """
*arguments, weights = arguments
out = f"out={folder / 'run'}"
def fill_on_the_way():
    while steps_of(folder / "run") < 2:
        time.sleep(0.02)
    fill()

threading.Thread(target=fill_on_the_way).start()
run(*arguments, out)
(folder / "filler").unlink()
mount("-o", "remount,ro")
run(*arguments, out)
mount("-o", "remount,rw")
run(*arguments, out)
Path(weights).write_bytes((folder / "run/latest/model.safetensors").read_bytes())
"""


def test_train(tmp_path):
    arguments = training(make_pairs(tmp_path / "data"), 12)
    assert main([*arguments, f"out={tmp_path / 'whole'}"]) == 0
    statuses, printed = on_a_small_disk(tmp_path / "small", TRAINING, *arguments, tmp_path / "weights")
    assert statuses == [1, 2, 0], printed
    assert "Traceback" not in printed
    for reason in (r"No space left on device; resume=auto goes on after step \d+", "Read-only file system"):
        assert re.search(rf"train: error: cannot write .*{tmp_path}.*: {reason}\n", printed), printed
    assert (tmp_path / "weights").read_bytes() == (tmp_path / "whole/latest/model.safetensors").read_bytes()


COMMAND = """
fill()
run(*arguments)
(folder / "filler").unlink()
print("left", sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
mount("-o", "remount,ro")
run(*arguments)
mount("-o", "remount,rw")
run(*arguments)
"""


@pytest.mark.parametrize("task", ["deblur", "evaluate", "synthesize"])
def test_commands(tmp_path, task):
    disk = tmp_path / "small"
    if task == "deblur":
        given = [make_photographs(tmp_path / "photographs", 2), "--checkpoint", make_checkpoint(tmp_path / "c")]
    elif task == "evaluate":
        data = make_pairs(tmp_path / "data")
        given = ["--data", f"sdd:{data}", "--checkpoint", make_checkpoint(tmp_path / "c"), "--protocols", "aligned"]
    else:
        given = ["--patch", 48, "--patches", 1, "--blur", 2, "--misalignment", 1.5, "--workers", 1]
    statuses, printed = on_a_small_disk(disk, COMMAND, task, *given, "--out", disk / "out")
    assert statuses == [1 if task == "deblur" else 2, 2, 0], printed  # 1: some photographs failed
    assert "Traceback" not in printed
    assert ".part" not in re.search(r"^left (.*)", printed, re.MULTILINE)[1]
    for reason in ("No space left on device", "Read-only file system"):
        assert re.search(rf"{task}: error: .*{disk}/out.*: {reason}\n", printed), printed
