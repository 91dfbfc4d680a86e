"""What does a framework gain on photographs blurred, coded and disturbed in known ways?

    python -m benchmarks.degradations [--checkpoint C]

Twelve crops of photographs that the checkpoint in the box has not been trained on. Blur is computed in linear light by
kernels drawn here, without this project's operator. Writes results/degradations.json and .md.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from tqdm import tqdm

from benchmarks import harness
from models.checkpoints.load import load_framework
from models.evaluation.metrics import score
from models.inference.scales import HALVINGS
from models.inference.tiling import TiledFramework
from models.synthesis.defocus import Array, disk_kernel, to_linear, to_srgb

CROP = 192
PHOTOGRAPHS = ("astronaut", "coffee")
PLACES = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))  # of six crops, in rows and columns


@dataclass
class Row:
    """One degradation: means over the crops."""

    degradation: str
    psnr_degraded: float  # dB, to the sharp crop
    psnr_deblurred: float
    gain: float  # dB
    worst: float  # dB: the smallest gain of a crop
    ssim_gain: float
    brightness: float  # difference of the deblurred crop's mean to the sharp one's, levels of 255, at most


def crops() -> Iterator[Array]:
    """(CROP, CROP, 3), sRGB, 0 … 1."""
    for name in PHOTOGRAPHS:
        photograph = np.asarray(getattr(skimage.data, name)(), np.float32) / np.float32(255)
        for row, column in PLACES:
            rooms = (photograph.shape[0] - CROP, photograph.shape[1] - CROP)
            top, left = rooms[0] * row, rooms[1] * column // 2
            yield photograph[top : top + CROP, left : left + CROP]


def blurred(kernel: Array) -> Callable[[Array], Array]:
    """In linear light, the crop's edge repeated."""

    def blur(crop: Array) -> Array:
        light = cv2.filter2D(to_linear(crop), -1, kernel, borderType=cv2.BORDER_REPLICATE)
        return to_srgb(np.asarray(light, np.float32))

    return blur


def hexagon(radius: float) -> Array:
    """A hexagon with the area of a disk of this radius."""
    reach = int(np.ceil(radius)) + 2
    side = radius * np.sqrt(np.pi / (1.5 * np.sqrt(3)))
    corners = np.array([[side * np.cos(a), side * np.sin(a)] for a in np.arange(6) * np.pi / 3])
    fine = 16
    canvas = np.zeros(((2 * reach + 1) * fine,) * 2, np.uint8)
    cv2.fillConvexPoly(canvas, ((corners + reach + 0.5) * fine).round().astype(np.int32), 255)
    kernel = cv2.resize(canvas.astype(np.float32), (2 * reach + 1,) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(kernel / kernel.sum(), np.float32)


def ring(radius: float) -> Array:
    """A disk whose middle, 60 % of its radius, is dark."""
    outer, inner = disk_kernel(radius), disk_kernel(0.6 * radius)
    rim = (outer.shape[0] - inner.shape[0]) // 2
    kernel = outer - 0.36 * np.pad(inner, rim)
    kernel = np.maximum(kernel, 0)
    return np.asarray(kernel / kernel.sum(), np.float32)


def gaussian(deviation: float) -> Array:
    reach = int(np.ceil(4 * deviation))
    line = cv2.getGaussianKernel(2 * reach + 1, deviation, cv2.CV_32F)
    return np.asarray(line @ line.T, np.float32)


def noisy(levels: float) -> Callable[[Array], Array]:
    """White noise of a standard deviation in levels of 255, the same for each call."""

    def add(crop: Array) -> Array:
        noise = np.random.default_rng(0).standard_normal(crop.shape, np.float32)
        return np.clip(crop + noise * np.float32(levels / 255), 0, 1)

    return add


def coded(quality: int) -> Callable[[Array], Array]:
    """JPEG."""

    def code(crop: Array) -> Array:
        _, file = cv2.imencode(".jpg", np.rint(255 * crop[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.float32)
        return np.ascontiguousarray(decoded[..., ::-1]) / np.float32(255)

    return code


def chain(*parts: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def through(crop: Array) -> Array:
        for part in parts:
            crop = part(crop)
        return crop

    return through


DEGRADATIONS: dict[str, Callable[[Array], Array]] = {
    "none": chain(),
    **{f"disk {radius}": blurred(disk_kernel(radius)) for radius in (1, 2, 4, 6, 9)},
    "disk 4, JPEG 75": chain(blurred(disk_kernel(4)), coded(75)),
    "disk 4, noise 2": chain(blurred(disk_kernel(4)), noisy(2)),
    "disk 4, noise 5": chain(blurred(disk_kernel(4)), noisy(5)),
    "hexagon 4": blurred(hexagon(4)),
    "ring 4": blurred(ring(4)),
    "Gaussian of the RMS radius of disk 4": blurred(gaussian(2)),
    "JPEG 90": coded(90),
    "noise 5": noisy(5),
}


def measure(tiled: TiledFramework, name: str) -> Row:
    degrade = DEGRADATIONS[name]
    values = []
    for crop in crops():
        seen = np.rint(255 * degrade(crop)).astype(np.float32) / np.float32(255)
        found = tiled.deblur(torch.from_numpy(seen).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        before, after = score(seen, crop), score(np.asarray(found, np.float32), crop)
        # Of what is untouched the error is 0: there the loss is told against an error of 8 bits.
        floor = 10 * np.log10(12 * 255**2)
        psnrs = [min(part.psnr, floor) for part in (before, after)]
        values.append([*psnrs, after.ssim - before.ssim, 255 * float(found.mean() - crop.mean())])
    degraded, deblurred, ssim, brightness = np.array(values).T
    gains = deblurred - degraded
    return Row(
        name,
        float(degraded.mean()),
        float(deblurred.mean()),
        float(gains.mean()),
        float(gains.min()),
        float(ssim.mean()),
        float(np.abs(brightness).max()),
    )


def page(rows: list[Row], checkpoint: str) -> str:
    lines = [
        "# Photographs blurred and disturbed in known ways",
        "",
        f"{checkpoint}. {harness.setting()}",
        "",
        f"{len(PHOTOGRAPHS) * len(PLACES)} crops of {CROP} × {CROP} pixels of {' and '.join(PHOTOGRAPHS)}; radii in",
        "pixels, noise in levels of 255. PSNR to the sharp crop; one above 58.9 dB, that of 8 bits, counts as that.",
        "Brightness: the largest difference of a crop's mean to that of the sharp crop, levels of 255. Blur alone",
        "changes it by up to 11, as light is added and the sRGB curve is concave.",
        "",
    ]
    heads = ("PSNR, degraded:", "deblurred:", "gain, dB:", "worst crop:", "SSIM gained:", "brightness:")
    cells = [
        [
            row.degradation,
            f"{row.psnr_degraded:.2f}",
            f"{row.psnr_deblurred:.2f}",
            f"{row.gain:+.2f}",
            f"{row.worst:+.2f}",
            f"{row.ssim_gain:+.4f}",
            f"{row.brightness:.2f}",
        ]
        for row in rows
    ]
    return "\n".join([*lines, harness.markdown(("degradation", *heads), cells)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="the one that comes with the package, if not given")
    parser.add_argument("--halvings", type=int, default=HALVINGS, help="how often an image may be halved")
    harness.add_results(parser)
    args = parser.parse_args()
    tiled = TiledFramework(load_framework(args.checkpoint), halvings=args.halvings)
    rows = [measure(tiled, name) for name in tqdm(DEGRADATIONS, "degradations")]
    checkpoint = f"Checkpoint {args.checkpoint}" if args.checkpoint else "The checkpoint in the box"
    harness.save("degradations", rows, page(rows, checkpoint), args.results)


if __name__ == "__main__":
    main()
