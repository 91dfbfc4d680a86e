"""Signals that end a run once its step is done."""

import signal
import threading
import time
from signal import getsignal
from typing import Any

# The ways in which a run is asked to end: Ctrl-C, a scheduler or torchrun, a terminal that is closed.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Signals:
    """While the block lasts, the signals of ENDING are remembered, and the step goes on to its end.

    A later one ends it at once; not one of the same moment, as Ctrl-C comes from the terminal and from torchrun.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:  # nohup ignores SIGHUP
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        if self.received is None:
            self.received, self._when = number, time.monotonic()
        elif time.monotonic() - self._when > 2:
            raise KeyboardInterrupt


def ignore_ending() -> None:
    """Ignore the signals of ENDING, in a process that another one ends; signals reach whole groups of processes."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
