"""Samples for training and evaluation.

Training samples are numbered 0, 1, 2, … without end. The number and the seed alone say which pair it is, where it is
cut and how it is turned, so that the sequence is the same for any number of processes and loader workers, and goes on
from any step as if never stopped: the whole state of the data is the step.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from . import images
from .images import Array
from .pairs import TRUTHS, DataError, Pair

Augmentation: TypeAlias = Literal["uniform", "published"]


class Sample(TypedDict, total=False):
    """Pictures are (3, H, W), float32 RGB, 0 … 1.

    `name` and `number` tell whose they are. With the truth, where all pairs have it: `aligned`; `blur_radius`,
    (1, H, W), RMS radius in pixels; `flow`, (2, H, W), x and y in pixels, from the blurry to the sharp one; and
    `confidence`, (1, H, W), 0 … 1, where these were found by `models.alignment`.
    """

    blurry: Tensor
    sharp: Tensor
    aligned: Tensor
    blur_radius: Tensor
    flow: Tensor
    confidence: Tensor
    name: str
    number: int


class TrainingSamples(Dataset[Sample]):
    """Crops of pairs, numbered without end. Each round through the pairs has an order of its own.

    Args:
        pairs: not empty; in the same order in each process.
        crop: height and width, pixels.
        seed: of the order, and of crops and turns.
        augmentation: "uniform": crops anywhere, flips and quarter turns, each as probable; or "published": a corner in
            the first half, down and right, of where it could be, and no turns, as the published code has it.
        truth: whether to load it.

    Raises:
        DataError: there are no pairs; or, from a sample, a file does not decode or does not fit.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        crop: int,
        seed: int = 0,
        augmentation: Augmentation = "uniform",
        truth: bool = False,
    ) -> None:
        if not pairs:
            raise DataError(["there must be pairs to train on, got none"])
        self.pairs = list(pairs)
        self.crop = crop
        self.seed = seed
        self.augmentation = augmentation
        self.truths = _common_truths(pairs) if truth else ()

    def __len__(self) -> int:
        """The number of samples in one round."""
        return len(self.pairs)

    def pair(self, number: int) -> Pair:
        """The pair of which a sample is cut."""
        round_number, position = divmod(number, len(self.pairs))
        return self.pairs[_order(self.seed, round_number, len(self.pairs))[position]]

    def __getitem__(self, number: int) -> Sample:
        pair = self.pair(number)
        pictures = _load(pair, self.truths)
        height, width = pictures["blurry"].shape[:2]
        if min(height, width) < self.crop:
            problem = (
                f"{pair.blurry} is {width} × {height} pixels, and must have {self.crop} each way, the size of crops"
            )
            raise DataError([problem])
        # The second key keeps it apart from the generators of the order.
        generator = np.random.default_rng([self.seed, 1, number])
        top, left = (self._corner(generator, extent - self.crop) for extent in (height, width))
        turns, flip = (0, False)
        if self.augmentation == "uniform":
            turns, flip = int(generator.integers(4)), bool(generator.integers(2))
        window = (slice(top, top + self.crop), slice(left, left + self.crop))
        return _sample(
            {name: _turned(picture[window], turns, flip, vectors=name == "flow") for name, picture in pictures.items()},
            pair.name,
            number,
        )

    def _corner(self, generator: np.random.Generator, room: int) -> int:
        if self.augmentation == "published":
            return int(generator.integers(max(room, 1))) // 2
        return int(generator.integers(room + 1))


class WholePairs(Dataset[Sample]):
    """Pairs as they are, not cut, not turned, in order, with the truth that all of them have."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        self.truths = _common_truths(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> Sample:
        pair = self.pairs[number]
        return _sample(_load(pair, self.truths), pair.name, number)


class StepBatches(Sampler[list[int]]):
    """The numbers of the samples of each step, this process's share: a `batch_sampler` for `TrainingSamples`.

    Step s takes the samples s·batch … (s+1)·batch - 1; each process the same number of them, in the order of ranks.

    Args:
        batch: samples of a step, of all processes together.
        steps: the step to end before.
        start: the step to begin with: those done so far.
        rank, processes: which one this is, of how many.
    """

    def __init__(self, batch: int, steps: int, start: int = 0, rank: int = 0, processes: int = 1) -> None:
        if batch < 1 or batch % processes:
            raise ValueError(f"the batch must be a multiple of the {processes} processes, got {batch}")
        if not 0 <= rank < processes:
            raise ValueError(f"the rank must be from 0 to {processes - 1}, got {rank}")
        self.batch, self.start, self.steps = batch, start, steps
        self.share = batch // processes
        self.first = rank * self.share

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            first = step * self.batch + self.first
            yield list(range(first, first + self.share))


@functools.lru_cache(maxsize=2)  # a batch may lie across the end of a round
def _order(seed: int, round_number: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, round_number]).permutation(count)


def _common_truths(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Only what all have can be put into one batch."""
    return tuple(name for name in TRUTHS if all(name in pair.truth for pair in pairs))


def _load(pair: Pair, truths: Sequence[str]) -> dict[str, Array]:
    """(H, W, C) each, all of one size."""
    pictures = {"blurry": images.read(pair.blurry).pixels, "sharp": images.read(pair.sharp).pixels}
    for name in truths:
        path = pair.truth[name]
        pictures[name] = images.read(path).pixels if name == "aligned" else np.atleast_3d(images.read_map(path))
    for name, channels in (("blur_radius", 1), ("flow", 2), ("confidence", 1)):
        if name in pictures and pictures[name].shape[2] != channels:
            problem = f"{pair.truth[name]} must have {channels} channels, and has {pictures[name].shape[2]}"
            raise DataError([problem])
    size = pictures["blurry"].shape[:2]
    for name, picture in pictures.items():
        if picture.shape[:2] != size:
            raise DataError([f"{getattr(pair, name)} and {pair.blurry} differ in size"])
    return pictures


def _turned(picture: Array, turns: int, flip: bool, vectors: bool) -> Array:
    """(H, W, C), turned by quarters anticlockwise, then mirrored left to right; vectors, x and y, turn too."""
    picture = np.rot90(picture, turns)
    for _ in range(turns if vectors else 0):
        picture = np.stack([picture[..., 1], -picture[..., 0]], axis=2)
    if flip:
        picture = picture[:, ::-1]
        if vectors:
            picture = picture * np.array([-1, 1], np.float32)
    return picture


def _sample(pictures: dict[str, Array], name: str, number: int) -> Sample:
    tensors = {
        key: torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))) for key, picture in pictures.items()
    }
    return cast(Sample, tensors | {"name": name, "number": number})
