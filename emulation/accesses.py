"""Count what CUDA kernels do, run on the CPU: accesses to memory as a warp makes them, multiply-adds, exponentials.

`accesses.cpp` counts, and says how.
"""

import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from emulation import emulator

COUNTER = Path(__file__).parent / "accesses.cpp"
# The calls of ThreadSanitizer, not its library; the other sanitizers would count their own accesses.
FLAGS = ["-g0", "-Og", "-DREBLUR_NO_FORCED_INLINE", "-fno-sanitize=all", "-fsanitize=thread"]
PLAIN = ["-g0", "-O2", "-fno-sanitize=all"]


class Traffic(NamedTuple):
    """Accesses of one kind to one memory.

    Attributes:
        requests: instructions of a warp, of one block.
        words: of 4 bytes, of a thread.
        taken: wavefronts of shared memory, sectors of 32 bytes of global memory, of one block.
        ideal: as many as the same bytes would take without bank conflicts, or side by side.
    """

    requests: int
    words: float
    taken: int
    ideal: int


class Executed(NamedTuple):
    """What one block inside the grid did.

    Attributes:
        kernel: its symbol, as g++ names it.
        threads: of the block.
        blocks: of the grid.
        barriers, multiply_adds, exponentials: of a thread, in the mean.
    """

    kernel: str
    threads: int
    blocks: int
    barriers: float
    multiply_adds: float
    exponentials: float
    shared_loads: Traffic
    shared_stores: Traffic
    global_loads: Traffic
    global_stores: Traffic


def build(sources: Iterable[Path], program: Path, flags: Iterable[str] = ()) -> Path:
    """Compile and link `sources` so that they count.

    Raises:
        RuntimeError: they do not compile; with what the compiler says.
    """
    flags = list(flags)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        folder = Path(name)
        made = [(source, [*FLAGS, *flags]) for source in sources] + [(COUNTER, PLAIN)]
        objects = pool.map(lambda m: emulator.build([m[0]], folder / f"{m[0].name}.o", [*m[1], "-c"]), made)
        return emulator.build([], program, [*PLAIN, "-no-pie", *map(str, objects), "-ldl"])


def read(program: Path, accesses: Path) -> list[Executed]:
    """What runs of `program` have written to the file `accesses`, a kernel each."""
    symbols = emulator.symbols(program)
    found = []
    for line in accesses.read_text().splitlines():
        address, threads, blocks, *rest = line.split()
        barriers, multiply_adds, exponentials, *numbers = map(float, rest)
        traffic = [
            Traffic(int(requests), words, int(taken), int(ideal))
            for requests, words, taken, ideal in zip(*[iter(numbers)] * 4, strict=True)
        ]
        symbol = symbols[int(address, 16)]
        found.append(Executed(symbol, int(threads), int(blocks), barriers, multiply_adds, exponentials, *traffic))
    return found
