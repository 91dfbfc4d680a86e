"""How things are measured here: contenders take turns in one run, and are checked before they are timed.

Absolute times of one machine at one hour mean little; ratios between contenders that took turns do. A row carries the
20th, 50th and 80th percentile of its repetitions, and the largest memory held at any time during one call.
"""

import datetime
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import reblur_ops

RESULTS = Path(__file__).parent / "results"


@dataclass
class Row:
    """One contender on one problem."""

    op: str
    pass_: str  # "forward" or "forward+backward"
    impl: str
    dtype: str
    shape: list[int]
    ms_p20: float
    ms_p50: float
    ms_p80: float
    peak_mb: float  # largest memory allocated at once during a call, in 10^6 bytes, results included
    error: float  # largest error relative to the largest value, against the reference in float64


def processor() -> str:
    """The processor's product name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    return {
        "device": f"{processor()}, {torch.get_num_threads()} threads",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "reblur_ops": reblur_ops.build_info(),
    }


def peak_memory(call: Callable[[], object]) -> int:
    """The most bytes that Torch's CPU allocator held at once during a call, beyond what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    with tempfile.NamedTemporaryFile(suffix=".json") as trace:
        profile.export_chrome_trace(trace.name)
        events = json.loads(Path(trace.name).read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]")
    held = np.cumsum([change for _, change in changes])
    return int(max(held.max(initial=0), 0))


def time_in_turns(
    calls: Sequence[Callable[[], object]], *, seconds: float, description: str = ""
) -> list[tuple[float, float, float]]:
    """The 20th, 50th and 80th percentile of each call's milliseconds.

    All warm up, then all are called in turn, round after round, for about `seconds`, at least five rounds. A turn
    begins with a call that is not timed: the rival before has left its own data in the caches and taken the memory. A
    quick call is repeated within its turn, so that slow rivals do not leave it a handful of repetitions.
    """
    repeat = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        repeat.append(max(1, int(0.05 / (time.perf_counter() - start))))
    samples: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    with tqdm(desc=description, unit=" rounds", leave=False) as progress:
        while len(samples[0]) < 5 * repeat[0] or time.perf_counter() - start < seconds:
            for call, times, count in zip(calls, samples, repeat, strict=True):
                call()
                for _ in range(count):
                    begin = time.perf_counter()
                    call()
                    times.append(1e3 * (time.perf_counter() - begin))
            progress.update()
    return [tuple(np.percentile(times, (20, 50, 80))) for times in samples]


def milliseconds(value: float) -> str:
    """Three digits, written out."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def save(name: str, rows: Sequence[Any], text: str) -> None:
    """Write results/<name>.json and .md. The rows are dataclasses."""
    RESULTS.mkdir(exist_ok=True)
    records = [{key.rstrip("_"): value for key, value in asdict(row).items()} for row in rows]
    (RESULTS / f"{name}.json").write_text(json.dumps({**environment(), "rows": records}, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
    print(f"written: {RESULTS / name}.json and .md")
