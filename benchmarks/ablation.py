"""What does each part of the framework bring on misaligned pairs?

    python -m benchmarks.ablation [key=value…]              minutes on a CPU                 (make ablation)
    python -m benchmarks.ablation --full --photos DIR       on GPUs, with many photographs of your own

The framework is trained whole and with its parts taken away one after another: the same deblurring network, steps and
crops, several seeds, on pairs with less and with more misalignment, made of photographs by `models.tasks.synthesize`.
Each run is scored on pairs of other photographs against the aligned truth, with its last weights: none are chosen.
Interrupted, the same command goes on, and finished runs are not repeated. Writes results/ablation.md and .json.

    OUT/data/2px/         pairs misaligned by 2 pixels at most; those of all sizes differ in the sharp picture alone
    OUT/flow-2px-seed0/   the folder of a run (models.training.folder), and
        settings.json     what determines it: a run of other settings is refused, not overwritten
        scores.json       once it is finished
"""

import argparse
import json
import multiprocessing
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import harness
from models.core.config import to_dict
from models.core.errors import describe
from models.core.files import replacing, writable_folder
from models.core.parallel import end_with_first_process
from models.data.images import ImageError
from models.data.layouts import Pair, load_pairs
from models.data.samples import WholePairs
from models.evaluation import metrics
from models.evaluation.protocols import to_array
from models.framework import Framework
from models.synthesis import dataset, photographs, settings
from models.tasks.arguments import integer, number
from models.training.config import FREE_KEYS, TrainingConfig, differing_keys, load_config
from models.training.environment import git_commit
from models.training.loop import prepare, train
from models.training.processes import Processes
from models.training.report import NonFiniteError
from models.training.validation import spread

SETTINGS_FILE = "settings.json"
SCORES_FILE = "scores.json"
# What a study decides, and overrides cannot.
DECIDED = ("seed", "out", "resume", "device", "data.train", "data.validation", "data.decode")


# ---- What is compared ----


@dataclass(frozen=True)
class Variant:
    """The framework, or part of it.

    Attributes:
        overrides: of the base recipe, section.key to value. They only take parts away: how those work that remain is
            for the base recipe to say.
        against: the variant that it is compared with in the table; None: the blurry pictures.
    """

    name: str
    description: str
    overrides: Mapping[str, Any]
    against: str | None

    @property
    def aligned(self) -> bool:
        """Whether it sees nothing misaligned, so that one run is that of all misalignments."""
        return self.overrides.get("data.target") == "aligned"


_NO_PRIOR: dict[str, Any] = {"framework.blur_map": None, "framework.deblur.prior": False}
_NO_REBLURRING = {**_NO_PRIOR, "framework.reblur": None}
_NO_MASKS = {**_NO_REBLURRING, "alignment.first_mask": "none", "alignment.mask": "none"}
_NO_FLOW = {**_NO_MASKS, "alignment.flow": "none", "alignment.options": {}}
# In the order of the table.
VARIANTS = (
    Variant("aligned", "aligned pairs: the upper bound", {**_NO_FLOW, "data.target": "aligned"}, None),
    Variant("misaligned", "misaligned pairs, compared as they are", _NO_FLOW, "aligned"),
    Variant("flow", "+ the sharp picture warped by optical flow", _NO_MASKS, "misaligned"),
    Variant("masks", "+ compared only where the flow can be trusted", _NO_REBLURRING, "flow"),
    Variant("reblurring", "+ reblurring", _NO_PRIOR, "masks"),
    Variant("full", "+ the blur map as prior, supervised by what reblurring finds: everything", {}, "reblurring"),
    Variant("unsupervised", "everything, but nothing supervises the blur map", {"losses.blur_map": 0.0}, "full"),
    Variant(
        "published",
        "everything, but the blur is found from the deblurred picture, as published",
        {"losses.blur_from": "deblurred"},
        "full",
    ),
)


@dataclass(frozen=True)
class Scale:
    """The scale of a study: how much is trained, and on what.

    Attributes:
        recipe: the training to take apart, everything included.
        overrides: of it, `section.key=value`.
        seeds: runs of each variant, of the seeds 0, 1, …
        misalignments: largest displacements, pixels.
        pairs: how these are made; its `misalignment` plays no part.
        test_pairs: how many of the test pairs are scored, spread over them; 0: all.
    """

    recipe: str
    overrides: tuple[str, ...]
    seeds: int
    misalignments: tuple[float, ...]
    pairs: settings.Settings
    test_pairs: int


TINY = Scale(
    recipe="demo",
    overrides=(
        "data.batch=2",
        "data.held_out=0.01",  # nothing is chosen by validating
        "framework.blur_map.width=8",
        "framework.reblur.blocks=1",
        "schedule.steps=420",
        "output={metrics: 20, validation: 0, checkpoints: 0, keep: 1, pictures: 0}",
    ),
    seeds=2,
    misalignments=(2.0, 6.0),
    pairs=settings.Settings(
        patch=128, patches=40, scale=(1.0, 0.6), test=("astronaut", "coffee"), test_patch=256, test_patches=12
    ),
    test_pairs=24,
)
FULL = Scale(
    recipe="reblur",
    overrides=(
        "framework.deblur={network: compact}",  # with Restormer it is for a cluster
        "data={held_out: 0.01, batch: 8, crop: 256, workers: 2}",
        "schedule.steps=40000",
        "schedule.warmup=0.02",
        "optimizer.lr=1e-3",
        "output={metrics: 100, validation: 0, checkpoints: 2000, keep: 1, pictures: 0}",
    ),
    seeds=3,
    misalignments=(2.0, 6.0),
    pairs=settings.Settings(patch=512),
    test_pairs=200,
)


@dataclass(frozen=True)
class Scores:
    """Means over test pairs against the aligned truth, as `models.evaluation.metrics` defines them.

    Attributes:
        radius: correlation of the blur radius with the true one; None without a reblurring network.
    """

    psnr: float  # dB
    ssim: float
    radius: float | None = None


@dataclass(frozen=True)
class Result:
    """The result of a run, as it lies in scores.json.

    Attributes:
        step_ms: milliseconds, the mean of the training's steps since it last went on; None if none was left.
        skipped: steps of it that were not finite.
        commit: of the code that trained.
    """

    scores: Scores
    step_ms: float | None
    skipped: int
    commit: str | None


@dataclass(frozen=True)
class Job:
    """A run of a variant.

    Attributes:
        misalignments: that it is there for, pixels; several where the variant sees none.
        pairs: what its pairs are, by `synthesize`'s own description.
    """

    variant: Variant
    misalignments: tuple[float, ...]
    seed: int
    config: TrainingConfig
    pairs: Mapping[str, Any]
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
        return Result(**values | {"scores": Scores(**values["scores"])})

    def scored_pairs(self) -> list[Pair]:
        return spread(load_pairs(self.config.data.train, "test", metrics.SSIM_WINDOW, truth=True), self.test_pairs)


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


# ---- A run ----


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
def score(pairs: Sequence[Pair], framework: Framework | None) -> Scores:
    """The scores of the deblurred images; without a framework, of the blurry ones."""
    pictures, correlations = [], []
    samples = WholePairs(pairs)
    for sample in (samples[position] for position in range(len(samples))):
        picture, radius = sample["blurry"], None
        if framework is not None:
            picture, radius = _apply(framework, picture)
        pictures.append(metrics.score(to_array(picture), to_array(sample["aligned"])))
        if radius is not None:
            truth = to_array(sample["blur_radius"])
            correlations.append(metrics.score_radius(to_array(radius), truth).correlation)
    known = [correlation for correlation in correlations if correlation is not None]
    return Scores(
        statistics.fmean(picture.psnr for picture in pictures),
        statistics.fmean(picture.ssim for picture in pictures),
        statistics.fmean(known) if known else None,
    )


def _apply(framework: Framework, blurry: Tensor) -> tuple[Tensor, Tensor | None]:
    """Deblurred, and the blur radius where there is a reblurring network."""
    framework.eval()
    blurry = blurry[None].to(next(framework.parameters()).device)
    deblurred = framework(blurry)
    radius = None if framework.reblur is None else framework.reblur(deblurred, blurry).radius[0].cpu()
    return deblurred[0].cpu(), radius


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(values, indent=1).encode() + b"\n")


# ---- A study ----


@dataclass(frozen=True)
class Study:
    """A study: what is trained and scored.

    Attributes:
        scale: of which `recipe` and `overrides` make the base that variants are taken from.
        data: folder for the pairs.
        photos: folder of photographs; None for those that scikit-image installs.
        workers: runs at a time.
    """

    scale: Scale
    variants: tuple[Variant, ...]
    out: Path
    data: Path
    photos: Path | None
    device: str
    workers: int

    @property
    def base(self) -> TrainingConfig:
        return self._configure({})

    def _configure(self, overrides: Mapping[str, Any]) -> TrainingConfig:
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        return load_config(self.scale.recipe, [*self.scale.overrides, *texts])

    def check(self) -> None:
        """Refuse what cannot be compared.

        Raises:
            ValueError: says what.
        """
        base, pairs = self.base, self.scale.pairs
        # So that pairs of all misalignments are cut at the same places, and blurred alike.
        largest = min(pairs.blur, pairs.patch / 8)
        if not all(0 < misalignment <= largest for misalignment in self.scale.misalignments):
            sizes = ", ".join(f"{misalignment:g}" for misalignment in self.scale.misalignments)
            raise ValueError(f"misalignments must be above 0 and at most {largest:g} pixels, got {sizes}")
        if base.data.crop > pairs.patch:
            raise ValueError(f"data.crop must be at most {pairs.patch}, the size of the pairs, got {base.data.crop}")
        if self.device == "cuda" and not count_gpus(self.device):
            raise ValueError("--device cuda cannot be used: PyTorch finds no GPU")
        configs = [to_dict(self._configure(variant.overrides)) for variant in self.variants]
        for index, (config, variant) in enumerate(zip(configs, self.variants, strict=True)):
            for other, same in zip(configs[:index], self.variants, strict=False):
                if not differing_keys(other, config):
                    raise ValueError(
                        f"{same.name} and {variant.name} are one training: {self.scale.recipe}, with what overrides "
                        "it, must have the parts that variants take away"
                    )

    def make_pairs(self) -> None:
        """Make the pairs that are not there yet.

        Raises:
            DataError: photographs cannot be used, or the folder holds pairs of other settings.
        """
        originals = photographs.find_originals(self.photos, None)
        for misalignment in self.scale.misalignments:
            settings = replace(self.scale.pairs, misalignment=misalignment)
            dataset.write_dataset(originals, settings, self._pairs(misalignment), self.workers)

    def _pairs(self, misalignment: float) -> Path:
        return self.data / f"{misalignment:g}px"

    def jobs(self) -> list[Job]:
        """All runs, seed after seed; the pairs must be there.

        Raises:
            ValueError: the folder of one holds another.
        """
        jobs = [
            self._job(variant, misalignment, seed)
            for seed in range(self.scale.seeds)
            for misalignment in self.scale.misalignments
            for variant in self.variants
            if not variant.aligned or misalignment == self.scale.misalignments[0]
        ]
        for job in jobs:
            path = job.folder / SETTINGS_FILE
            if path.exists() and (keys := differing_keys(json.loads(path.read_text()), job.settings)):
                raise ValueError(
                    f"{job.folder} holds a run of other settings, {', '.join(keys)} differ: --out takes another folder"
                )
        return jobs

    def _job(self, variant: Variant, misalignment: float, seed: int) -> Job:
        pairs = self._pairs(misalignment)
        description = json.loads((pairs / dataset.SETTINGS_FILE).read_text())
        name, misalignments = variant.name, self.scale.misalignments
        if variant.aligned:
            del description["settings"]["misalignment"]
        else:
            name, misalignments = f"{name}-{misalignment:g}px", (misalignment,)
        decided = {
            "seed": seed,
            "out": str(self.out / f"{name}-seed{seed}"),
            "resume": "auto",
            "device": self.device,
            "data.train": [f"sdd:{pairs}"],
            "data.validation": [],
            "data.decode": False,  # they have just been made
        }
        config = self._configure({**variant.overrides, **decided})
        return Job(variant, misalignments, seed, config, description, self.scale.test_pairs)


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


# ---- Results ----


@dataclass(frozen=True)
class Row:
    """A run in the table of a misalignment."""

    variant: str
    misalignment: float
    seed: int
    result: Result


def rows_of(jobs: Sequence[Job]) -> list[Row]:
    """The rows of the runs that are finished."""
    return [
        Row(job.variant.name, misalignment, job.seed, result)
        for job in jobs
        if (result := job.result) is not None
        for misalignment in job.misalignments
    ]


def spelt(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean ± sample deviation; of one value no deviation, and of none nothing."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(rows: Sequence[Row], blurry: Scores) -> str:
    """Markdown, of one misalignment: each variant, and what it gains over another, seed by seed."""
    lines = [["", "the blurry pictures", f"{blurry.psnr:.2f}", "", f"{blurry.ssim:.4f}"]]
    psnr = {
        variant.name: {row.seed: row.result.scores.psnr for row in rows if row.variant == variant.name}
        for variant in VARIANTS
    }
    for variant in VARIANTS:
        own, results = psnr[variant.name], [row.result for row in rows if row.variant == variant.name]
        if not results:
            continue
        base = dict.fromkeys(own, blurry.psnr) if variant.against is None else psnr[variant.against]
        gains = [own[seed] - base[seed] for seed in own if seed in base]
        times = [result.step_ms for result in results if result.step_ms is not None]
        cells = [
            spelt(list(own.values()), 2),
            f"{spelt(gains, 2, sign='+')}, {variant.against or 'blurry'}" if gains else "",
            spelt([result.scores.ssim for result in results], 4),
            spelt([result.scores.radius for result in results if result.scores.radius is not None], 3),
            harness.milliseconds(statistics.median(times)) if times else "",
        ]
        lines.append([variant.name, variant.description, *cells])
    numbers = ("PSNR, dB:", "gain, dB, over:", "SSIM:", "blur radius, correlation:", "ms a step:")
    return harness.markdown(("variant", "", *numbers), lines)


def page(study: Study, rows: Sequence[Row], blurry: Mapping[float, Scores], scored: int, where: str) -> str:
    """`blurry`: of the blurry pictures, for each misalignment; `scored`: how many; `where`: about the machine."""
    base, scale = study.base, study.scale
    schedule, data, pairs = base.schedule, base.data, scale.pairs
    text = (
        f'{where}\n\nThe deblurring network "{base.framework.deblur.network}", trained for {schedule.steps} steps of '
        f"{data.batch} crops of {data.crop} pixels. Pairs of {pairs.patch} × {pairs.patch} pixels, blurred by radii of "
        f"up to {pairs.blur:g} pixels, made by `python -m models synthesize`; scored are {scored} of other photographs "
        "against the aligned truth. Mean ± sample deviation over seeds, of the first weights and the crops: "
        f"{scale.seeds}. Gains are between runs of equal seeds. A step is the mean "
        f"over both stages; runs at a time: {study.workers}."
    )
    parts = ["# What each part of the framework brings", text]
    for misalignment in scale.misalignments:
        own = [row for row in rows if row.misalignment == misalignment]
        parts += [f"## Misaligned by up to {misalignment:g} pixels", table(own, blurry[misalignment])]
    return "\n\n".join(parts) + "\n"


def save(study: Study, jobs: Sequence[Job], name: str, results: Path) -> None:
    """Write <name>.md and <name>.json of the runs that are finished."""
    rows = rows_of(jobs)
    pairs = {misalignment: job.scored_pairs() for job in jobs for misalignment in job.misalignments}
    blurry = {size: score(of_size, None) for size, of_size in pairs.items()}
    scored = len(jobs[0].scored_pairs())
    device = "cuda" if count_gpus(study.device) else "cpu"
    more = {
        **harness.environment(device),
        "opencv": cv2.__version__,
        "commit": git_commit(Path(__file__).parent),
        "workers": study.workers,
        "scale": asdict(study.scale),
        "training": settings_of(study.base),
        "photographs": jobs[0].pairs["photographs"],
        "variants": [asdict(variant) for variant in study.variants],
        "blurry": {f"{size:g}": asdict(scores) for size, scores in blurry.items()},
    }
    harness.save(name, rows, page(study, rows, blurry, scored, harness.setting(device)), results, **more)


# ---- The command ----


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="variants:\n" + "\n".join(f"  {variant.name}: {variant.description}" for variant in VARIANTS),
    )
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the training of all variants")
    parser.add_argument("--full", action="store_true", help="a study for GPUs, and not one of minutes")
    parser.add_argument("--config", metavar="FILE", help="the training to take apart: a YAML file or a recipe")
    parser.add_argument("--steps", type=integer(1, 10**9), metavar="N", help="of each run")
    parser.add_argument("--seeds", type=integer(1, 1000), metavar="N", help="runs of each variant")
    parser.add_argument(
        "--misalignments", nargs="+", type=number(0, 64), metavar="PIXELS", help="largest displacements of the pairs"
    )
    parser.add_argument("--variants", nargs="+", choices=names, metavar="NAME", help="of those below; all if not given")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="folder of sharp photographs; those of scikit-image if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="DIR", help="folder for the runs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder for the pairs (default: OUT/data)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for the tables (default: OUT)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--workers",
        type=integer(1, 1024),
        metavar="N",
        help="runs at a time, which share threads and GPUs (default: as many as there are threads on a CPU, or GPUs)",
    )
    return parser.parse_intermixed_args(argv)  # overrides between the options, too


def study_of(args: argparse.Namespace) -> Study:
    """The study that the arguments ask for.

    Raises:
        ValueError: it cannot be compared.
    """
    scale = FULL if args.full else TINY
    if args.full and args.photos is None:
        raise ValueError("--full needs --photos: those that scikit-image installs are few and small")
    if decided := [text for text in args.overrides if text.partition("=")[0] in DECIDED]:
        raise ValueError(f"{', '.join(decided)} cannot be overridden: the study decides that")
    steps = [f"schedule.steps={args.steps}"] if args.steps else []
    scale = replace(
        scale,
        recipe=args.config or scale.recipe,
        overrides=(*(() if args.config else scale.overrides), *args.overrides, *steps),
        seeds=args.seeds or scale.seeds,
        misalignments=tuple(sorted(set(args.misalignments or scale.misalignments))),
        # Photographs of one's own have other names than those that the scale keeps for the test.
        pairs=replace(scale.pairs, test=()) if args.photos else scale.pairs,
    )
    study = Study(
        scale,
        tuple(variant for variant in VARIANTS if not args.variants or variant.name in args.variants),
        args.out,
        args.data or args.out / "data",
        args.photos,
        args.device,
        args.workers or count_gpus(args.device) or torch.get_num_threads(),
    )
    study.check()
    return study


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 2 for what cannot be used; 1 if a run failed, 130 if interrupted."""
    args = parse(argv)
    try:
        study = study_of(args)
        results = args.results or args.out
        for folder in (args.out, results):
            writable_folder(folder)
        study.make_pairs()
        jobs = study.jobs()
        run_all(jobs, study.workers)
        save(study, jobs, "ablation-full" if args.full else "ablation", results)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on", 130)
    except BrokenProcessPool:
        return _failed("a process was killed, perhaps for want of memory; the same command goes on", 1)
    except RunError as error:
        return _failed(f"{error}; the same command goes on with the others", 1)
    except OSError as error:
        return _failed(describe(error), 2)
    except ValueError as error:
        return _failed(str(error), 2)
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"python -m benchmarks.ablation: error: {reason}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
