"""The output of benchmarks: environment, tables, and files of results."""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import reblur_ops
from benchmarks.harness.contenders import Row

RESULTS = Path(__file__).parents[1] / "results"  # those of the repository: `make bench` writes them
LOAD_AT_START = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def processor() -> str:
    """The processor's product name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def thread_count(threads: int) -> str:
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def environment(device: str = "cpu") -> dict[str, Any]:
    """The machine, the date and the versions; with the load, which tells how far to trust the times."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {
        "device": name if device == "cuda" else f"{name}, {thread_count(torch.get_num_threads())}",
        "load": round(LOAD_AT_START, 1),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "reblur_ops": reblur_ops.build_info(),
    }


def setting(device: str = "cpu") -> str:
    """`environment` as the line below a page's title."""
    where = environment(device)
    capability = where["reblur_ops"].get("cpu_capability", "nothing compiled")
    load = f"load {where['load']} at the start"
    return f"{where['device']}, {capability}, torch {where['torch']}, {where['date']}, {load}."


def milliseconds(value: float) -> str:
    """Three digits, written out."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def spread(values: Iterable[float | None]) -> str:
    """The percentiles of a time, as a cell of a table."""
    return " / ".join(milliseconds(value) for value in values if value is not None)


def size(shape: Iterable[int]) -> str:
    """A shape, as a cell of a table."""
    return "×".join(map(str, shape))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. A column whose head ends with a colon is aligned to the right; short rows are filled up."""
    lines = [" | ".join(head.removesuffix(":") for head in heads)]
    lines += ["|".join("---:" if head.endswith(":") else "---" for head in heads)]
    lines += [" | ".join([*row, *[""] * (len(heads) - len(row))]) for row in rows]
    return "\n".join(f"|{line}|" if number == 1 else f"| {line} |" for number, line in enumerate(lines))


def table(rows: Sequence[Row], columns: Sequence[str] = ("op", "size", "radius", "dtype")) -> str:
    """Every row, and how much longer it takes than native on the same problem with warm caches."""
    native = {_problem(row): row.ms_p50 for row in rows if (row.impl, row.cache) == ("native", "warm") and row.ms_p50}
    cells = []
    for row in rows:
        values = {"op": row.op, "size": size(row.shape), "radius": str(row.radius), "dtype": row.dtype}
        impl = f"{row.impl}, cold cache" if row.cache == "cold" else row.impl
        head = [*(values[column] for column in columns), row.pass_, impl]
        if row.ms_p50 is None:
            cells.append([*head, row.note])
            continue
        ratio = f"{row.ms_p50 / native[_problem(row)]:.3g}" if _problem(row) in native else ""
        times = spread((row.ms_p20, row.ms_p50, row.ms_p80))
        cells.append([*head, times, str(row.samples), ratio, f"{row.peak_mb or 0:.4g}", f"{row.error or 0:.1e}"])
    numbers = ("ms (20 / 50 / 80 %):", "samples:", "× native:", "peak memory, MB:", "error:")
    return markdown((*columns, "pass", "implementation", *numbers), cells)


def _problem(row: Row) -> tuple[object, ...]:
    return row.op, row.pass_, row.dtype, tuple(row.shape), row.radius


def save(name: str, rows: Sequence[Any], text: str, results: Path | None, **more: Any) -> None:
    """Print the page, and write <name>.json and .md, unless `results` is None.

    Args:
        name: of the files, without their suffix.
        rows: dataclasses.
        text: the page, Markdown.
        results: the folder, made if need be.
        more: goes beside the rows, or in the place of what `environment` tells of the CPU.
    """
    print(text)
    if results is None:
        print("not written: --results names a folder", flush=True)
        return
    results.mkdir(exist_ok=True, parents=True)
    records = [{key.rstrip("_"): value for key, value in asdict(row).items()} for row in rows]
    record = {**environment(), **more, "rows": records}
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (results / f"{name}.md").write_text(text)
    print(f"written: {results / name}.json and .md", flush=True)


def arguments(documentation: str | None, seconds: float) -> argparse.ArgumentParser:
    """The parser of a benchmark, with the arguments that all share."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="time for each comparison (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny problems, to try the program: the times mean nothing"
    )
    add_results(parser)
    return parser


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder to write to; if not given, only print")
