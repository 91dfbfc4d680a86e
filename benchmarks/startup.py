"""What does it cost to begin: import, the first call, the build, the wheel?

    python -m benchmarks.startup [--build]                             (make bench, without --build)

Import and first call in fresh processes, one after another. --build compiles the wheel from scratch in a folder of its
own, which takes a minute or more.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import harness

ROOT = Path(__file__).parents[1]
FOLDERS = ("reblur_ops", "models", "csrc", "build_support")
SOURCES = (*FOLDERS, "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
FRESH = """
import json, sys, time
begin = time.perf_counter()
import torch
torch_imported = time.perf_counter()
import reblur_ops
imported = time.perf_counter()
tensors = [torch.rand(1, planes, 256, 256) for planes in (3, *reblur_ops.map_channels())]
times = {"import of torch": torch_imported - begin, "import of reblur_ops, beyond torch's": imported - torch_imported}
for name in ("first call", "second call"):
    start = time.perf_counter()
    reblur_ops.reblur(*tensors)
    times[f"{name}, forward, 1×3×256×256"] = time.perf_counter() - start
leaves = [tensor.requires_grad_() for tensor in tensors]
for name in ("first call", "second call"):
    start = time.perf_counter()
    reblur_ops.reblur(*leaves).sum().backward()
    times[f"{name}, forward+backward, 1×3×256×256"] = time.perf_counter() - start
print(json.dumps(times))
"""


@dataclass
class Row:
    """One cost."""

    what: str
    unit: str
    p20: float
    p50: float
    p80: float
    samples: int


def fresh_process() -> dict[str, float]:
    """Seconds of each step of a new process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FRESH]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {str(name): float(seconds) for name, seconds in json.loads(result.stdout).items()}


def processes(count: int) -> list[Row]:
    fresh_process()  # after it the files are in the system's cache, as they mostly are
    runs = [fresh_process() for _ in tqdm(range(count), desc="fresh processes", leave=False)]
    rows = []
    for name in runs[0]:
        p20, p50, p80 = np.percentile([1e3 * run[name] for run in runs], (20, 50, 80))
        rows.append(Row(name, "ms", float(p20), float(p50), float(p80), count))
    return rows


def build() -> list[Row]:
    """The wheel, from scratch: how long its build takes, and how large it and its compiled module are."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        for name in SOURCES:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("*.so", "__pycache__")
                shutil.copytree(ROOT / name, source / name, ignore=ignored)
            else:
                source.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        options = ["--no-build-isolation", "--no-deps", "--no-cache-dir", "-q", "-w", folder]
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
        seconds = time.perf_counter() - begin
        (wheel,) = Path(folder).glob("*.whl")
        size = wheel.stat().st_size / 1e6
    return [Row("build of the wheel", "s", seconds, seconds, seconds, 1), Row("wheel", "MB", size, size, size, 1)]


def kept(path: Path) -> list[Row]:
    """The rows of an earlier measurement of the build, which is not repeated every time."""
    if not path.exists():
        return []
    return [Row(**row) for row in json.loads(path.read_text())["rows"] if row["unit"] != "ms"]


def table(rows: list[Row]) -> str:
    cells = [
        [row.what, *map(harness.milliseconds, (row.p20, row.p50, row.p80)), row.unit, str(row.samples)] for row in rows
    ]
    return harness.markdown(("what", "20 %:", "median:", "80 %:", "unit", "samples:"), cells)


def main() -> None:
    parser = harness.arguments(__doc__, seconds=0)
    parser.add_argument("--build", action="store_true", help="build the wheel, too")
    arguments = parser.parse_args()
    rows = processes(2 if arguments.quick else 5)
    rows += build() if arguments.build else kept((arguments.results or harness.RESULTS) / "startup-cpu.json")
    text = f"# Beginning\n\n{harness.setting()} Fresh processes, files in the system's cache.\n\n{table(rows)}\n"
    harness.save("startup-cpu", rows, text, arguments.results)


if __name__ == "__main__":
    main()
