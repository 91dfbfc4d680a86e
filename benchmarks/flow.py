"""Which flow aligns best when one image is out of focus?

    python -m benchmarks.flow

Photographs are displaced by known motions, and one of the two is blurred as by a lens, without this project's operator.
The settings were chosen on CHOSEN_ON, and are measured on MEASURED_ON too, and on layered scenes with parallax. Writes
flow.md where --results says.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import skimage.data
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import harness
from benchmarks.blur import photographs, tensor
from models.flow import Flow, inside_mask, load_flow
from models.synthesis import defocus
from models.synthesis.defocus import Array
from models.synthesis.scene import SceneSettings, make_scene

SIZE = 256
RIM = 8  # pixels at the border that do not count
CHOSEN_ON = ("coffee", "rocket", "gravel")
MEASURED_ON = ("astronaut", "chelsea", "camera", "brick", "retina")

STOCK = {"finest_scale": None, "smoothness": None, "refinements": None}
CONTENDERS: dict[str, Callable[[], Flow]] = {
    "no flow": lambda: load_flow("none"),
    "ultrafast": lambda: load_flow("dis", preset="ultrafast", equalise=False, **STOCK),
    "fast": lambda: load_flow("dis", preset="fast", equalise=False, **STOCK),
    "medium": lambda: load_flow("dis", equalise=False, **STOCK),
    "medium, equalised": lambda: load_flow("dis", **STOCK),
    "to the finest scale": lambda: load_flow("dis", equalise=False, smoothness=None, refinements=None),
    "to the finest scale, equalised": lambda: load_flow("dis", smoothness=None, refinements=None),
    "default, not equalised": lambda: load_flow("dis", equalise=False),
    "default": lambda: load_flow("dis"),
    "variational": lambda: load_flow("variational"),
}
PARALLAX = (4.0, 12.0, 24.0)  # pixels, of scenes
SCENE = 160  # pixels
SEED = 11  # of the scenes: settings were chosen on those of 1 and 7
BATCH = 8  # pairs whose flows are timed at once


class Pair(NamedTuple):
    """Two images, (1, 3, H, W), sRGB; the flow between them, (1, 2, H, W); where it counts, (H, W)."""

    first: Tensor
    second: Tensor
    flow: Tensor
    counts: Tensor


def photograph(name: str, size: int) -> Array:
    """The middle of one of scikit-image's photographs, (size, size, 3), linear light, enlarged if it is smaller."""
    image = getattr(skimage.data, name)()
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    scale = max(1, size / min(image.shape[:2]))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    top, left = ((extent - size) // 2 for extent in image.shape[:2])
    return defocus.to_linear(image[top : top + size, left : left + size].astype(np.float32) / 255)


def motions(size: int) -> dict[str, Array]:
    """(size, size, 2) each, pixels: a shift, a rotation, a zoom, waves, and something round before a background."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    right, down = x - (size - 1) / 2, y - (size - 1) / 2
    angle = np.deg2rad(2.5)
    turn = 2 * np.pi
    inside = np.hypot(right, down - size / 12) < size / 4
    flows = {
        "shift": (np.full_like(x, 5.3), np.full_like(x, -3.7)),
        "rotation": (
            (np.cos(angle) - 1) * right - np.sin(angle) * down,
            np.sin(angle) * right + (np.cos(angle) - 1) * down,
        ),
        "zoom": (0.04 * right, 0.04 * down),
        "waves": (
            4 * np.sin(turn * y / 90 + 1) * np.cos(turn * x / 130),
            3 * np.cos(turn * x / 110) * np.sin(turn * y / 120 + 0.5),
        ),
        "edge": (np.where(inside, 3, -2), np.where(inside, -2, 1)),
    }
    return {name: np.stack(flow, axis=-1).astype(np.float32) for name, flow in flows.items()}


def blurs(size: int) -> dict[str, tuple[Array | None, Array | None]]:
    """The radius of the disk, pixels, that the first image and the second are blurred with."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    ramp = (x + y) * np.float32(3 / size)
    three, five, six = (np.full((size, size), radius, np.float32) for radius in (3, 5, 6))
    return {
        "sharp": (None, None),
        "first 3": (three, None),
        "first 6": (six, None),
        "first 0 to 6": (ramp, None),
        "second 5": (None, five),
    }


def displaced(photo: Array, flow: Array) -> tuple[Array, Array]:
    """Two images at half the photograph's resolution, linear light: the second is the photograph.

    The first is looked up at full resolution, so that interpolation leaves it as sharp as the second.
    """
    size = flow.shape[0]
    fine = 2 * cv2.resize(flow, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
    y, x = np.mgrid[: 2 * size, : 2 * size].astype(np.float32)
    moved = cv2.remap(photo, x + fine[..., 0], y + fine[..., 1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT)
    first, second = (
        np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.float32)
        for image in (moved, photo)
    )
    return first, second


def pair(first: Array, second: Array, flow: Array, radii: tuple[Array | None, Array | None]) -> Pair:
    """The pair as a camera has it: blurred, in sRGB of 8 bits."""
    images = []
    for image, radius in zip((first, second), radii, strict=True):
        seen = defocus.to_srgb(image if radius is None else defocus.render_defocus(image, radius))
        images.append(torch.from_numpy(np.rint(255 * seen) / 255).permute(2, 0, 1)[None].contiguous())
    true = torch.from_numpy(flow).permute(2, 0, 1)[None].contiguous()
    counts = inside_mask(true)[0, 0] > 0
    counts[:RIM] = counts[-RIM:] = counts[:, :RIM] = counts[:, -RIM:] = False
    return Pair(images[0], images[1], true, counts)


def pairs(names: tuple[str, ...], size: int) -> Iterator[tuple[str, str, str, Pair]]:
    """Photograph, motion, blur, and the pair they make."""
    for name in names:
        photo = photograph(name, 2 * size)
        for motion, flow in motions(size).items():
            images = displaced(photo, flow)
            for blur, radii in blurs(size).items():
                yield name, motion, blur, pair(*images, flow, radii)


def scenes(count: int) -> Iterator[tuple[str, str, str, Pair]]:
    """Likewise of layered scenes, whose first image is blurred by depth; both images are noisy."""
    pictures = photographs()
    for parallax in PARALLAX:
        for index in range(count):
            settings = SceneSettings(size=SCENE, parallax=parallax)
            scene = make_scene(pictures, settings, np.random.default_rng([SEED, index]))
            images = tensor(scene.blurry), tensor(scene.sharp), tensor(scene.flow)
            yield str(index), f"{parallax:g} px", "by depth", Pair(*images, torch.from_numpy(scene.visible))


def errors(found: Tensor, true: Pair) -> Tensor:
    """The distance of each displacement from the true one, pixels, where it counts."""
    return (found - true.flow).square().sum(dim=1).sqrt()[0][true.counts]


@dataclass
class Row:
    """One contender on one pair."""

    photos: str  # "chosen on", "held back" or "scenes"
    photo: str
    motion: str
    blur: str
    contender: str
    epe: float  # mean endpoint error, pixels
    off: float  # the part of pixels off by more than one
    ms: float


def measure(photos: str, cases: Iterable[tuple[str, str, str, Pair]], total: int) -> list[Row]:
    flows = {name: make() for name, make in CONTENDERS.items()}
    rows = []
    for name, motion, blur, case in tqdm(cases, total=total, desc=photos):
        for contender, flow in flows.items():
            start = time.perf_counter()
            found = flow(case.first, case.second)
            milliseconds = 1e3 * (time.perf_counter() - start)
            error = errors(found, case)
            off = float((error > 1).float().mean())
            rows.append(Row(photos, name, motion, blur, contender, float(error.mean()), off, milliseconds))
    return rows


def summary(rows: list[Row]) -> str:
    return f"{np.mean([row.epe for row in rows]):.2f} ({np.mean([row.off for row in rows]):.0%})"


def table(rows: list[Row], by: str) -> str:
    """Markdown: each contender's mean error by blur or by motion, and the part of pixels off by more than one."""
    columns = list(dict.fromkeys(getattr(row, by) for row in rows))
    cells = []
    for contender in dict.fromkeys(row.contender for row in rows):
        own = [row for row in rows if row.contender == contender]
        means = [summary([row for row in own if getattr(row, by) == column]) for column in columns]
        ms = np.median([row.ms for row in own])
        cells.append([contender, *means, summary(own), harness.milliseconds(float(ms))])
    return harness.markdown(("flow", *(f"{column}:" for column in columns), "all:", "ms:"), cells)


def batch_time_ratio(repeats: int = 9) -> float:
    """How many times longer the variational flow takes than DIS for a batch; the median, in turns."""
    cases = [case for _, _, _, case in pairs(MEASURED_ON[:1], SIZE)][:BATCH]
    first, second = (torch.cat([getattr(case, name) for case in cases]) for name in ("first", "second"))
    flows = [load_flow(name) for name in ("variational", "dis")]
    for flow in flows:
        flow(first, second)
    ratios = []
    for _ in range(repeats):
        times = []
        for flow in flows:
            start = time.perf_counter()
            flow(first, second)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def page(rows: list[Row], where: dict[str, Any], batch_ratio: float) -> str:
    parts = [
        "# Optical flow when one image is out of focus",
        f"{where['device']}, OpenCV {cv2.__version__}, torch {where['torch']}, {where['date']}. "
        "Mean endpoint error in\n"
        f"pixels, and the part of pixels off by more than one, at {SIZE}×{SIZE}; radii of the blur in pixels.\n"
        "Ultrafast, fast and medium are OpenCV's presets of DIS with its own parameters; what the default of DIS is:\n"
        "`models.flow.DisFlow`; variational: `models.flow.VariationalFlow`. The time is the median of single calls,\n"
        "to compare within a table.",
        f"For {BATCH} pairs at once, variational takes {batch_ratio:.2f} times as long as the default of DIS.",
    ]
    for photos, title in (("chosen on", "that the settings were chosen on"), ("held back", "held back")):
        part = [row for row in rows if row.photos == photos]
        names = ", ".join(dict.fromkeys(row.photo for row in part))
        parts += [f"## Photographs {title}: {names}", table(part, "blur"), table(part, "motion")]
    part = [row for row in rows if row.photos == "scenes"]
    parts += [f"## Layered scenes, {SCENE}×{SCENE}, by parallax", table(part, "motion")]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_results(parser)
    parser.add_argument("--scenes", type=int, default=12, help="of each parallax (default: %(default)s)")
    arguments = parser.parse_args()
    rows = []
    for photos, names in (("chosen on", CHOSEN_ON), ("held back", MEASURED_ON)):
        rows += measure(photos, pairs(names, SIZE), len(names) * len(motions(SIZE)) * len(blurs(SIZE)))
    rows += measure("scenes", scenes(arguments.scenes), len(PARALLAX) * arguments.scenes)
    text = page(rows, harness.environment(), batch_time_ratio())
    harness.save("flow", rows, text, arguments.results)


if __name__ == "__main__":
    main()
