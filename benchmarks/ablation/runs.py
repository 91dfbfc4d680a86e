"""Runs: each trains a variant and scores it; several at a time, and gone on with after an interruption."""

import json
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.ablation.pairs import visible
from benchmarks.ablation.variants import Variant
from models.core.config import to_dict
from models.core.files import replacing
from models.core.parallel import end_with_first_process
from models.data.images import Array, ImageError
from models.data.layouts import load_pairs
from models.data.pairs import Pair
from models.data.samples import WholePairs
from models.evaluation import metrics
from models.evaluation.protocols import to_array
from models.flow import load_flow
from models.framework import Framework
from models.training.config import FREE_KEYS, TrainingConfig
from models.training.environment import git_commit
from models.training.loop import prepare, train
from models.training.processes import Processes
from models.training.report import NonFiniteError
from models.training.validation import spread

SETTINGS_FILE = "settings.json"
SCORES_FILE = "scores.json"
STRONG = 3.0  # pixels: RMS radius of the blur from which on it is strong


@dataclass(frozen=True)
class Score:
    """A test picture against the aligned truth, as `models.evaluation.metrics` defines it.

    Attributes:
        hidden: PSNR where the misaligned sharp picture does not show what is there; None where that is nowhere.
        strong: PSNR where the true radius of the blur is above 3 pixels; None where it is nowhere.
        drift: mean length of the flow (DIS) from the deblurred picture to the truth, pixels.
    """

    psnr: float  # dB
    ssim: float
    hidden: float | None
    strong: float | None
    drift: float


@dataclass(frozen=True)
class Result:
    """The outcome of a run, as it lies in scores.json.

    Attributes:
        step_ms: milliseconds, the mean of the training's steps since it last went on; None if none was left.
        skipped: steps of it that were not finite.
        commit: of the code that trained.
    """

    scores: list[Score]  # of the test pictures
    step_ms: float | None
    skipped: int
    commit: str | None


@dataclass(frozen=True)
class Job:
    """A run of a variant.

    Attributes:
        setting: name of where its pairs come from.
        pairs: what its pairs are, by the setting's description.
    """

    variant: Variant
    setting: str
    seed: int
    config: TrainingConfig
    pairs: Mapping[str, Any]
    made: Path  # where these lie, with their truth
    test_pairs: int

    @property
    def folder(self) -> Path:
        return Path(self.config.out)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine a run's scores, as JSON. Folders may move: pairs are known by content."""
        settings = {**settings_of(self.config), "pairs": self.pairs, "test_pairs": self.test_pairs}
        return json.loads(json.dumps(settings))

    @property
    def result(self) -> Result | None:
        """None while it is not finished."""
        path = self.folder / SCORES_FILE
        if not path.exists():
            return None
        values = json.loads(path.read_text())
        return Result(**values | {"scores": [Score(**score) for score in values["scores"]]})

    def scored_pairs(self) -> list[Pair]:
        return spread(load_pairs([f"sdd:{self.made}"], "test", metrics.SSIM_WINDOW, truth=True), self.test_pairs)


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """The configuration without what leaves the training as it is."""
    values = to_dict(config)
    for path in FREE_KEYS:
        *sections, key = path.split(".")
        section = values
        for name in sections:
            section = section[name]
        del section[key]
    return values


class RunError(RuntimeError):
    """A run that cannot be trained. The message says which, and why."""


def run(job: Job, index: int = 0) -> None:
    """Train, or go on, and score.

    Args:
        index: of several GPUs, which one, counted round.

    Raises:
        KeyboardInterrupt: a signal ended the training, which is saved.
        RunError: it cannot be trained.
    """
    gpus = count_gpus(job.config.device)
    device = torch.device("cuda", index % gpus) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        _write_json(job.folder / SETTINGS_FILE, job.settings)
        prepared = prepare(job.config, Processes(0, 1, device))
        steps, start = job.config.schedule.steps - prepared.state.step, time.perf_counter()
        if train(prepared, quiet=True) is not None:
            raise KeyboardInterrupt
        step_ms = 1e3 * (time.perf_counter() - start) / steps if steps else None
        scores = score(job.scored_pairs(), prepared.state.average)
        result = Result(scores, step_ms, prepared.state.skipped, git_commit(Path(__file__).parent))
        _write_json(job.folder / SCORES_FILE, asdict(result))
    except (ValueError, OSError, ModuleNotFoundError, ImageError, NonFiniteError) as error:
        raise RunError(f"{job.folder}: {error}") from error


def count_gpus(device: str) -> int:
    return 0 if device == "cpu" else torch.cuda.device_count()


@torch.no_grad()
def score(pairs: Sequence[Pair], framework: Framework | None) -> list[Score]:
    """The scores of the deblurred pictures; without a framework, of the blurry ones."""
    scores = []
    samples = WholePairs(pairs)
    for pair, sample in zip(pairs, (samples[position] for position in range(len(samples))), strict=True):
        blurry, aligned = sample["blurry"], sample["aligned"]
        picture = blurry if framework is None else framework.eval()(blurry[None].to(_device(framework)))[0].cpu()
        found, truth = to_array(picture), to_array(aligned)
        whole = metrics.score(found, truth)
        drift = load_flow("dis")(picture[None].clamp(0, 1), aligned[None]).square().sum(1).sqrt().mean()
        radius = to_array(sample["blur_radius"])[..., 0]
        hidden, strong = (_psnr(found, truth, where) for where in (~visible(pair), radius > STRONG))
        scores.append(Score(whole.psnr, whole.ssim, hidden, strong, float(drift)))
    return scores


def _device(framework: Framework) -> torch.device:
    return next(framework.parameters()).device


def _psnr(image: Array, truth: Array, where: NDArray[np.bool_]) -> float | None:
    """dB, of the places that a mask (H, W) names; None where these are less than a hundredth."""
    if where.mean() < 0.01:
        return None
    error = np.square(image.astype(np.float64) - truth)[where].mean()
    return float(-10 * np.log10(max(error, 1e-10)))


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(values, indent=1).encode() + b"\n")


def run_all(jobs: Sequence[Job], workers: int) -> None:
    """Make the runs that are not finished, so many at a time, with a bar over all.

    Several processes of one thread each wait for each other less than the threads of one process do.

    Raises:
        KeyboardInterrupt: interrupted; what was being trained is saved.
        RunError: of a run, or its process was killed; the others are saved.
    """
    pending = [job for job in jobs if job.result is None]
    workers = min(workers, len(pending))
    with tqdm(desc="training", total=len(jobs), initial=len(jobs) - len(pending), unit="run") as progress:
        if workers <= 1:
            for job in pending:
                run(job)
                progress.update()
            return
        with _processes(workers) as idle:
            busy: dict[Connection, Job] = {}
            waiting = list(enumerate(pending))
            while waiting or busy:
                while waiting and idle:
                    process = idle.pop()
                    process.send(waiting[0])
                    busy[process] = waiting.pop(0)[1]
                for ready in connection.wait(list(busy)):
                    assert isinstance(ready, Connection)
                    _receive(ready, busy.pop(ready))
                    idle.append(ready)
                    progress.update()


def _receive(process: "Connection[Any, Any]", job: Job) -> None:
    """A message of a process about its run.

    Raises:
        RunError: it failed, or the process is gone.
    """
    try:
        error = process.recv()
    except EOFError:
        raise RunError(f"{job.folder}: its process was killed, perhaps for want of memory") from None
    if error is not None:
        raise error


@contextmanager
def _processes(count: int) -> Iterator[list["Connection[Any, Any]"]]:
    """Processes that share the threads and run `_work`; if the block raises, they save what they train, and end."""
    threads = max(torch.get_num_threads() // count, 1)
    context = multiprocessing.get_context("spawn")  # forking is not safe where libraries have started threads
    connections, processes = [], []
    try:
        for _ in range(count):
            here, there = context.Pipe()
            processes.append(context.Process(target=_work, args=(there, threads)))
            processes[-1].start()
            there.close()  # so that its end is seen here
            connections.append(here)
        yield connections.copy()
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for here in connections:
            here.close()  # no more work
        for process in processes:
            process.join()


def _work(jobs: "Connection[Any, Any]", threads: int) -> None:
    """Run what is sent, and send back None, or the error.

    An executor of `concurrent.futures` would wait for ever for a process that saves when it is told to end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # in training: saves first
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    threading.Thread(target=end_with_first_process, daemon=True).start()
    with suppress(KeyboardInterrupt, EOFError):
        while True:
            index, job = jobs.recv()
            try:
                run(job, index)
                jobs.send(None)
            except RunError as error:
                jobs.send(error)
