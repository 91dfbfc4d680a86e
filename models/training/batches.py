"""The batches of a run: crops of pairs, or pairs made of photographs on the device."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import cv2
import torch
from torch.utils.data import DataLoader

from ..core.parallel import end_with_first_process, processors
from ..data.layouts import parse_source
from ..data.pairs import Pair
from ..data.samples import Augmentation, StepBatches, TrainingSamples
from ..synthesis.generator import PairGenerator
from ..synthesis.photographs import Original, find_originals
from .config import DataConfig, TrainingConfig
from .processes import Processes
from .signals import ignore_ending


def find_photographs(data: DataConfig) -> list[Original]:
    """The photographs that `data.train` names; none where it names pairs.

    Raises:
        DataError: a folder cannot be read or holds fewer than two.
    """
    if not data.generated:
        return []
    folders = [parse_source(source).folders[0] for source in data.train]
    return [original for folder in folders for original in find_originals(folder, None)]


def load_batches(
    config: TrainingConfig,
    pairs: Sequence[Pair],
    photographs: Sequence[Original],
    start: int,
    processes: Processes,
) -> Iterable[dict[str, Any]]:
    """This process's share of the batches from a step on.

    Args:
        pairs: to cut crops of, unless there are photographs.
        photographs: to make pairs of.
        start: the step.
    """
    batches = StepBatches(config.data.batch, config.schedule.steps, start, processes.rank, processes.count)
    if photographs:
        return generated_batches(config, photographs, batches, processes)
    return loaded_batches(config, pairs, batches, processes)


def generated_batches(
    config: TrainingConfig, photographs: Sequence[Original], batches: StepBatches, processes: Processes
) -> Iterator[dict[str, Any]]:
    """Pairs that no other step sees, with the truth about them, on the device."""
    data = config.data
    generator = PairGenerator(photographs, data.generator, data.crop, config.seed, processes.device)
    for numbers in batches:
        batch = generator.batch(numbers, misaligned=data.target == "sharp")
        yield {**batch, "name": ["generated"] * len(numbers), "number": torch.tensor(numbers)}


def loaded_batches(
    config: TrainingConfig, pairs: Sequence[Pair], batches: StepBatches, processes: Processes
) -> "DataLoader[dict[str, Any]]":
    """Crops of pairs, loaded by other processes if `data.workers` says so."""
    data = config.data
    workers = min(data.workers, processors())  # recipes are made for machines with more
    augmentation = cast(Augmentation, data.augmentation)
    samples = TrainingSamples(pairs, data.crop, config.seed, augmentation, truth=data.target == "aligned")
    return DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        # Forking is not safe where libraries have started threads.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_prepare_worker if workers else None,
        pin_memory=processes.device.type == "cuda",
    )


def _prepare_worker(_: int) -> None:
    ignore_ending()  # the process that trains ends its workers
    threading.Thread(target=end_with_first_process, daemon=True).start()
    cv2.setNumThreads(1)
