"""Real pairs as settings of the study: trained on pairs that do not line up, scored where the truth is known.

The folders are those of `benchmarks.real`, all at half size. Scored are refocused light fields, whose blurry pictures
line up with their all-in-focus ones. Trained on are hand-held pairs of other cameras; or light fields of other scenes,
whose sharp pictures are moved as focusing does it, so that what aligned pairs would bring is known, too. The blur that
scores go by is searched between the two pictures of a light field.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import real
from benchmarks.ablation.variants import Target
from benchmarks.alignment import move
from benchmarks.blur import tensor
from models.blur import search_radius
from models.core.files import replacing
from models.core.parallel import processes
from models.data import images
from models.data.images import Encoding
from models.data.pairs import DataError

PAIRS_FILE = "pairs.json"
TRAIN, TEST = "train_patches", "test"  # folders of the layout `sdd`


@dataclass(frozen=True)
class RealPairs:
    """Hand-held pairs of a folder of real photographs, see `benchmarks.real`.

    Attributes:
        max_radius: largest circle of confusion that alignment searches, pixels: close-ups are blurred far more than
            scenes.
    """

    folder: Path

    name = "real"
    title = "Real pairs"
    text = (
        f"Trained on the misaligned pairs of `{real.MISALIGNED}`, scored on the light fields of `{real.LIGHTFIELD}` "
        "against their all-in-focus pictures, at half size."
    )
    parts: tuple[Path, ...] = (real.MISALIGNED, real.LIGHTFIELD)  # folders
    max_radius = 16

    def offers(self, target: Target) -> bool:
        """Whether pairs can have such a target: what is true about them is not known."""
        return target not in ("truth", "true flow")

    def make(self, out: Path, workers: int) -> None:
        """Write the pairs that are not there yet, at half size, as the layout `sdd`.

        Raises:
            DataError: folders are missing, or `out` holds pairs of other files.
        """
        if missing := [str(self.folder / part) for part in self.parts if not (self.folder / part).is_dir()]:
            raise DataError([f"real pairs need the folder {', '.join(missing)}"])
        description = self._describe_files()
        path = out / PAIRS_FILE
        if path.exists() and json.loads(path.read_text()) != description:
            raise DataError([f"{out} holds pairs of other files than {self.folder}"])
        tasks = []
        for split, pairs in self._pairs():
            for part in self._kept(split):
                (out / split / part).mkdir(parents=True, exist_ok=True)
            tasks += [(pair, out / split, self._kept(split), number) for number, pair in enumerate(pairs)]
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
        for split, pairs in self._pairs():
            names[split] = [pair.name for pair in pairs]
            for path in (path for pair in pairs for path in (pair.blurry, pair.sharp)):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {"photographs": names, "contents": digest.hexdigest()}

    def _pairs(self) -> Iterator[tuple[str, Sequence[real.Pair]]]:
        yield TRAIN, real.find_pairs(self.folder / real.MISALIGNED)
        yield TEST, real.find_pairs(self.folder / real.LIGHTFIELD)

    def _kept(self, split: str) -> tuple[str, ...]:
        """Folders of what is written of a pair."""
        return ("blur", "gt", "aligned", "blur_radius") if split == TEST else ("blur", "gt")


class LightFields(RealPairs):
    """Light fields of a folder of real photographs: every other scene is moved, to train on, and the others are scored.

    Their blur is real, and what is true about them is known.
    """

    name = "light-fields"
    title = "Light fields, moved"
    text = (
        f"Trained on every other scene of `{real.LIGHTFIELD}`, whose all-in-focus pictures are moved as focusing does "
        "it (`benchmarks.alignment`), scored on the others, at half size."
    )
    parts = (real.LIGHTFIELD,)

    def offers(self, target: Target) -> bool:
        return True

    def _pairs(self) -> Iterator[tuple[str, Sequence[real.Pair]]]:
        pairs = real.find_pairs(self.folder / real.LIGHTFIELD)
        scenes = sorted({pair.sharp for pair in pairs})
        for split, own in ((TRAIN, scenes[::2]), (TEST, scenes[1::2])):
            yield split, [pair for pair in pairs if pair.sharp in own]

    def _kept(self, split: str) -> tuple[str, ...]:
        return super()._kept(split) if split == TEST else ("blur", "gt", "aligned", "flow", "visible")


def write_pair(pair: real.Pair, folder: Path, kept: Sequence[str], number: int) -> None:
    """Write what is kept of a pair at half size, unless it is there. The number seeds how it is moved."""
    suffixes = {"blur_radius": "tif", "flow": "tif"}
    paths = {part: folder / part / f"{pair.name}.{suffixes.get(part, 'png')}" for part in kept}
    if all(path.exists() for path in paths.values()):
        return
    blurry, sharp = (real.read(path, 0.5) for path in (pair.blurry, pair.sharp))
    if blurry.shape != sharp.shape:
        raise DataError([f"{pair.blurry} and {pair.sharp} differ in size"])
    images.write(paths["blur"], blurry)
    taken = sharp
    if "flow" in kept:
        taken, flow, visible = move(sharp, np.random.default_rng([0, number]))
        images.write_map(paths["flow"], flow)
        images.write(paths["visible"], np.repeat(visible[..., None], 3, axis=2).astype(np.float32), Encoding(grey=True))
    images.write(paths["gt"], taken)
    if "aligned" in kept:
        images.write(paths["aligned"], sharp)
    if "blur_radius" in kept:
        found = search_radius(tensor(sharp), tensor(blurry), max_radius=RealPairs.max_radius)
        images.write_map(paths["blur_radius"], found.radius[0, 0].numpy())
