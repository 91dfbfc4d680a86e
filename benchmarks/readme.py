"""Writes the measured tables into README.md, between the markers that name their results.

python -m benchmarks.readme [--check]
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, milliseconds

README = Path(__file__).parents[1] / "README.md"


def operator_table(results: dict[str, Any]) -> str:
    """How long each implementation takes, and how many times longer than native."""
    rows = results["rows"]
    native = {(tuple(row["shape"]), row["pass"]): row["ms_p50"] for row in rows if row["impl"] == "native"}
    names = {"native": "**native**", "torch": "pure PyTorch", "reference": "naive unfold"}
    lines = [
        f"Median milliseconds on {results['device']}, float32, radii 1 … 7, {results['date']}:",
        "",
        "| image | pass | " + " | ".join(names.values()) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for (shape, pass_), quickest in native.items():
        cells = []
        for impl in names:
            found = [r["ms_p50"] for r in rows if (tuple(r["shape"]), r["pass"], r["impl"]) == (shape, pass_, impl)]
            factor = f" ({found[0] / quickest:.0f}×)" if found and impl != "native" else ""
            cells.append(f"{milliseconds(found[0])}{factor}" if found else "not run")
        lines.append(f"| {'×'.join(map(str, shape))} | {pass_} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


TABLES = {"operator-cpu": operator_table, "networks-cpu": networks_table}


def updated(text: str) -> str:
    """The README's text with every table made anew from its results."""
    for name, table in TABLES.items():
        results = json.loads((RESULTS / f"{name}.json").read_text())
        parts = re.split(f"(<!-- results: {name} -->\n)(.*?)(\n<!-- end of results -->)", text, flags=re.DOTALL)
        if len(parts) != 5:
            raise SystemExit(f"README.md must have one place for the results {name}, has {len(parts) // 4}")
        parts[2] = table(results)
        text = "".join(parts)
    return text


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
