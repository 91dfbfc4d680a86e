"""Write the measured tables into README.md and docs/results.md, between the markers that name their results.

python -m benchmarks.tables [--check]
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import limit
from benchmarks.harness import RESULTS, markdown, milliseconds

ROOT = Path(__file__).parents[1]

NAMES = {
    "native": "**native**",
    "ring convolution": "ring convolution",
    "ring convolution, compiled": "the same, compiled",
    "explicit kernels": "explicit kernels",
    "naive unfold": "naive unfold",
}


RIVALS = {  # of the table of ranges: implementation, and how the README calls it
    "ring convolution": "convolutions with 0/1 filters, pure PyTorch",
    "explicit kernels": "K² weights per pixel, tap by tap",
    "naive unfold": "naive unfold",
}


def ratios(results: dict[str, Any], rival: str, pass_: str, key: str) -> list[float]:
    """A rival's time or memory divided by native's, for each problem that both have solved."""
    values: dict[Any, dict[str, float]] = {}
    for row in results["rows"]:
        # Those of families-cpu without a direction stand side by side with reblur, which has a table of its own.
        if (
            row["cache"] == "warm"
            and row["pass"] == pass_
            and row[key]
            and (row["op"] == "reblur" or ", " in row["op"])
        ):
            problem = (row["op"], *row["shape"], row["radius"], row["dtype"])
            values.setdefault(problem, {})[row["impl"]] = row[key]
    return [of[rival] / of["native"] for of in values.values() if {rival, "native"} <= of.keys()]


def span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{low}×" if low == high else f"{low} to {high}×"


def ranges_table() -> str:
    """The range of each rival's times and memory, relative to native."""
    operator, families = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("operator-cpu", "families-cpu")
    )
    where = f"Relative to the native kernels, on {operator['device']}, {operator['date']}:"
    lines = []
    rows = [("`reblur`", operator, rival) for rival in RIVALS]
    for operators, results, rival in [*rows, ("`gaussian_blur`, `disk_blur`, `radial_blur`", families, "naive unfold")]:
        cells = (
            span(ratios(results, rival, pass_, key))
            for pass_, key in (
                ("forward", "ms_p50"),
                ("forward+backward", "ms_p50"),
                ("forward+backward", "peak_mb"),
            )
        )
        lines.append([operators, RIVALS[rival], *cells])
    numbers = ("time, forward:", "time, forward+backward:", "memory, forward+backward:")
    table = markdown(("operator", "compared with", *numbers), lines)
    return "\n".join([where, "", table, "", absolute_times(operator)])


def absolute_times(results: dict[str, Any]) -> str:
    """A sentence with native's times for two sizes."""
    times = {
        (tuple(row["shape"]), row["pass"]): row["ms_p50"]
        for row in results["rows"]
        if (row["impl"], row["cache"], row["radius"], row["dtype"]) == ("native", "warm", 7, "float32")
    }
    sizes = ((1, 3, 256, 256), (1, 3, 1080, 1920))
    told = [
        f"{milliseconds(times[size, 'forward'])} ms forward and {milliseconds(times[size, 'forward+backward'])} ms "
        f"forward+backward at {'×'.join(map(str, size))}"
        for size in sizes
    ]
    return f"`reblur` itself takes {', '.join(told)} (radii 1 … 7, float32)."


def times_table(rows: Sequence[dict[str, Any]], label: Callable[[dict[str, Any]], str], first: str) -> list[str]:
    """Lines of a table: the time of each implementation on each problem and pass, and how many times native's it is."""
    rows = [row for row in rows if row["cache"] == "warm"]
    names = [name for name in NAMES if any(row["impl"] == name for row in rows)]
    lines = []
    problems = dict.fromkeys((label(row), row["pass"]) for row in rows)
    for problem, pass_ in problems:
        times = {row["impl"]: row["ms_p50"] for row in rows if (label(row), row["pass"]) == (problem, pass_)}
        cells = []
        for name in names:
            time = times.get(name)
            factor = f" ({time / times['native']:.0f}×)" if time and name != "native" else ""
            cells.append(f"{milliseconds(time)}{factor}" if time else "not run")
        lines.append([problem, pass_, *cells])
    return markdown((first, "pass", *(f"{NAMES[name]}:" for name in names)), lines).splitlines()


def operator_table(results: dict[str, Any]) -> str:
    """The times of each implementation, and their ratios to native."""

    def label(row: dict[str, Any]) -> str:
        size = "×".join(map(str, row["shape"]))
        radius = "" if row["radius"] == 7 else f", radii 1 … {row['radius']}"
        return f"{size}{radius}" if row["dtype"] == "float32" else f"{size}{radius}, {row['dtype']}"

    head = (
        f"Median milliseconds on {results['device']}, {results['date']}; radii 1 … 7 and float32 unless said otherwise:"
    )
    return "\n".join([head, "", *times_table(results["rows"], label, "image")])


def families_table(results: dict[str, Any]) -> str:
    """The same of the other blurs."""
    rows = [row for row in results["rows"] if ", " in row["op"]]  # a direction: not those side by side with reblur
    size = "×".join(map(str, rows[0]["shape"]))
    head = (
        f"Median milliseconds at {size}, R = {rows[0]['radius']}, float32, on {results['device']}, {results['date']}:"
    )
    return "\n".join([head, "", *times_table(rows, lambda row: str(row["op"]), "operator")])


def networks_table(results: dict[str, Any]) -> str:
    """Each network's size, time and memory."""
    height, width = results["rows"][0]["shape"][2:]
    head = (
        f"Median milliseconds for {height} × {width} pixels on {results['device']}, float32, without gradients, "
        f"{results['date']}:"
    )
    cells = [
        [
            row["network"],
            f"{row['parameters'] / 1e6:.3f} M",
            milliseconds(row["ms_p50"]),
            f"{row['bytes_per_pixel']:.0f}",
        ]
        for row in results["rows"]
    ]
    return "\n".join([head, "", markdown(("network", "parameters:", "ms:", "bytes a pixel:"), cells)])


def limit_table(results: dict[str, Any]) -> str:
    """The distance from the floor of memory or arithmetic."""
    rows = [
        limit.Row(**{"pass_" if key == "pass" else key: value for key, value in row.items()}) for row in results["rows"]
    ]
    at_limit = [row for row in rows if row.question == "limit"]
    cells = [
        [
            "×".join(map(str, row.shape)),
            row.pass_,
            str(row.threads),
            milliseconds(row.ms_p50),
            f"{max(row.memory_ms, row.arithmetic_ms):.3g}",
            f"{row.ratio:.1f}",
        ]
        for row in at_limit
    ]
    table = markdown(("image", "pass", "threads:", "ms:", "floor, ms:", "× floor:"), cells)
    return "\n".join([f"On {results['device']}, {results['date']}:", "", table])


def from_results(name: str, table: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """The table of one benchmark's results."""

    def made() -> str:
        measured = RESULTS / f"{name}.json"
        return table(json.loads(measured.read_text())) if measured.exists() else "Not measured yet: `make bench`."

    return made


# By page: the tables in it, by the names of their markers.
PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"ranges-cpu": ranges_table},
    "docs/results.md": {
        "operator-cpu": from_results("operator-cpu", operator_table),
        "families-cpu": from_results("families-cpu", families_table),
        "limit-cpu": from_results("limit-cpu", limit_table),
        "networks-cpu": from_results("networks-cpu", networks_table),
    },
}


def updated(page: str, text: str) -> str:
    """A page's text with every table made anew from its results."""
    for name, table in PAGES[page].items():
        text = replaced(page, text, name, table())
    return text


def replaced(page: str, text: str, name: str, table: str) -> str:
    """A page's text with a table between the markers of its results, whatever stands there now.

    Raises:
        SystemExit: the markers are not there exactly once, or another begins before they end.
    """
    parts = re.split(f"(<!-- results: {re.escape(name)} -->\n)(.*?)(<!-- end of results -->)", text, flags=re.DOTALL)
    if len(parts) != 5:
        raise SystemExit(f"{page} must have one place for the results {name}, has {len(parts) // 4}")
    if "<!-- results:" in parts[2]:
        raise SystemExit(f"{page}: the results {name} have no end")
    parts[2] = f"\n{table}\n\n"
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page differs from the results")
    arguments = parser.parse_args()
    for page in PAGES:
        text = (ROOT / page).read_text()
        if arguments.check and text != updated(page, text):
            raise SystemExit(f"{page} differs from the results: run `make tables`")
        (ROOT / page).write_text(updated(page, text))


if __name__ == "__main__":
    main()
