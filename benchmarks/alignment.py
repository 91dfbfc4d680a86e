"""How well does alignment bring the sharp picture of a pair to the blurry one?

    python -m benchmarks.alignment [--data DIR]

On layered scenes with occlusion (`models.synthesis.scene`), whose truth is known: the target, the sharp picture warped,
against the aligned truth where the sharp picture shows it, for parallax of up to 4, 12 and 24 pixels. The error of the
flow, too, and that where the blurry picture has texture: elsewhere motion cannot be told.

DIR holds folders of real photographs, each of which is left out, with a word, where it is not there:

    multifocus_aligned/lightfield_lfsd/   SCENE_FRAME_blurry and SCENE_sharp, aligned: at half size, the sharp one moved
                                          by a zoom, a turn and a shift, as focusing does it
    train_misaligned/                     hand-held pairs without truth: how well the target, blurred by the radius
                                          found, explains the blurry picture, how straight its flow is, and how much of
                                          the picture is torn

Writes alignment.json and alignment.md where --results says.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from benchmarks import harness
from benchmarks.blur import photographs, tensor
from benchmarks.real import LIGHTFIELD, MISALIGNED, every, find_pairs, read
from models.blur import search_radius
from models.data.images import Array
from models.flow import Flow, load_flow, warp
from models.synthesis.scene import SceneSettings, make_scene

SIZE = 160
PARALLAX = (4.0, 12.0, 24.0)  # pixels
WIDTH = 640  # pixels, of hand-held pairs
ZOOM, TURN, SHIFT = 0.02, 0.5, 8.0  # of light-field pairs: parts, degrees, pixels, at most
TORN = 1.5  # times the area: what explains the blurry picture at this price shows no scene
TEXTURE, WINDOW = 2 / 255, 3.0  # change of grey a pixel along any direction; σ of the window that it is told from


class Case(NamedTuple):
    """A pair; (1, C, H, W) each. Of real pairs only the pictures are known."""

    blurry: Tensor
    sharp: Tensor
    aligned: Tensor | None = None
    flow: Tensor | None = None
    visible: Tensor | None = None


@dataclass
class Row:
    """A flow on a pair."""

    set: str
    name: str
    flow: str
    psnr: float | None  # dB, of the target to the truth, where it is visible
    end_point: float | None  # pixels, mean error of the flow there
    end_point_textured: float | None  # the same, where the blurry picture has texture
    textured: float | None  # part of it that has
    explained: float  # dB, of the target blurred by the radius found, to the blurry picture
    bending: float  # pixels: mean second difference of the flow
    torn: float  # part of the places that the flow makes larger or smaller by more than `TORN`
    seconds: float


def scenes(count: int, seed: int) -> Iterator[tuple[str, str, Case]]:
    pictures = photographs()
    for parallax in PARALLAX:
        settings = SceneSettings(size=SIZE, parallax=parallax, gain=0, tone=0, slant=0)
        for index in range(count):
            scene = make_scene(pictures, settings, np.random.default_rng([seed, index]))
            blurry, sharp, aligned, flow = map(tensor, (scene.blurry, scene.sharp, scene.aligned, scene.flow))
            visible = torch.from_numpy(scene.visible)[None, None]
            yield f"scenes, {parallax:g} px", str(index), Case(blurry, sharp, aligned, flow, visible)


class Moved(NamedTuple):
    """A picture moved as focusing does it."""

    picture: Array  # (H, W, 3), 0 … 1
    flow: Array  # (H, W, 2), pixels: the moved picture at p + flow(p) shows what was at p
    visible: NDArray[np.bool_]  # (H, W): what it shows


def move(sharp: Array, generator: np.random.Generator) -> Moved:
    """The picture zoomed, turned and shifted about its middle."""
    height, width = sharp.shape[:2]
    angle, zoom = np.radians(generator.uniform(-TURN, TURN)), 1 + generator.uniform(-ZOOM, ZOOM)
    shift = generator.uniform(-SHIFT, SHIFT, 2) / np.sqrt(2)
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    affine = np.hstack([matrix, (middle + shift - matrix @ middle)[:, None]])
    border = cv2.BORDER_REPLICATE
    turned = cv2.warpAffine(sharp, affine, (width, height), flags=cv2.INTER_CUBIC, borderMode=border)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    places = np.stack([x, y], axis=2)
    seen = (places - middle) @ matrix.T + middle + shift
    visible = (seen > 4).all(axis=2) & (seen < np.array([width - 5, height - 5])).all(axis=2)
    return Moved(np.asarray(turned, np.float32).clip(0, 1), (seen - places).astype(np.float32), visible)


def light_fields(folder: Path, count: int, seed: int) -> Iterator[tuple[str, str, Case]]:
    for index, pair in enumerate(every(find_pairs(folder), count)):
        blurry, sharp = read(pair.blurry, 0.5), read(pair.sharp, 0.5)
        moved = move(sharp, np.random.default_rng([seed, index]))
        known = torch.from_numpy(moved.visible)[None, None]
        case = Case(tensor(blurry), tensor(moved.picture), tensor(sharp), tensor(moved.flow), known)
        yield "light fields, moved", pair.name, case


def hand_held(folder: Path, count: int) -> Iterator[tuple[str, str, Case]]:
    for pair in every(find_pairs(folder), count):
        blurry = read(pair.blurry)
        scale = min(1.0, WIDTH / blurry.shape[1])
        yield "hand-held", pair.name, Case(tensor(read(pair.blurry, scale)), tensor(read(pair.sharp, scale)))


def cases(data: Path | None, count: int, seed: int) -> Iterator[tuple[str, str, Case]]:
    """All pairs; a word for each folder that is not there."""
    yield from scenes(count, seed)
    if data is None:
        return
    for folder in (LIGHTFIELD, MISALIGNED):
        if not (data / folder).is_dir():
            print(f"{data / folder} is not there: left out")
        elif folder == LIGHTFIELD:
            yield from light_fields(data / folder, count, seed)
        else:
            yield from hand_held(data / folder, count)


def has_texture(picture: Tensor) -> Tensor:
    """(1, 1, H, W), by the smaller eigenvalue of the structure tensor: Shi and Tomasi, CVPR 1994."""
    grey = picture.mean(1)[0].numpy()
    y, x = np.gradient(grey)
    yy, xy, xx = (ndimage.gaussian_filter(product, WINDOW) for product in (y * y, x * y, x * x))
    smaller = (yy + xx) / 2 - np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return torch.from_numpy(smaller > TEXTURE**2)[None, None]


@torch.no_grad()
def measure(kind: str, name: str, flow_name: str, flow: Flow, case: Case) -> Row:
    start = time.perf_counter()
    found = flow(case.blurry, case.sharp)
    seconds = time.perf_counter() - start
    target = warp(case.sharp, found, padding="border", interpolation="bicubic").clamp(0, 1)
    psnr = end_point = end_point_textured = textured = None
    if case.aligned is not None and case.flow is not None and case.visible is not None:
        error = (target - case.aligned).square().mean(1, keepdim=True)[case.visible].mean()
        psnr = float(-10 * error.log10())
        errors = (found - case.flow).norm(dim=1, keepdim=True)
        end_point = float(errors[case.visible].mean())
        where = has_texture(case.blurry) & case.visible
        end_point_textured = float(errors[where].mean()) if where.any() else None
        textured = float(where.sum() / case.visible.sum())
    explained = search_radius(target, case.blurry, max_radius=16, slack=0).error.mean()
    bending = sum(float(found.diff(n=2, dim=dim).abs().mean()) for dim in (2, 3))
    explains = float(-10 * explained.log10())
    errors_and_texture = (psnr, end_point, end_point_textured, textured)
    return Row(kind, name, flow_name, *errors_and_texture, explains, bending, torn(found), seconds)


def torn(flow: Tensor) -> float:
    """The part of the places, 0 … 1, that a flow (1, 2, H, W) makes larger or smaller by more than `TORN`, by area."""
    by_y, by_x = torch.gradient(flow[0], dim=(1, 2))
    area = (1 + by_x[0]) * (1 + by_y[1]) - by_x[1] * by_y[0]
    return float(((area > TORN) | (area < 1 / TORN)).float().mean())


def summary(rows: Sequence[Row]) -> str:
    """Markdown: means by set and flow, and the pair that gains least over DIS."""
    numbers = (
        "PSNR of the target:",
        "error of the flow, px:",
        "where there is texture:",
        "explains the blurry picture:",
        "bending, px:",
        "torn:",
        "least gain over dis:",
        "seconds:",
    )
    lines = []
    for kind, flow in dict.fromkeys((row.set, row.flow) for row in rows):
        own = [row for row in rows if (row.set, row.flow) == (kind, flow)]
        plain = {row.name: row for row in rows if (row.set, row.flow) == (kind, "dis")}
        known = own[0].psnr is not None

        def mean(name: str, own: Sequence[Row] = own) -> float:
            values = [value for row in own if (value := getattr(row, name)) is not None]
            return float(np.mean(values)) if values else float("nan")

        by = "psnr" if known else "explained"
        least = min(getattr(row, by) - getattr(plain[row.name], by) for row in own)
        cells = ["", "", ""]
        if known:
            # Over all such places of all pairs: some pairs hardly have any.
            weights = [row.textured or 0 for row in own]
            errors = [row.end_point_textured or 0 for row in own]
            textured = f"{np.average(errors, weights=weights):.2f} ({100 * np.mean(weights):.0f} %)"
            cells = [f"{mean('psnr'):.2f} dB", f"{mean('end_point'):.2f}", textured]
        lines.append(
            [
                kind,
                str(len(own)),
                flow,
                *cells,
                f"{mean('explained'):.2f} dB",
                f"{mean('bending'):.3f}",
                f"{100 * mean('torn'):.1f} %",
                f"{least:+.2f} dB",
                f"{np.median([row.seconds for row in own]):.2f}",
            ]
        )
    return harness.markdown(("set", "pairs:", "flow", *numbers), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the folders of real photographs")
    parser.add_argument("--count", type=int, default=12, help="pairs of each set")
    parser.add_argument("--seed", type=int, default=0)
    harness.add_results(parser)
    args = parser.parse_args()
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data must name a folder, got {args.data}")
    flows = {name: load_flow(name) for name in ("none", "dis", "reblur")}
    rows = []
    for kind, name, case in tqdm(cases(args.data, args.count, args.seed), "pairs"):
        rows += [measure(kind, name, flow_name, flow, case) for flow_name, flow in flows.items()]
    text = f"# Alignment\n\n{harness.setting()}\n\n{summary(rows)}\n"
    harness.save("alignment", rows, text, args.results)


if __name__ == "__main__":
    main()
