"""A profile of some steps of a training: where the time goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WAIT, WARM_UP = 3, 2  # steps before those that count: the first ones compile, allocate and fill caches
ROWS = 40
FILES = ("trace.json.gz", "operators.txt")


class Profile:
    """Profiles `steps` steps, once the first ones are done, and writes into a folder what they took.

    Files: `trace.json.gz`, for https://ui.perfetto.dev, and `operators.txt`, a table of the operators by their time.
    """

    def __init__(self, folder: Path, steps: int, device: torch.device) -> None:
        self.folder = folder
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self.order = f"self_{device.type}_time_total"
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=WAIT, warmup=WARM_UP, active=steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )

    def step(self) -> None:
        """A step is done."""
        self.profiler.step()

    def _write(self, profiler: profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / FILES[0]))
        table = profiler.key_averages(group_by_input_shape=True).table(sort_by=self.order, row_limit=ROWS)
        (self.folder / FILES[1]).write_text(table)


@contextmanager
def profiled(folder: Path, steps: int, device: torch.device) -> Iterator[Profile | None]:
    """A profile of so many steps, None for 0."""
    if not steps:
        yield None
        return
    made = Profile(folder, steps, device)
    with made.profiler:
        yield made


def explain_none(steps: int, left: int) -> str | None:
    """Why a profile of so many steps is not written where so many are left; None where it is, or none is asked for."""
    needed = WAIT + WARM_UP + steps
    return f"no profile: {steps} steps need {needed}, and {left} are left" if steps and left < needed else None
