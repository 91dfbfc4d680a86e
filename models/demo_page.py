"""The demonstration's pictures, and the page that shows them."""

import json
from pathlib import Path
from string import Template, ascii_uppercase
from typing import NamedTuple

import cv2
import numpy as np

from models import page
from models.defocus import Array, disk_kernel
from models.pictures import (
    INK,
    WHITE,
    Picture,
    blank,
    coloured,
    magnification,
    magnified,
    put_text,
    radius_picture,
    to_bytes,
    write_picture,
)

DIFFERENCE_GAIN = 10


class Recovery(NamedTuple):
    """What was given and what was found.

    Pictures are (H, W, 3), sRGB, 0 … 1; radii (H, W), RMS, pixels; kernels (P, 2R+1, 2R+1), at P pixels (y, x).
    """

    sharp: Array
    defocused: Array
    reblurred: Array
    radius: Array
    true_radius: Array
    pixels: list[tuple[int, int]]
    kernels: Array


class Scores(NamedTuple):
    """The numbers of one run."""

    psnr_before_db: float
    psnr_after_db: float
    radius_correlation: float
    radius_mean_absolute_error_px: float
    radius_median_absolute_error_px: float
    width: int
    height: int
    steps: int
    seed: int
    device: str
    seconds: float


def write(out: Path, recovery: Recovery, scores: Scores) -> Path:
    """Write the pictures, `scores.json`, and `index.html` with the pictures in it, into a folder that exists.

    Returns:
        The path of the page.
    """
    largest = float(np.ceil(recovery.true_radius.max()))
    pictures = {
        "sharp": to_bytes(recovery.sharp),
        "defocused": to_bytes(recovery.defocused),
        "reblurred": to_bytes(recovery.reblurred),
        "difference": to_bytes(DIFFERENCE_GAIN * np.abs(recovery.reblurred - recovery.defocused)),
        "radius_recovered": radius_picture(recovery.radius, largest),
        "radius_true": radius_picture(recovery.true_radius, largest),
        "marks": marked(to_bytes(recovery.defocused), recovery.pixels),
    }
    kernels = {
        f"kernel_{letter}": kernel_picture(letter, kernel, recovery.radius[pixel], recovery.true_radius[pixel])
        for letter, pixel, kernel in zip(ascii_uppercase, recovery.pixels, recovery.kernels, strict=False)
    }

    for name, picture in (pictures | kernels).items():
        write_picture(out / f"{name}.png", picture)
    (out / "scores.json").write_text(json.dumps(scores._asdict(), indent=2) + "\n", encoding="utf-8")

    path = out / "index.html"
    page.write(path, "Recovering the blur of a photograph", _body(pictures, kernels, scores))
    return path


def _body(pictures: dict[str, Picture], kernels: dict[str, Picture], scores: Scores) -> str:
    numbers = {
        "PSNR, sharp to defocused": f"{scores.psnr_before_db:.2f} dB",
        "PSNR, reblurred to defocused": f"{scores.psnr_after_db:.2f} dB",
        "correlation of the recovered blur radius with the true one": f"{scores.radius_correlation:.3f}",
        f"mean error of the recovered blur radius (median {scores.radius_median_absolute_error_px:.3f} px)": (
            f"{scores.radius_mean_absolute_error_px:.3f} px"
        ),
    }
    figures = {
        "radius_recovered": ("Recovered: <code>reblur_ops.blur_radius</code> of the maps", "the recovered blur radius"),
        "radius_true": ("True: the lens’s circle of confusion, as an RMS radius", "the true blur radius"),
        "difference": (f"|reblurred − defocused|, {DIFFERENCE_GAIN} times as bright", "the difference of the two"),
    }
    wiped = {name: pictures[name] for name in ("sharp", "defocused", "reblurred")}
    choices = [("sharp", "defocused"), ("defocused", "reblurred"), ("sharp", "reblurred")]
    return Template(Path(__file__).with_name("demo.html").read_text(encoding="utf-8")).substitute(
        scores._asdict() | {"seconds": f"{scores.seconds:.0f}"},
        numbers=page.numbers(numbers),
        comparison=page.comparison(wiped, choices),
        marks=page.image(pictures["marks"], "The photograph with the places of the kernels"),
        kernels="\n".join(
            page.image(picture, f"Kernel {name[-1]}, recovered and true") for name, picture in kernels.items()
        ),
        **{name: page.figure(pictures[name], caption, f"Map of {alt}") for name, (caption, alt) in figures.items()},
    )


def marked(picture: Picture, pixels: list[tuple[int, int]]) -> Picture:
    """The picture with a lettered ring around each pixel (y, x)."""
    times = magnification(picture)
    result = magnified(picture, times)
    for letter, pixel in zip(ascii_uppercase, pixels, strict=False):
        y, x = (times * coordinate + times // 2 for coordinate in pixel)
        for colour, thickness in ((INK, 5), (WHITE, 2)):
            cv2.circle(result, (x, y), 9, colour, thickness, cv2.LINE_AA)
            cv2.putText(result, letter, (x + 14, y + 8), cv2.FONT_HERSHEY_SIMPLEX, 0.8, colour, thickness, cv2.LINE_AA)
    return result


def kernel_picture(letter: str, kernel: Array, radius: float, true_radius: float) -> Picture:
    """A recovered kernel, (2R+1, 2R+1), beside the disk of the lens, enlarged, on one scale of brightness from 0."""
    disk = disk_kernel(float(true_radius) * 2**0.5)
    disk = np.pad(disk, (kernel.shape[0] - disk.shape[0]) // 2)
    brightest = float(max(kernel.max(), disk.max()))
    tiles = []
    for caption, values in ((f"recovered {radius:.2f} px", kernel), (f"true {true_radius:.2f} px", disk)):
        tile = magnified(coloured(values, brightest, cv2.COLORMAP_INFERNO), 16)
        head = blank(32, tile.shape[1])
        put_text(head, caption, 2, 22, 0.65)
        tiles.append(np.vstack([head, tile]))
    height = tiles[0].shape[0]
    margin = blank(height, 32)
    put_text(margin, letter, 8, 24, 0.9)
    return np.hstack([margin, tiles[0], blank(height, 12), tiles[1]])
