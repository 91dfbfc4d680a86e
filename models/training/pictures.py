"""A picture of how training goes: a row for each of a few validation pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..data import images
from ..data.pairs import Pair
from ..data.samples import WholePairs
from ..flow import flow_colours
from ..framework import Framework
from ..reporting.pictures import Picture, blank, coloured, put_text, to_bytes
from ..synthesis.defocus import Array
from .objective import Objective, Outcome
from .validation import evaluation_mode

HEADS = ("blurry", "deblurred", "target, warped", "mask", "reblurred", "blur radius", "flow")
LARGEST = 320  # height and width of a tile, pixels
HEAD = 26  # height of the captions, pixels
GAP = 4


@torch.no_grad()
def draw(objective: Objective, pairs: Sequence[Pair], target: str, device: torch.device) -> Picture:
    """The middle of each pair as the second stage sees it: HEADS from left to right; what there is not is grey.

    The blur radius is RMS, in colour from 0 to the largest of the radii; the flow as the Middlebury pages draw it.

    Args:
        objective: without changing anything in it.
        target: "sharp" or "aligned".

    Returns:
        (H, W, 3), uint8, RGB.
    """
    samples = WholePairs(pairs)
    rows = []
    with evaluation_mode(objective.framework):
        for number in range(len(samples)):
            sample: Any = samples[number]
            blurry, sharp = (_middle(sample[name])[None].to(device) for name in ("blurry", target))
            outcome = objective(blurry, sharp, "joint")
            rows.append(_row(blurry, outcome, _largest_radius(objective.framework)))
    width = max(row.shape[1] for row in rows)
    rows = [np.hstack([row, blank(row.shape[0], width - row.shape[1])]) for row in rows]
    return np.vstack([_captions(width), *rows])


def _largest_radius(framework: Framework) -> float:
    """The largest radius that reblurring can find, RMS pixels; 1 without a reblurring network."""
    return 1.0 if framework.reblur is None else float(framework.reblur.largest_radius)


def write(path: Path, picture: Picture) -> None:
    """Write a PNG, whole or not at all."""
    images.write(path, picture.astype(np.float32) / np.float32(255))


def _row(blurry: Tensor, outcome: Outcome, largest_radius: float) -> Picture:
    mask = torch.ones_like(blurry) if outcome.mask is None else outcome.mask.expand_as(blurry)
    reblurred = radius = None
    if outcome.reblurred is not None:
        reblurred = outcome.reblurred.image
        radius = coloured(_array(outcome.reblurred.radius)[..., 0], largest_radius, cv2.COLORMAP_TURBO)
    flow = None if outcome.flow is None else flow_colours(outcome.flow)[0].permute(1, 2, 0).cpu().numpy()
    pictures = [
        *(None if part is None else to_bytes(_array(part)) for part in (blurry, outcome.deblurred)),
        *(None if part is None else to_bytes(_array(part)) for part in (outcome.warped_sharp, mask, reblurred)),
        radius,
        flow,
    ]
    height, width = blurry.shape[2:]
    grey = np.full((height, width, 3), 128, np.uint8)
    gap = ((0, GAP), (0, GAP), (0, 0))
    tiles = [np.pad(grey if picture is None else picture, gap, constant_values=255) for picture in pictures]
    return np.hstack(tiles)


def _captions(width: int) -> Picture:
    head = blank(HEAD, width)
    for index, caption in enumerate(HEADS):
        put_text(head, caption, index * width // len(HEADS) + 2, HEAD - 8, 0.45)
    return head


def _middle(image: Tensor) -> Tensor:
    height, width = (min(extent, LARGEST) for extent in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]


def _array(image: Tensor) -> Array:
    """(H, W, C) of (1, C, H, W)."""
    return np.asarray(image[0].permute(1, 2, 0).float().cpu().numpy(), np.float32)
