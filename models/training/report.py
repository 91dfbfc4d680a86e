"""Reports of steps: for the other processes, for the log, and for people where a step was not finite."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .config import TrainingConfig
from .folder import RunFolder
from .objective import Outcome
from .processes import Processes
from .progress import Progress, memory_mb
from .state import State
from .validation import psnr


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not finite has ended the run. The message says which, where, and with what samples."""


@dataclass(frozen=True)
class StepReport:
    """The outcome of a step in one process; or, `summed`, in all: then each value is the sum.

    Attributes:
        failed: 1 if the loss, or the gradient of one that was not scaled, is not finite.
        stopping: 1 if a signal has asked the run to end.
        squared_error: of the deblurred image to the warped sharp one, where the mask trusts it.
        weight: how many values that is the sum of.
        parts: of the loss, by name; the same names in all processes, as they are in the same stage.
    """

    failed: float
    stopping: float
    squared_error: float
    weight: float
    parts: dict[str, float]

    @classmethod
    def summed(cls, outcome: Outcome, norm: float, stopping: bool, scaled: bool, processes: Processes) -> "StepReport":
        """The sum over all processes, the same in each, by one transfer: so they decide alike, and none waits.

        Args:
            norm: of the gradient.
            scaled: whether the loss is scaled, for float16: gradients overflow now and then, and the scaler deals with
                that, so that only the loss counts.
        """
        total, names = outcome.losses.total.detach(), list(outcome.losses.parts)
        error = weight = torch.zeros((), device=total.device)
        if outcome.warped_sharp is not None:
            difference = (outcome.deblurred - outcome.warped_sharp).square()
            mask = torch.ones_like(difference) if outcome.mask is None else outcome.mask.expand_as(difference)
            error, weight = (mask * difference).sum(), mask.sum()
        bad_gradient = not math.isfinite(norm) and not scaled
        parts = [outcome.losses.parts[name].detach() for name in names]
        values = [~total.isfinite() | bad_gradient, torch.tensor(stopping, device=total.device), error, weight, *parts]
        sums = processes.sum(torch.stack([value.double() for value in values])).tolist()
        failed, stopped, squared_error, values_seen, *summed = sums
        return cls(failed, stopped, squared_error, values_seen, dict(zip(names, summed, strict=True)))


@dataclass
class Tally:
    """Means over the steps since the last line of metrics.jsonl."""

    began: float = field(default_factory=time.perf_counter)
    steps: int = 0
    finite: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    squared_error: float = 0.0
    weight: float = 0.0
    grad_norm: float = 0.0

    def count(self, report: StepReport, norm: float, processes: int) -> None:
        self.steps += 1
        if report.failed:
            return
        self.finite += 1
        self.squared_error += report.squared_error
        self.weight += report.weight
        for name, value in report.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value / processes
        if math.isfinite(norm):  # with float16 it is not always
            self.grad_norm += norm

    def record(
        self, state: State, stage: str, lr: float, config: TrainingConfig, processes: Processes
    ) -> dict[str, Any]:
        """A line of metrics.jsonl; see `models.training.folder`."""
        parts = {name: total / self.finite for name, total in self.parts.items()}
        return {
            "step": state.step,
            "stage": stage,
            "loss": sum(parts.values()) if parts else None,
            "parts": parts,
            "psnr": psnr(self.squared_error / self.weight) if self.weight else None,
            "lr": lr,
            "grad_norm": self.grad_norm / self.finite if self.finite else None,
            "skipped": state.skipped,
            "images_per_second": self.steps * config.data.batch / (time.perf_counter() - self.began),
            "memory_mb": memory_mb(processes.device),
        }


@dataclass(frozen=True)
class _Trouble:
    """Facts about a step that was not finite, from one process."""

    rank: int
    parts: list[str]
    samples: list[str]
    file: str


def tell_nonfinite(
    outcome: Outcome,
    batch: Mapping[str, Any],
    stage: str,
    step: int,
    config: TrainingConfig,
    folder: RunFolder,
    processes: Processes,
    progress: Progress,
) -> None:
    """Say in which parts, in which samples, and keep these; or end the run. All processes call it if one has to.

    Raises:
        NonFiniteError: the configuration says that such a step ends the run.
    """
    parts = [name for name, value in outcome.losses.parts.items() if not bool(value.isfinite())]
    trouble = None
    if parts:
        samples = [
            f"{name} (sample {number})" for name, number in zip(batch["name"], batch["number"].tolist(), strict=True)
        ]
        saved = {"step": step, "stage": stage, "parts": parts, **batch}
        trouble = _Trouble(processes.rank, parts, samples, str(folder.save_nonfinite(step, processes.rank, saved)))
    troubles = [found for found in processes.gather(trouble) if found is not None]
    lines = [
        f"step {step}, process {found.rank}: {' and '.join(found.parts)} not finite; pairs {', '.join(found.samples)}; "
        f"kept in {found.file}"
        for found in troubles
    ] or [f"step {step}: the gradient is not finite, though the loss is"]
    if config.optimizer.nonfinite == "stop":
        raise NonFiniteError("; ".join(lines))
    progress.say("\n".join(f"{line}; skipped" for line in lines))


def without_nonfinite(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record for a log: what is not finite is null, as JSON has no other way."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
