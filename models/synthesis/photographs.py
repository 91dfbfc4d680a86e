"""Photographs to make pairs of: those of scikit-image, or files with or without disparity."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from ..data import images
from ..data.images import Array, ImageError
from ..data.pairs import DataError
from .defocus import fill_disparity
from .settings import Settings

# Of the pictures that scikit-image installs, the photographs of natural texture that are sharp all over. Not chelsea, a
# close-up with little in focus: its truth is soft, and what a network makes sharper there was measured as a loss.
INSTALLED = ("astronaut", "coffee", "motorcycle", "rocket", "brick", "camera", "coins", "grass", "gravel")
DISPARITY_SUFFIXES = (".tif", ".tiff", ".pfm", ".png")


@dataclass(frozen=True)
class Original:
    """A photograph to make pairs of.

    Attributes:
        name: of the pairs, with their number behind it.
        photograph: its file; None for that of scikit-image with this name.
        disparity: its file, (H, W), larger where nearer, in any unit, holes NaN or infinite; None without.
    """

    name: str
    photograph: Path | None = None
    disparity: Path | None = None

    def load(self, scale: float = 1) -> tuple[Array, Array | None]:
        """(H, W, 3), sRGB, 0 … 1, and (H, W), without holes.

        Raises:
            ImageError: a file does not decode, or the two differ in size.
        """
        if self.photograph is None:
            srgb, disparity = _installed(self.name)
        else:
            srgb = np.clip(images.read(self.photograph).pixels, 0, 1)
            disparity = images.read_map(self.disparity) if self.disparity else None
        if disparity is not None:
            if disparity.shape != srgb.shape[:2]:
                sizes = f"is {disparity.shape}, and {self.photograph} is {srgb.shape[:2]}: they must be alike"
                raise ImageError(f"{self.disparity} {sizes}")
            if not np.isfinite(disparity).any():
                raise ImageError(f"{self.disparity} must be finite somewhere")
            disparity = fill_disparity(disparity)
        if scale != 1:
            size = tuple(_scaled(extent, scale) for extent in srgb.shape[1::-1])
            srgb = np.asarray(cv2.resize(srgb, size, interpolation=cv2.INTER_AREA), np.float32)
            if disparity is not None:  # between near and far there is nothing
                disparity = np.asarray(cv2.resize(disparity, size, interpolation=cv2.INTER_NEAREST), np.float32)
        return srgb, disparity

    def size(self, scale: float = 1) -> tuple[int, int]:
        """Height and width that the photograph will have, from the head of its file."""
        if self.photograph is None:
            height, width = _installed(self.name)[0].shape[:2]
        else:
            height, width = images.read_size(self.photograph)
        return _scaled(height, scale), _scaled(width, scale)


def _scaled(extent: int, scale: float) -> int:
    return max(round(scale * extent), 1)


def _installed(name: str) -> tuple[Array, Array | None]:
    if name == "motorcycle":
        photograph, _, disparity = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call, unused-ignore]
        return _unit(photograph), np.asarray(disparity, np.float32)
    return _unit(getattr(skimage.data, name)()), None


def _unit(photograph: NDArray[np.uint8]) -> Array:
    """(H, W, 3), of (H, W) too."""
    colour = np.stack([photograph] * 3, axis=2) if photograph.ndim == 2 else photograph
    return np.asarray(colour, np.float32) / np.float32(255)


def split_photographs(originals: Sequence[Original], settings: Settings) -> dict[str, list[Original]]:
    """The folders of OUT, and the photographs of which the pairs there are made; at least one each.

    Raises:
        DataError: `settings.test` names a photograph that is not there, or all.
    """
    test = set(settings.test)
    if unknown := test - {original.name for original in originals}:
        raise DataError([f"--test names a photograph that is not there: {name}" for name in sorted(unknown)])
    if len(test) == len(originals):
        raise DataError(["at least one photograph must be left to train on"])
    if not test:
        count = min(max(round(settings.test_fraction * len(originals)), 1), len(originals) - 1)
        shuffled = sorted(originals, key=lambda original: hashlib.sha256(original.name.encode()).digest())
        test = {original.name for original in shuffled[:count]}
    return {
        "train_patches": [original for original in originals if original.name not in test],
        "test": [original for original in originals if original.name in test],
    }


def find_originals(photos: Path | None, disparity: Path | None) -> list[Original]:
    """The photographs of a folder, with the disparities of the same names in another; without, those installed.

    Raises:
        DataError: there are fewer than two, names are not unique, or a disparity has no photograph.
    """
    if photos is None:
        if disparity is not None:
            raise DataError(["--disparity needs --photos: the disparities of the installed photographs are known"])
        return [Original(name) for name in INSTALLED]
    try:
        files = images.list_images(photos)
        maps = (
            sorted(path for path in disparity.iterdir() if path.suffix.lower() in DISPARITY_SUFFIXES)
            if disparity
            else []
        )
    except OSError as error:
        raise DataError([f"{error.filename} cannot be read: {error.strerror}"]) from error
    problems = []
    for folder, paths in ((photos, files), (disparity, maps)):
        repeated = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
        problems += [f"{folder} has several files named {stem}: only one can be used" for stem in repeated]
    disparities = {path.stem: path for path in maps}
    stems = {path.stem for path in files}
    problems += [f"{path} has no photograph in {photos}" for stem, path in disparities.items() if stem not in stems]
    if len(files) < 2:
        problems.append(f"{photos} must hold 2 photographs at least, one to train on and one to test, got {len(files)}")
    if problems:
        raise DataError(problems)
    return [Original(path.stem, path, disparities.get(path.stem)) for path in files]


def fitting_scales(original: Original, settings: Settings) -> list[float]:
    """The scales at which a photograph is large enough for patches."""
    return [scale for scale in settings.scale if min(original.size(scale)) >= settings.extent]


def problem_of(original: Original, settings: Settings) -> str | None:
    """Why no pairs can be made of a photograph; decodes it."""
    try:
        if not fitting_scales(original, settings):
            height, width = original.size(max(settings.scale))
            needed = f"must have {settings.extent} each way: the patch, and {settings.margin} around it"
            return f"{original.photograph or original.name} is {width} × {height} pixels, and {needed}"
        original.load()
    except ImageError as error:
        return str(error)
    return None
