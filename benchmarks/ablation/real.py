"""Real pairs as a setting of the study: trained on pairs that do not line up, scored where the truth is known.

The folders are those of `benchmarks.real`: trained on are the misaligned pairs, scored the refocused light fields,
whose blurry pictures line up with their all-in-focus ones. All at half size. The blur that scores go by is searched
between the two pictures of a light field.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import real
from benchmarks.ablation.variants import Target
from models.blur import search_radius
from models.core.files import replacing
from models.core.parallel import processes
from models.data import images
from models.data.images import Array
from models.data.pairs import DataError

PAIRS_FILE = "pairs.json"


@dataclass(frozen=True)
class RealPairs:
    """A folder of real pairs, see `benchmarks.real`.

    Attributes:
        max_radius: largest circle of confusion that alignment searches, pixels: close-ups are blurred far more than
            scenes.
    """

    folder: Path

    name = "real"
    title = "Real pairs"
    max_radius = 16

    @property
    def text(self) -> str:
        return (
            f"Trained on the misaligned pairs of `{real.MISALIGNED}`, scored on the light fields of "
            f"`{real.LIGHTFIELD}` against their all-in-focus pictures, at half size."
        )

    def offers(self, target: Target) -> bool:
        """Whether pairs can have such a target: what is true about them is not known."""
        return target not in ("truth", "true flow")

    def make(self, out: Path, workers: int) -> None:
        """Write the pairs that are not there yet, at half size, as the layout `sdd`.

        Raises:
            DataError: folders are missing, or `out` holds pairs of other files.
        """
        description = self._describe_files()
        path = out / PAIRS_FILE
        if path.exists() and json.loads(path.read_text()) != description:
            raise DataError([f"{out} holds pairs of other files than {self.folder}"])
        files = list(self._files())
        tasks = [(pair, out / split, split == "test") for split, pairs in files for pair in pairs]
        for split, _ in files:
            for part in ("blur", "gt", *(("aligned", "blur_radius") if split == "test" else ())):
                (out / split / part).mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(json.dumps(description, indent=2).encode() + b"\n")
        with processes(workers) as call:
            list(tqdm(call(write_pair, tasks), "halving real pairs", len(tasks), unit="pair", disable=None))

    def describe(self, out: Path) -> dict[str, Any]:
        """The pairs that were made: their names, and what their files are."""
        return dict(json.loads((out / PAIRS_FILE).read_text()))

    def _describe_files(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        names = {}
        for split, pairs in self._files():
            names[split] = [pair.name for pair in pairs]
            for path in (path for pair in pairs for path in (pair.blurry, pair.sharp)):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {"photographs": names, "contents": digest.hexdigest()}

    def _files(self) -> Iterator[tuple[str, Sequence[real.Pair]]]:
        for split, part in (("train_patches", real.MISALIGNED), ("test", real.LIGHTFIELD)):
            if not (self.folder / part).is_dir():
                raise DataError([f"--real needs the folder {self.folder / part}"])
            yield split, real.find_pairs(self.folder / part)


def write_pair(pair: real.Pair, folder: Path, aligned: bool) -> None:
    """Write a pair at half size, unless it is there; with the truth if it lines up."""
    last = folder / ("blur_radius" if aligned else "gt") / f"{pair.name}.{'tif' if aligned else 'png'}"
    if last.exists():
        return
    blurry, sharp = (real.read(path, 0.5) for path in (pair.blurry, pair.sharp))
    if blurry.shape != sharp.shape:
        raise DataError([f"{pair.blurry} and {pair.sharp} differ in size"])
    images.write(folder / "blur" / f"{pair.name}.png", blurry)
    images.write(folder / "gt" / f"{pair.name}.png", sharp)
    if aligned:
        images.write(folder / "aligned" / f"{pair.name}.png", sharp)
        found = search_radius(_batch(sharp), _batch(blurry), max_radius=RealPairs.max_radius)
        images.write_map(last, found.radius[0, 0].numpy())


def _batch(picture: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
