"""How things are measured here: contenders take turns in one run, and are checked before they are timed.

Absolute times of one machine at one hour mean little; ratios between contenders that took turns do. A row carries the
20th, 50th and 80th percentile of its repetitions, how many those were, the largest memory held at any time during one
call, and its error.
"""

import argparse
import datetime
import functools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import reblur_ops
from benchmarks.counts import PASSES

RESULTS = Path(__file__).parent / "results"
LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
SLOW = 0.3  # seconds: a call that takes as long has swept the caches and is measured well by itself

Function = Callable[..., Tensor]
Call = Callable[[], list[Tensor]]


# ---- Contenders and what they are given ----


@dataclass
class Problem:
    """What every contender of a run is given."""

    op: str  # the name of the operator
    reference: Function  # of the tensors: the definition, which every contender must agree with
    tensors: list[Tensor]  # the image first
    grad_output: Tensor
    radius: int  # how far a pixel reaches

    @property
    def shape(self) -> list[int]:
        return list(self.tensors[0].shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    def part(self, rows: slice, columns: slice) -> "Problem":
        """A rectangle of it, in float64."""
        tensors = [tensor[:, :, rows, columns].double() for tensor in (*self.tensors, self.grad_output)]
        return Problem(self.op, self.reference, tensors[:-1], tensors[-1], self.radius)


@dataclass
class Contender:
    """A way to solve a problem."""

    name: str
    function: Function | None  # of the problem's tensors; None where it is not run
    cold: bool = False  # whether its inputs are out of the caches when it starts
    not_run: str = ""  # why


@dataclass
class Row:
    """One contender on one problem. One that was not run has a note and no numbers."""

    op: str
    pass_: str  # "forward" or "forward+backward"
    impl: str
    dtype: str
    shape: list[int]
    radius: int
    cache: str  # "warm": as the rivals and a call of its own leave it; "cold": swept
    ms_p20: float | None = None
    ms_p50: float | None = None
    ms_p80: float | None = None
    samples: int = 0
    peak_mb: float | None = None  # largest memory allocated at once during a call, in 10^6 bytes, results included
    error: float | None = None  # largest error relative to the largest value, against the reference in float64
    note: str = ""


def on_backend(name: str, function: Function) -> Function:
    """The function, answered by one backend."""

    def call(*tensors: Tensor) -> Tensor:
        with reblur_ops.use_backend(name):
            return function(*tensors)

    return call


def make_call(function: Function, pass_: str, tensors: Sequence[Tensor], grad_output: Tensor) -> Call:
    """What is timed: the output, or the output and the gradients to all tensors."""

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [function(*tensors)]

    def forward_backward() -> list[Tensor]:
        output = function(*leaves)
        return [output.detach(), *torch.autograd.grad(output, leaves, grad_output)]

    if pass_ == "forward":
        return forward
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return forward_backward


# ---- Correctness ----


def error(results: Sequence[Tensor], problem: Problem, pass_: str, inner: int = 24) -> float:
    """The largest error of results, relative to the largest value of each, where the reference can be afforded.

    That is in two opposite corners of `inner` pixels: what the timed call itself has computed. A pixel depends on
    nothing farther than a radius away, so the reference, in float64, is computed on a corner a radius larger.
    """
    height, width = problem.shape[2:]
    reach = inner + problem.radius
    worst = 0.0
    for end in (False, True):
        outer = [slice(max(0, size - reach), size) if end else slice(0, min(size, reach)) for size in (height, width)]
        part = problem.part(*outer)
        expected = make_call(problem.reference, pass_, part.tensors, part.grad_output)()
        own = [slice(max(0, size - inner), size) if end else slice(0, min(size, inner)) for size in (height, width)]
        in_part = [slice(o.start - p.start, o.stop - p.start) for o, p in zip(own, outer, strict=True)]
        for result, exact in zip(results, expected, strict=True):
            scale = max(exact.abs().max().item(), 0.01)
            difference = result[:, :, own[0], own[1]].double() - exact[:, :, in_part[0], in_part[1]]
            worst = max(worst, difference.abs().max().item() / scale)
    return worst


# ---- Time and memory ----


def peak_memory(call: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that Torch's allocator held at once during a call, beyond what it held before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    with tempfile.NamedTemporaryFile(suffix=".json") as trace:
        profile.export_chrome_trace(trace.name)
        events = json.loads(Path(trace.name).read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    held = np.cumsum([change for _, change in changes])
    return int(max(held.max(initial=0), 0))


@dataclass(frozen=True)
class Times:
    """The milliseconds of a call's repetitions."""

    samples: Sequence[float]

    @property
    def percentiles(self) -> tuple[float, float, float]:
        """The 20th, 50th and 80th."""
        p20, p50, p80 = np.percentile(self.samples, (20, 50, 80))
        return float(p20), float(p50), float(p80)

    @property
    def median(self) -> float:
        return self.percentiles[1]


def cache_bytes() -> int:
    """The size of the last-level cache, 32 MB where the system does not tell."""
    try:
        return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE")) or 2**25
    except (OSError, ValueError):  # not known there
        return 2**25


def time_in_turns(
    calls: Sequence[Callable[[], object]],
    *,
    seconds: float,
    cold: Sequence[bool] = (),
    description: str = "",
    device: str = "cpu",
) -> list[Times]:
    """The times of each call.

    All warm up, then all are called in turn, round after round, for about `seconds`, at least five rounds. A turn
    begins with a call that is not timed: the rival before has left its own data in the caches and taken the memory. A
    quick call is repeated within its turn, so that slow rivals do not leave it a handful of repetitions. A call slower
    than `SLOW` goes without that first one, and is called three times in all, the one that warms up included.

    Args:
        calls: what is timed.
        seconds: for all calls together.
        cold: for each call, whether the caches are swept before every repetition.
        description: beside the progress.
        device: "cpu" or "cuda", where the end of the work is waited for.
    """
    colds = list(cold) or [False] * len(calls)
    sweep = torch.empty(2 * cache_bytes(), dtype=torch.uint8) if any(colds) else None

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(call: Callable[[], object], sweeping: bool) -> float:
        if sweeping and sweep is not None:
            sweep.add_(1)
        begin = clock()
        call()
        return 1e3 * (clock() - begin)

    rough, turn = [], []
    for call, sweeping in zip(calls, colds, strict=True):
        begin = clock()
        rough.append(timed(call, sweeping))
        turn.append(1e3 * (clock() - begin))  # with what is not timed
    slow = [milliseconds > 1e3 * SLOW for milliseconds in rough]
    samples = [[first] if is_slow else [] for first, is_slow in zip(rough, slow, strict=True)]
    rounds, start = 0, time.perf_counter()
    with tqdm(desc=description, unit=" rounds", leave=False) as progress:
        while rounds < 5 or (not all(slow) and time.perf_counter() - start < seconds):
            for index, (call, times) in enumerate(zip(calls, samples, strict=True)):
                if not slow[index]:
                    call()
                    times.extend(timed(call, colds[index]) for _ in range(max(1, int(50 / turn[index]))))
                elif len(times) < 3:
                    times.append(timed(call, colds[index]))
            rounds += 1
            progress.update()
    return [Times(times) for times in samples]


# ---- A benchmark ----


def _append_results(results: list[Tensor], call: Callable[[], Sequence[Tensor]]) -> None:
    results.extend(call())


def measure(problem: Problem, contenders: Sequence[Contender], seconds: float, *, tolerance: float) -> list[Row]:
    """Both passes of every contender: checked, their memory measured, then timed in turns.

    Raises:
        SystemExit: a contender computes something else.
    """
    rows = []
    dtype = str(problem.dtype).removeprefix("torch.")
    for pass_ in PASSES:
        calls, running = [], []
        for contender in contenders:
            cache = "cold" if contender.cold else "warm"
            row = Row(problem.op, pass_, contender.name, dtype, problem.shape, problem.radius, cache)
            rows.append(row)
            if contender.function is None:
                row.note = f"not run: {contender.not_run}"
                continue
            call = make_call(contender.function, pass_, problem.tensors, problem.grad_output)
            results: list[Tensor] = []  # of the same call: the naive ones take seconds
            row.peak_mb = peak_memory(functools.partial(_append_results, results, call)) / 1e6
            row.error = error(results, problem, pass_)
            if not row.error <= tolerance:
                what = f"{row.impl}, {problem.op}, {pass_}, {row.shape}"
                raise SystemExit(f"{what}: error {row.error:.2g}, at most {tolerance} allowed")
            calls.append(call)
            running.append(row)
        cold = [row.cache == "cold" for row in running]
        description = f"{problem.op} {pass_} {'×'.join(map(str, problem.shape))}"
        for row, times in zip(
            running, time_in_turns(calls, seconds=seconds, cold=cold, description=description), strict=True
        ):
            row.ms_p20, row.ms_p50, row.ms_p80 = times.percentiles
            row.samples = len(times.samples)
    return rows


# ---- Results ----


def processor() -> str:
    """The processor's product name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def thread_count(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def environment(device: str = "cpu") -> dict[str, Any]:
    """Where and when; with the load of the machine, which tells how far to trust the times."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {
        "device": name if device == "cuda" else f"{name}, {thread_count(torch.get_num_threads())}",
        "load": round(LOAD_AT_START, 1),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "reblur_ops": reblur_ops.build_info(),
    }


def setting(device: str = "cpu") -> str:
    """`environment` as the line below a page's title."""
    where = environment(device)
    capability = where["reblur_ops"].get("cpu_capability", "nothing compiled")
    load = f"load {where['load']} at the start"
    return f"{where['device']}, {capability}, torch {where['torch']}, {where['date']}, {load}."


def milliseconds(value: float) -> str:
    """Three digits, written out."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def table(rows: Sequence[Row], columns: Sequence[str] = ("op", "size", "radius", "dtype")) -> str:
    """Markdown: every row, and how much longer it takes than native on the same problem with warm caches."""
    native = {_problem(row): row.ms_p50 for row in rows if (row.impl, row.cache) == ("native", "warm") and row.ms_p50}
    head = [
        *columns,
        "pass",
        "implementation",
        "ms (20 / 50 / 80 %)",
        "samples",
        "× native",
        "peak memory, MB",
        "error",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * (len(columns) + 2)}{'---:|' * 5}"]
    for row in rows:
        values = {
            "op": row.op,
            "size": "×".join(map(str, row.shape)),
            "radius": str(row.radius),
            "dtype": row.dtype,
        }
        impl = f"{row.impl}, cold cache" if row.cache == "cold" else row.impl
        cells = [*(values[column] for column in columns), row.pass_, impl]
        if row.ms_p20 is None or row.ms_p50 is None or row.ms_p80 is None:
            cells += [row.note, "", "", "", ""]
        else:
            ratio = f"{row.ms_p50 / native[_problem(row)]:.3g}" if _problem(row) in native else ""
            times = " / ".join(milliseconds(value) for value in (row.ms_p20, row.ms_p50, row.ms_p80))
            cells += [times, str(row.samples), ratio, f"{row.peak_mb or 0:.4g}", f"{row.error or 0:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _problem(row: Row) -> tuple[object, ...]:
    return row.op, row.pass_, row.dtype, tuple(row.shape), row.radius


def save(name: str, rows: Sequence[Any], text: str, results: Path = RESULTS, **more: Any) -> None:
    """Write <name>.json and .md. The rows are dataclasses; `more` goes beside them."""
    results.mkdir(exist_ok=True, parents=True)
    records = [{key.rstrip("_"): value for key, value in asdict(row).items()} for row in rows]
    record = {**environment(), **more, "rows": records}
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (results / f"{name}.md").write_text(text)
    print(text)
    print(f"written: {results / name}.json and .md", flush=True)


def arguments(documentation: str | None, seconds: float) -> argparse.ArgumentParser:
    """What all benchmarks can be told."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help="for each comparison (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny problems, to try the program: the times mean nothing"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to (default: %(default)s)")
    return parser
