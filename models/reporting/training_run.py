"""Sections about a training run: curves, sources, and a summary."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import UserError
from ..data.layouts import NOTATION, PHOTOGRAPHS, parse_source
from ..data.pairs import DataError
from ..framework import Framework
from . import page
from .page import Series


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
        "Correlation of the blur radius with the truth": series(
            validation, {"blur_radius_correlation": "found", "map_radius_correlation": "from one image"}
        ),
        "Effective number of blurs; 1: collapsed": series(validation, {"effective_blurs": "found"}),
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
        if any(source.layout == PHOTOGRAPHS for source in sources):
            return list(config["data"]["validation"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, DataError) as error:
        raise UserError(f"{run}/config.yaml does not tell the data: give --data {NOTATION}") from error
    return [f"{source.layout}:{','.join(map(str, source.folders))}" for source in sources]


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
    return page.numbers(values) + origin(run)


def origin(run: Path) -> str:
    """When, with what command and of which commit a run was started last, how far it came, and its configuration."""
    starts, metrics = (read_lines(run / name) for name in ("environment.jsonl", "metrics.jsonl"))
    if not starts:
        return ""
    last = starts[-1]
    rows = [
        ["started last", f"{last.get('time', '')}, after step {last.get('step', 0)}"],
        ["command", " ".join(last.get("command", []))],
        ["commit", str(last.get("git_commit"))],
        ["computed by", f"{last.get('device')}, {last.get('processes')} processes, torch {last.get('torch')}"],
    ]
    if metrics:
        rows.append(["steps done", str(metrics[-1]["step"])])
    config = run / "config.yaml"
    text = html.escape(config.read_text(encoding="utf-8")) if config.is_file() else ""
    shown = f"<details><summary>Configuration</summary><pre>{text}</pre></details>" if text else ""
    return f"<h2>Run</h2>{page.table(['', ''], rows)}{shown}"
