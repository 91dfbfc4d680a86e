"""The way of measuring: contenders take turns in one run, and are checked before they are timed.

Absolute times of one machine at one hour mean little; ratios between contenders that took turns do. A row carries the
20th, 50th and 80th percentile of its repetitions, how many those were, the largest memory held at any time during one
call, and its error.
"""

from benchmarks.harness.contenders import (
    Call,
    Contender,
    Function,
    Problem,
    Row,
    error,
    make_call,
    measure,
    on_backend,
)
from benchmarks.harness.memory import peak_memory
from benchmarks.harness.results import (
    RESULTS,
    add_results,
    arguments,
    environment,
    markdown,
    milliseconds,
    processor,
    save,
    setting,
    size,
    spread,
    table,
    thread_count,
)
from benchmarks.harness.timing import Times, copy_bandwidth, device_times, flushes, time_in_turns

__all__ = [
    "RESULTS",
    "Call",
    "Contender",
    "Function",
    "Problem",
    "Row",
    "Times",
    "add_results",
    "arguments",
    "copy_bandwidth",
    "device_times",
    "environment",
    "error",
    "flushes",
    "make_call",
    "markdown",
    "measure",
    "milliseconds",
    "on_backend",
    "peak_memory",
    "processor",
    "save",
    "setting",
    "size",
    "spread",
    "table",
    "thread_count",
    "time_in_turns",
]
