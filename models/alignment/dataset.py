"""Pairs in files aligned in parallel, each once, and gone on with after an interruption.

    OUT/train_patches/
        blur/, gt/          the pictures of the pairs, as links to where they are
        aligned/            the sharp pictures warped to the blurry ones, PNG of 16 bits
        confidence/         0 … 1, floating-point TIFF
        blur_radius/        RMS radius in pixels, floating-point TIFF
        flow/               x and y in pixels, floating-point TIFF
        alignment/          NAME.json: by which settings, and of which contents

OUT/.alignment.lock is held while a call is at work. It is the layout `sdd`, so that `sdd:OUT` with
`data.target=aligned` trains on it without any flow.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ..core.config import to_dict
from ..core.files import alone_in, clear_parts, replacing
from ..core.parallel import processes
from ..data import images
from ..data.images import Array, Encoding
from ..data.pairs import DataError, Pair
from .pair import REVISION, AlignmentSettings, align_pair

FOLDERS = ("blur", "gt", "aligned", "confidence", "blur_radius", "flow", "alignment")


def align_dataset(pairs: Sequence[Pair], settings: AlignmentSettings, out: Path, workers: int = 1) -> int:
    """Align the pairs that are not there yet, with a progress bar; how many that were.

    A pair is there if it was aligned by the same settings and method, and of the same contents. Killed at any moment,
    the same call goes on.

    Args:
        workers: processes.

    Raises:
        DataError: two pairs have one name, or pictures do not decode; UserError: another call is at it; OSError: it
            cannot be written.
    """
    names = [file_name(pair) for pair in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError([f"{name} is the name of several pairs: align their sources apart" for name in repeated])
    root = out / "train_patches"
    tasks = [(pair, settings, root) for pair in pairs]
    made = 0
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out, "alignment"):
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
            clear_parts(root / folder)
        with processes(workers) as call:
            results = call(align_file, tasks)
            for fresh in tqdm(results, "aligning", len(tasks), unit="pair"):
                made += fresh
    return made


def other_pairs(pairs: Sequence[Pair], out: Path) -> list[str]:
    """The names of pairs that earlier calls have aligned in `out`, beside these: the layout holds them, too."""
    known = {file_name(pair) for pair in pairs}
    return sorted({path.stem for path in (out / "train_patches" / "alignment").glob("*.json")} - known)


def file_name(pair: Pair) -> str:
    """The name of a pair's files, without folders."""
    return pair.name.replace("/", "-")


def align_file(pair: Pair, settings: AlignmentSettings, root: Path) -> bool:
    """Align one pair and write what is found, unless that is there; whether it was not."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # there are as many processes as processors
    name = file_name(pair)
    record = root / "alignment" / f"{name}.json"
    key = _key(pair, settings)
    if _is_there(record, key, name, root):
        return False
    blurry, sharp = (images.read(path).pixels.clip(0, 1) for path in (pair.blurry, pair.sharp))
    if blurry.shape != sharp.shape:
        raise DataError([f"{pair.blurry} and {pair.sharp} differ in size"])
    one, other = (torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous() for picture in (blurry, sharp))
    found = align_pair(one, other, settings)
    for folder, path in (("blur", pair.blurry), ("gt", pair.sharp)):
        _link(root / folder / f"{name}{path.suffix.lower()}", path)
    images.write(root / "aligned" / f"{name}.png", _picture(found.aligned), Encoding(16))
    for folder in ("confidence", "blur_radius", "flow"):
        images.write_map(root / folder / f"{name}.tif", _picture(getattr(found, folder)).squeeze())
    trusted = float(found.confidence.mean())
    text = {"key": key, "settings": to_dict(settings), "blurry": str(pair.blurry), "sharp": str(pair.sharp)}
    with replacing(record) as file:  # the last, so that what it vouches for is there
        file.write(json.dumps({**text, "mean_confidence": trusted}, indent=2).encode() + b"\n")
    return True


def _key(pair: Pair, settings: AlignmentSettings) -> str:
    digest = hashlib.sha256(json.dumps([REVISION, to_dict(settings)]).encode())
    for path in (pair.blurry, pair.sharp):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _is_there(record: Path, key: str, name: str, root: Path) -> bool:
    try:
        known = json.loads(record.read_text())["key"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return False
    files = [root / "aligned" / f"{name}.png"]
    files += [root / folder / f"{name}.tif" for folder in ("confidence", "blur_radius", "flow")]
    return bool(known) and all(path.exists() for path in files)


def _link(link: Path, target: Path) -> None:
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target.resolve())
    os.replace(part, link)


def _picture(tensor: torch.Tensor) -> Array:
    """(H, W, C) of (1, C, H, W)."""
    return tensor[0].permute(1, 2, 0).contiguous().numpy()
