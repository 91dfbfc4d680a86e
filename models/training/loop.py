"""The training loop."""

import copy
import hashlib
import json
import math
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

import reblur_ops

from ..checkpoints.load import load_public_restormer
from ..core.config import to_dict
from ..core.devices import computes_in_bfloat16
from ..core.weights import load_exactly, read_safetensors, read_state, read_torch
from ..data.layouts import DataError, Pair, hold_out, load_pairs
from ..framework import Framework
from ..networks import Restormer
from ..networks.initialization import initialize_as_published
from ..synthesis.photographs import Original
from . import pictures
from .batches import find_photographs, load_batches
from .config import OptimizerConfig, StartConfig, TrainingConfig, differing_keys, dump_config
from .folder import CONFIG_FILE, Checkpoint, RunFolder
from .objective import Aligner, Objective, Outcome
from .processes import Processes
from .progress import Progress, load_tensorboard, memory_mb
from .validation import psnr, spread, validate

# Skipped one after another, steps that are not finite are no accident: nothing will be learnt any more.
MOST_SKIPPED = 50
# Parts of the loss, in the order in which processes add them up.
PARTS = ("deblurred", "brightness", "sharp", "reblurred", "reblurred_sharp", "radius", "blur_map", "seeds")


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not finite has ended the run. The message says which, where, and with what samples."""


@dataclass
class State:
    """What changes in training; all of it is in a checkpoint, and the rest follows from the configuration.

    Random numbers, too: before each step they are seeded with the step, so that they are no state.
    """

    framework: Framework
    average: Framework  # the moving average of the weights; the framework itself without
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0  # steps done
    skipped: int = 0  # of these
    best_psnr: float | None = None
    best_step: int | None = None

    def checkpoint(self) -> dict[str, Any]:
        return {
            # Without an average, the weights are those that the checkpoint has already.
            "framework": self.framework.state_dict() if self.average is not self.framework else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
            "best_psnr": self.best_psnr,
            "best_step": self.best_step,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        state, source = checkpoint.state, f"the checkpoint of step {checkpoint.step}"
        load_exactly(self.average, checkpoint.saved, source)
        if self.average is not self.framework:
            load_exactly(self.framework, state["framework"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.skipped = checkpoint.step, state["skipped"]
        self.best_psnr, self.best_step = state["best_psnr"], state["best_step"]


@dataclass
class Tally:
    """Sums since the last line of metrics.jsonl."""

    began: float = field(default_factory=time.perf_counter)
    steps: int = 0
    finite: int = 0
    parts: Tensor = field(default_factory=lambda: torch.zeros(len(PARTS)))
    seen: Tensor = field(default_factory=lambda: torch.zeros(len(PARTS)))  # in how many steps a part was there
    squared_error: float = 0.0
    weight: float = 0.0
    grad_norm: float = 0.0


@dataclass
class Run:
    """A run that is ready to train."""

    config: TrainingConfig
    processes: Processes
    folder: RunFolder
    aligner: Aligner
    state: State
    training_pairs: list[Pair]
    validation_pairs: list[Pair]
    photographs: list[Original]  # of which pairs are made, in the place of `training_pairs`


def prepare(config: TrainingConfig, processes: Processes) -> Run:
    """Check and load all that a run takes, from a checkpoint if it goes on. Nothing is written.

    Args:
        config: checked.
        processes: this one among those that train together.

    Raises:
        DataError, WeightsError, ValueError, ModuleNotFoundError: what cannot be used.
    """
    device = processes.device
    aligner = Aligner(config.alignment, config.data.target, device)
    if config.data.batch % processes.count:
        raise ValueError(
            f"data.batch must be a multiple of the {processes.count} processes, which share it, got {config.data.batch}"
        )
    if config.output.tensorboard:
        load_tensorboard()
    folder = RunFolder(Path(config.out), config.output.keep)
    checkpoint = processes.from_first(lambda: _find_checkpoint(folder, config))
    photographs = processes.from_first(lambda: find_photographs(config.data))
    training_pairs, validation_pairs = processes.from_first(lambda: find_pairs(config))
    if checkpoint is not None:
        _check_same_run(checkpoint, config, _fingerprint(training_pairs, photographs))
    state = make_state(config, device)
    if checkpoint is not None:
        state.restore(checkpoint)
    validation_pairs = spread(validation_pairs, config.output.validation_pairs)
    return Run(config, processes, folder, aligner, state, training_pairs, validation_pairs, photographs)


def train(run: Run, quiet: bool = False) -> int | None:
    """Train until the last step, or until SIGINT or SIGTERM, which save and end it.

    Args:
        quiet: whether nothing is shown of it; its folder is the same.

    Returns:
        The signal that ended it, None if it came to its end.

    Raises:
        OSError: the folder cannot be written; checkpoints before are still there.
        NonFiniteError: see `OptimizerConfig.nonfinite`.
        DataError, ImageError: a file that was fine when it was checked no longer is.
    """
    config, processes, folder, aligner, state = run.config, run.processes, run.folder, run.aligner, run.state
    device = processes.device
    objective = Objective(state.framework, aligner, config.losses, precision_of(config.optimizer, device))
    judge = Objective(state.average, aligner, config.losses, "float32")
    drawn_pairs = spread(run.validation_pairs, config.output.picture_pairs)
    if processes.first:
        _open_folder(folder, config, state, processes, aligner)

    identity = {"config": json.dumps(to_dict(config)), "pairs": _fingerprint(run.training_pairs, run.photographs)}
    output, steps = config.output, config.schedule.steps
    tensorboard = folder.path / "tensorboard" if output.tensorboard and processes.first else None
    loader = iter(load_batches(config, run.training_pairs, run.photographs, state.step, processes))
    wrapped: nn.Module = objective
    stage, tally, skipped_in_a_row = "", Tally(), 0
    shown = processes.first and not quiet
    with Signals() as signals, Progress(state.step, steps, shown, tensorboard) as progress:
        progress.say(_opening(run))
        while state.step < steps:
            if stage != (stage := config.schedule.stage(state.step)):
                wrapped = _wrap(objective, stage, config, processes)
            batch = next(loader)
            seed_step(config.seed, state.step, processes.rank)
            lr = config.optimizer.lr * config.schedule.lr_factor(state.step)
            blurry, sharp = (batch[name].to(device, non_blocking=True) for name in ("blurry", config.data.target))
            radius = batch["blur_radius"].to(device, non_blocking=True) if "blur_radius" in batch else None
            outcome: Outcome = wrapped(blurry, sharp, stage, config.schedule.map_scale(state.step), radius)
            norm = _backward(outcome, state, config.optimizer, lr)
            # All processes hear of what happens in any, so that they decide alike and none waits for another.
            told = processes.sum(_vector(outcome, sharp, norm, signals.received is not None, state.scaler.is_enabled()))
            failed, stop = bool(told[0]), bool(told[1])
            if failed:
                _report_nonfinite(outcome, norm, batch, stage, state.step, config, folder, processes, progress)
                skipped_in_a_row += 1
                if skipped_in_a_row >= MOST_SKIPPED:
                    raise NonFiniteError(f"step {state.step}: the last {MOST_SKIPPED} steps were not finite")
                state.skipped += 1
                state.scaler.update()
            else:
                skipped_in_a_row = 0
                _update(state, config.optimizer)
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            progress.advance()
            _count(tally, told, norm, processes.count)

            done = state.step == steps
            if output.metrics and (state.step % output.metrics == 0 or done):
                record = _metrics(tally, state, stage, lr, config, processes)
                tally = Tally()
                if processes.first:
                    folder.append("metrics.jsonl", record)
                    progress.metrics(record)
            best = False
            if output.validation and (state.step % output.validation == 0 or done):
                best = _validate(run, progress)
            if processes.first and output.pictures and (state.step % output.pictures == 0 or done):
                picture = pictures.draw(judge, drawn_pairs, config.data.target, device)
                pictures.write(folder.path / "samples" / f"step-{state.step:07d}.png", picture)
                progress.picture(state.step, picture)
            regular = output.checkpoints and state.step % output.checkpoints == 0
            if processes.first and (best or regular or done or stop):
                folder.save(state.step, state.average, {**state.checkpoint(), **identity}, state.best_step)
            if stop and not done:
                progress.say(f"stopped and saved after {state.step} of {steps} steps; resume=auto goes on")
                return signals.received or signal.SIGTERM
    return None


def find_pairs(config: TrainingConfig) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs to validate on, checked.

    Raises:
        DataError: all that is wrong with them.
    """
    data = config.data
    truth = data.target == "aligned"
    problems: list[str] = []
    found: list[list[Pair]] = []
    for sources, split, smallest in ((data.train, "train", data.crop), (data.validation, "val", 1)):
        if split == "val" and not sources:
            continue
        if split == "train" and data.generated:
            found.append([])
            continue
        try:
            found.append(load_pairs(sources, split, smallest, truth, data.decode))
        except DataError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if not data.train:
        problems = ["data.train must name a source of pairs, LAYOUT:DIR or LAYOUT/SPLIT:DIR, got none"]
    if not problems and not data.validation and len(found[0]) < 2:
        problems.append("data.train must have 2 pairs at least, one of them to validate on, got 1")
    if problems:
        raise DataError(problems)
    training, validation = found if data.validation else hold_out(found[0], data.held_out)
    if truth:
        lacking = [pair.blurry for pair in [*training, *validation] if pair.aligned is None]
        problems += [f'{path} has no aligned truth, which data.target "aligned" needs' for path in lacking]
    trained_on = {pair.blurry.resolve() for pair in training}
    shared = [pair.blurry for pair in validation if pair.blurry.resolve() in trained_on]
    problems += [f"{path} is both to train on and to validate on" for path in shared]
    if problems:
        raise DataError(problems)
    return training, validation


def make_state(config: TrainingConfig, device: torch.device) -> State:
    """Networks, with the weights to start from, and optimizer.

    Raises:
        WeightsError: weights to start from cannot be read or do not fit.
    """
    torch.manual_seed(config.seed)
    framework = Framework(config.framework)
    if config.start.random == "published":
        for part in framework.children():
            initialize_as_published(part)
    load_start(framework, config.start)
    framework.to(device)
    options = config.optimizer
    average = framework if options.ema is None else copy.deepcopy(framework).requires_grad_(False)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.name](
        framework.parameters(),
        lr=options.lr,
        betas=(options.betas[0], options.betas[1]),
        weight_decay=options.weight_decay,
        fused=True,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")
    return State(framework, average, optimizer, scaler)


def precision_of(options: OptimizerConfig, device: torch.device) -> str:
    """A key of PRECISIONS."""
    if options.precision != "auto":
        return options.precision
    return "bfloat16" if computes_in_bfloat16(device) else "float32"


def load_start(framework: Framework, start: StartConfig) -> None:
    """Put the weights of `StartConfig` into a framework.

    Raises:
        WeightsError: they cannot be read or do not fit.
    """
    if start.framework:
        other = Framework.from_pretrained(start.framework, _classes_of(framework))
        for name, part in framework.named_children():
            if (given := getattr(other, name)) is not None:
                load_exactly(part, given.state_dict(), f"{name} of {start.framework}")
    if start.deblur:
        is_safetensors = Path(start.deblur).suffix == ".safetensors"
        contents = read_safetensors(start.deblur) if is_safetensors else read_torch(start.deblur)
        for key in ("state_dict", "params"):  # where others put the weights
            if isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping):
                contents = contents[key]
        state = {name.removeprefix("module."): tensor for name, tensor in read_state(contents).items()}
        if "patch_embed.proj.weight" in state and isinstance(framework.deblur, Restormer):
            load_public_restormer(framework.deblur, state, start.deblur)
        else:
            inner = framework.deblur.network if framework.config.deblur.network == "own" else framework.deblur
            load_exactly(inner, state, start.deblur)  # type: ignore[arg-type]


def _classes_of(framework: Framework) -> list[str]:
    """The classes that the configuration of the run itself names: the user has asked for these."""
    return [path for path in [framework.config.deblur.options.get("class_path")] if path]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed all random numbers that a network may draw (dropout), from the step alone."""
    value = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002 - networks of the user's own may draw from it


def _wrap(objective: Objective, stage: str, config: TrainingConfig, processes: Processes) -> nn.Module:
    """The objective, prepared for a stage, that averages gradients over processes.

    Anew for each stage: DDP waits for the gradients of all that required one when it was made.
    """
    objective.prepare(stage)
    if processes.count == 1:
        return objective
    device = processes.device
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=config.framework.deblur.network == "own",  # who knows
    )


def _backward(outcome: Outcome, state: State, options: OptimizerConfig, lr: float) -> float:
    """The gradients, averaged and clipped; their norm before."""
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    torch.autograd.backward(state.scaler.scale(outcome.losses.total))
    state.scaler.unscale_(state.optimizer)
    largest = math.inf if options.clip is None else options.clip
    # Each network by itself: where one has a bad batch, the others still learn at their own pace.
    norms = [
        nn.utils.clip_grad_norm_([value for value in part.parameters() if value.grad is not None], largest)
        for part in state.framework.children()
    ]
    return float(torch.stack(norms).square().sum().sqrt())


def _update(state: State, options: OptimizerConfig) -> None:
    """A step of the optimizer, and of the moving average."""
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if options.ema is not None:
        # At first the average follows closely, or it would long remember the random weights.
        decay = min(options.ema, (1 + state.step) / (10 + state.step))
        average, current = state.average, state.framework
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(list(average.parameters()), list(current.parameters()), 0)
            for buffer, value in zip(average.buffers(), current.buffers(), strict=True):
                buffer.copy_(value)


def _vector(outcome: Outcome, sharp: Tensor, norm: float, stop: bool, scaled: bool) -> Tensor:
    """What processes tell each other after a step: failed, stop, squared error and its weight, PARTS, which are there.

    With a scaler, for float16, gradients overflow now and then, and it deals with that: only the loss counts then.
    """
    parts = outcome.losses.parts
    bad_gradient = not math.isfinite(norm)
    device = outcome.losses.total.device
    zero = torch.zeros((), device=device)
    error, weight = zero, zero
    if outcome.warped_sharp is not None:
        mask = torch.ones_like(sharp) if outcome.mask is None else outcome.mask.expand_as(sharp)
        error = (mask * (outcome.deblurred - outcome.warped_sharp)).square().sum()
        weight = mask.sum()
    values = [
        torch.stack([~outcome.losses.total.detach().isfinite() | (bad_gradient and not scaled), zero + stop]).double(),
        torch.stack([error, weight]).double(),
        torch.stack([parts[name].detach() if name in parts else zero for name in PARTS]).double(),
        torch.tensor([name in parts for name in PARTS], device=device).double(),
    ]
    return torch.cat(values)


@dataclass(frozen=True)
class _Trouble:
    """Of one process whose step was not finite."""

    rank: int
    parts: list[str]
    samples: list[str]
    file: str


def _report_nonfinite(
    outcome: Outcome,
    norm: float,
    batch: Mapping[str, Any],
    stage: str,
    step: int,
    config: TrainingConfig,
    folder: RunFolder,
    processes: Processes,
    progress: Progress,
) -> None:
    """Say in which parts, in which samples, and keep these; or end the run. All processes call it if one has to."""
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


def _count(tally: Tally, told: Tensor, norm: float, processes: int) -> None:
    tally.steps += 1
    if told[0]:
        return
    count = len(PARTS)
    tally.finite += 1
    tally.squared_error += float(told[2])
    tally.weight += float(told[3])
    tally.parts = tally.parts + told[4 : 4 + count] / processes
    tally.seen = tally.seen + told[4 + count :] / processes
    if math.isfinite(norm):  # with float16 it is not always
        tally.grad_norm += norm


def _metrics(
    tally: Tally, state: State, stage: str, lr: float, config: TrainingConfig, processes: Processes
) -> dict[str, Any]:
    """A line of metrics.jsonl; see `models.training.folder`."""
    seconds = time.perf_counter() - tally.began
    parts = {
        name: float(total / tally.finite)
        for name, total, seen in zip(PARTS, tally.parts, tally.seen, strict=True)
        if seen and tally.finite
    }
    return {
        "step": state.step,
        "stage": stage,
        "loss": sum(parts.values()),
        "parts": parts,
        "psnr": psnr(tally.squared_error / tally.weight) if tally.weight else None,
        "lr": lr,
        "grad_norm": tally.grad_norm / max(tally.finite, 1),
        "skipped": state.skipped,
        "images_per_second": tally.steps * config.data.batch / seconds,
        "memory_mb": memory_mb(processes.device),
    }


def _validate(run: Run, progress: Progress) -> bool:
    """Validate and log; whether it is the best so far."""
    state = run.state
    scores = validate(state.average, run.validation_pairs, run.aligner, run.processes)
    best = state.best_psnr is None or scores["deblurred_psnr"] > state.best_psnr
    if best:
        state.best_psnr, state.best_step = scores["deblurred_psnr"], state.step
    if run.processes.first:
        record = {"step": state.step, **scores, "best": best}
        run.folder.append("validation.jsonl", record)
        progress.validation(record)
    return best


def _find_checkpoint(folder: RunFolder, config: TrainingConfig) -> Checkpoint | None:
    """What to go on from; called in the first process.

    Raises:
        ValueError: there is a run already, and it was not asked to go on.
        WeightsError: the checkpoint is damaged.
    """
    steps = folder.steps()
    if steps and config.resume == "never":
        raise ValueError(
            f"{folder.path} holds a run of {steps[-1]} steps: resume=auto goes on with it, out=FOLDER takes another"
        )
    return folder.load()


def _check_same_run(checkpoint: Checkpoint, config: TrainingConfig, fingerprint: str) -> None:
    """Refuse to go on with another run than the one that was begun."""
    differing = differing_keys(json.loads(checkpoint.state["config"]), json.loads(json.dumps(to_dict(config))))
    if differing:
        raise ValueError(
            f"{config.out} holds a run with another configuration, which cannot go on with this one: "
            f"{', '.join(differing)} differ; {config.out}/{CONFIG_FILE} has it"
        )
    if checkpoint.state["pairs"] != fingerprint:
        raise DataError([f"the pairs to train on are not those with which the run in {config.out} was begun"])


def _fingerprint(pairs: Sequence[Pair], photographs: Sequence[Original]) -> str:
    """Of which pairs and photographs there are, in their order; their folder may move."""
    names = "\n".join(f"{pair.name} {pair.blurry.name} {pair.sharp.name}" for pair in pairs)
    if photographs:
        names = "\n".join(photograph.name for photograph in photographs)
    return hashlib.sha256(names.encode()).hexdigest()


def _open_folder(
    folder: RunFolder, config: TrainingConfig, state: State, processes: Processes, aligner: Aligner
) -> None:
    folder.create()
    folder.truncate_logs(state.step)
    if state.step:
        best = state.best_step if state.best_step in folder.steps() else None
        folder.link(state.step, best)
    folder.write_text(CONFIG_FILE, dump_config(config))
    folder.append("environment.jsonl", environment(state.step, processes, aligner))


def environment(step: int, processes: Processes, aligner: Aligner) -> dict[str, Any]:
    """Where and with what a run was started."""
    device = processes.device
    return {
        "step": step,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [Path(sys.executable).name, *sys.argv],
        "git_commit": git_commit(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "reblur_ops": reblur_ops.__version__,
        "backends": {name: list(devices) for name, devices in reblur_ops.backends().items()},
        "backend": reblur_ops.explain_backend(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes.count,
        "notices": [aligner.notice] if aligner.notice else [],
    }


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out, with + if files differ from it; None outside of a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _opening(run: Run) -> str:
    config, state, processes = run.config, run.state, run.processes
    million = sum(parameter.numel() for parameter in state.framework.parameters()) / 1e6
    count = f"{processes.count} process{'es' if processes.count > 1 else ''}"
    begun = f"going on after step {state.step}" if state.step else "step 0"
    lines = [
        f"{config.framework.deblur.network}, {million:.3f} M parameters in all, on {processes.device.type}, {count}",
        f"{_trained_on(run)}, {len(run.validation_pairs)} pairs to validate on; "
        f"batches of {config.data.batch} crops of {config.data.crop} pixels",
        f"{config.out}: {begun} of {config.schedule.steps}",
        *([run.aligner.notice] if run.aligner.notice else []),
    ]
    return "\n".join(lines)


def _trained_on(run: Run) -> str:
    if run.photographs:
        return f"{len(run.photographs)} photographs to make pairs of"
    return f"{len(run.training_pairs)} pairs to train on"


class Signals:
    """While the block lasts, SIGINT and SIGTERM are remembered, and the step goes on to its end.

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
            for number in (signal.SIGINT, signal.SIGTERM):
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
