"""Work spread over processes, which end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeAlias

import cv2

Map: TypeAlias = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]]


@contextmanager
def processes(workers: int) -> Iterator[Map]:
    """Calls a function with each of many tuples of arguments, in other processes if more than one.

    Results come in any order.
    """
    if workers == 1:
        yield lambda function, tasks: (function(*task) for task in tasks)
        return
    # Forking is not safe where libraries have started threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_prepare_process)
    try:
        yield lambda function, tasks: (
            done.result() for done in as_completed([executor.submit(function, *task) for task in tasks])
        )
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    cv2.setNumThreads(1)
    threading.Thread(target=end_with_first_process, daemon=True).start()


def end_with_first_process() -> None:
    """End this process when the one that started it does: were that killed, this one would go on or wait for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
