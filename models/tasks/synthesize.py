"""Misaligned pairs with known truth, made of photographs.

A lens out of focus (`models.synthesis.defocus`) makes the blurry picture. The sharp one is taken by a camera that has
moved, turned and zoomed a little in between. Both get noise and are rounded. Written in the layout of SDD, beside the
truth:

    OUT/{train_patches,test}/
        blur/NAME.png
        gt/NAME.png           sharp, misaligned
        aligned/NAME.png      sharp, aligned with `blur`, free of noise
        blur_radius/NAME.tif  (H, W), RMS radius of the blur in pixels: c/√2 for circles of confusion of radius c
        flow/NAME.tif         (H, W, 2), x and y in pixels: `gt` at p + flow(p) shows what `blur` shows at p
    OUT/synthesis.json        the settings, and which photographs are for training and which for the test
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import textwrap
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from ..core.config import to_dict
from ..core.errors import PROGRAM
from ..core.files import replacing, writable_folder
from ..data import images
from ..data.images import Array, Encoding, ImageError
from ..data.layouts import TRUTHS, DataError
from ..synthesis.defocus import coc, fill_disparity, render_defocus, to_linear, to_srgb
from .arguments import integer, number

# Of the pictures that scikit-image installs, the photographs of natural texture that are sharp all over. Not chelsea, a
# close-up with little in focus: its truth is soft, and what a network makes sharper there was measured as a loss.
INSTALLED = ("astronaut", "coffee", "motorcycle", "rocket", "brick", "camera", "coins", "grass", "gravel")
DISPARITY_SUFFIXES = (".tif", ".tiff", ".pfm", ".png")
SETTINGS_FILE = "synthesis.json"

# From the disk of one depth layer to that of the next, pixels. Against 0.25 the picture differs by 60 dB PSNR, in half
# the time.
LAYER_STEP = 0.5
# Maps are rounded to this part of a pixel, which halves their size on disk and is far below what can be measured.
MAP_STEP = 1 / 1024
CHUNK = 4  # pairs that a process makes at a time, of one photograph at one scale

Map: TypeAlias = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterable[Any]]


@dataclass(frozen=True)
class Settings:
    """What determines the pairs, together with the photographs.

    Attributes:
        patch: height and width of a pair, pixels.
        patches: pairs of each photograph.
        blur: the largest radius of a circle of confusion, pixels. Each pair has its own largest, from a third of it.
        misalignment: the largest displacement, pixels. Each pair has its own largest, from half of it.
        noise: standard deviation at white, in linear light, white being 1; falls with the square root of the light, as
            that of photons does. Each pair has its own, up to it.
        bits: of a channel of the pictures, 8 or 16.
        scale: of the photographs, before patches are cut from them. Of several, the pairs of a photograph take those in
            turn at which it is large enough. Large photographs are rarely sharp to the pixel; small copies are.
        test_fraction: the part of the photographs that is kept for the test, chosen by their names.
        test: the names of the photographs to keep instead.
        test_patch, test_patches: `patch` and `patches` for the test; the same if None.
        seed: of everything random; the choice of photographs is not.
    """

    patch: int = 256
    patches: int = 20
    blur: float = 6.5
    misalignment: float = 4.0
    noise: float = 0.01
    bits: int = 8
    scale: tuple[float, ...] = (1.0,)
    test_fraction: float = 0.2
    test: tuple[str, ...] = ()
    test_patch: int | None = None
    test_patches: int | None = None
    seed: int = 0

    @property
    def margin(self) -> int:
        """What a patch needs of the photograph around it, pixels: what a disk and a displacement reach."""
        return math.ceil(max(self.blur, self.misalignment)) + 4

    @property
    def extent(self) -> int:
        """Height and width that a photograph must have, pixels: the patch and what is around it."""
        return self.patch + 2 * self.margin

    def of_split(self, split: str) -> "Settings":
        """Those of the pairs in a folder of OUT, "train_patches" or "test"."""
        if split != "test":
            return self
        return dataclasses.replace(self, patch=self.test_patch or self.patch, patches=self.test_patches or self.patches)


class SyntheticPair(NamedTuple):
    """A pair and its truth, in the formats described above; pictures (H, W, 3), sRGB, 0 … 1."""

    blurry: Array
    sharp: Array
    aligned: Array
    blur_radius: Array
    flow: Array


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


def make_pair(
    photograph: Array, disparity: Array | None, settings: Settings, generator: np.random.Generator
) -> SyntheticPair:
    """A pair cut from somewhere in a photograph.

    Args:
        photograph: (H, W, 3), sRGB, 0 … 1, at least patch + 2 margin each way.
        disparity: (H, W), finite, larger where nearer; a random one without.
        settings: of which those that choose photographs, count pairs or scale play no part here.
        generator: of all that is random.
    """
    window = _detailed_window(photograph, settings.extent, generator)
    inside = (slice(settings.margin, -settings.margin),) * 2
    srgb = photograph[window]
    depth = random_disparity(srgb, generator) if disparity is None else _normalised(disparity[window])

    radius = _random_coc(depth, settings.blur, generator)
    blurry = render_defocus(to_linear(srgb), radius, LAYER_STEP)
    flow = random_flow(depth, settings.misalignment, settings.patch, generator)
    sharp = displaced(srgb, inverse_flow(flow)) if settings.misalignment else srgb
    noise = generator.uniform(0, settings.noise)
    return SyntheticPair(
        blurry=to_srgb(noisy(blurry[inside], noise, generator)),
        sharp=to_srgb(noisy(to_linear(sharp[inside]), noise, generator)),
        aligned=srgb[inside],
        blur_radius=_rounded(np.abs(radius[inside]) / np.float32(2**0.5)),
        flow=_rounded(flow[inside]),
    )


def _detailed_window(photograph: Array, extent: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """The one of two random windows with more detail: nothing is to be learnt from a blue sky, and yet it counts."""
    windows = []
    for _ in range(2):
        top, left = (int(generator.integers(size - extent + 1)) for size in photograph.shape[:2])
        windows.append((slice(top, top + extent), slice(left, left + extent)))
    return max(windows, key=lambda window: float(np.abs(np.diff(photograph[window], axis=1)).mean()))


def random_disparity(srgb: Array, generator: np.random.Generator) -> Array:
    """Depth that could be: smooth, but for edges along some of the edges of the picture.

    A watershed from a few random pixels cuts the picture where its colours change; each part then stands at a distance
    of its own, and is slightly uneven.

    Args:
        srgb: (H, W, 3), 0 … 1.

    Returns:
        (H, W), 0 … 1, larger where nearer.
    """
    height, width = srgb.shape[:2]
    count = int(generator.integers(1, 7))
    markers = np.zeros((height, width), np.int32)
    for label in range(1, count + 1):
        y, x = int(generator.integers(height)), int(generator.integers(width))
        cv2.circle(markers, (x, y), 3, label, -1)
    smooth = cv2.GaussianBlur(np.rint(srgb * 255).astype(np.uint8), (0, 0), 2)
    labels = cv2.watershed(smooth, markers)
    labels = cv2.dilate(np.maximum(labels, 0).astype(np.uint8), np.ones((3, 3), np.uint8))  # over the watershed lines
    labels = cv2.medianBlur(labels, 7)
    distances = generator.uniform(0, 1, int(labels.max()) + 1).astype(np.float32)
    uneven = _smooth_noise(height, width, generator) * np.float32(generator.uniform(0.2, 0.8))
    return _normalised(distances[labels] + uneven)


def _smooth_noise(height: int, width: int, generator: np.random.Generator) -> Array:
    """(H, W), a slope with gentle hills, of order 1."""
    grid = generator.normal(0, 0.3, (4, 4)) + np.add.outer(*generator.uniform(-0.25, 0.25, (2, 1)) * np.arange(-1.5, 2))
    return np.asarray(cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _normalised(values: Array) -> Array:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / max(high - low, np.float32(1e-6)), np.float32)


def _random_coc(disparity: Array, blur: float, generator: np.random.Generator) -> Array:
    """Focused somewhere in the picture or a bit before or behind it all; a lens open a third or more."""
    focus = generator.uniform(-0.2, 1.2)
    return coc(disparity, focus, generator.uniform(blur / 3, blur))


def random_flow(disparity: Array, misalignment: float, patch: int, generator: np.random.Generator) -> Array:
    """The displacement between two shots with a camera that moved, turned about its axis and zoomed in between.

    Moved sideways, what is near shifts more. Its depth is smoothed, so that nothing is hidden or uncovered and the
    displacement can be inverted.

    Args:
        disparity: (H, W), 0 … 1, larger where nearer.
        misalignment: the displacement anywhere in the patch is at most this, pixels; its largest at least the half.
        patch: the height and width, in the middle of (H, W), that this is about, pixels.

    Returns:
        (H, W, 2), x and y, pixels.
    """
    height, width = disparity.shape
    # A step of height h, smoothed, has the slope h/(σ √(2π)): for h of 2 misalignments below 0.4 pixels per pixel.
    near = cv2.GaussianBlur(disparity, (0, 0), max(2 * misalignment, patch / 12), borderType=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre_x, centre_y = generator.uniform(-0.3, 0.3, 2) * patch + ((width - 1) / 2, (height - 1) / 2)
    from_centre = np.stack([x - centre_x, y - centre_y], axis=2) / np.float32(patch / 2)
    angle = generator.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    shift, parallax, zoom, turn = generator.uniform(-1, 1, 4).astype(np.float32)
    flow = direction * (shift + parallax * (near - near.mean()))[..., None]
    flow = flow + zoom * from_centre + turn * np.stack([-from_centre[..., 1], from_centre[..., 0]], axis=2)
    top, left = (height - patch) // 2, (width - patch) // 2
    largest = np.hypot(*np.moveaxis(flow[top : top + patch, left : left + patch], 2, 0)).max()
    size = generator.uniform(0.5, 1) * misalignment
    return np.asarray(flow * (size / max(largest, np.float32(1e-6))), np.float32)


def inverse_flow(flow: Array, iterations: int = 24) -> Array:
    """The displacement back: g(q) = -f(q + g(q)), by fixed-point iteration.

    Args:
        flow: (H, W, 2), x and y, pixels, changing by less than a pixel each pixel. Beyond, its edge is repeated.

    Returns:
        (H, W, 2), x and y, pixels.
    """
    inverse = -flow
    for _ in range(iterations):
        following = -sampled(flow, inverse, order=1)
        if np.abs(following - inverse).max() < 1e-4:
            return following
        inverse = following
    return inverse


def sampled(picture: Array, flow: Array, order: int = 3) -> Array:
    """`picture` at p + flow(p), by splines.

    Args:
        picture: (H, W, C). Beyond, its edge is repeated.
        flow: (H, W, 2), x and y, pixels.
        order: of the spline: 3 for pictures, 1 for linear interpolation.

    Returns:
        (H, W, C).
    """
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    places = np.stack([y + flow[..., 1], x + flow[..., 0]])
    channels = [
        ndimage.map_coordinates(picture[..., channel], places, order=order, mode="nearest")
        for channel in range(picture.shape[2])
    ]
    return np.stack(channels, axis=2).astype(np.float32)


def displaced(srgb: Array, flow: Array) -> Array:
    """A picture sampled at p + flow(p); 0 … 1."""
    return np.clip(sampled(srgb, flow), 0, 1)


def noisy(light: Array, noise: float, generator: np.random.Generator) -> Array:
    """Linear light with the noise of photons: standard deviation noise·√light. Any shape."""
    return light + generator.standard_normal(light.shape, np.float32) * np.float32(noise) * np.sqrt(
        np.maximum(light, 0)
    )


def _rounded(values: Array) -> Array:
    return np.asarray(np.rint(values / MAP_STEP) * MAP_STEP, np.float32)


def split_photographs(originals: Sequence[Original], settings: Settings) -> dict[str, list[Original]]:
    """The folders of OUT, and the photographs of which the pairs there are made; at least one each.

    Raises:
        DataError: `settings.test` names a photograph that is not there, or all.
    """
    test = set(settings.test)
    if unknown := test - {original.name for original in originals}:
        raise DataError([f"to keep for the test there is no photograph {name}" for name in sorted(unknown)])
    if len(test) == len(originals):
        raise DataError(["one photograph at least must be left to train on"])
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
    """Those scales at which a photograph is large enough for patches."""
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
    with _processes(workers) as call:
        tasks = [(original, settings.of_split(split)) for split, members in splits.items() for original in members]
        found = list(tqdm(call(problem_of, tasks), "checking photographs", len(tasks), delay=3))
        if problems := sorted(filter(None, found)):
            raise DataError(problems)
        for split in splits:
            for part in ("blur", "gt", *TRUTHS):
                (out / split / part).mkdir(parents=True, exist_ok=True)
        with replacing(out / SETTINGS_FILE) as file:
            file.write(json.dumps(description, indent=2).encode() + b"\n")
        chunks = [
            chunk
            for split, members in splits.items()
            for original in members
            for chunk in _missing(original, settings.of_split(split), out / split)
        ]
        total = sum(settings.of_split(split).patches * len(members) for split, members in splits.items())
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
    test = settings.of_split("test")
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
    then, now = ({**part["settings"], **part["photographs"]} for part in (before, description))
    differing = [
        f"{name} was {then.get(name)} and is {value}"
        for name, value in now.items()
        if then.get(name) != value and name not in ("patches", "test_patches")
    ]
    if differing:
        raise DataError([f"{path.parent} holds pairs of other settings: {line}" for line in differing])


@contextmanager
def _processes(workers: int) -> Iterator[Map]:
    """Calls a function with each of many tuples of arguments, in other processes if more than one."""
    if workers == 1:
        yield lambda function, tasks: (function(*task) for task in tasks)
        return
    # Forking is not safe where libraries have started threads.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_prepare_process)
    try:
        yield lambda function, tasks: (
            done.result() for done in as_completed([executor.submit(function, *task) for task in tasks])
        )
    finally:
        executor.shutdown(cancel_futures=True)


def _prepare_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    cv2.setNumThreads(1)
    threading.Thread(target=end_with_first_process, daemon=True).start()


def end_with_first_process() -> None:
    """End this process when the one that started it does: were that killed, this one would go on or wait for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument("--photos", type=Path, help="folder of sharp photographs; those of scikit-image if not given")
    parser.add_argument(
        "--disparity",
        type=Path,
        help="folder of their disparities, same names: TIFF, PFM or PNG of one channel, the size of the photograph, "
        "larger where nearer, holes NaN or infinite; random depth where there is none",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pairs, in the layout sdd")
    parser.add_argument("--patch", type=integer(32, 4096), default=default.patch, help="height and width, pixels")
    parser.add_argument("--patches", type=integer(1, 99999), default=default.patches, help="pairs of each photograph")
    parser.add_argument(
        "--blur",
        type=number(0, 64),
        default=default.blur,
        help="largest radius of a circle of confusion, pixels; each pair has its own, from a third of it",
    )
    parser.add_argument(
        "--misalignment",
        type=number(0, 64),
        default=default.misalignment,
        help="largest displacement, pixels, an eighth of the patch at most; each pair has its own, from half of it",
    )
    parser.add_argument(
        "--noise",
        type=number(0, 1),
        default=default.noise,
        help="largest standard deviation of the noise at white, in linear light",
    )
    parser.add_argument(
        "--bits", type=int, choices=(8, 16), default=default.bits, help="of the channels of the pictures"
    )
    parser.add_argument(
        "--scale",
        type=number(0.01, 1),
        nargs="+",
        default=default.scale,
        help="of the photographs, before all else; of several, the pairs of a photograph take those in turn at which "
        "it is large enough",
    )
    parser.add_argument(
        "--test-fraction",
        type=number(0, 1),
        default=default.test_fraction,
        help="of the photographs, kept for the test",
    )
    parser.add_argument(
        "--test",
        nargs="+",
        default=default.test,
        metavar="NAME",
        help="those kept for it instead, without their suffix",
    )
    parser.add_argument(
        "--test-patch", type=integer(32, 4096), help="height and width in the test, pixels; --patch if not given"
    )
    parser.add_argument(
        "--test-patches", type=integer(1, 99999), help="pairs of each photograph in the test; --patches if not given"
    )
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=default.seed, help="of the random numbers")
    parser.add_argument("--workers", type=integer(1, 1024), default=processors(), help="processes")


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(args: argparse.Namespace) -> int:
    """Make the pairs. Exit status: 0, 1 if a process died, 130 if interrupted."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}
    settings = Settings(**values | {"scale": tuple(args.scale), "test": tuple(args.test)})
    start = time.perf_counter()
    try:
        patch = min(settings.patch, settings.of_split("test").patch)
        if settings.misalignment > patch / 8:
            limit = f"at most {patch / 8:g}, an eighth of the patch"
            raise DataError([f"--misalignment must be {limit}, got {settings.misalignment:g}"])
        originals = find_originals(args.photos, args.disparity)
        writable_folder(args.out)
        for split, members in split_photographs(originals, settings).items():
            names = textwrap.shorten(", ".join(original.name for original in members), 80, placeholder=" …")
            count = settings.of_split(split).patches * len(members)
            print(f"{split}: {count} pairs of {len(members)} photographs: {names}")
        made = write_dataset(originals, settings, args.out, args.workers)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on", 130)
    except BrokenProcessPool:
        return _failed("a process was killed, perhaps for want of memory; the same command goes on", 1)
    seconds = time.perf_counter() - start
    print(f"made {made} pairs in {seconds:.0f} s, {made / seconds:.1f} a second")
    print(f"use them as sdd:{args.out}")
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"{PROGRAM} synthesize: error: {reason}", file=sys.stderr)
    return status
