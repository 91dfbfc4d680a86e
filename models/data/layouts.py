"""Pairs of pictures, found in the folders in which data sets come.

A source of pairs is named `LAYOUT:DIR`, or `LAYOUT/SPLIT:DIR` for another split than the one that a task takes by
itself: `sdd:data/SDD`, `dpdd/val:data/DPDD`, `folders:shots/blurry,shots/sharp`.
"""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..core.errors import UserError
from . import images
from .images import ImageError

SPLITS = ("train", "val", "test")
UNRELATED = 0.5  # likeness of shrunk pictures below which they are hardly of one scene
TRUTHS = ("aligned", "blur_radius", "flow", "confidence")


class DataError(UserError):
    """All problems of the data.

    Attributes:
        problems: one line each, with the names of the files.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        # A text: so PyTorch's loader raises it again that met it in a worker.
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        count = len(self.problems)
        head = "the data cannot be used" if count == 1 else f"the data cannot be used: {count} problems"
        super().__init__("\n  ".join([f"{head}:", *self.problems]) if count > 1 else f"{head}: {self.problems[0]}")

    def __reduce__(self) -> tuple[type["DataError"], tuple[list[str]]]:  # from one process to another
        return DataError, (self.problems,)


@dataclass(frozen=True)
class Pair:
    """Two pictures of one scene, of one size, not necessarily aligned, and where it is known, the truth about them.

    Attributes:
        name: unique within its source.
        blurry, sharp: files.
        aligned: the sharp picture, lined up with the blurry one.
        blur_radius: a map, (H, W), the RMS radius of the blur in pixels, as `reblur_ops.blur_radius`; a disk of radius
            c has c/√2.
        confidence: a map, (H, W), 0 … 1, of how far `aligned` can be trusted where it was not known but found.
        flow: a map, (H, W, 2), x and y in pixels: `sharp` at p + flow(p) shows what `blurry` and `aligned` show at p.
    """

    name: str
    blurry: Path
    sharp: Path
    aligned: Path | None = None
    blur_radius: Path | None = None
    flow: Path | None = None
    confidence: Path | None = None

    @property
    def truth(self) -> dict[str, Path]:
        """The files of TRUTHS that there are."""
        files = {name: getattr(self, name) for name in TRUTHS}
        return {name: path for name, path in files.items() if path}


@dataclass(frozen=True)
class Source:
    """A source of pairs, as written in `LAYOUT[/SPLIT]:DIR`.

    Attributes:
        layout: a key of LAYOUTS, or PHOTOGRAPHS.
        folders: one, or two for the layout `folders`.
        split: of SPLITS, or None where none was written.
    """

    layout: str
    folders: tuple[Path, ...]
    split: str | None = None

    def __str__(self) -> str:
        layout = self.layout if self.split is None else f"{self.layout}/{self.split}"
        return f"{layout}:{','.join(map(str, self.folders))}"


@dataclass
class Matches:
    """The files that pair, and the problems of those that do not."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


# From the folder of the blurry pictures and that of the sharp ones.
Matcher = Callable[[Path, Path], Matches]


def match_names(blurry: Path, sharp: Path) -> Matches:
    """Pictures of the same name, whatever their suffix."""
    matches = Matches()
    blurry_files, sharp_files = (_by_key(images.list_images(folder), _stem, matches) for folder in (blurry, sharp))
    for name, path in blurry_files.items():
        if name in sharp_files:
            matches.pairs.append(Pair(name, path, sharp_files[name]))
        else:
            matches.problems.append(f"{path} has no partner in {sharp}")
    for name in sharp_files.keys() - blurry_files.keys():
        matches.problems.append(f"{sharp_files[name]} has no partner in {blurry}")
    return matches


def match_order(blurry: Path, sharp: Path) -> Matches:
    """The first with the first, in the order of their names, and so on; numbers in names count as such: 2 before 10."""
    blurry_files, sharp_files = (sorted(images.list_images(folder), key=_natural) for folder in (blurry, sharp))
    if len(blurry_files) != len(sharp_files):
        counts = f"{blurry} has {len(blurry_files)} pictures and {sharp} has {len(sharp_files)}"
        return Matches(problems=[f"{counts}: they pair in the order of their names, so there must be as many"])
    pairs = [Pair(first.stem, first, second) for first, second in zip(blurry_files, sharp_files, strict=True)]
    return Matches(pairs)


def match_names_or_order(blurry: Path, sharp: Path) -> Matches:
    """By name, but in order where no name is on both sides."""
    names = [{_stem(path) for path in images.list_images(folder)} for folder in (blurry, sharp)]
    return match_order(blurry, sharp) if names[0].isdisjoint(names[1]) else match_names(blurry, sharp)


def match_scenes(blurry: Path, sharp: Path) -> Matches:
    """A folder of blurry pictures for each sharp one, of its name."""
    matches = Matches()
    scenes = {folder.name: folder for folder in sorted(blurry.iterdir()) if folder.is_dir()}
    sharp_files = _by_key(images.list_images(sharp), _stem, matches)
    for name, folder in scenes.items():
        if name in sharp_files:
            pictures = _by_key(images.list_images(folder), _stem, matches)
            if not pictures:
                matches.problems.append(f"{folder} holds no pictures")
            matches.pairs += [Pair(f"{name}/{stem}", path, sharp_files[name]) for stem, path in pictures.items()]
        else:
            matches.problems.append(f"{folder} has no partner in {sharp}")
    for name in sharp_files.keys() - scenes.keys():
        matches.problems.append(f"{sharp_files[name]} has no partner in {blurry}")
    return matches


def match_identifiers(blurry: Path, sharp: Path) -> Matches:
    """By what stands behind the last underscore of the names."""

    def identifier(path: Path) -> str:
        return path.stem.rpartition("_")[2]

    matches = Matches()
    blurry_files, sharp_files = (_by_key(images.list_images(folder), identifier, matches) for folder in (blurry, sharp))
    for key, path in blurry_files.items():
        if key in sharp_files:
            matches.pairs.append(Pair(path.stem, path, sharp_files[key]))
        else:
            matches.problems.append(f"{path} has no partner *_{key}.* in {sharp}")
    for key in sharp_files.keys() - blurry_files.keys():
        matches.problems.append(f"{sharp_files[key]} has no partner *_{key}.* in {blurry}")
    return matches


def _stem(path: Path) -> str:
    """The file's name without suffix, as Unicode composes it: file systems keep ä as one character or as two."""
    return unicodedata.normalize("NFC", path.stem)


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key to sort by in which numbers are numbers."""
    parts = re.split(r"(\d+)", _stem(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _by_key(paths: Iterable[Path], key: Callable[[Path], str], matches: Matches) -> dict[str, Path]:
    """The files by key; if several have one key, the first counts, and the others are problems."""
    files: dict[str, Path] = {}
    for path in paths:
        if (first := files.setdefault(key(path), path)) is not path:
            matches.problems.append(f"{path} is in the place of {first}: only one can be paired")
    return files


@dataclass(frozen=True)
class Layout:
    """The places of the images of a data set.

    Attributes:
        summary: for people who choose one.
        match: how they pair.
        folders: pairs of folders, blurry and sharp, below DIR, for each split; the first that exists counts.
        truth: whether folders of TRUTHS may lie beside the blurry one, files with the same names.
    """

    summary: str
    match: Matcher
    folders: dict[str, tuple[tuple[str, str], ...]]
    truth: bool = False


def _split_folders(
    *patterns: tuple[str, str], splits: Sequence[str] = SPLITS
) -> dict[str, tuple[tuple[str, str], ...]]:
    """For each split the patterns with its name for `{}`."""
    return {split: tuple((blurry.format(split), sharp.format(split)) for blurry, sharp in patterns) for split in splits}


LAYOUTS = {
    "sdd": Layout(
        "SDD, and what `synthesize` writes: train_patches/{blur,gt}, test/{blur,gt}, same names",
        match_names,
        {
            "train": (("train_patches/blur", "train_patches/gt"),),
            "test": (("test/blur", "test/gt"),),
        },
        truth=True,
    ),
    "dpdd": Layout(
        "DPDD as distributed: dd_dp_dataset_png/{train,val,test}_c/{source,target}, paired in sorted order",
        match_order,
        _split_folders(
            ("dd_dp_dataset_png/{}_c/source", "dd_dp_dataset_png/{}_c/target"), ("{}_c/source", "{}_c/target")
        ),
    ),
    "dpdd-repacked": Layout(
        "DPDD re-packed: [DPDD/]{train,val,test}_c/{source,target}, [DPDD/]{train,val,test}/{inputC,target}, or, "
        "without splits, [DPDD/]{inputC,target}; same names, or paired in sorted order",
        match_names_or_order,
        _split_folders(
            ("DPDD/{}_c/source", "DPDD/{}_c/target"),
            ("{}_c/source", "{}_c/target"),
            ("DPDD/{}/inputC", "DPDD/{}/target"),
            ("{}/DPDD/inputC", "{}/DPDD/target"),
            ("{}/inputC", "{}/target"),
            ("DPDD/inputC", "DPDD/target"),
            ("inputC", "target"),
        ),
    ),
    "realdof": Layout(
        "RealDOF: {source,target}, no splits; same names, or paired in sorted order",
        match_names_or_order,
        _split_folders(("source", "target"), ("RealDOF/source", "RealDOF/target")),
    ),
    "lfdof": Layout(
        "LFDOF: input/IMG_x/*.png with ground_truth/IMG_x.png, in {train,test}_data/ or without splits",
        match_scenes,
        _split_folders(("{}_data/input", "{}_data/ground_truth"), ("input", "ground_truth")),
    ),
    "ded": Layout(
        "DED: image/image_ID.jpg with sharp/*_ID.jpg, in {train,val,test}/ or without splits",
        match_identifiers,
        _split_folders(("{}/image", "{}/sharp"), ("image", "sharp")),
    ),
    "folders": Layout("two folders, folders:BLURRY,SHARP, no splits; same names", match_names, {}),
}

NOTATION = "LAYOUT:DIR or LAYOUT/SPLIT:DIR"
PHOTOGRAPHS = "photographs"  # a source of sharp photographs, of which training makes its pairs by itself


def describe_layouts() -> str:
    """A line for each layout, for help texts."""
    return "\n".join(f"{name}: {layout.summary}" for name, layout in LAYOUTS.items())


def parse_source(text: str) -> Source:
    """The source of `LAYOUT[/SPLIT]:DIR`, not yet looked for.

    Raises:
        DataError: it is no such notation.
    """
    name, colon, folder = text.partition(":")
    layout, slash, split = name.partition("/")
    if not colon or not folder:
        raise DataError([f"a source of pairs is {NOTATION}, got {text!r}"])
    if layout == PHOTOGRAPHS and not slash:
        return Source(layout, (Path(folder).expanduser(),))
    if layout not in LAYOUTS:
        raise DataError([f"LAYOUT must be one of {', '.join(LAYOUTS)}, got {layout!r} in {text!r}"])
    splits = LAYOUTS[layout].folders
    if slash and split not in splits:
        expected = f"SPLIT must be one of {', '.join(splits)}" if splits else f"{layout} has no splits"
        raise DataError([f"{expected}, got {split!r} in {text!r}"])
    folders = tuple(Path(part).expanduser() for part in (folder.split(",") if layout == "folders" else [folder]))
    if layout == "folders" and len(folders) != 2:
        raise DataError([f"the layout folders takes two, folders:BLURRY,SHARP, got {text!r}"])
    return Source(layout, folders, split or None)


def load_pairs(
    sources: Sequence[str], split: str, smallest: int = 1, truth: bool = False, decode: bool = False
) -> list[Pair]:
    """The pairs of all sources, in the order of sources and names, fit for use.

    Args:
        sources: `LAYOUT[/SPLIT]:DIR` each.
        split: for those that name none: train, val or test. Where the data has no splits, it is all of it.
        smallest: height and width that the pictures must have, pixels: the size of crops. Smaller ones are refused and
            not padded, since a network would learn from the padding.
        truth: whether the files of the truth are checked too.
        decode: whether files are decoded whole, which takes long, and not only their heads.

    Raises:
        DataError: with all there is to say: what is missing, does not pair, does not decode, differs in size, is small.
    """
    pairs: list[Pair] = []
    problems: list[str] = []
    for text in sources:
        try:
            pairs += find_pairs(parse_source(text), split)
        except DataError as error:
            problems += error.problems
    problems += check_pairs(pairs, smallest, truth, decode)
    if pairs and not problems and (likeness := median_likeness(pairs)) < UNRELATED:
        warnings.warn(
            f"the pairs of {', '.join(sources)} look unrelated, as {pairs[0].blurry} with {pairs[0].sharp}: "
            f"their likeness is {likeness:.2f}, and at least {UNRELATED} is usual. Do their names pair?",
            stacklevel=2,
        )
    if not sources:
        problems.append(f"there must be a source of pairs, {NOTATION}")
    if problems:
        raise DataError(problems)
    return pairs


def median_likeness(pairs: Sequence[Pair], count: int = 8, size: int = 16) -> float:
    """The correlation of the two pictures of a pair, shrunk to a few pixels: the median over some of the pairs."""
    chosen = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)]
    likenesses = []
    for pair in chosen:
        try:
            pictures = [images.read(path).pixels.clip(0, 1).mean(axis=2) for path in (pair.blurry, pair.sharp)]
        except ImageError:  # whoever decodes it tells
            continue
        small = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).ravel() for picture in pictures]
        if all(float(part.std()) > 0.01 for part in small):  # else there is nothing to compare
            likenesses.append(float(np.corrcoef(*small)[0, 1]))
    return float(np.median(likenesses)) if likenesses else 1.0


def find_pairs(source: Source, split: str) -> list[Pair]:
    """The pairs of a source, in the order of their names. Nothing is opened.

    Raises:
        DataError: folders are missing, or something does not pair; says what, all of it.
    """
    if source.layout == PHOTOGRAPHS:
        raise DataError([f"{source} names photographs, of which only training makes pairs; pairs are {NOTATION}"])
    layout = LAYOUTS[source.layout]
    blurry, sharp = _folders(source, source.split or split)
    if blurry.resolve() == sharp.resolve():
        raise DataError([f"{source}: blurry and sharp pictures must lie in two folders, got {blurry} for both"])
    try:
        matches = layout.match(blurry, sharp)
    except OSError as error:
        raise DataError([f"{error.filename} cannot be read: {error.strerror}"]) from error
    if not matches.pairs and not matches.problems:
        matches.problems.append(f"{blurry} holds no pictures")
    if layout.truth:
        matches.pairs = [_with_truth(pair, matches.problems) for pair in matches.pairs]
    if matches.problems:
        raise DataError(sorted(matches.problems))
    return matches.pairs


def _folders(source: Source, split: str) -> tuple[Path, Path]:
    if source.layout == "folders":
        blurry, sharp = source.folders
        return blurry, sharp
    root = source.folders[0]
    splits = LAYOUTS[source.layout].folders
    if split not in splits:
        raise DataError([f"{source}: {source.layout} has the splits {', '.join(splits)}, and no {split}"])
    if not root.is_dir():
        raise DataError([f"{source}: {root} is not a folder"])
    candidates = splits[split]
    for names in candidates:
        blurry, sharp = (root / name for name in names)
        if blurry.is_dir() and sharp.is_dir():
            return blurry, sharp
    expected = ", or ".join(" with ".join(names) for names in candidates)
    raise DataError([f"{source}: in {root} there must be {expected}"])


def _with_truth(pair: Pair, problems: list[str]) -> Pair:
    """The pair with the files of the truth that lie beside; a folder of them must have one for each pair."""
    found = {}
    for name in TRUTHS:
        folder = pair.blurry.parent.parent / name
        suffixes = images.SUFFIXES if name == "aligned" else (".tif", ".tiff")
        if folder.is_dir():
            name_of_pair = unicodedata.normalize("NFC", pair.name)
            files = {_stem(path): path for path in folder.iterdir() if path.suffix.lower() in suffixes}
            if name_of_pair in files:
                found[name] = files[name_of_pair]
            else:
                problems.append(f"{pair.blurry} has no partner in {folder}")
    return Pair(pair.name, pair.blurry, pair.sharp, **found)


def check_pairs(
    pairs: Sequence[Pair], smallest: int = 1, truth: bool = False, decode: bool = False, threads: int = 8
) -> list[str]:
    """The problems of the files of pairs, a line each, in the order of pairs; see `load_pairs`."""
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda pair: _problems_of(pair, smallest, truth, decode), pairs)
        # Only what takes more than a few seconds shows a bar.
        problems = [line for lines in tqdm(found, "checking pairs", len(pairs), unit="pair", delay=3) for line in lines]
    # A file may belong to several pairs.
    return list(Counter(problems))


def _problems_of(pair: Pair, smallest: int, truth: bool, decode: bool) -> list[str]:
    problems = []
    sizes = {}
    for path in [pair.blurry, pair.sharp, *(pair.truth.values() if truth else ())]:
        try:
            sizes[path] = images.read_size(path)
            if decode and path in (pair.blur_radius, pair.flow, pair.confidence):
                images.read_map(path)
            elif decode:
                images.read(path)
        except ImageError as error:
            problems.append(str(error))
    expected = sizes.get(pair.blurry)
    for path, size in sizes.items():
        if expected and size != expected:
            problems.append(f"{path} is {_spelt(size)} pixels, and {pair.blurry} is {_spelt(expected)}")
        elif min(size) < smallest:
            problems.append(f"{path} is {_spelt(size)} pixels, and must have {smallest} each way, the size of crops")
    return problems


def _spelt(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} × {height}"


def hold_out(pairs: Sequence[Pair], fraction: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on, and the last ones, held apart to validate on: at least one of each.

    They are cut in their order, so that of photographs cut into patches, whose names follow each other, at most one has
    patches on both sides.

    Args:
        fraction: the part to hold apart, between 0 and 1.
    """
    if len(pairs) < 2 or not 0 < fraction < 1:
        raise ValueError(
            f"a fraction between 0 and 1 of at least 2 pairs is held apart, got {fraction} of {len(pairs)}"
        )
    held = min(max(round(fraction * len(pairs)), 1), len(pairs) - 1)
    return list(pairs[:-held]), list(pairs[-held:])
