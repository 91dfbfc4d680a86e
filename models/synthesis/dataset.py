"""Synthetic pairs in files: written in parallel, and gone on with after an interruption."""

import functools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..core.config import to_dict
from ..core.files import clear_parts, replacing
from ..core.parallel import processes
from ..data import images
from ..data.images import Array, Encoding
from ..data.pairs import DataError
from .pairs import make_pair
from .photographs import Original, fitting_scales, problem_of, split_photographs
from .settings import Settings

SETTINGS_FILE = "synthesis.json"
PARTS = ("blur", "gt", "aligned", "blur_radius", "flow")  # folders of a split
CHUNK = 4  # pairs that a process makes at a time, of one photograph at one scale


@functools.lru_cache(maxsize=1)  # the chunks of one photograph at one scale follow each other
def _loaded(original: Original, scale: float) -> tuple[Array, Array | None]:
    return original.load(scale)


def write_pairs(original: Original, scale: float, numbers: Sequence[int], settings: Settings, folder: Path) -> int:
    """Make the pairs with these numbers and write them; how many."""
    photograph, disparity = _loaded(original, scale)
    for index in numbers:
        generator = np.random.default_rng([settings.seed, zlib.crc32(original.name.encode()), index])
        pair = make_pair(photograph, disparity, settings, generator)
        encoding = Encoding(settings.bits)
        paths = pair_files(folder, original, index)
        images.write(paths["blur"], pair.blurry, encoding)
        images.write(paths["gt"], pair.sharp, encoding)
        images.write(paths["aligned"], pair.aligned, encoding)
        images.write_map(paths["blur_radius"], pair.blur_radius)
        images.write_map(paths["flow"], pair.flow)
        if pair.visible is not None:
            visible = np.repeat(pair.visible[..., None], 3, axis=2).astype(np.float32)
            images.write(folder / "visible" / paths["blur"].name, visible, Encoding(grey=True))
    return len(numbers)


def pair_files(folder: Path, original: Original, index: int) -> dict[str, Path]:
    """The files of a pair, by the folders they lie in."""
    name = f"{original.name}_{index:05d}"
    pictures = {part: folder / part / f"{name}.png" for part in ("blur", "gt", "aligned")}
    return pictures | {part: folder / part / f"{name}.tif" for part in ("blur_radius", "flow")}


def write_dataset(originals: Sequence[Original], settings: Settings, out: Path, workers: int = 1) -> int:
    """Make all pairs that are not there yet, with a progress bar.

    What is there must be of the same settings and photographs, except that `patches` and `test_patches` may grow.
    Killed at any moment, it goes on when called again, and the pairs come out as they would have.

    Args:
        originals: at least two; see `find_originals`.
        workers: processes; the pairs are the same for any number.

    Returns:
        How many were made.

    Raises:
        DataError: photographs do not decode or are too small, or `out` holds something else; nothing was written then.
        OSError: it cannot be written.
    """
    splits = split_photographs(originals, settings)
    description = describe(splits, settings)
    _refuse_other_settings(out / SETTINGS_FILE, description)
    with processes(workers) as call:
        tasks = [(original, settings.for_split(split)) for split, members in splits.items() for original in members]
        found = list(tqdm(call(problem_of, tasks), "checking photographs", len(tasks), delay=3))
        if problems := sorted(filter(None, found)):
            raise DataError(problems)
        for split in splits:
            for part in PARTS:
                (out / split / part).mkdir(parents=True, exist_ok=True)
                clear_parts(out / split / part)
            if settings.scenes:
                (out / split / "visible").mkdir(exist_ok=True)
        with replacing(out / SETTINGS_FILE) as file:
            file.write(json.dumps(description, indent=2).encode() + b"\n")
        chunks = [
            chunk
            for split, members in splits.items()
            for original in members
            for chunk in _missing(original, settings.for_split(split), out / split)
        ]
        total = sum(settings.for_split(split).patches * len(members) for split, members in splits.items())
        missing = sum(len(chunk.numbers) for chunk in chunks)
        with tqdm(desc="synthesizing", total=total, initial=total - missing, unit="pair") as progress:
            for made in call(write_pairs, chunks):
                progress.update(made)
    return missing


class Chunk(NamedTuple):
    """Arguments of `write_pairs`."""

    original: Original
    scale: float
    numbers: list[int]
    settings: Settings
    folder: Path


def _missing(original: Original, settings: Settings, folder: Path) -> Iterator[Chunk]:
    """The pairs of a photograph that are not there yet, one scale after the other."""
    scales = fitting_scales(original, settings)
    for turn, scale in enumerate(scales):
        numbers = range(turn, settings.patches, len(scales))
        missing = [index for index in numbers if not _is_there(folder, original, index)]
        for first in range(0, len(missing), CHUNK):
            yield Chunk(original, scale, missing[first : first + CHUNK], settings, folder)


def _is_there(folder: Path, original: Original, index: int) -> bool:
    return all(path.exists() for path in pair_files(folder, original, index).values())


def describe(splits: dict[str, list[Original]], settings: Settings) -> dict[str, Any]:
    """For the file of the settings."""
    test = settings.for_split("test")
    return {
        "settings": to_dict(settings) | {"test_patch": test.patch, "test_patches": test.patches},
        "photographs": {split: [original.name for original in originals] for split, originals in splits.items()},
        "with_disparity": [
            original.name
            for originals in splits.values()
            for original in originals
            if original.disparity or (original.photograph is None and original.name == "motorcycle")
        ],
        "blur_radius": "RMS radius in pixels: c/sqrt(2) for circles of confusion of radius c",
        "flow": "x and y in pixels: gt at p + flow(p) shows what blur and aligned show at p",
    }


def _refuse_other_settings(path: Path, description: dict[str, Any]) -> None:
    """Pairs of several settings in one folder could not be told apart."""
    try:
        before = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise DataError([f"{path} cannot be read: {error}"]) from error
    defaults = to_dict(Settings())
    then, now = ({**part["settings"], **part["photographs"]} for part in (before, description))
    differing = [
        f"{name} was {then.get(name)} and is {value}"
        for name, value in now.items()
        # What settings did not have then was as it is by default.
        if then.get(name, defaults.get(name)) != value and name not in ("patches", "test_patches")
    ]
    if differing:
        raise DataError([f"{path.parent} holds pairs of other settings: {line}" for line in differing])
