"""Pictures to look at: numbers in colour with their scale, pictures side by side, lettering."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core.files import replacing
from ..data.images import Array

Picture = NDArray[np.uint8]  # (H, W, 3), RGB

INK = (32, 32, 32)
WHITE = (255, 255, 255)
# Pixels of height for which lettering is made; for taller pictures it grows with them.
LETTERING_HEIGHT = 480


def to_bytes(picture: Array) -> Picture:
    """0 … 255 of 0 … 1, rounded; what is beyond is clipped. Any shape."""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def encoded(picture: Picture, extension: str) -> bytes:
    """The picture as a file, ".png" or ".jpg"."""
    # As fast as OpenCV's default for PNG, which does not see that magnified pixels repeat: half the size.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3] if extension == ".png" else []
    return cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(encoded(picture, ".png"))


def coloured(values: Array, largest: float, colours: int) -> Picture:
    """(H, W), from 0 to `largest`, in an OpenCV colour map."""
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(to_bytes(values / largest), colours), cv2.COLOR_BGR2RGB), np.uint8)


def blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), WHITE, np.uint8)


def magnification(picture: Array | Picture) -> int:
    """The factor by which a picture must grow for lettering to fit: 1 for the whole photograph."""
    return max(1, round(LETTERING_HEIGHT / picture.shape[0]))


def magnified(picture: Picture, times: int) -> Picture:
    """A copy in which each pixel is a square of times × times."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def put_text(picture: Picture, text: str, x: int, y: int, scale: float) -> None:
    """Write into the picture, in ASCII; (x, y) is the lower left corner of the text."""
    thickness = max(1, round(scale))
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, thickness, cv2.LINE_AA)


def radius_picture(radius: Array, largest: float) -> Picture:
    """Blur radii, (H, W), in colour, from 0 to `largest` pixels, with the scale at their right."""
    colours = magnified(coloured(radius, largest, cv2.COLORMAP_TURBO), magnification(radius))
    height = colours.shape[0]
    size = max(1.0, height / LETTERING_HEIGHT)
    levels = np.linspace(largest, 0, height, dtype=np.float32)[:, None]
    scale = coloured(np.tile(levels, (1, round(24 * size))), largest, cv2.COLORMAP_TURBO)
    labels = blank(height, round(76 * size))
    for value in range(int(largest) + 1):
        y = round((1 - value / largest) * (height - 1))
        cv2.line(labels, (0, y), (round(6 * size), y), INK, round(size))
        bottom = min(max(y + round(8 * size), round(20 * size)), height - round(3 * size))
        put_text(labels, f"{value} px", round(11 * size), bottom, 0.75 * size)
    return np.hstack([colours, blank(height, round(12 * size)), scale, labels])


def largest_radius(radius: Array) -> float:
    """The radius at which the colours of a map end: a whole number of pixels, robust against a few outliers."""
    return float(max(1, math.ceil(np.percentile(radius, 99.9))))


def side_by_side(captions: Sequence[str], pictures: Sequence[Picture]) -> Picture:
    """Pictures of one height, each under its caption."""
    times = magnification(pictures[0])
    pictures = [magnified(picture, times) for picture in pictures]
    size = max(1.0, pictures[0].shape[0] / LETTERING_HEIGHT)
    gap = blank(pictures[0].shape[0] + round(32 * size), round(12 * size))
    columns = []
    for caption, picture in zip(captions, pictures, strict=True):
        head = blank(round(32 * size), picture.shape[1])
        put_text(head, caption, round(2 * size), round(22 * size), 0.65 * size)
        columns += [gap, np.vstack([head, picture])]
    return np.hstack(columns[1:])
