"""Progress for people: a bar on a terminal, plain lines elsewhere, and trackers."""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from tqdm import tqdm

from .tracking import Tracker
from .validation import COLLAPSED


class Progress:
    """Tells of one run.

    Args:
        start, steps: the step to begin with, and the one to end before.
        shown: whether this process shows anything on its terminal.
        trackers: who is told, too.
    """

    def __init__(self, start: int, steps: int, shown: bool, trackers: Sequence[Tracker] = ()) -> None:
        self.start, self.steps, self.shown = start, steps, shown
        self.began = time.perf_counter()
        self.bar = (
            tqdm(desc="training", initial=start, total=steps, unit="step", smoothing=0.05)
            if shown and sys.stderr.isatty()
            else None
        )
        self.trackers = trackers

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        for tracker in self.trackers:
            tracker.close()

    def advance(self) -> None:
        """A step is done."""
        if self.bar is not None:
            self.bar.update()

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Show a record of metrics.jsonl."""
        text = f"{record['stage']}: no step was finite"
        if record["loss"] is not None:
            parts = " ".join(f"{name} {value:.4f}" for name, value in record["parts"].items())
            text = f"{record['stage']}: loss {record['loss']:.4f} ({parts})"
        if record["psnr"] is not None:
            text += f" {record['psnr']:.2f} dB"
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
        else:
            left = (self.steps - record["step"]) * (time.perf_counter() - self.began) / (record["step"] - self.start)
            rate = f"{record['images_per_second']:.3g} images/s, {tqdm.format_interval(left)} left"
            self.say(f"step {record['step']}/{self.steps} {text}, {rate}")
        flat = {name: value for name, value in record.items() if isinstance(value, (int, float)) and name != "step"}
        self._scalars(
            "train", flat | {f"loss/{name}": value for name, value in record["parts"].items()}, record["step"]
        )

    def validation(self, record: Mapping[str, Any]) -> None:
        """Show a record of validation.jsonl."""
        text = (
            f"step {record['step']}: deblurred {_decibels(record['deblurred_psnr'])}, "
            f"blurry {_decibels(record['input_psnr'])}"
        )
        if record.get("reblurred_psnr") is not None:
            text += f", reblurred {record['reblurred_psnr']:.2f} dB"
        if record.get("blur_radius_correlation") is not None:
            text += f", blur radius correlation {record['blur_radius_correlation']:.3f}"
        if record.get("map_radius_correlation") is not None:
            text += f", from one image {record['map_radius_correlation']:.3f}"
        if record.get("effective_blurs") is not None:
            text += f", {record['effective_blurs']:.1f} effective blurs"
            if record["effective_blurs"] < COLLAPSED:
                text += ": the blur found has collapsed into one, and teaches nothing"
        text += f" ({record['protocol']}, {record['pairs']} pairs){', the best so far' if record['best'] else ''}"
        self.say(text)
        scores = {name: value for name, value in record.items() if isinstance(value, float)}
        self._scalars("validation", scores, record["step"])

    def picture(self, step: int, picture: Any) -> None:
        """(H, W, 3), uint8."""
        for tracker in self.trackers:
            tracker.picture(step, picture)

    def say(self, text: str) -> None:
        if self.shown:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        for tracker in self.trackers:
            tracker.scalars(group, values, step)


def memory_mb(device: torch.device) -> float:
    """The most memory that was in use so far: allocated on a GPU, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _decibels(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2f} dB"
