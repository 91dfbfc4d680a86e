"""Layouts: the folders in which data sets come, and the pairs of pictures in them.

A source of pairs is named `LAYOUT:DIR`, or `LAYOUT/SPLIT:DIR` for another split than the one that a task takes by
itself: `sdd:data/SDD`, `dpdd/val:data/DPDD`, `folders:shots/blurry,shots/sharp`.
"""

import math
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import images
from .matching import Matcher, file_key, match_identifiers, match_names, match_names_or_order, match_order, match_scenes
from .pairs import TRUTHS, DataError, Pair, check_pairs, median_likeness

SPLITS = ("train", "val", "test")
UNRELATED = 0.5  # likeness of shrunk pictures below which they are hardly of one scene


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
        quotes = 'within a list it needs quotes: ["folders:BLURRY,SHARP"]'
        raise DataError([f"the layout folders takes two, folders:BLURRY,SHARP, got {text!r}; {quotes}"])
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
            f"their likeness is {math.floor(100 * likeness) / 100:.2f}, and at least {UNRELATED} is usual. "
            "Do their names pair?",
            stacklevel=2,
        )
    if not sources:
        problems.append(f"there must be a source of pairs, {NOTATION}")
    if problems:
        raise DataError(problems)
    return pairs


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
            files = {file_key(path): path for path in folder.iterdir() if path.suffix.lower() in suffixes}
            if name_of_pair in files:
                found[name] = files[name_of_pair]
            else:
                problems.append(f"{pair.blurry} has no partner in {folder}")
    return Pair(pair.name, pair.blurry, pair.sharp, **found)
