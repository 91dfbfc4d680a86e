"""Photographs of a user: found, deblurred, and written."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.errors import UserError
from ..data import images
from ..data.images import Array, Encoding, ImageError
from ..reporting.pictures import largest_radius, radius_picture, side_by_side, to_bytes, write_picture
from .tiling import TiledFramework

# Of the PNG of blur radii: 16 bits end at 256 pixels, and rounding is far below what can be measured.
RADIUS_STEPS = 256


@dataclass(frozen=True)
class Outputs:
    """The files that are made of a photograph; None where one was not asked for."""

    deblurred: Path
    radius: Path | None = None
    radius_colours: Path | None = None
    side_by_side: Path | None = None

    @classmethod
    def of(cls, photograph: Path, folder: Path, blur_map: bool, beside: bool) -> "Outputs":
        def named(suffix: str, wanted: bool) -> Path | None:
            return folder / f"{photograph.stem}{suffix}" if wanted else None

        return cls(
            folder / photograph.name,
            named(".blur-radius.png", blur_map),
            named(".blur-radius-colours.png", blur_map),
            named(".side-by-side.png", beside),
        )

    @property
    def paths(self) -> list[Path]:
        """The files that were asked for."""
        every = (self.deblurred, self.radius, self.radius_colours, self.side_by_side)
        return [path for path in every if path is not None]


def find_photographs(inputs: Sequence[str]) -> list[Path]:
    """The files that paths, folders and patterns mean, each once, in their order.

    Of folders those that images have the suffixes of, without the folders in them.

    Raises:
        UserError: a path or a pattern that means nothing.
    """
    found: list[Path] = []
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = images.list_images(path)
        elif path.exists():
            files = [path]
        else:
            files = sorted(Path(match) for match in glob.glob(text, recursive=True) if Path(match).is_file())
        if not files:
            raise UserError(f"{text} holds no pictures" if path.is_dir() else f"{text} does not exist")
        found += files
    return list({_real(path): path for path in found}.values())


def _real(path: Path) -> Path:
    """The path without links. (`Path.resolve` raises where they lead round and round.)"""
    return Path(os.path.realpath(path))


def skipped(inputs: Sequence[str]) -> dict[str, int]:
    """Counts of files in the input folders, by suffix, that are not images; to report them."""
    counts: Counter[str] = Counter()
    for folder in (Path(text) for text in inputs if Path(text).is_dir()):
        for path in folder.iterdir():
            if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in images.SUFFIXES:
                counts[path.suffix.lower() or path.name] += 1
    return dict(sorted(counts.items()))


def plan(photographs: Sequence[Path], folder: Path, blur_map: bool, beside: bool) -> dict[Path, Outputs]:
    """The files to write for each photograph.

    Photographs of one name, of several folders, keep these: each goes into a folder of their name.

    Raises:
        UserError: two photographs would be written to one file, or one to where a photograph is.
    """
    homes: dict[str, set[Path]] = {}
    for path in photographs:
        homes.setdefault(path.stem, set()).add(_real(path.parent))
    outputs = {}
    for path in photographs:
        apart = len(homes[path.stem]) > 1
        into = folder / _real(path.parent).name if apart else folder
        outputs[path] = Outputs.of(path, into, blur_map, beside)
    sources = {_real(path): path for path in photographs}
    taken: dict[Path, Path] = {}
    for photograph, files in outputs.items():
        for path in files.paths:
            if _real(path) in sources:
                raise UserError(f"{path} is an input and would be overwritten: --out must be another folder")
            if (first := taken.setdefault(_real(path), photograph)) != photograph:
                raise UserError(f"{first} and {photograph} would both be written to {path}: deblur them separately")
    return outputs


def deblur_file(framework: TiledFramework, photograph: Path, outputs: Outputs, wanted: set[Path]) -> list[str]:
    """Deblur a photograph and write what is wanted of its outputs, each whole or not at all.

    Returns:
        What its user should know: what of its file is not carried over. A line each.

    Raises:
        ImageError: it does not decode, or its format is none that is written.
        UserError: the result is not finite, or there is too little memory.
        OSError: an output cannot be written.
    """
    if photograph.suffix.lower() not in images.SUFFIXES:
        raise ImageError(f"{photograph}: the suffix must be one of {', '.join(images.SUFFIXES)}")
    original = images.read(photograph)
    blurry = original.pixels
    np.clip(blurry, 0, 1, out=blurry)  # of floating point: what networks have learnt ends there
    image = torch.from_numpy(blurry).permute(2, 0, 1)
    deblurred = framework.deblur(image, str(photograph))
    pixels = np.asarray(deblurred.permute(1, 2, 0).numpy(), np.float32)
    notices = list(original.notices)
    if outputs.deblurred in wanted:
        notices += images.write(outputs.deblurred, pixels, original.encoding)
    radius = None
    if {outputs.radius, outputs.radius_colours} & wanted:
        radius = np.asarray(framework.blur_radius(deblurred, image)[0].numpy(), np.float32)
    if radius is not None and outputs.radius is not None and outputs.radius in wanted:
        _write_radius(outputs.radius, radius)
    if radius is not None and outputs.radius_colours is not None and outputs.radius_colours in wanted:
        write_picture(outputs.radius_colours, radius_picture(radius, largest_radius(radius)))
    if outputs.side_by_side is not None and outputs.side_by_side in wanted:
        pictures = side_by_side(["blurry", "deblurred"], [to_bytes(blurry), to_bytes(pixels)])
        write_picture(outputs.side_by_side, pictures)
    return notices


def _write_radius(path: Path, radius: Array) -> None:
    grey = np.broadcast_to(radius[..., None] * np.float32(RADIUS_STEPS / 65535), (*radius.shape, 3))
    images.write(path, grey, Encoding(16, grey=True))
