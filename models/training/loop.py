"""The training loop."""

import contextlib
import hashlib
import json
import random
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..core.config import to_dict
from ..core.files import alone_in, check_writable
from ..data.layouts import load_pairs
from ..data.pairs import DataError, Pair, hold_out
from ..synthesis.photographs import Original
from . import pictures
from .batches import find_photographs, load_batches
from .config import TrainingConfig, differing_keys, dump_config
from .environment import environment
from .folder import CONFIG_FILE, Checkpoint, RunFolder
from .objective import Aligner, Objective, Outcome
from .processes import Processes
from .profiling import explain_none, profiled
from .progress import Progress
from .report import NonFiniteError, StepReport, Tally, tell_nonfinite, without_nonfinite
from .signals import Signals
from .state import State, make_state, precision_of
from .tracking import check_trackers, open_trackers
from .validation import spread, validate

# Skipped one after another, steps that are not finite are no accident: nothing will be learnt any more.
MOST_SKIPPED = 50
FLOW_HINT = 'each step aligns its pairs by the flow "{}"; `align` does it once, and better, for data.target=aligned'


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
        UserError: the folder of the run cannot be made or written to.
    """
    device = processes.device
    aligner = Aligner(config.alignment, config.data.target, device)
    if config.data.batch % processes.count:
        raise ValueError(
            f"data.batch must be a multiple of the {processes.count} processes, which share it, got {config.data.batch}"
        )
    check_trackers(config.output)
    folder = RunFolder(Path(config.out).expanduser(), config.output.keep)
    checkpoint = processes.from_first(lambda: _find_checkpoint(folder, config))
    processes.from_first(lambda: check_writable(folder.path))
    photographs = processes.from_first(lambda: find_photographs(config.data))
    training_pairs, validation_pairs = processes.from_first(lambda: find_pairs(config))
    if checkpoint is not None:
        _check_same_run(checkpoint, config, _fingerprint(training_pairs, photographs))
    state = make_state(config, device)
    if checkpoint is not None:
        state.restore(checkpoint)
        _check_not_diverged(state, config)
    validation_pairs = spread(validation_pairs, config.output.validation_pairs)
    return Run(config, processes, folder, aligner, state, training_pairs, validation_pairs, photographs)


def train(run: Run, quiet: bool = False) -> int | None:
    """Train until the last step, or until a signal of `signals.ENDING`, which saves and ends it.

    Args:
        quiet: whether nothing is shown of it; its folder is the same.

    Returns:
        The signal that ended it, None if it came to its end.

    Raises:
        UserError: another training is at work in the folder.
        OSError: the folder cannot be written; checkpoints before are still there.
        NonFiniteError: see `OptimizerConfig.nonfinite`.
        DataError, ImageError: a file that was fine when it was checked no longer is.
    """
    with contextlib.ExitStack() as held:

        def hold() -> None:
            run.folder.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone_in(run.folder.path, "training"))

        run.processes.from_first(hold)
        return _train(run, quiet)


def _train(run: Run, quiet: bool) -> int | None:
    config, processes, folder, state = run.config, run.processes, run.folder, run.state
    device = processes.device
    precision = precision_of(config.optimizer, device)
    objective = Objective(state.framework, run.aligner, config.losses, precision, config.schedule.frozen)
    if processes.first:
        _open_folder(run)
    output, steps = config.output, config.schedule.steps
    trackers = open_trackers(output, folder.path, to_dict(config)) if processes.first else []
    profiled_steps = output.profile if processes.first else 0
    loader = iter(load_batches(config, run.training_pairs, run.photographs, state.step, processes))
    wrapped: nn.Module = objective
    stage, tally = "", Tally()
    shown = processes.first and not quiet
    with (
        Signals() as signals,
        Progress(state.step, steps, shown, trackers) as progress,
        profiled(folder.path / "profile", profiled_steps, device) as profile,
    ):
        progress.say(_opening(run))
        while state.step < steps:
            if stage != (stage := config.schedule.stage(state.step)):
                wrapped = _wrap(objective, stage, config, processes)
            batch = next(loader)
            seed_step(config.seed, state.step, processes.rank)
            lr = config.optimizer.lr * config.schedule.lr_factor(state.step)
            outcome = _forward(wrapped, batch, stage, run)
            norm = state.backward(outcome.losses, config.optimizer, lr)
            scaled = state.scaler.is_enabled()
            report = StepReport.summed(outcome, norm, signals.received is not None, scaled, processes)
            if report.failed:
                tell_nonfinite(outcome, batch, stage, state.step, config, folder, processes, progress)
                state.skip()
                _check_not_diverged(state, config)
            else:
                state.update(config.optimizer)
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            progress.advance()
            if profile is not None:
                profile.step()
            tally.count(report, norm, processes.count)

            done, stop = state.step == steps, bool(report.stopping)
            if _due(output.metrics, state.step, done):
                record = tally.record(state, stage, lr, config, processes)
                tally = Tally()
                if processes.first:
                    folder.append("metrics.jsonl", without_nonfinite(record))
                    progress.metrics(record)
            best = _due(output.validation, state.step, done) and _validate(run, progress)
            if processes.first and _due(output.pictures, state.step, done):
                _draw(run, progress)
            if processes.first and (best or done or stop or _due(output.checkpoints, state.step, False)):
                _save(run)
            if stop and not done:
                progress.say(f"stopped and saved after {state.step} of {steps} steps; resume=auto goes on")
                return signals.received or signal.SIGTERM
    return None


def _due(every: int, step: int, done: bool) -> bool:
    """Whether something is to be done after this step that is done every so many, 0: never, and at the end."""
    return bool(every) and (step % every == 0 or done)


def _forward(wrapped: nn.Module, batch: dict[str, Any], stage: str, run: Run) -> Outcome:
    config, device = run.config, run.processes.device
    blurry, sharp = (batch[name].to(device, non_blocking=True) for name in ("blurry", config.data.target))
    radius = batch["blur_radius"].to(device, non_blocking=True) if "blur_radius" in batch else None
    confidence = batch["confidence"].to(device, non_blocking=True) if "confidence" in batch else None
    outcome: Outcome = wrapped(blurry, sharp, stage, config.schedule.map_scale(run.state.step), radius, confidence)
    return outcome


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
    # A 1×1 convolution's gradient has other strides along axes of one element: nothing is copied for it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=config.framework.deblur.network == "own",  # who knows
    )


def _validate(run: Run, progress: Progress) -> bool:
    """Validate and log; whether it is the best so far. A score that is not finite is null, and never the best."""
    state = run.state
    scores = without_nonfinite(validate(state.average, run.validation_pairs, run.aligner, run.processes))
    score = scores["deblurred_psnr"]
    best = score is not None and (state.best_psnr is None or score > state.best_psnr)
    if best:
        state.best_psnr, state.best_step = score, state.step
    if run.processes.first:
        record = {"step": state.step, **scores, "best": best}
        run.folder.append("validation.jsonl", record)
        progress.validation(record)
    return best


def _draw(run: Run, progress: Progress) -> None:
    """The pictures of a few validation pairs."""
    state, config = run.state, run.config
    judge = Objective(state.average, run.aligner, config.losses, "float32")
    pairs = spread(run.validation_pairs, config.output.picture_pairs)
    picture = pictures.draw(judge, pairs, config.data.target, run.processes.device)
    pictures.write(run.folder.path / "samples" / f"step-{state.step:07d}.png", picture)
    progress.picture(state.step, picture)


def _save(run: Run) -> None:
    state = run.state
    if not state.skipped_in_a_row:
        state.sound_step = state.step
    identity = {
        "config": json.dumps(to_dict(run.config)),
        "pairs": _fingerprint(run.training_pairs, run.photographs),
    }
    kept = {state.best_step, state.sound_step}
    run.folder.save(state.step, state.average, {**state.checkpoint(), **identity}, state.best_step, kept)


def _find_checkpoint(folder: RunFolder, config: TrainingConfig) -> Checkpoint | None:
    """Find the checkpoint to continue from; called in the first process.

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
    anew = f"start.framework={config.out}/latest out=FOLDER begins another run with its weights"
    if differing:
        raise ValueError(
            f"{config.out} holds a run with another configuration, which cannot go on with this one: "
            f"{', '.join(differing)} differ; {config.out}/{CONFIG_FILE} has it; {anew}"
        )
    if checkpoint.state["pairs"] != fingerprint:
        problem = f"the pairs to train on are not those with which the run in {config.out} was begun; {anew}"
        raise DataError([problem])


def _check_not_diverged(state: State, config: TrainingConfig) -> None:
    """Refuse to go on with a run whose last steps were all skipped.

    Raises:
        NonFiniteError: says what to do.
    """
    if state.skipped_in_a_row < MOST_SKIPPED:
        return
    sound = state.sound_step
    way = "begin anew" if sound is None else f"start.framework={config.out}/checkpoints/step-{sound:07d} out=FOLDER"
    raise NonFiniteError(
        f"the run has diverged: the last {state.skipped_in_a_row} steps up to step {state.step} were not finite; "
        f"{way} with an optimizer.lr below {config.optimizer.lr:g}"
    )


def _fingerprint(pairs: Sequence[Pair], photographs: Sequence[Original]) -> str:
    """A fingerprint of the pairs and photographs, in their order; their folder may move."""
    names = "\n".join(f"{pair.name} {pair.blurry.name} {pair.sharp.name}" for pair in pairs)
    if photographs:
        names = "\n".join(photograph.name for photograph in photographs)
    return hashlib.sha256(names.encode()).hexdigest()


def _open_folder(run: Run) -> None:
    folder, state = run.folder, run.state
    folder.create()
    folder.truncate_logs(state.step)
    if state.step:
        best = state.best_step if state.best_step in folder.steps() else None
        folder.link(state.step, best)
        folder.prune({state.best_step, state.sound_step})
    folder.write_text(CONFIG_FILE, dump_config(run.config))
    notices = [run.aligner.notice] if run.aligner.notice else []
    folder.append("environment.jsonl", environment(state.step, run.processes, notices))


def _opening(run: Run) -> str:
    config, state, processes = run.config, run.state, run.processes
    million = sum(parameter.numel() for parameter in state.framework.parameters()) / 1e6
    count = f"{processes.count} process{'es' if processes.count > 1 else ''}"
    begun = f"going on after step {state.step}" if state.step else "step 0"
    trained_on = f"{len(run.training_pairs)} pairs to train on"
    if run.photographs:
        trained_on = f"{len(run.photographs)} photographs to make pairs of"
    lines = [
        f"{config.framework.deblur.network}, {million:.3f} M parameters in all, on {processes.device.type}, {count}",
        f"{trained_on}, {len(run.validation_pairs)} to validate on; "
        f"batches of {config.data.batch} crops of {config.data.crop} pixels",
        f"{config.out}: {begun} of {config.schedule.steps}",
        *([run.aligner.notice] if run.aligner.notice else []),
        *([reason] if (reason := explain_none(config.output.profile, config.schedule.steps - state.step)) else []),
        *([FLOW_HINT.format(run.aligner.name)] if run.training_pairs and run.aligner.name != "none" else []),
    ]
    return "\n".join(lines)
