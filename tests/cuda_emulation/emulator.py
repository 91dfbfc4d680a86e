"""Compiles CUDA sources for the CPU, under AddressSanitizer and UndefinedBehaviorSanitizer, and runs them.

`include/` stands in for the toolkit's headers; `include/emulation/executor.h` runs the threads.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
INCLUDE = Path(__file__).parent / "include"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# A variable that is read before it is written is no NaN but -1.7e38, not by chance the right value.
FLAGS = ["-std=c++17", "-g", "-O1", "-Wall", "-Wno-unknown-pragmas", "-ftrivial-auto-var-init=pattern", *SANITIZERS]
# Shuffled by different seeds, for a block's threads and a grid's blocks alike.
ORDERS = ["forward", "reversed", "shuffled:1", "shuffled:2"]


def compiler() -> str | None:
    return shutil.which("g++")


def build(sources: Iterable[Path], program: Path, flags: Iterable[str] = ()) -> Path:
    """Compiles and links `sources`, C++ or CUDA; the stand-ins and csrc are on the include path."""
    command = [compiler(), *FLAGS, f"-I{INCLUDE}", f"-I{ROOT / 'csrc'}", *flags, "-o", program]
    result = subprocess.run([*command, "-x", "c++", *sources], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return program


def run(
    program: Path,
    *arguments: object,
    threads: str = "forward",
    blocks: str = "forward",
    launches: Path | str | None = None,
    data: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Runs `program` with `data` as its standard input, its threads and blocks in the given orders.

    Its launches are added to the file `launches`, for `read_launches`.
    """
    variables = {"REBLUR_EMULATION_THREADS": threads, "REBLUR_EMULATION_BLOCKS": blocks}
    if launches is not None:
        variables["REBLUR_EMULATION_LAUNCHES"] = str(launches)
    command = [program, *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, env={**os.environ, **variables}, timeout=300)


class Launch(NamedTuple):
    kernel: str  # its symbol, as g++ names it
    threads: int  # of a block
    shared_bytes: int  # of a block, dynamic


def read_launches(program: Path, launches: Path) -> set[Launch]:
    """The different launches that runs of `program` have logged; it was linked with -no-pie, so that addresses hold."""
    symbols = {}
    listing = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        address, _, symbol = line.split()
        symbols[int(address, 16)] = symbol
    lines = [line.split() for line in launches.read_text().splitlines()]
    return {Launch(symbols[int(kernel, 16)], int(threads), int(shared)) for kernel, threads, shared in lines}
