"""What does a framework gain on real photographs?

    python -m benchmarks.real --data DIR [--checkpoint C]

DIR holds folders of real photographs, each of which is left out, with a word, where it is not there:

    multifocus_aligned/lightfield_lfsd/   SCENE_FRAME_blurry and SCENE_sharp, aligned
    train_misaligned/                     SCENE_FRAME_blurry and SCENE_FRAME_sharp or SCENE_sharp, misaligned
    blur_masks/*/                         NAME.jpg and NAME.png, white where out of focus

Aligned pictures are compared as they are, at full and at half size; misaligned ones with the sharp picture warped to
the blurry one, by DIS and by alignment by reblurring, once each, so that both are judged by the same target, its gain
fitted. Places are out of focus where the target has at least twice the fine detail of the blurry picture. Writes
real.json, real.md and real.html.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from tqdm import tqdm

from benchmarks import harness
from models.checkpoints.load import load_framework
from models.core.errors import UserError
from models.core.positions import COPIES
from models.data import images
from models.data.images import Array
from models.evaluation.metrics import haarpsi
from models.flow import inside_mask, load_flow, warp
from models.inference.scales import HALVINGS
from models.inference.tiling import TiledFramework
from models.reporting import page
from models.reporting.pictures import to_bytes

LIGHTFIELD = Path("multifocus_aligned/lightfield_lfsd")
MISALIGNED = Path("train_misaligned")
MASKS = Path("blur_masks")
FLOWS = {"dis": "by DIS", "reblur": "by reblurring"}  # that align misaligned pairs
SHOWN = 320  # pixels of a picture on the page, at 1:1


class Pair(NamedTuple):
    """Files of one scene."""

    name: str
    blurry: Path
    sharp: Path


@dataclass
class Row:
    """One picture at one size. Differences are those of the deblurred picture to the blurry one."""

    set: str
    name: str
    size: str  # "full" or "half"
    psnr: float  # dB, of the blurry picture
    gain: float  # dB
    ssim_gain: float
    haarpsi_gain: float  # of 1
    gain_out_of_focus: float | None  # dB, where the target has finer detail; None where it nowhere has
    gain_in_focus: float | None
    brightness: float  # change of the mean, levels of 255


def find_pairs(folder: Path) -> list[Pair]:
    """By name: SCENE_FRAME_blurry with SCENE_FRAME_sharp, or with SCENE_sharp."""
    files = {path.stem: path for path in images.list_images(folder)}
    pairs = []
    for stem, path in files.items():
        if not stem.endswith("_blurry"):
            continue
        name = stem.removesuffix("_blurry")
        sharp = files.get(f"{name}_sharp") or files.get(f"{name.rpartition('_')[0]}_sharp")
        if sharp is None:
            raise UserError(f"{path} has no sharp picture beside it, {name}_sharp or of its scene")
        pairs.append(Pair(name, path, sharp))
    return pairs


def read(path: Path, scale: float = 1.0) -> Array:
    pixels = images.read(path).pixels.clip(0, 1)
    if scale != 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(pixels, np.float32)


def target_of(blurry: Array, sharp: Array, flow_name: str | None) -> tuple[Array, Array]:
    """The target of an image, and a mask of where it is known, (H, W), 0 or 1; without a flow, the sharp image."""
    if flow_name is None:
        return sharp, np.ones(sharp.shape[:2], np.float32)
    one, other = (torch.from_numpy(image.transpose(2, 0, 1).copy())[None] for image in (blurry, sharp))
    flow = load_flow(flow_name)(one, other)
    target = warp(other, flow, interpolation="bicubic")[0].permute(1, 2, 0).numpy().clip(0, 1)
    known = cv2.erode(inside_mask(flow)[0, 0].numpy(), np.ones((9, 9), np.uint8))
    low, high = (cv2.GaussianBlur(image, (0, 0), 8) for image in (blurry, target))
    gain = np.median((low[known > 0] + 0.01) / (high[known > 0] + 0.01), axis=0).clip(0.8, 1.25)
    return np.asarray(target * gain, np.float32), np.asarray(known, np.float32)


def out_of_focus(blurry: Array, target: Array) -> NDArray[np.bool_]:
    """(H, W), bool: where the target has at least twice the fine detail."""
    detail = []
    for image in (blurry, target):
        grey = image.mean(axis=2)
        fine = np.square(grey - cv2.GaussianBlur(grey, (0, 0), 2))
        detail.append(np.sqrt(cv2.GaussianBlur(fine, (0, 0), 8)))
    return np.asarray(detail[1] > 2 * np.maximum(detail[0], 1 / 255))


def psnr(image: Array, target: Array, where: NDArray[Any]) -> float | None:
    """dB, where a mask is not 0; None where that is less than a percent of the picture."""
    if where.mean() < 0.01:
        return None
    error = np.square(image - target, dtype=np.float64).mean(axis=2)
    return float(-10 * np.log10(max(float((error * where).sum() / where.sum()), 1e-10)))


def measure(
    tiled: TiledFramework, folder: Path, pair: Pair, aligned: bool, scale: float
) -> Iterator[tuple[Row, list[Array]]]:
    """A row for each target, and what the page shows: blurry, deblurred, target."""
    blurry, sharp = read(pair.blurry, scale), read(pair.sharp, scale)
    if blurry.shape != sharp.shape:
        raise UserError(f"{pair.blurry} and {pair.sharp} differ in size")
    deblurred = tiled.deblur(torch.from_numpy(blurry).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    deblurred = np.asarray(deblurred, np.float32)
    size = "full" if scale == 1 else "half"
    for flow_name in (None,) if aligned else FLOWS:
        name = str(folder) if flow_name is None else f"{folder}, {FLOWS[flow_name]}"
        target, known = target_of(blurry, sharp, flow_name)
        yield compare(name, pair.name, size, blurry, deblurred, target, known), [blurry, deblurred, target]


def compare(set_name: str, name: str, size: str, blurry: Array, deblurred: Array, target: Array, known: Array) -> Row:
    """The scores of a deblurred picture and of the blurry one against a target, where that is known."""
    soft = out_of_focus(blurry, target)

    def gain(where: NDArray[Any]) -> float | None:
        before, after = psnr(blurry, target, where), psnr(deblurred, target, where)
        return None if before is None or after is None else after - before

    similarity = [
        structural_similarity(image, target, data_range=1, channel_axis=2, gaussian_weights=True, full=True)[1]
        for image in (blurry, deblurred)
    ]
    ssim_gain = float(((similarity[1] - similarity[0]).mean(axis=2) * known).sum() / known.sum())
    before, after = (haarpsi(np.where(known[..., None] > 0, image, target), target) for image in (blurry, deblurred))
    return Row(
        set_name,
        name,
        size,
        psnr(blurry, target, known) or 0.0,
        gain(known) or 0.0,
        ssim_gain,
        after - before,
        gain(known * soft),
        gain(known * ~soft),
        255 * float(deblurred.mean() - blurry.mean()),
    )


def sharp_psnr(tiled: TiledFramework, path: Path) -> float:
    """dB, of a sharp picture deblurred, to itself: how much is done to what needs nothing."""
    sharp = read(path)
    deblurred = tiled.deblur(torch.from_numpy(sharp).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    return psnr(np.asarray(deblurred, np.float32), sharp, np.ones(sharp.shape[:2], np.float32)) or 0.0


def area_under_curve(tiled: TiledFramework, photograph: Path, mask: Path) -> float | None:
    """The area under the curve by which the radius, smoothed by σ 8 pixels, tells blurry places from sharp ones."""
    image = read(photograph)
    blurry = np.asarray(images.read(mask).pixels.mean(axis=2) > 0.5)
    if blurry.shape != image.shape[:2] or blurry.all() or not blurry.any():
        return None
    radius = tiled.map_radius(torch.from_numpy(image).permute(2, 0, 1))[0].numpy()
    return ranked(np.asarray(cv2.GaussianBlur(radius, (0, 0), 8)), blurry)


def ranked(values: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Area under the curve: how often a positive place has the larger value than another; of ties half."""
    order = np.argsort(values, axis=None, kind="stable")
    ranks = np.empty(values.size)
    ranks[order] = np.arange(1, values.size + 1)
    sorted_values = values.ravel()[order]
    first = np.flatnonzero(np.r_[True, np.diff(sorted_values) > 0])
    counts = np.diff(np.r_[first, values.size])
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    inside = positive.ravel()
    wins = ranks[inside].sum() - inside.sum() * (inside.sum() + 1) / 2
    return float(wins / (inside.sum() * (~inside).sum()))


def every(items: Sequence[Pair], count: int) -> list[Pair]:
    """`count` of the items, evenly spread; all if 0."""
    if not count or count >= len(items):
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)]


def work(data: Path, count: int) -> Iterator[tuple[Path, Pair, bool, float]]:
    """The work to do; folders that are not there are named."""
    for folder, aligned in ((LIGHTFIELD, True), (MISALIGNED, False)):
        if not (data / folder).is_dir():
            print(f"{data / folder} is not there: left out")
            continue
        for pair in every(find_pairs(data / folder), count):
            for scale in (1.0, 0.5):
                yield folder, pair, aligned, scale


def summary(rows: Sequence[Row]) -> str:
    """Markdown: means by set and size, and how many got worse."""
    heads = (
        "pictures:",
        "PSNR, blurry:",
        "gain, dB:",
        "out of focus:",
        "in focus:",
        "SSIM gained:",
        "HaarPSI:",
        "worse by 0.1 dB:",
        "worst:",
        "brightness:",
    )
    lines = []
    for key in dict.fromkeys((row.set, row.size) for row in rows):
        own = [row for row in rows if (row.set, row.size) == key]

        def mean(name: str, own: Sequence[Row] = own) -> float:
            values = [value for row in own if (value := getattr(row, name)) is not None]
            return float(np.mean(values)) if values else float("nan")

        worse = sum(row.gain < -0.1 for row in own)
        brightness = max(abs(row.brightness) for row in own)
        lines.append(
            [
                *key,
                str(len(own)),
                f"{mean('psnr'):.2f}",
                f"{mean('gain'):+.2f}",
                f"{mean('gain_out_of_focus'):+.2f}",
                f"{mean('gain_in_focus'):+.2f}",
                f"{mean('ssim_gain'):+.4f}",
                f"{mean('haarpsi_gain'):+.4f}",
                str(worse),
                f"{min(row.gain for row in own):+.2f}",
                f"{brightness:.2f}",
            ]
        )
    return harness.markdown(("set", "size", *heads), lines)


def figure(row: Row, pictures: Sequence[Array]) -> str:
    """The place that changed most, at 1:1, to wipe."""
    change = cv2.boxFilter(np.abs(pictures[1] - pictures[0]).mean(axis=2), -1, (SHOWN, SHOWN))
    rows, columns = (max(side - SHOWN, 0) for side in change.shape)
    half = SHOWN // 2
    inner = change[half : half + rows + 1, half : half + columns + 1]
    top, left = np.unravel_index(np.argmax(inner), inner.shape) if inner.size else (0, 0)
    crops = [to_bytes(np.ascontiguousarray(image[top : top + SHOWN, left : left + SHOWN])) for image in pictures]
    named = dict(zip(("blurry", "deblurred", "sharp"), crops, strict=True))
    shown = page.comparison(named, [("blurry", "deblurred"), ("deblurred", "sharp")])
    return f"<figure>{shown}<figcaption>{row.set}, {row.name}: {row.gain:+.2f} dB</figcaption></figure>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of real photographs")
    parser.add_argument("--checkpoint", type=Path, help="the one that comes with the package, if not given")
    parser.add_argument("--count", type=int, default=14, help="pictures of each set, evenly spread; 0: all")
    parser.add_argument("--halvings", type=int, default=HALVINGS, help="how often an image may be halved")
    parser.add_argument("--copies", type=int, choices=COPIES, default=1, help="turned copies, whose mean is taken")
    harness.add_results(parser)
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.error(f"--data must name a folder, got {args.data}")
    tiled = TiledFramework(load_framework(args.checkpoint), halvings=args.halvings, copies=args.copies)
    rows, figures = [], []
    for folder, pair, aligned, scale in tqdm(list(work(args.data, args.count)), "photographs"):
        for row, pictures in measure(tiled, folder, pair, aligned, scale):
            rows.append(row)
            if scale == 1:
                figures.append(figure(row, pictures))
    text = ["# Real photographs", "", harness.setting(), "", summary(rows)] if rows else ["# Real photographs"]
    if (args.data / LIGHTFIELD).is_dir():
        sharp = sorted({pair.sharp for pair in every(find_pairs(args.data / LIGHTFIELD), args.count)})
        kept = [sharp_psnr(tiled, path) for path in tqdm(sharp, "sharp pictures")]
        text += ["", f"Sharp pictures deblurred, to themselves: {np.mean(kept):.2f} dB, the worst {min(kept):.2f} dB."]
    areas = None
    if (args.data / MASKS).is_dir():
        photographs = sorted((args.data / MASKS).glob("*/*.jpg"))
        found = [area_under_curve(tiled, path, path.with_suffix(".png")) for path in tqdm(photographs, "masks")]
        areas = [area for area in found if area is not None]
        text += ["", f"Blurry against sharp places by the radius from the photograph alone, {len(areas)} photographs:"]
        text += [f"mean area under the curve {np.mean(areas):.3f}, the worst {min(areas):.3f}."]
    else:
        print(f"{args.data / MASKS} is not there: left out")
    harness.save("real", rows, "\n".join(text) + "\n", args.results, areas=areas)
    if args.results:
        page.write(args.results / "real.html", "Real photographs, deblurred", "\n".join(figures))
        print(args.results / "real.html")


if __name__ == "__main__":
    main()
