"""Everything that only a GPU can tell: build, tests, sanitizers, and the operator against its rivals.

    python3 -m benchmarks.gpu [--only build test sanitize measure]     (make gpu)

Needs no network and no virtual environment: the python3 that runs it, with torch for CUDA, numpy, pytest and a CUDA
toolkit. Writes benchmarks/results/<device>.json and .md. A step that fails is told at the end; the others still run.
"""

import argparse
import datetime
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
SIZES = ((1, 3, 256, 256), (8, 3, 256, 256), (1, 3, 1080, 1920), (1, 3, 2160, 3840))
DTYPES = (torch.float32, torch.bfloat16)
IMPLEMENTATIONS = {"cuda": "native", "torch": "torch", "torch-compiled": "torch", "reference": "reference"}
PASSES = ("forward", "forward+backward")
SANITIZED = "import torch; from tests.problems import problem, run; p = problem(40, 70, batch=1); " + (
    "p = p._replace(**{n: getattr(p, n).cuda().float() for n in ('image', 'seeds', 'weights', 'grad_output')}); "
    "run(p, 'native'); torch.cuda.synchronize()"
)


def command(*arguments: str) -> bool:
    """Run a command in the checkout, its output passed on; whether it succeeded."""
    print(f"$ {' '.join(arguments)}", flush=True)
    return subprocess.run(arguments, cwd=ROOT, check=False).returncode == 0


def build() -> bool:
    return command(sys.executable, "setup.py", "-q", "build_clib", "build_ext", "--inplace")


def test() -> bool:
    return command(sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/cuda")


def sanitize() -> bool:
    """compute-sanitizer on a small case. A tool that is missing or refuses the device is told, and no failure."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        print("compute-sanitizer is not on the PATH: not run")
        return True
    passed = True
    for check in ("memcheck", "racecheck"):
        result = subprocess.run(
            [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", SANITIZED],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = result.stdout.strip().splitlines() or ["no output"]
        print(f"compute-sanitizer {check}: {lines[-1]}")
        passed &= result.returncode != 9
    return passed


def sources_sha256() -> str:
    """SHA-256 of the bytes of all files tracked under csrc/, one after another, by path in the C locale.

    Where there is no git, of all files there, which is the same in a clean checkout.
    """
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "csrc"], cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / path.decode() for path in sorted(listed.split(b"\0")[:-1])]
    except (OSError, subprocess.CalledProcessError):
        paths = sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def milliseconds(call: Callable[[], object], seconds: float = 1.0) -> np.ndarray:
    """The GPU's time for each of many calls, by events, each with a cold second-level cache; after warming up."""
    flush = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.int8, device="cuda")
    for _ in range(3):
        call()

    def once() -> float:
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    rough = statistics.median(once() for _ in range(3))
    return np.array([once() for _ in range(int(np.clip(1e3 * seconds / rough, 5, 200)))])


def copy_bandwidth() -> float:
    """GB/s, read and written bytes both counted, of a copy of 1 GiB."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / float(np.median(milliseconds(lambda: target.copy_(source)))) / 1e6


def floor_bytes(shape: tuple[int, int, int, int], dtype: torch.dtype, pass_: str) -> int:
    """What must be read and written at least: each input and each result once in each pass."""
    n, c, h, w = shape
    planes = 35 + 8
    forward = planes + 2 * c
    backward = planes + 2 * c + planes + c  # image, gradient of the output, parameters; the gradients
    values = forward if pass_ == "forward" else forward + backward
    return values * n * h * w * dtype.itemsize


def make_call(impl: str, pass_: str, tensors: list[Tensor], grad_output: Tensor) -> Callable[[], list[Tensor]]:
    import reblur_ops

    backend = IMPLEMENTATIONS[impl]
    operator: Callable[..., Tensor] = (
        torch.compile(reblur_ops.reblur) if impl == "torch-compiled" else reblur_ops.reblur
    )

    def forward() -> list[Tensor]:
        with reblur_ops.use_backend(backend), torch.no_grad():
            return [operator(*tensors)]

    def forward_backward() -> list[Tensor]:
        with reblur_ops.use_backend(backend):
            output = operator(*leaves)
        return list(torch.autograd.grad(output, leaves, grad_output))

    if pass_ == "forward":
        return forward
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return forward_backward


def measure_row(
    impl: str, pass_: str, dtype: torch.dtype, shape: tuple[int, int, int, int], bandwidth: float
) -> dict[str, Any]:
    n, c, h, w = shape
    row: dict[str, Any] = {
        "op": "reblur",
        "pass": pass_,
        "impl": impl,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(shape),
        "floor_ms": floor_bytes(shape, dtype, pass_) / bandwidth / 1e6,
    }
    generator = torch.Generator("cuda").manual_seed(0)
    try:
        image, seeds, weights, grad_output = (
            torch.randn(n, planes, h, w, device="cuda", generator=generator).to(dtype) for planes in (c, 35, 8, c)
        )
        call = make_call(impl, pass_, [image, seeds, weights.softmax(dim=1)], grad_output)
        results = call()
        results_bytes = sum(tensor.numel() * tensor.itemsize for tensor in results)
        if pass_ != "forward":
            results_bytes += grad_output.numel() * grad_output.itemsize  # the output
        del results
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        row["peak_extra_mb"] = max(torch.cuda.max_memory_allocated() - before - results_bytes, 0) / 1e6
        times = milliseconds(call)
        row.update(zip(("ms_p20", "ms_p50", "ms_p80"), map(float, np.percentile(times, (20, 50, 80))), strict=True))
    except torch.cuda.OutOfMemoryError:
        row["error"] = "out of memory"
    finally:
        torch.compiler.reset()
        torch.cuda.empty_cache()
    return row


def check(impl: str, dtype: torch.dtype) -> float:
    """The largest error relative to the largest value, against the reference in float64, of output and gradients."""
    from tests.problems import problem

    p = problem(40, 70, batch=1).to(dtype)
    actual, exact = (
        results(name, [tensor.cuda().to(precision) for tensor in p.tensors], p.grad_output.cuda().to(precision))
        for name, precision in ((impl, dtype), ("reference", torch.float64))
    )
    return max(((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, exact, strict=True))


def results(impl: str, tensors: list[Tensor], grad_output: Tensor) -> list[Tensor]:
    return [result for pass_ in PASSES for result in make_call(impl, pass_, tensors, grad_output)()]


def measure() -> bool:
    from tests.problems import TOLERANCE

    errors = {(impl, dtype): check(impl, dtype) for impl in IMPLEMENTATIONS for dtype in DTYPES}
    wrong = [f"{impl} {dtype}: {error:.2g}" for (impl, dtype), error in errors.items() if error > TOLERANCE[dtype]]
    bandwidth = copy_bandwidth()
    rows = []
    for shape in SIZES:
        for dtype in DTYPES:
            for pass_ in PASSES:
                for impl in IMPLEMENTATIONS:
                    rows.append(measure_row(impl, pass_, dtype, shape, bandwidth))
                    print(json.dumps(rows[-1]), flush=True)
    device = torch.cuda.get_device_name()
    record = {
        "device": device,
        "driver": driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": datetime.date.today().isoformat(),
        "csrc_sha256": sources_sha256(),
        "copy_bandwidth_gbps": bandwidth,
        "errors": {f"{impl} {dtype}": error for (impl, dtype), error in errors.items()},
        "rows": rows,
    }
    path = ROOT / "benchmarks" / "results" / re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(record))
    print(f"written: {path}.json and .md")
    if wrong:
        print("wrong results: " + "; ".join(wrong))
    return not wrong


def page(record: dict[str, Any]) -> str:
    lines = [
        f"# reblur on {record['device']}",
        "",
        f"Driver {record['driver']}, torch {record['torch']}, CUDA {record['cuda']}, {record['date']}. Radii 1 … 7. "
        f"A copy moves {record['copy_bandwidth_gbps']:.0f} GB/s; the floor is what it would take to move inputs and "
        "results.",
        "",
        "| size | dtype | pass | implementation | ms (20 / 50 / 80 %) | × floor | extra memory, MB |",
        "|---|---|---|---|---:|---:|---:|",
    ]
    for row in record["rows"]:
        head = f"| {'×'.join(map(str, row['shape']))} | {row['dtype']} | {row['pass']} | {row['impl']} "
        if "error" in row:
            lines.append(f"{head}| {row['error']} | | |")
            continue
        times = " / ".join(f"{row[key]:.3g}" for key in ("ms_p20", "ms_p50", "ms_p80"))
        lines.append(f"{head}| {times} | {row['ms_p50'] / row['floor_ms']:.2f} | {row['peak_extra_mb']:.0f} |")
    return "\n".join(lines) + "\n"


STEPS: dict[str, Callable[[], bool]] = {"build": build, "test": test, "sanitize": sanitize, "measure": measure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="these steps (default: all)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU is visible to torch: nothing was done")
    failed = [name for name in STEPS if name in arguments.only and not STEPS[name]()]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
