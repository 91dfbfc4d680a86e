"""The time of calls: contenders take turns, on the host's clock or, for a GPU, by its own events."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

SLOW = 0.3  # seconds: a call that takes as long has swept the caches and is measured well by itself
WARM_UP_CALLS, WARM_UP_SECONDS = 8, 3.0


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

    All warm up, each for up to eight calls and three seconds: memory that a virtual machine touches for the first time
    makes the first calls slower by a multiple. Then all are called in turn, round after round, for about `seconds`, at
    least five rounds. A turn begins with a call that is not timed: the rival before has left its own data in the caches
    and taken the memory. A quick call is repeated within its turn, so that slow rivals do not leave it a handful of
    repetitions. A call slower than `SLOW` goes without that first one, and counts three times in all, the last one that
    warms up included.

    Args:
        calls: what is timed.
        seconds: for all calls together.
        cold: for each call, whether the caches are swept before every repetition.
        description: beside the progress.
        device: "cpu" or "cuda", where the end of the work is waited for.
    """
    from tqdm import tqdm  # where a GPU is measured by its own events it may be missing

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
        warm_up = clock()
        for _ in range(WARM_UP_CALLS):
            begin = clock()
            last = timed(call, sweeping)
            whole = 1e3 * (clock() - begin)  # with what is not timed
            if clock() - warm_up > WARM_UP_SECONDS:
                break
        rough.append(last)
        turn.append(whole)
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


# ---- A GPU, without the host's work ----


def device_times(call: Callable[[], object], seconds: float = 0.3) -> Times:
    """The GPU's time for each of many calls, each with a cold second-level cache, after warming up.

    The cache is flushed until the host has enqueued the whole call, so that the host's own work is not measured.
    """
    sweep = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.int8, device="cuda").zero_
    for _ in range(3):
        call()
    host_ms = statistics.median(_enqueue_milliseconds(call) for _ in range(3))
    flush_ms = statistics.median(_elapsed(sweep, sweep) for _ in range(3))
    count = flushes(host_ms, flush_ms)

    def flush() -> None:
        for _ in range(count):
            sweep()

    rough = statistics.median(_elapsed(call, flush) for _ in range(3)) + count * flush_ms
    return Times([_elapsed(call, flush) for _ in range(int(np.clip(1e3 * seconds / rough, 5, 200)))])


def flushes(host_ms: float, flush_ms: float) -> int:
    """The number of cache flushes that keep the GPU busy for twice the time that the host takes to enqueue a call."""
    return max(1, math.ceil(2 * host_ms / flush_ms))


def copy_bandwidth() -> float:
    """GB/s of a copy of 1 GiB on the GPU, bytes read and written both counted."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / device_times(lambda: target.copy_(source)).median / 1e6


def _enqueue_milliseconds(call: Callable[[], object]) -> float:
    """The host's time for a call, which returns before the GPU is done."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    end = time.perf_counter()
    torch.cuda.synchronize()
    return 1e3 * (end - begin)


def _elapsed(call: Callable[[], object], before: Callable[[], object]) -> float:
    """The GPU's milliseconds for a call, by events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
