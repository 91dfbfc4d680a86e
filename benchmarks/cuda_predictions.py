"""What the CUDA kernels would take on a GPU, predicted from counts. No GPU.

    python -m benchmarks.cuda_predictions [--no-save]

The stand-in of `emulation` runs the kernels and counts what a block inside the image does: words loaded and stored,
wavefronts of shared memory (bank conflicts), sectors of global memory (coalescing), exponentials and barriers. The
disassembly says which instructions each piece of the code has. Together they give the instructions that are executed:
the fewest that do what was counted. Times follow from a GPU's rates; they are predictions, and no measurements.

Needs nvcc, cuobjdump and g++.
"""

import argparse
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linprog

from benchmarks import cuda_instructions, cuda_resources, harness
from benchmarks.counts import PASSES, floor_bytes
from benchmarks.cuda_instructions import Instruction
from emulation import accesses, emulator, problems
from emulation.accesses import Executed

RESULTS = cuda_resources.ROOT / "benchmarks" / "results"
ARCHITECTURES = (75, 80, 90, 100, 120)  # whose instructions are counted
SHOWN = 90  # whose counts are shown in full
DTYPE = torch.float32
# Whole tiles of every tuned kernel, of which one lies far from all borders.
HEIGHT, WIDTH = 72, 800
CASES = [problems.Case(DTYPE, HEIGHT, WIDTH, batch=1)]
CASES += [problems.Case(DTYPE, HEIGHT, WIDTH, batch=1, family=name, radii=(7,)) for name in ("gaussian", "disk")]
CASES += [problems.Case(DTYPE, HEIGHT, WIDTH, batch=1, radii=tuple(range(1, 9)))]  # others than the published ones
TOLERATED = 1.05
ISSUE = (0.75, 0.6)  # of the instructions that a multiprocessor could issue, what such kernels reach
SHAPE = (1, 3, 1080, 1920)
# A loop's turns at most, for each time that it is entered.
TURNS = 64
END = -1  # where a thread goes that ends
# Of `Executed`, by the instruction.
ACCESSES = {"LDS": "shared_loads", "STS": "shared_stores", "LDG": "global_loads", "STG": "global_stores"}


class Gpu(NamedTuple):
    """Rates by NVIDIA's data sheets; the clock is what their rate of float32 takes."""

    name: str
    architecture: int
    multiprocessors: int
    gigahertz: float
    gigabytes_per_s: float
    float_lanes: int  # multiply-adds of a multiprocessor and cycle


GPUS = (
    Gpu("T4", 75, 40, 1.58, 320, 64),
    Gpu("A100 80 GB", 80, 108, 1.41, 2039, 64),
    Gpu("H100 SXM", 90, 132, 1.98, 3350, 128),
    Gpu("H200", 90, 132, 1.98, 4800, 128),
    Gpu("B200", 100, 148, 1.98, 8000, 128),
    Gpu("RTX 5090", 120, 170, 2.41, 1792, 128),
)
WARP = 32
ISSUED = 4  # instructions of a warp, of a multiprocessor and cycle
SPECIAL_LANES = 16
SECTORS = 4  # of global memory, or one wavefront of shared memory, of a multiprocessor and cycle


# ---- Which instructions are executed ----


class Block(NamedTuple):
    """Instructions that are executed together."""

    start: int
    code: list[Instruction]
    next: tuple[int, ...]  # where it may go on, by address; none where the thread ends


def blocks_of(code: Sequence[Instruction]) -> list[Block]:
    """The basic blocks. What only a call reaches is none of them, nor is padding after the end."""
    addresses = [i.address for i in code]
    following = dict(itertools.pairwise(addresses))
    leaders = {addresses[0]} | {i.target for i in code if i.target is not None}
    leaders |= {following[i.address] for i in code if i.opcode in ("BRA", "EXIT", "RET") and i.address in following}
    blocks: list[Block] = []
    current: list[Instruction] = []
    for i in code:
        current.append(i)
        after = following.get(i.address)
        if after is not None and after not in leaders:
            continue
        last = current[-1]
        targets = [last.target] if last.opcode == "BRA" and last.target is not None else []
        if last.conditional or last.opcode not in ("BRA", "EXIT", "RET"):
            targets += [after] if after is not None else []
        blocks.append(Block(current[0].address, current, tuple(dict.fromkeys(t for t in targets if t is not None))))
        current = []
    by_start = {block.start: block for block in blocks}
    reached, open_ = set(), [addresses[0]]
    while open_:
        start = open_.pop()
        if start not in reached and start in by_start:
            reached.add(start)
            open_ += by_start[start].next
    return [block for block in blocks if block.start in reached]


def events(code: Sequence[Instruction]) -> Counter[str]:
    """What the stand-in counts, too, in 32-bit words where that is what an access moves."""
    found: Counter[str] = Counter()
    for i in code:
        if traffic := ACCESSES.get(i.opcode):
            found[traffic] += 4 if ".128" in i.modifiers else 2 if ".64" in i.modifiers else 1
        found["barriers"] += i.opcode == "BAR"
        found["exponentials"] += i.opcode == "MUFU" and i.modifiers.startswith(".EX2")
    return found


def known(executed: Executed) -> dict[str, float]:
    """The same, as the stand-in counted it, of a thread."""
    counted = {name: getattr(executed, name).words for name in ACCESSES.values()}
    return {**counted, "barriers": executed.barriers, "exponentials": executed.exponentials}


class Way(NamedTuple):
    """How often a thread executes each block, in the mean, and how far that is from what was counted."""

    times: list[float]  # of each block
    missed: float  # of all that was counted, the share that no such way does, or does besides


def way(blocks: Sequence[Block], counted: dict[str, float]) -> Way:
    """The way through the code that does what was counted, or comes closest, with the fewest instructions.

    A linear programme: what enters a block leaves it; a loop turns TURNS times at most, each time that it is entered.
    """
    edges = [(block.start, target) for block in blocks for target in block.next]
    edges += [(block.start, END) for block in blocks if not block.next or block.code[-1].opcode == "EXIT"]
    number = {edge: k for k, edge in enumerate(edges)}
    names = list(counted)
    size = len(edges) + 2 * len(names)
    entry = blocks[0].start
    starts = {block.start for block in blocks}

    entering = np.zeros((len(blocks), size))  # a block's times, but for the thread's start
    balance = np.zeros((len(blocks), size))
    for row, block in enumerate(blocks):
        for (source, target), k in number.items():
            entering[row, k] += target == block.start
            balance[row, k] += (target == block.start) - (source == block.start)
    begun = np.array([float(block.start == entry) for block in blocks])

    done = np.array([[float(events(block.code)[name]) for block in blocks] for name in names])
    matches = done @ entering
    for row in range(len(names)):
        matches[row, len(edges) + 2 * row] = 1  # too little
        matches[row, len(edges) + 2 * row + 1] = -1  # too much
    wanted = np.array([counted[name] for name in names]) - done @ begun

    bounded = []
    for source, target in edges:
        if target not in starts or target > source:
            continue
        turns = np.zeros(size)
        turns[number[source, target]] = 1
        inside = range(target, source + 1)
        for (other, to), k in number.items():
            if to in inside and other not in inside:
                turns[k] -= TURNS
        bounded.append(turns)

    lengths = np.array([float(len(block.code)) for block in blocks])
    costs = lengths @ entering
    worth = 10 * max(float(lengths.sum()), sum(counted.values()))  # to do all of what was counted of a kind
    for row, name in enumerate(names):
        costs[len(edges) + 2 * row : len(edges) + 2 * row + 2] = worth / max(counted[name], 1)
    solved = linprog(
        costs,
        A_ub=np.array(bounded) if bounded else None,
        b_ub=np.zeros(len(bounded)) if bounded else None,
        A_eq=np.concatenate([balance, matches]),
        b_eq=np.concatenate([-begun, wanted]),
        method="highs",
    )
    if solved.status != 0:
        raise RuntimeError(f"no way through the code: {solved.message}")
    times = entering @ solved.x + begun
    missed = solved.x[len(edges) :].sum() / max(sum(counted.values()), 1)
    return Way(times.tolist(), float(missed))


# ---- Kernels ----


class Kernel(NamedTuple):
    """What a kernel does for a pixel inside an image.

    Attributes:
        instructions: executed, the fewest that do what was counted.
        floats: of these, multiply-adds, additions and products.
        special: of these, exponentials, reciprocals and roots.
        wavefronts: of shared memory, of a warp for 32 pixels; conflicts: how many times as many as without conflicts.
        sectors: of global memory, likewise; spread: how many times as many as side by side.
        missed: the share of what was counted that the instructions do not do, or do besides: what the compiler reads
            again or leaves out.
    """

    instructions: float
    floats: float
    special: float
    wavefronts: float
    conflicts: float
    sectors: float
    spread: float
    missed: float


Counts = dict[int, dict[str, Kernel]]  # by architecture and kernel, in words


def kernel(code: Sequence[Instruction], executed: Executed, pixels: float) -> Kernel:
    """Of the kernel's disassembly and its counts, `pixels` being those of a thread."""
    blocks = blocks_of(code)
    found = way(blocks, known(executed))

    def times(*opcodes: str) -> float:
        counts = (sum(not opcodes or i.opcode in opcodes for i in block.code) for block in blocks)
        return sum(n * count for n, count in zip(found.times, counts, strict=True)) / pixels

    of_block = executed.threads * pixels / WARP
    shared, memory = (
        [getattr(executed, f"{name}_{kind}") for kind in ("loads", "stores")] for name in ("shared", "global")
    )

    def taken(traffic: Sequence[accesses.Traffic]) -> float:
        return sum(one.taken for one in traffic) / of_block

    def excess(traffic: Sequence[accesses.Traffic]) -> float:
        return sum(one.taken for one in traffic) / max(sum(one.ideal for one in traffic), 1)

    return Kernel(
        times(),
        times("FFMA", "FADD", "FMUL"),
        times("MUFU"),
        taken(shared),
        excess(shared) if taken(shared) else 1.0,
        taken(memory),
        excess(memory),
        found.missed,
    )


def count(program: Path, cases: Sequence[problems.Case]) -> dict[str, Executed]:
    """By kernel, in words: what the stand-in counts on these cases."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "accesses"
        problems.run(program, [(case, problems.tensors(case)) for case in cases], accesses=str(file))
        found = accesses.read(program, file)
    names = cuda_resources.spoken([executed.kernel for executed in found])
    return {name: executed for name, executed in zip(names, found, strict=True) if cuda_instructions.is_counted(name)}


def build(folder: Path) -> Path:
    """The stand-in's driver, made to count, with room for the states of whole images."""
    flags = [problems.only([DTYPE]), "-DREBLUR_EMULATION_STATES_BYTES=(64<<20)"]
    return accesses.build([*problems.KERNELS, problems.DRIVER], folder / "driver", flags)


def disassemble(folder: Path, architecture: int) -> dict[str, list[Instruction]]:
    """By kernel, in words: the code of what was compiled into a folder for an architecture."""
    cubins = sorted(folder.glob(f"*.sm_{architecture}.cubin"))
    code = {symbol: function for one in cubins for symbol, function in cuda_instructions.disassemble(one).items()}
    return dict(zip(cuda_resources.spoken(list(code)), code.values(), strict=True))


def measure(architectures: Sequence[int] = ARCHITECTURES) -> Counts:
    """The tuned kernels, in float32."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cuda_resources.compile_all(folder, architectures, [DTYPE])
        code = {architecture: disassemble(folder, architecture) for architecture in architectures}
        executed = count(build(folder), CASES)
    return {
        architecture: {
            name: kernel(of_kernel[name], one, HEIGHT * WIDTH / (one.blocks * one.threads))
            for name, one in sorted(executed.items())
        }
        for architecture, of_kernel in code.items()
    }


# ---- Times ----


class Operation(NamedTuple):
    name: str
    parameter_channels: int
    forward: tuple[str, ...]  # its kernels
    backward: tuple[str, ...]


def gather_operation(name: str, family: str, parameter_channels: int) -> Operation:
    gradients = f"parameter_gradients_kernel ({family}, float32, true)"
    backward = (gradients, "scatter_kernel (class 7, float32, 3, true)")
    return Operation(name, parameter_channels, (f"gather_kernel ({family}, float32)",), backward)


OPERATIONS = (
    gather_operation("reblur", "seeds 1…7", 43),
    gather_operation("gaussian_blur, R = 7", "gaussian 7", 1),
    gather_operation("disk_blur, R = 7", "disk 7", 1),
)


def milliseconds(gpu: Gpu, kernel: Kernel, issue: float) -> float:
    """Of what a multiprocessor does at the same time, what takes longest, for an image of SHAPE; memory left out."""
    cycles = max(
        kernel.instructions / (ISSUED * issue),
        kernel.floats * WARP / gpu.float_lanes,
        kernel.special * WARP / SPECIAL_LANES,
        kernel.wavefronts + kernel.sectors / SECTORS,
    )
    pixels = SHAPE[0] * SHAPE[2] * SHAPE[3]
    return cycles / WARP * pixels / (gpu.multiprocessors * gpu.gigahertz * 1e6)


class Prediction(NamedTuple):
    milliseconds: tuple[float, float]  # the least and the most
    times_floor: tuple[float, float]  # the time of the memory for each input and each result once


def predict(gpu: Gpu, counts: Counts, operation: Operation, pass_: str) -> Prediction:
    kernels = counts[gpu.architecture]
    names = operation.forward + (operation.backward if pass_ == "forward+backward" else ())
    floor = floor_bytes(SHAPE, DTYPE, pass_, operation.parameter_channels) / gpu.gigabytes_per_s / 1e6
    least, most = (max(floor, sum(milliseconds(gpu, kernels[name], issue) for name in names)) for issue in ISSUE)
    return Prediction((least, most), (least / floor, most / floor))


LEGEND = f"""\
**Predicted, not measured.** Each kernel ran on the stand-in for the execution model, which counts what a block inside
the image does; the disassembly tells the instructions. A pixel of a colour image in float32, on sm_{SHOWN}:

- **instructions** that a thread executes, the fewest that do what was counted; of these, **floats** (multiply-adds,
  sums, products) and **special** ones (2^x, 1/x);
- **wavefronts** of shared memory for 32 pixels, and how many **times** as many they are as without bank conflicts;
- **sectors** of 32 bytes of global memory for 32 pixels, most of which a cache serves, and how many **times** as many
  they are as if side by side;
- **missed**: the share of the counted accesses and exponentials that the instructions do not do, or do besides, since
  the compiler keeps what the source reads twice.
"""


def page(counts: Counts) -> str:
    kernels = counts[SHOWN]
    heads = ["kernel", *(f"{head}:" for head in ("instructions", "floats", "special", "wavefronts", "times"))]
    heads += ["sectors:", "times:", "missed:"]
    rows = [
        [
            f"`{name}`",
            *(f"{value:.0f}" for value in (k.instructions, k.floats, k.special)),
            f"{k.wavefronts:.0f}",
            f"{k.conflicts:.2f}",
            f"{k.sectors:.0f}",
            f"{k.spread:.2f}",
            f"{100 * k.missed:.1f} %",
        ]
        for name, k in kernels.items()
    ]
    parts = [f"# What the CUDA kernels would take\n\n{LEGEND}\n{harness.markdown(heads, rows)}\n"]
    rows = [
        [f"`{name}`", *(f"{of[name].instructions:.0f} ({100 * of[name].missed:.0f} %)" for of in counts.values())]
        for name in kernels
    ]
    table = harness.markdown(["kernel", *(f"sm_{architecture}:" for architecture in counts)], rows)
    parts.append(f"## Instructions a pixel, by architecture\n\nIn brackets what is missed.\n\n{table}\n")
    least, most = ISSUE
    parts.append(
        f"## Times\n\n{' × '.join(map(str, SHAPE))}, **predicted** for {100 * most:.0f} to {100 * least:.0f} % of the "
        "instructions that a multiprocessor can issue, in milliseconds, and in multiples of the floor: each input and "
        "each result once, at the memory's rate. States are taken to stay in"
        " the second-level cache, and launches to cost nothing.\n"
    )
    heads = ["GPU", *(f"{operation.name}, {pass_}:" for operation in OPERATIONS for pass_ in PASSES)]
    rows = [
        [gpu.name, *(spoken(predict(gpu, counts, operation, pass_)) for operation in OPERATIONS for pass_ in PASSES)]
        for gpu in GPUS
    ]
    parts.append(harness.markdown(heads, rows) + "\n")
    return "\n".join(parts)


def spoken(prediction: Prediction) -> str:
    (least, most), (times, at_most) = prediction
    if least == most:  # memory takes longer than all else
        return f"{least:.3f} ({times:.1f}×)"
    return f"{least:.3f} … {most:.3f} ({times:.1f} … {at_most:.1f}×)"


def regressions(earlier: dict[str, dict[str, dict[str, float]]], now: Counts) -> list[str]:
    """What has become over 5 % more than before, in words."""
    names = ("instructions", "wavefronts", "sectors")
    return [
        f"{kernel} on sm_{architecture}: {before[kernel][name]:.4g} → {getattr(kernels[kernel], name):.4g} {name}"
        for architecture, kernels in now.items()
        for before in [earlier.get(f"sm_{architecture}", {})]
        for kernel in sorted(before.keys() & kernels.keys())
        for name in names
        if getattr(kernels[kernel], name) > TOLERATED * before[kernel][name]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-save", action="store_true", help="print the page only")
    arguments = parser.parse_args()
    if cuda_resources.nvcc() is None or cuda_instructions.cuobjdump() is None or emulator.compiler() is None:
        print("nvcc, cuobjdump and g++ are needed: nothing was counted")
        return
    counts = measure()
    text = page(counts)
    print(text)
    file = RESULTS / "cuda-predictions.json"
    if file.exists() and (worse := regressions(json.loads(file.read_text())["kernels"], counts)):
        print("More than before:", *worse, sep="\n")
    if not arguments.no_save:
        (RESULTS / "cuda-predictions.md").write_text(text)
        counted = {
            f"sm_{architecture}": {
                name: {field: round(value, 4) for field, value in k._asdict().items()} for name, k in kernels.items()
            }
            for architecture, kernels in counts.items()
        }
        file.write_text(json.dumps({"nvcc": cuda_instructions.release(), "kernels": counted}, indent=1) + "\n")


if __name__ == "__main__":
    main()
