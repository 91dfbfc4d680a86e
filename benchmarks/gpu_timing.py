"""The time of calls on a GPU, without that of the host."""

import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch


def flushes(host_ms: float, flush_ms: float) -> int:
    """Number of cache flushes that keep the GPU busy for twice the time that the host takes to enqueue a call."""
    return max(1, math.ceil(2 * host_ms / flush_ms))


def enqueue_milliseconds(call: Callable[[], object]) -> float:
    """The host's time for a call, which returns before the GPU is done."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    end = time.perf_counter()
    torch.cuda.synchronize()
    return 1e3 * (end - begin)


def elapsed(call: Callable[[], object], before: Callable[[], object]) -> float:
    """The GPU's milliseconds for a call, by events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def milliseconds(call: Callable[[], object], seconds: float = 0.3) -> np.ndarray:
    """The GPU's time for each of many calls, each with a cold second-level cache; after warming up.

    The cache is flushed until the host has enqueued the whole call, so that the host's own work is not measured.
    """
    sweep = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.int8, device="cuda").zero_
    for _ in range(3):
        call()
    host_ms = statistics.median(enqueue_milliseconds(call) for _ in range(3))
    flush_ms = statistics.median(elapsed(sweep, sweep) for _ in range(3))
    count = flushes(host_ms, flush_ms)

    def flush() -> None:
        for _ in range(count):
            sweep()

    rough = statistics.median(elapsed(call, flush) for _ in range(3)) + count * flush_ms
    return np.array([elapsed(call, flush) for _ in range(int(np.clip(1e3 * seconds / rough, 5, 200)))])


def copy_bandwidth() -> float:
    """GB/s, read and written bytes both counted, of a copy of 1 GiB."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / float(np.median(milliseconds(lambda: target.copy_(source)))) / 1e6
