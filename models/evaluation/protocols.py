"""Protocols of evaluation: what is compared with what, and how an image is scored by each."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ..core.errors import UserError
from ..data import images
from ..data.images import Array
from ..data.pairs import DataError, Pair
from ..data.samples import Sample
from ..flow import Flow, load_flow
from ..inference.tiling import TiledFramework
from .metrics import (
    PROTOCOLS,
    Lpips,
    RadiusScore,
    Score,
    Shift,
    score,
    score_radius,
    shifted,
    warped,
)


def outputs_of(pairs: Sequence[Pair], folder: Path) -> dict[str, Path]:
    """Other people's pictures, named as the blurry ones, whatever their suffix.

    Raises:
        DataError: some are missing, do not decode or differ in size; says which.
    """
    found, problems = {}, []
    files = {
        str(path.relative_to(folder).with_suffix("")): path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".")
    }
    for pair in pairs:
        path = files.get(pair.name) or files.get(pair.blurry.stem)
        if path is None:
            problems.append(f"{folder} has no {pair.name}.png, nor with another suffix")
            continue
        try:
            size, needed = images.read_size(path), images.read_size(pair.blurry)
            if size != needed:
                problems.append(f"{path} is {size[1]} × {size[0]} pixels, and {pair.blurry} {needed[1]} × {needed[0]}")
        except images.ImageError as error:
            problems.append(str(error))
        found[pair.name] = path
    if problems:
        raise DataError(problems)
    return found


def score_picture(
    picture: Array, sample: Sample, protocols: Iterable[str], flow: Flow, lpips: Lpips | None
) -> tuple[dict[str, Score], Shift | None]:
    """The scores of a picture, (H, W, 3), by each protocol, and what the protocol `shift` found."""
    sharp = to_array(sample["sharp"])
    scores, shift = {}, None
    for protocol in protocols:
        one, target = picture, sharp
        if protocol == "aligned":
            target = to_array(sample["aligned"])
        elif protocol == "warped":
            one, target = warped(picture, sharp, flow)
        elif protocol == "shift":
            one, target, shift = shifted(picture, sharp)
        scores[protocol] = score(one, target, lpips)
    return scores, shift


def to_array(tensor: torch.Tensor) -> Array:
    """(H, W, C) of (C, H, W)."""
    return np.asarray(tensor.permute(1, 2, 0).numpy(), np.float32)


def choose_protocols(pairs: Sequence[Pair], wanted: Sequence[str] | None) -> list[str]:
    """The protocols to score by, in the order of PROTOCOLS, those asked for or all that can be.

    Raises:
        UserError: `aligned` was asked for, and not all pairs have that truth.
    """
    has_aligned = all(pair.aligned for pair in pairs)
    if wanted and "aligned" in wanted and not has_aligned:
        raise UserError(
            "the protocol aligned needs the aligned truth of all pairs, in folders aligned/ beside the others"
        )
    return [name for name in PROTOCOLS if (name in wanted if wanted else name != "aligned" or has_aligned)]


def make_flow(name: str, weights: Path | None) -> Flow:
    """The flow of the protocol `warped`.

    Raises:
        UserError: it needs weights that were not given, or is not installed.
    """
    if (name == "pwc") != (weights is not None):
        raise UserError("--flow pwc needs --flow-weights, and no other flow takes them")
    try:
        return load_flow(name, **({"weights": weights} if weights else {}))
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from error


def radius_score(framework: TiledFramework, picture: Array, sample: Sample) -> RadiusScore | None:
    """The score of the reblurring network's radius; None without such a network or the truth."""
    if "blur_radius" not in sample or framework.framework.reblur is None:
        return None
    deblurred = torch.from_numpy(picture).permute(2, 0, 1)
    radius = framework.blur_radius(deblurred, sample["blurry"])
    return score_radius(cast(Array, radius[0].numpy()), cast(Array, sample["blur_radius"][0].numpy()))
