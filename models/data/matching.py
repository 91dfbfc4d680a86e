"""Matching: which of the blurry pictures of a folder pairs with which of the sharp ones of another."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import images
from .pairs import Pair


@dataclass
class Matches:
    """The files that pair, and the problems of those that do not."""

    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


# From the folder of the blurry pictures and that of the sharp ones.
Matcher = Callable[[Path, Path], Matches]


def match_names(blurry: Path, sharp: Path) -> Matches:
    """Pictures of the same name, whatever their suffix."""
    return _match_keys(blurry, sharp, file_key, lambda name: "no partner")


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
    names = [{file_key(path) for path in images.list_images(folder)} for folder in (blurry, sharp)]
    return match_order(blurry, sharp) if names[0].isdisjoint(names[1]) else match_names(blurry, sharp)


def match_scenes(blurry: Path, sharp: Path) -> Matches:
    """A folder of blurry pictures for each sharp one, of its name."""
    matches = Matches()
    scenes = {folder.name: folder for folder in sorted(blurry.iterdir()) if folder.is_dir()}
    sharp_files = _by_key(images.list_images(sharp), file_key, matches)
    for name, folder in scenes.items():
        if name in sharp_files:
            pictures = _by_key(images.list_images(folder), file_key, matches)
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
    return _match_keys(blurry, sharp, lambda path: path.stem.rpartition("_")[2], lambda key: f"no partner *_{key}.*")


def _match_keys(blurry: Path, sharp: Path, key: Callable[[Path], str], missing: Callable[[str], str]) -> Matches:
    """Pictures of the same key; what has none on the other side is a problem, in the words of `missing`."""
    matches = Matches()
    blurry_files, sharp_files = (_by_key(images.list_images(folder), key, matches) for folder in (blurry, sharp))
    for own, path in blurry_files.items():
        if own in sharp_files:
            matches.pairs.append(Pair(file_key(path), path, sharp_files[own]))
        else:
            matches.problems.append(f"{path} has {missing(own)} in {sharp}")
    for own in sharp_files.keys() - blurry_files.keys():
        matches.problems.append(f"{sharp_files[own]} has {missing(own)} in {blurry}")
    return matches


def file_key(path: Path) -> str:
    """The file's name without suffix, as Unicode composes it: file systems keep ä as one character or as two."""
    return unicodedata.normalize("NFC", path.stem)


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key to sort by in which numbers are numbers."""
    parts = re.split(r"(\d+)", file_key(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _by_key(paths: Iterable[Path], key: Callable[[Path], str], matches: Matches) -> dict[str, Path]:
    """The files by key; if several have one key, the first counts, and the others are problems."""
    files: dict[str, Path] = {}
    for path in paths:
        if (first := files.setdefault(key(path), path)) is not path:
            matches.problems.append(f"{path} is in the place of {first}: only one can be paired")
    return files
