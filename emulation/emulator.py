"""Compile CUDA sources for the CPU, under AddressSanitizer and UndefinedBehaviorSanitizer, and run them.

`include/` stands in for the toolkit's headers; `include/emulation/executor.h` runs the threads.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
INCLUDE = Path(__file__).parent / "include"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# A variable that is read before it is written is no NaN but -1.7e38, not by chance the right value.
FLAGS = ["-std=c++17", "-g", "-O1", "-Wall", "-Wno-unknown-pragmas", "-ftrivial-auto-var-init=pattern", *SANITIZERS]
# Shuffled by different seeds, for a block's threads and a grid's blocks alike.
ORDERS = ["forward", "reversed", "shuffled:1", "shuffled:2"]


def compiler() -> str | None:
    return shutil.which("g++")


def build(sources: Iterable[Path], program: Path, flags: Iterable[str] = (), csrc: Path = CSRC) -> Path:
    """Compile and link `sources`, C++ or CUDA, with the stand-ins and `csrc` on the include path.

    Raises:
        RuntimeError: they do not compile; with what the compiler says.
    """
    command = [compiler() or "g++", *FLAGS, f"-I{INCLUDE}", f"-I{csrc}", *flags, "-o", str(program)]
    result = subprocess.run([*command, "-x", "c++", *map(str, sources)], capture_output=True, text=True, timeout=900)
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    return program


def run(
    program: Path,
    *arguments: object,
    threads: str = "forward",
    blocks: str = "forward",
    launches: Path | str | None = None,
    accesses: Path | str | None = None,
    data: bytes = b"",
) -> subprocess.CompletedProcess[bytes]:
    """Run `program` with `data` as its standard input, its threads and blocks in the given orders.

    The program adds its launches to the file `launches`, for `read_launches`; one that counts accesses adds these to
    the file `accesses`, for `accesses.read`.
    """
    variables = {"REBLUR_EMULATION_THREADS": threads, "REBLUR_EMULATION_BLOCKS": blocks}
    if launches is not None:
        variables["REBLUR_EMULATION_LAUNCHES"] = str(launches)
    if accesses is not None:
        variables["REBLUR_EMULATION_ACCESSES"] = str(accesses)
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, env={**os.environ, **variables}, timeout=900)


class Launch(NamedTuple):
    kernel: str  # its symbol, as g++ names it
    threads: int  # of a block
    shared_bytes: int  # of a block, dynamic


def symbols(program: Path) -> dict[int, str]:
    """By address; `program` was linked with -no-pie, so that addresses hold."""
    listing = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    fields = [line.split() for line in listing.splitlines()]
    return {int(address, 16): symbol for address, _, symbol in fields}


def read_launches(program: Path, launches: Path) -> set[Launch]:
    """The different launches that runs of `program` have logged."""
    by_address = symbols(program)
    lines = [line.split() for line in launches.read_text().splitlines()]
    return {Launch(by_address[int(kernel, 16)], int(threads), int(shared)) for kernel, threads, shared in lines}
