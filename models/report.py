"""The task that shows a training run on one page."""

import argparse
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

import reblur_ops
from models import page
from models.arguments import integer
from models.checkpoint import load_framework
from models.data.layouts import NOTATION, DataError, load_pairs, parse_source
from models.data.samples import Sample, WholePairs
from models.devices import usable_device
from models.errors import UserError
from models.evaluate import choose_protocols, score_picture
from models.files import writable_folder
from models.flow import load_flow
from models.framework import Framework
from models.images import Array
from models.metrics import PROTOCOLS, SMALLEST, Score, score_radius
from models.page import Series
from models.pictures import largest_radius, magnification, magnified, radius_picture, to_bytes
from models.tiling import TiledFramework

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


def picture_section(tiled: TiledFramework, sample: Sample) -> str:
    """A picture to wipe, its blur radius, and its kernels."""
    blurry = sample["blurry"]
    deblurred = tiled.deblur(blurry)
    shown = {"blurry": blurry, "deblurred": deblurred, "sharp": sample["sharp"]}
    if "aligned" in sample:
        shown["aligned truth"] = sample["aligned"]
    pictures = {
        name: magnified(image := to_bytes(_middle(tensor)), magnification(image)) for name, tensor in shown.items()
    }
    choices = [("blurry", "deblurred"), ("deblurred", list(shown)[-1])]
    title, comparison = f"<h2>{html.escape(sample['name'])}</h2>", page.comparison(pictures, choices)
    if tiled.framework.reblur is None:
        return title + comparison

    radius = tiled.blur_radius(deblurred, blurry)
    maps = {"found: where the reblurring network leads from the deblurred to the blurry picture": radius}
    if "blur_radius" in sample:
        maps["true"] = sample["blur_radius"]
    largest = max(largest_radius(_middle(map_)[..., 0]) for map_ in maps.values())
    figures = "".join(
        page.figure(
            radius_picture(_middle(map_)[..., 0], largest), f"Blur radius, {name}", f"Map of the blur radius, {name}"
        )
        for name, map_ in maps.items()
    )
    kernels, radii = sampled_kernels(tiled, deblurred, blurry)
    probe = page.kernel_probe(pictures["blurry"], kernels, radii)
    return f'{title}<div class="pair">{comparison}{probe}</div><div class="pair">{figures}</div>'


def sampled_kernels(tiled: TiledFramework, deblurred: Tensor, blurry: Tensor) -> tuple[Array, Array]:
    """(rows, columns, classes) and (rows, columns): kernels, by distance class, and RMS radii, pixels, on a grid."""
    network = tiled.framework.reblur
    assert network is not None
    one, other = (
        torch.from_numpy(_middle(image)).permute(2, 0, 1)[None].to(tiled.device) for image in (deblurred, blurry)
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


def score_table(tiled: TiledFramework, samples: Sequence[Sample], protocols: Sequence[str]) -> str:
    """The scores of the pictures of the page, before and after, by each protocol."""
    flow = load_flow("dis")
    rows = []
    for sample in tqdm(samples, "scores", unit="picture", delay=3):
        deblurred = tiled.deblur(sample["blurry"])
        before, after = (
            score_picture(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), sample, protocols, flow, None)[0]
            for image in (sample["blurry"], deblurred)
        )
        radius = ""
        if "blur_radius" in sample and tiled.framework.reblur is not None:
            found = score_radius(
                np.asarray(tiled.blur_radius(deblurred, sample["blurry"])[0].numpy()),
                np.asarray(sample["blur_radius"][0].numpy()),
            )
            radius = f"{found.mae:.2f} px"
        rows += [
            [sample["name"], protocol, *_cells(before[protocol], after[protocol]), radius if protocol == "raw" else ""]
            for protocol in protocols
        ]
    head = ["picture", "protocol", "PSNR, blurry", "deblurred", "SSIM, blurry", "deblurred", "blur radius, mean error"]
    definitions = "".join(f"<li><b>{name}</b>: {PROTOCOLS[name]}</li>" for name in protocols)
    return f"<h2>Scores</h2>{page.table(head, rows)}<ul>{definitions}</ul><p>Flow of the protocol warped: dis.</p>"


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

    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(args.pictures, len(pairs))).round().astype(int))
    dataset = WholePairs([pairs[index] for index in chosen])
    samples = [dataset[number] for number in range(len(dataset))]
    body = [summary(tiled.framework, args.folder), curves(args.folder)]
    body.append(score_table(tiled, samples, choose_protocols(dataset.pairs, None)))
    body += [picture_section(tiled, sample) for sample in tqdm(samples, "pictures", unit="picture", delay=3)]
    page.write(out, f"Run {args.folder.resolve().name}", "\n".join(body))
    print(out)
    return 0
