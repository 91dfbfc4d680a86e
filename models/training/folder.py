"""The folder of a run: what training leaves behind, written so that it is whole whenever the run ends.

    RUN/
        config.yaml          the whole configuration; `--config RUN/config.yaml resume=auto` goes on
        environment.jsonl    for each start: step, time, command, versions, git commit, device, processes, notices
        metrics.jsonl        for each logged step, means since the one before: step, stage, loss, parts (loss parts by
                             name, which sum to the loss), psnr (dB, deblurred to warped sharp where the mask trusts it;
                             null in the stage "reblur"), lr, grad_norm, skipped (steps so far), images_per_second,
                             memory_mb. What is not finite, or was in no step, is null
        validation.jsonl     for each validation: step, pairs, protocol (what is compared), deblurred_psnr, input_psnr,
                             and reblurred_psnr where there is a reblurring network (dB), with the truth
                             blur_radius_correlation; best, whether it is the best so far
        checkpoints/step-0001000/    after so many steps: the last ones, the best, and the last before steps that were
                                     skipped because they were not finite
            config.json, model.safetensors    the framework, `Framework.from_pretrained`; the moving average if there is
            training.pt      what else it takes to go on
        latest, best         links to a checkpoint
        samples/step-0001000.png     a row for each of a few validation pairs
        nonfinite/           batches whose loss was not finite: step-0001000-rank-0.pt
        tensorboard/         if asked for
        .training.lock       held while a training is at work

Steps are counted in steps done. Lines of the logs past the checkpoint that a run goes on from are dropped.
"""

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..core.files import replacing, sync_folder
from ..core.weights import WeightsError, read_safetensors, read_torch
from ..framework import WEIGHTS_FILE, Framework

CONFIG_FILE = "config.yaml"
LOGS = ("metrics.jsonl", "validation.jsonl")
STATE_FILE = "training.pt"
FORMAT = 1  # of STATE_FILE


@dataclass
class Checkpoint:
    """A checkpoint as `RunFolder.load` found it."""

    step: int
    saved: dict[str, Tensor]  # model.safetensors
    state: dict[str, Any]  # training.pt


class RunFolder:
    """The folder of one run; only the first process may write."""

    def __init__(self, path: Path, keep: int = 3) -> None:
        self.path = path
        self.keep = keep
        self.checkpoints = path / "checkpoints"

    def create(self) -> None:
        """Make it, and clear away what a process that was killed left half done.

        Raises:
            OSError: it cannot be written.
        """
        for folder in (self.checkpoints, self.path / "samples"):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in [*self.checkpoints.glob(".step-*"), *self.path.glob(".*.part")]:
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, ascending."""
        if not self.checkpoints.is_dir():
            return []
        found = (re.fullmatch(r"step-(\d+)", path.name) for path in self.checkpoints.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:07d}"

    def save(
        self,
        step: int,
        framework: Framework,
        state: Mapping[str, Any],
        best: int | None,
        kept: Collection[int | None] = (),
    ) -> None:
        """Write a checkpoint, point `latest` and `best` at theirs, and remove those no longer kept.

        Killed at any moment, each checkpoint is there as a whole or not at all.

        Args:
            step: steps done.
            framework: what `from_pretrained` shall read.
            state: tensors, numbers, texts and containers of them.
            best: the step of the best checkpoint.
            kept: steps of checkpoints that are not removed, however old.

        Raises:
            OSError: it cannot be written; the checkpoints before are still there.
        """
        final = self.checkpoint(step)
        if not final.exists():
            part = final.with_name(f".{final.name}.part")
            try:
                framework.save_pretrained(part)
                with replacing(part / STATE_FILE) as file:
                    write_torch({"format": FORMAT, "step": step, **state}, file)
                os.rename(part, final)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            sync_folder(self.checkpoints)
        self.link(step, best)
        self.prune({best, *kept})

    def prune(self, kept: Collection[int | None]) -> None:
        """Remove the checkpoints but the last ones and some others.

        Args:
            kept: steps of the others.
        """
        for old in self.steps()[: -self.keep]:
            if old not in kept:
                # Renamed first: a folder half removed must not pass for a checkpoint.
                removed = self.checkpoints / f".{self.checkpoint(old).name}.removed"
                os.rename(self.checkpoint(old), removed)
                shutil.rmtree(removed)

    def link(self, latest: int, best: int | None) -> None:
        """Point the links at checkpoints."""
        for name, step in (("latest", latest), ("best", best)):
            if step is not None:
                link = self.path / f".{name}.part"
                link.unlink(missing_ok=True)
                link.symlink_to(Path(self.checkpoints.name) / self.checkpoint(step).name)
                os.replace(link, self.path / name)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, or None if there is none.

        Raises:
            WeightsError: it is damaged, or of another version; names the last one before that is whole.
        """
        steps = self.steps()
        if not steps:
            return None
        try:
            return self._read(steps[-1])
        except WeightsError as error:
            whole = next((step for step in reversed(steps[:-1]) if self._is_whole(step)), None)
            if whole is None:
                raise
            damaged = self.checkpoint(steps[-1])
            raise WeightsError(
                f"{error}; without the folder {damaged}, resume=auto goes on after step {whole}"
            ) from error

    def _read(self, step: int) -> Checkpoint:
        folder = self.checkpoint(step)
        state = read_torch(folder / STATE_FILE)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise WeightsError(
                f"{folder / STATE_FILE} was written by another version of the training, format {FORMAT} is required"
            )
        return Checkpoint(step, read_safetensors(folder / WEIGHTS_FILE), state)

    def _is_whole(self, step: int) -> bool:
        with contextlib.suppress(WeightsError):
            return bool(self._read(step))
        return False

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a line to a log."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def truncate_logs(self, step: int) -> None:
        """Drop the lines past a step, and what a process that was killed left of one."""
        for name in LOGS:
            path = self.path / name
            if path.exists():
                kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
                with replacing(path) as file:
                    file.write("".join(f"{line}\n" for line in kept).encode())

    def write_text(self, name: str, text: str) -> None:
        with replacing(self.path / name) as file:
            file.write(text.encode())

    def save_nonfinite(self, step: int, rank: int, batch: Mapping[str, Any]) -> Path:
        """Keep a batch for whoever looks into it."""
        path = self.path / "nonfinite" / f"step-{step:07d}-rank-{rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            write_torch(dict(batch), file)
        return path


def write_torch(value: Mapping[str, Any], file: BinaryIO) -> None:
    """`torch.save`, by way of memory: writing by itself, it tells a full disk as an error of its archive.

    Raises:
        OSError: it cannot be written.
    """
    contents = io.BytesIO()
    torch.save(value, contents)
    file.write(contents.getbuffer())


def _step_of(line: str) -> float:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return float(json.loads(line)["step"])
    return float("inf")
