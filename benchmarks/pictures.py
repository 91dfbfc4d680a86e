"""Draws what was measured: results/*.svg, of the JSON beside them.

python -m benchmarks.pictures                                      (make bench)
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness import RESULTS

PASSES = ("forward", "forward+backward")
COLOURS = {"forward": "#4c72b0", "forward+backward": "#dd8452"}
# The same numbers give the same file.
SETTINGS: Any = {"svg.hashsalt": "reblur_ops", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10.0}


def operator_picture(results: dict[str, Any], figure: Figure) -> None:
    """Time and memory of every contender on the first problem, relative to native."""
    measured = [row for row in results["rows"] if row["ms_p50"] is not None]
    shape, dtype, radius = (measured[0][key] for key in ("shape", "dtype", "radius"))
    rows = [
        row
        for row in measured
        if (row["shape"], row["dtype"], row["radius"], row["cache"]) == (shape, dtype, radius, "warm")
    ]
    names = list(dict.fromkeys(row["impl"] for row in rows))
    for axes, key, unit in zip(figure.subplots(1, 2, sharey=True), ("ms_p50", "peak_mb"), ("ms", "MB"), strict=True):
        for index, pass_ in enumerate(PASSES):
            values = {row["impl"]: row[key] for row in rows if row["pass"] == pass_}
            places = [names.index(name) + 0.4 * index - 0.2 for name in values]
            bars = axes.barh(places, values.values(), height=0.38, color=COLOURS[pass_], label=pass_)
            axes.bar_label(bars, [f" {value:.3g}" for value in values.values()], fontsize=8)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.set_xlabel(f"median, {unit}" if unit == "ms" else f"peak memory, {unit}")
        axes.spines[["top", "right"]].set_visible(False)
    first = figure.axes[0]
    first.set_yticks(range(len(names)), names)
    first.invert_yaxis()
    figure.axes[1].legend(frameon=False, loc="upper right", fontsize=8)
    figure.suptitle(f"reblur, {'×'.join(map(str, shape))}, {dtype}, {results['device']}", fontsize=10)


def families_picture(results: dict[str, Any], figure: Figure) -> None:
    """The speed of each family relative to the naive unfold, both directions."""
    by_key = {(row["op"], row["pass"], row["impl"]): row["ms_p50"] for row in results["rows"]}
    names = [
        op for op in dict.fromkeys(row["op"] for row in results["rows"]) if (op, PASSES[0], "naive unfold") in by_key
    ]
    axes = figure.subplots()
    for index, pass_ in enumerate(PASSES):
        ratios = [by_key[name, pass_, "naive unfold"] / by_key[name, pass_, "native"] for name in names]
        bars = axes.barh(
            [n + 0.4 * index - 0.2 for n in range(len(names))], ratios, 0.38, color=COLOURS[pass_], label=pass_
        )
        axes.bar_label(bars, [f" {ratio:.0f}×" for ratio in ratios], fontsize=8)
    axes.axvline(30, color="grey", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("times faster than the naive unfold; dashed: 30")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"Families, 1×3×512×512, R = 7, {results['device']}", fontsize=10)


def limit_picture(results: dict[str, Any], figure: Figure) -> None:
    """The growth of time with pixels, radius and channels."""
    of_row: dict[str, Callable[[dict[str, Any]], int]] = {
        "pixels": lambda row: int(row["shape"][2] * row["shape"][3]),
        "radius": lambda row: int(row["radius"]),
        "channels": lambda row: int(row["shape"][1]),
    }
    panels: list[Axes] = list(figure.subplots(1, 3, sharey=True))
    for axes, (question, value) in zip(panels, of_row.items(), strict=True):
        for pass_ in PASSES:
            rows = [row for row in results["rows"] if (row["question"], row["pass"]) == (question, pass_)]
            x, y = [value(row) for row in rows], [row["ms_p50"] for row in rows]
            axes.loglog(x, y, "o-", color=COLOURS[pass_], label=pass_, markersize=4)
        axes.set_xlabel(question)
        axes.set_xticks(x, [f"{n / 1e3:.0f}k" if n > 1000 else str(n) for n in x])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("median, ms")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"reblur, native, {results['device']}", fontsize=10)


def training_picture(results: dict[str, Any], figure: Figure) -> None:
    """A step of the second stage at the largest measured size: the operator's part, and the rest."""
    rows = [row for row in results["rows"] if row["stage"] == "joint" and not row["computed"] and row["ms_p50"]]
    rows = [row for row in rows if row["shape"] == rows[-1]["shape"]]
    axes = figure.subplots()
    names = [row["impl"] for row in rows]
    reblurring = [row["reblur_ms"] for row in rows]
    rest = [max(0.0, row["ms_p50"] - row["reblur_ms"]) for row in rows]
    axes.barh(names, rest, color="#8c8c8c", label="the rest of the step")
    axes.barh(names, reblurring, left=rest, color=COLOURS["forward+backward"], label="reblurring")
    axes.invert_yaxis()
    axes.set_xlabel("ms a step")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    size = "×".join(map(str, rows[0]["shape"]))
    figure.suptitle(f"Second stage, {size}, by the operator's backend, {results['device']}", fontsize=10)


PICTURES: dict[str, tuple[Callable[[dict[str, Any], Figure], None], tuple[float, float]]] = {
    "operator-cpu": (operator_picture, (9, 3.2)),
    "families-cpu": (families_picture, (7, 3.2)),
    "limit-cpu": (limit_picture, (9, 3.2)),
    "training-step-cpu": (training_picture, (7, 2.2)),
}


def draw(name: str, results: Path = RESULTS) -> Path:
    """Draw <name>.svg of <name>.json; its path."""
    picture, size = PICTURES[name]
    path = results / f"{name}.svg"
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        picture(json.loads((results / f"{name}.json").read_text()), figure)
        figure.savefig(path, metadata={"Date": None})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="folder to read and write")
    arguments = parser.parse_args()
    for name in PICTURES:
        print(f"written: {draw(name, arguments.results)}")


if __name__ == "__main__":
    main()
