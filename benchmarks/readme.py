"""Writes the measured tables into README.md, between the markers that name their results.

python -m benchmarks.readme [--check]
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import limit
from benchmarks.harness import RESULTS, milliseconds

README = Path(__file__).parents[1] / "README.md"


NAMES = {
    "native": "**native**",
    "ring convolution": "ring convolution",
    "ring convolution, compiled": "the same, compiled",
    "explicit kernels": "explicit kernels",
    "naive unfold": "naive unfold",
}


def times_table(rows: Sequence[dict[str, Any]], label: Callable[[dict[str, Any]], str], first: str) -> list[str]:
    """Lines: for each problem and pass, each implementation's time, and how many times longer than native it takes."""
    rows = [row for row in rows if row["cache"] == "warm"]
    names = [name for name in NAMES if any(row["impl"] == name for row in rows)]
    lines = [
        f"| {first} | pass | " + " | ".join(NAMES[name] for name in names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    problems = dict.fromkeys((label(row), row["pass"]) for row in rows)
    for problem, pass_ in problems:
        times = {row["impl"]: row["ms_p50"] for row in rows if (label(row), row["pass"]) == (problem, pass_)}
        cells = []
        for name in names:
            time = times.get(name)
            factor = f" ({time / times['native']:.0f}×)" if time and name != "native" else ""
            cells.append(f"{milliseconds(time)}{factor}" if time else "not run")
        lines.append(f"| {problem} | {pass_} | " + " | ".join(cells) + " |")
    return lines


def operator_table(results: dict[str, Any]) -> str:
    """How long each implementation takes, and how many times longer than native."""

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
    lines = [
        f"Median milliseconds for {height} × {width} pixels on {results['device']}, float32, without gradients, "
        f"{results['date']}:",
        "",
        "| network | parameters | ms | bytes a pixel |",
        "|---|---:|---:|---:|",
    ]
    for row in results["rows"]:
        cells = (f"{row['parameters'] / 1e6:.3f} M", milliseconds(row["ms_p50"]), f"{row['bytes_per_pixel']:.0f}")
        lines.append(f"| {row['network']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def limit_table(results: dict[str, Any]) -> str:
    """How far from the floor of memory or arithmetic, and how time grows."""
    rows = [
        limit.Row(**{"pass_" if key == "pass" else key: value for key, value in row.items()}) for row in results["rows"]
    ]
    at_limit = [row for row in rows if row.question == "limit"]
    lines = [
        f"On {results['device']}, {results['date']}:",
        "",
        "| image | pass | threads | ms | floor, ms | × floor |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in at_limit:
        floor = max(row.memory_ms, row.arithmetic_ms)
        size = "×".join(map(str, row.shape))
        cells = f"{row.threads} | {milliseconds(row.ms_p50)} | {floor:.3g} | {row.ratio:.1f}"
        lines.append(f"| {size} | {row.pass_} | {cells} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "operator-cpu": operator_table,
    "families-cpu": families_table,
    "limit-cpu": limit_table,
    "networks-cpu": networks_table,
}


def updated(text: str) -> str:
    """The README's text with every table made anew from its results."""
    for name, table in TABLES.items():
        measured = RESULTS / f"{name}.json"
        made = table(json.loads(measured.read_text())) if measured.exists() else "Not measured yet: `make bench`."
        text = replaced(text, name, made)
    return text


def replaced(text: str, name: str, table: str) -> str:
    """The text with the table between the markers of its results, whatever is there now, nothing too.

    Raises:
        SystemExit: the markers are not there once, or another begins before they end.
    """
    parts = re.split(f"(<!-- results: {re.escape(name)} -->\n)(.*?)(<!-- end of results -->)", text, flags=re.DOTALL)
    if len(parts) != 5:
        raise SystemExit(f"README.md must have one place for the results {name}, has {len(parts) // 4}")
    if "<!-- results:" in parts[2]:
        raise SystemExit(f"README.md: the results {name} have no end")
    parts[2] = f"{table}\n"
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the README differs")
    arguments = parser.parse_args()
    text = README.read_text()
    if arguments.check and text != updated(text):
        raise SystemExit("README.md differs from the results: run `make readme-table`")
    README.write_text(updated(text))


if __name__ == "__main__":
    main()
