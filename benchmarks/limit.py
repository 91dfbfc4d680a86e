"""How far is reblur from what the machine could do?

    python -m benchmarks.limit [--seconds S]                           (make bench)

Bytes and operations of a pixel are counted (`benchmarks.counts`), the rates at which this machine moves and computes
are measured in the same run, in turns with the operator. The floor is the larger of bytes over bandwidth and operations
over arithmetic rate: an operator that overlaps them perfectly, wastes no instruction on addresses, and finds all it
reads again in cache. Then, how time grows with pixels, radius and channels: the slope between logarithms, 1 for
proportional.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

import reblur_ops
from benchmarks import cases as problems
from benchmarks import counts, harness
from benchmarks.cases import Case
from reblur_ops.testing import TOLERANCE

COPIED = 2**26  # elements of float32, many times the caches
MULTIPLIED = 1024  # rows and columns of the matrices whose product gives the arithmetic rate


@dataclass
class Row:
    """The operator on one problem, with one number of threads."""

    question: str  # "limit", or what its time is followed along: "pixels", "radius", "channels"
    pass_: str
    threads: int
    shape: list[int]
    radius: int
    ms_p20: float
    ms_p50: float
    ms_p80: float
    bytes_per_pixel: float
    operations_per_pixel: int
    bandwidth_gbps: float  # of a copy, bytes read and written counted once each
    operations_gops: float  # multiply-adds of a matrix product, 10⁹ a second

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[2] * self.shape[3]

    @property
    def memory_ms(self) -> float:
        return self.pixels * self.bytes_per_pixel / self.bandwidth_gbps / 1e6

    @property
    def arithmetic_ms(self) -> float:
        return self.pixels * self.operations_per_pixel / self.operations_gops / 1e6

    @property
    def ratio(self) -> float:
        """Times the floor."""
        return self.ms_p50 / max(self.memory_ms, self.arithmetic_ms)


# What time is followed along.
ALONG: dict[str, Callable[[Row], int]] = {
    "pixels": lambda row: row.pixels,
    "radius": lambda row: row.radius,
    "channels": lambda row: row.shape[1],
}


def measure(question: str, cases: Sequence[Case], threads: int, seconds: float, passes: Sequence[str]) -> list[Row]:
    """The operator on every case, a copy and a matrix product, all in turns."""
    source = torch.ones(COPIED)
    target = torch.empty_like(source)
    a, b = torch.rand(2, MULTIPLIED, MULTIPLIED)
    calls: list[harness.Call] = [lambda: [target.copy_(source)], lambda: [a @ b]]
    asked = [(case, pass_) for case in cases for pass_ in passes]
    for case, pass_ in asked:
        given = problems.problem(case)
        native = harness.on_backend("native", problems.function(case))
        call = harness.make_call(native, pass_, given.tensors, given.grad_output)
        wrong = harness.error(call(), given, pass_)
        if not wrong <= TOLERANCE[given.dtype]:
            raise SystemExit(f"native, {pass_}, {given.shape}: error {wrong:.2g}")
        calls.append(call)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        copy, product, *times = harness.time_in_turns(
            calls, seconds=seconds, description=f"{question}, {harness.thread_count(threads)}"
        )
    finally:
        torch.set_num_threads(before)
    bandwidth = 2 * 4 * COPIED / copy.median / 1e6
    rate = MULTIPLIED**3 / product.median / 1e6
    rows = []
    for (case, pass_), of_call in zip(asked, times, strict=True):
        shape = (1, case.channels, *case.size)
        moved = counts.floor_bytes(
            (1, case.channels, 1, 1), case.dtype, pass_, sum(reblur_ops.map_channels(case.radii))
        )
        operations = counts.operations(case.radii, case.channels, pass_).total
        rows.append(
            Row(
                question,
                pass_,
                threads,
                list(shape),
                case.radius,
                *of_call.percentiles,
                moved,
                operations,
                bandwidth,
                rate,
            )
        )
    return rows


def slope(rows: Sequence[Row], pass_: str) -> float:
    """The slope of the logarithm of time over that of what the rows differ in, by least squares."""
    chosen = [row for row in rows if row.pass_ == pass_]
    x = [ALONG[row.question](row) for row in chosen]
    return float(np.polyfit(np.log(x), np.log([row.ms_p50 for row in chosen]), 1)[0])


def limit_table(rows: Sequence[Row]) -> str:
    heads = ("size", "threads:", "pass", "bytes a pixel:", "operations a pixel:", "GB/s:", "10⁹ operations/s:")
    floors = ("floor by memory, ms:", "by arithmetic, ms:", "measured, ms (20 / 50 / 80 %):", "× floor:")
    cells = []
    for row in rows:
        numbers = (row.bandwidth_gbps, row.operations_gops, row.memory_ms, row.arithmetic_ms)
        cells.append(
            [
                harness.size(row.shape),
                str(row.threads),
                row.pass_,
                f"{row.bytes_per_pixel:.0f}",
                str(row.operations_per_pixel),
                *(f"{number:.3g}" for number in numbers),
                harness.spread((row.ms_p20, row.ms_p50, row.ms_p80)),
                f"{row.ratio:.2f}",
            ]
        )
    return harness.markdown((*heads, *floors), cells)


def growth_table(rows: Sequence[Row]) -> str:
    cells = []
    for question in dict.fromkeys(row.question for row in rows):
        for pass_ in counts.PASSES:
            chosen = [row for row in rows if (row.question, row.pass_) == (question, pass_)]
            name = {"pixels": "", "radius": "R = ", "channels": "C = "}[question]
            times = ", ".join(f"{name}{ALONG[question](row)}: {harness.milliseconds(row.ms_p50)}" for row in chosen)
            cells.append([question, pass_, times, f"{slope(chosen, pass_):.2f}"])
    return harness.markdown(("along", "pass", "times, ms", "slope:"), cells)


def cases(quick: bool) -> dict[str, list[Case]]:
    """The cases of each question."""
    base = Case(size=(40, 56)) if quick else Case()
    height, width = base.size
    return {
        # In cache, and far beyond it.
        "limit": [base, replace(base, size=(2 * height, 2 * width) if quick else (1080, 1920))],
        "pixels": [replace(base, size=(height << n, width << n)) for n in range(3)],
        "radius": [replace(base, radius=radius) for radius in (3, 5, 7, 11, 15)],
        "channels": [replace(base, channels=channels) for channels in (1, 2, 4, 8, 16)],
    }


def main() -> None:
    arguments = harness.arguments(__doc__, seconds=2).parse_args()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    asked = cases(arguments.quick)
    threads = torch.get_num_threads()
    limit = []
    for count in sorted({1, threads}):
        limit += measure("limit", asked["limit"], count, arguments.seconds, counts.PASSES)
    growth = [
        row
        for question in ("pixels", "radius", "channels")
        for row in measure(question, asked[question], threads, arguments.seconds, counts.PASSES)
    ]
    start = "×".join(map(str, asked["pixels"][0].size))
    text = (
        f"# reblur and the limit of the machine\n\n{harness.setting()} float32, native.\n\n{limit_table(limit)}\n\n"
        "An operation is an addition, a multiplication, a comparison or a fused multiply-add of one number; an "
        f"exponential counts {counts.EXPONENTIAL}. The floor is the larger of bytes over the bandwidth of a copy and "
        "operations over the rate of the multiply-adds in a product of two matrices of "
        f"{MULTIPLIED} × {MULTIPLIED}, both measured in this run. It is an estimate, not a bound: where data stay in "
        "the cache and operations are cheaper than multiply-adds, a ratio slightly below 1 is possible.\n\n"
        f"## How time grows\n\nSlopes between logarithms, from 1×3×{start} with R = 7.\n\n{growth_table(growth)}\n"
    )
    harness.save("limit-cpu", limit + growth, text, arguments.results)


if __name__ == "__main__":
    main()
