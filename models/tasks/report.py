"""The task that shows a training run on one page."""

import argparse
import functools
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

import reblur_ops

from ..checkpoints.load import load_framework
from ..core.devices import usable_device
from ..core.errors import UserError
from ..core.files import writable_folder
from ..data.images import Array
from ..data.layouts import NOTATION, DataError, load_pairs, parse_source
from ..data.samples import Sample, WholePairs
from ..evaluation.metrics import PROTOCOLS, SMALLEST, Score, score, score_radius
from ..flow import load_flow
from ..framework import Framework
from ..inference.tiling import TiledFramework
from ..reporting import page
from ..reporting.page import Series
from ..reporting.pictures import Picture, largest_radius, magnification, magnified, radius_picture, to_bytes
from ..training.validation import spread
from .arguments import integer
from .evaluate import choose_protocols, score_picture, to_array

PROBES = 64  # kernels on the page, each way, of a picture
# A page is to be opened at once: of larger pictures it shows the middle.
LARGEST_SHOWN = 768  # pixels, each way


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one in each line; none if there is no file. A last line cut short is left out.

    Raises:
        UserError: another line is no JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    objects = []
    for number, line in enumerate(lines, 1):
        try:
            objects.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}, must be JSON: {error}") from error
    return objects


def series(lines: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Series]:
    """Lines for a chart: of each key, what it is called; only what has finite values."""
    found = []
    for key, name in names.items():
        points = [(line["step"], line[key]) for line in lines if _is_finite(line.get(key))]
        if points:
            steps, values = zip(*points, strict=True)
            found.append(Series(name, steps, values))
    return found


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def curves(run: Path) -> str:
    """The charts of what training has written down."""
    metrics, validation = (read_lines(run / name) for name in ("metrics.jsonl", "validation.jsonl"))
    # Parts of the loss by their names, beside the loss.
    flat = [{**line, **{f"part {name}": part for name, part in line.get("parts", {}).items()}} for line in metrics]
    parts = sorted({key for line in flat for key in line if key.startswith("part ")})
    charts = {
        "Loss": series(flat, {"loss": "loss"} | {key: key.removeprefix("part ") for key in parts}),
        "PSNR in training (dB)": series(metrics, {"psnr": "deblurred"}),
        "PSNR in validation (dB)": series(
            validation, {f"{name}_psnr": name for name in ("deblurred", "input", "reblurred")}
        ),
        "Blur radius in validation": series(validation, {"blur_radius_correlation": "correlation with the truth"}),
    }
    drawn = "".join(page.chart(title, lines) for title, lines in charts.items() if lines)
    return f'<h2>Curves</h2><div class="curves">{drawn}</div>' if drawn else ""


def sources_of(run: Path) -> list[str]:
    """The test split of the data that a run was trained on.

    Raises:
        UserError: its configuration cannot be read, or names no data with a test split.
    """
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        sources = [parse_source(text) for text in config["data"]["train"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, DataError) as error:
        raise UserError(f"{run}/config.yaml does not tell the data: give --data {NOTATION}") from error
    return [f"{source.layout}:{','.join(map(str, source.folders))}" for source in sources]


@dataclass(frozen=True)
class Restored:
    """A pair, and what a framework makes of it; pictures (3, H, W), 0 … 1, on the CPU."""

    sample: Sample
    deblurred: Tensor
    reblurred: Tensor | None  # the deblurred picture, blurred again to be as the blurry one; None without that network
    radius: Tensor | None  # (1, H, W), of that blur, RMS, pixels

    @classmethod
    def of(cls, tiled: TiledFramework, sample: Sample) -> "Restored":
        deblurred = tiled.deblur(sample["blurry"])
        if tiled.framework.reblur is None:
            return cls(sample, deblurred, None, None)
        return cls(sample, deblurred, *tiled.reblur(deblurred, sample["blurry"]))

    @functools.cached_property
    def scores(self) -> tuple[Score, Score] | None:
        """Of the blurry and of the deblurred picture, to the aligned truth; None where that is not known."""
        if "aligned" not in self.sample:
            return None
        truth = to_array(self.sample["aligned"])
        return score(to_array(self.sample["blurry"]), truth), score(to_array(self.deblurred), truth)

    @functools.cached_property
    def reblurred_psnr(self) -> float | None:
        """To the blurry picture, dB."""
        return None if self.reblurred is None else score(to_array(self.reblurred), to_array(self.sample["blurry"])).psnr


def restore(tiled: TiledFramework, samples: Iterable[Sample], count: int) -> list[Restored]:
    """With a progress bar."""
    return [Restored.of(tiled, sample) for sample in tqdm(samples, "deblurring", count, unit="picture", delay=3)]


def picture_section(tiled: TiledFramework, restored: Restored) -> str:
    """A picture to wipe, the kernels under the pointer, the picture reblurred, and its blur radius."""
    sample = restored.sample
    shown = {"blurry": sample["blurry"], "deblurred": restored.deblurred, "sharp": sample["sharp"]}
    choices = [("blurry", "deblurred"), ("deblurred", "sharp")]
    caption = ""
    if restored.scores:
        shown["aligned truth"] = sample["aligned"]
        choices = [("blurry", "deblurred"), ("deblurred", "aligned truth"), ("sharp", "aligned truth")]
        before, after = restored.scores
        caption = f"PSNR to the aligned truth: blurry {before.psnr:.2f} dB, deblurred {after.psnr:.2f} dB"
    pictures = {name: enlarged(tensor) for name, tensor in shown.items()}
    title = f"<h2>{html.escape(sample['name'])}</h2>"
    comparison = f"<figure>{page.comparison(pictures, choices)}<figcaption>{caption}</figcaption></figure>"
    if restored.reblurred is None or restored.radius is None:
        return title + comparison

    kernels, radii = sampled_kernels(tiled, restored)
    figures = page.kernel_probe(pictures["blurry"], kernels, radii)
    caption = f"deblurred and blurred again, {restored.reblurred_psnr:.2f} dB to the blurry picture"
    figures += page.figure(enlarged(restored.reblurred), caption, "The reblurred picture", small=True)
    maps = {"found": restored.radius}
    if "blur_radius" in sample:
        maps["true"] = sample["blur_radius"]
    largest = max(largest_radius(_middle(map_)[..., 0]) for map_ in maps.values())
    for name, map_ in maps.items():
        picture = radius_picture(_middle(map_)[..., 0], largest)
        figures += page.figure(picture, f"blur radius, {name}", f"Map of the blur radius, {name}")
    return f'{title}<div class="pair">{comparison}<div class="four">{figures}</div></div>'


def enlarged(image: Tensor) -> Picture:
    """(H, W, 3) of (3, H, W), the middle of it if it is large, and magnified if it is small."""
    picture = to_bytes(_middle(image))
    return magnified(picture, magnification(picture))


def sampled_kernels(tiled: TiledFramework, restored: Restored) -> tuple[Array, Array]:
    """(rows, columns, classes) and (rows, columns): kernels, by distance class, and RMS radii, pixels, on a grid."""
    network = tiled.framework.reblur
    assert network is not None
    one, other = (
        torch.from_numpy(_middle(image)).permute(2, 0, 1)[None].to(tiled.device)
        for image in (restored.deblurred, restored.sample["blurry"])
    )
    height, width = one.shape[2:]
    rows, columns = min(height, PROBES), min(width, PROBES)
    ys = ((torch.arange(rows) + 0.5) * height / rows).long()
    xs = ((torch.arange(columns) + 0.5) * width / columns).long()
    with torch.inference_mode():
        found = network(one, other)
        seeds, weights = (maps[:, :, ys][..., xs].contiguous() for maps in (found.seeds, found.weights))
        kernels = reblur_ops.class_weights(seeds, weights, radii=found.radii, support=found.support)
        radii = reblur_ops.blur_radius(seeds, weights, radii=found.radii, support=found.support)
    return np.asarray(kernels[0].permute(1, 2, 0).cpu().numpy()), np.asarray(radii[0, 0].cpu().numpy())


def _middle(image: Tensor) -> Array:
    """(H, W, C) of (C, H, W), the middle of it if it is large."""
    height, width = image.shape[1:]
    top, left = (max(extent - LARGEST_SHOWN, 0) // 2 for extent in (height, width))
    window = image[:, top : top + LARGEST_SHOWN, left : left + LARGEST_SHOWN]
    return np.ascontiguousarray(window.permute(1, 2, 0).numpy(), np.float32)


def score_table(pictures: Sequence[Restored], protocols: Sequence[str]) -> str:
    """The scores of pictures, before and after, by each protocol."""
    flow = load_flow("dis")
    rows = []
    for restored in tqdm(pictures, "scores", unit="picture", delay=3):
        sample = restored.sample
        before, after = (
            score_picture(to_array(image), sample, protocols, flow, None)[0]
            for image in (sample["blurry"], restored.deblurred)
        )
        of_blur = ["", ""]
        if restored.radius is not None:
            of_blur[0] = f"{restored.reblurred_psnr:.2f} dB"
            if "blur_radius" in sample:
                of_blur[1] = f"{score_radius(_plane(restored.radius), _plane(sample['blur_radius'])).mae:.2f} px"
        for protocol in protocols:
            rows.append([sample["name"], protocol, *_cells(before[protocol], after[protocol]), *of_blur])
            of_blur = ["", ""]  # which no protocol changes
    head = ["picture", "protocol", "PSNR, blurry", "deblurred", "SSIM, blurry", "deblurred"]
    head += ["PSNR, reblurred to blurry", "blur radius, mean error"]
    definitions = "".join(f"<li><b>{name}</b>: {PROTOCOLS[name]}</li>" for name in protocols)
    flow_used = "<p>Flow of the protocol warped: dis.</p>" if "warped" in protocols else ""
    return f"<h2>Scores</h2>{page.table(head, rows)}<ul>{definitions}</ul>{flow_used}"


def _plane(map_: Tensor) -> Array:
    return np.asarray(map_[0].numpy())


def _cells(before: Score, after: Score) -> list[str]:
    return [f"{before.psnr:.2f} dB", f"{after.psnr:.2f} dB", f"{before.ssim:.4f}", f"{after.ssim:.4f}"]


def summary(framework: Framework, run: Path) -> str:
    """Cards with the numbers of the run."""
    values = {
        "parameters of the deblurring network": f"{sum(p.numel() for p in framework.deblur.parameters()) / 1e6:.2f} M"
    }
    validation = read_lines(run / "validation.jsonl")
    scored = [line for line in validation if _is_finite(line.get("deblurred_psnr"))]
    if scored:
        best = max(scored, key=lambda line: line["deblurred_psnr"])
        values[f"best PSNR in validation, at step {best['step']}"] = f"{best['deblurred_psnr']:.2f} dB"
        if _is_finite(best.get("input_psnr")):
            values["gained over the blurry input there"] = f"{best['deblurred_psnr'] - best['input_psnr']:+.2f} dB"
    return page.numbers(values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a training run, or of a framework")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="SOURCE",
        help=f"pairs to show, {NOTATION}; by default the test split of what the run was trained on",
    )
    parser.add_argument(
        "--pictures", type=integer(1, 100), default=4, metavar="N", help="how many, spread over the data"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; if not given, RUN/report.html")
    parser.add_argument("--device", type=usable_device, default="cpu", help="where PyTorch computes: cpu, cuda, …")


def run(args: argparse.Namespace) -> int:
    """Write the page. The exit status: 0."""
    if not args.folder.is_dir():
        raise UserError(f"{args.folder} must be the folder of a run, and is none")
    pairs = load_pairs(args.data or sources_of(args.folder), "test", smallest=SMALLEST, truth=True)
    tiled = TiledFramework(load_framework(args.folder), args.device)
    out = args.out or args.folder / "report.html"
    writable_folder(out.parent)

    samples = WholePairs(spread(pairs, args.pictures))
    pictures = restore(tiled, (samples[number] for number in range(len(samples))), len(samples))
    body = [summary(tiled.framework, args.folder), curves(args.folder)]
    body.append(score_table(pictures, choose_protocols(samples.pairs, None)))
    body += [picture_section(tiled, restored) for restored in pictures]
    page.write(out, f"Run {args.folder.resolve().name}", "\n".join(body))
    print(out)
    return 0
