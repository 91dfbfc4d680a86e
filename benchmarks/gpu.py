"""Everything that only a GPU can tell: build, tests, sanitizers, and the operator against its rivals.

    python3 -m benchmarks.gpu [--only build test sanitize measure]     (make gpu)

Needs no network and no virtual environment: the python3 that runs it, with torch for CUDA, numpy, pytest and a CUDA
toolkit. Writes benchmarks/results/<device>.json and .md. A step that fails is told at the end; the others still run.
"""

import argparse
import datetime
import functools
import hashlib
import importlib.util
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import counts

ROOT = Path(__file__).parents[1]
SIZES = ((1, 3, 256, 256), (8, 3, 256, 256), (1, 3, 1080, 1920), (1, 3, 2160, 3840))
FAMILY_SIZES = ((1, 3, 512, 512), (1, 3, 1080, 1920))
DTYPES = (torch.float32, torch.bfloat16)
# Of reblur, and the backend that answers, or None for what is not ours.
IMPLEMENTATIONS = {
    "cuda": "native",
    "torch": "torch",
    "torch-compiled": "torch",
    "reference": "reference",
    "taps": None,  # benchmarks.rivals.taps
    "triton": None,  # benchmarks.rivals.triton_reblur, where triton is installed
}
RADIUS = 7
# The other operators: a function of reblur_ops with its options, and the channels of its parameters.
OPERATORS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "reblur": ("reblur", {}, (35, 8)),
    "reblur-scatter": ("reblur", {"direction": "scatter"}, (35, 8)),
    "gaussian_blur": ("gaussian_blur", {"radius": RADIUS}, (1,)),
    "gaussian_blur-scatter": ("gaussian_blur", {"radius": RADIUS, "direction": "scatter"}, (1,)),
    "disk_blur": ("disk_blur", {"max_radius": RADIUS}, (1,)),
    "disk_blur-scatter": ("disk_blur", {"max_radius": RADIUS, "direction": "scatter"}, (1,)),
    "radial_blur": ("radial_blur", {}, (RADIUS + 1,)),
    "radial_blur-scatter": ("radial_blur", {"direction": "scatter"}, (RADIUS + 1,)),
}
SANITIZED = "import torch; from reblur_ops.testing import problem, run; p = problem(40, 70, batch=1); " + (
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


def implementations() -> list[str]:
    """Those that can run here. Whoever lacks one is told."""
    if importlib.util.find_spec("triton") is None:
        print("triton is not installed: not measured")
        return [name for name in IMPLEMENTATIONS if name != "triton"]
    return list(IMPLEMENTATIONS)


def function(op: str, impl: str) -> Callable[..., Tensor]:
    """What is called with the image and the parameters."""
    import reblur_ops

    if impl == "taps":
        from benchmarks.rivals import taps

        return taps.reblur
    if impl == "triton":
        from benchmarks.rivals import triton_reblur

        return triton_reblur.reblur
    name, options, _ = OPERATORS[op]
    operator: Callable[..., Tensor] = functools.partial(getattr(reblur_ops, name), **options)
    if impl == "torch-compiled":
        operator = torch.compile(operator)
    backend = IMPLEMENTATIONS[impl]
    assert backend is not None

    def answered(*tensors: Tensor) -> Tensor:
        with reblur_ops.use_backend(backend):
            return operator(*tensors)

    return answered


def make_call(
    op: str, impl: str, pass_: str, tensors: Sequence[Tensor], grad_output: Tensor
) -> Callable[[], list[Tensor]]:
    operator = function(op, impl)

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [operator(*tensors)]

    def forward_backward() -> list[Tensor]:
        return list(torch.autograd.grad(operator(*leaves), leaves, grad_output))

    if pass_ == "forward":
        return forward
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    return forward_backward


def inputs(op: str, shape: counts.Shape, dtype: torch.dtype, device: str = "cuda") -> tuple[list[Tensor], Tensor]:
    """Image and parameters, radii spread evenly over what the window holds, and the gradient of the output."""
    n, c, h, w = shape
    generator = torch.Generator(device).manual_seed(0)

    def made(make: Callable[..., Tensor], planes: int) -> Tensor:
        return make(n, planes, h, w, device=device, generator=generator)

    image, grad_output = made(torch.randn, c), made(torch.randn, c)
    if op.startswith("gaussian"):
        parameters = [RADIUS / 3 * made(torch.rand, 1)]
    elif op.startswith("disk"):
        parameters = [RADIUS * made(torch.rand, 1)]
    else:
        parameters = [made(torch.randn, planes) for planes in OPERATORS[op][2]]
        if len(parameters) > 1:  # the weights of reblur
            parameters[1] = parameters[1].softmax(dim=1)
    return [tensor.to(dtype) for tensor in (image, *parameters)], grad_output.to(dtype)


def measure_row(
    op: str, impl: str, pass_: str, dtype: torch.dtype, shape: counts.Shape, bandwidth: float
) -> dict[str, Any]:
    floor = counts.floor_bytes(shape, dtype, pass_, sum(OPERATORS[op][2]))
    row: dict[str, Any] = {
        "op": op,
        "pass": pass_,
        "impl": impl,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(shape),
        "floor_ms": floor / bandwidth / 1e6,
    }
    try:
        tensors, grad_output = inputs(op, shape, dtype)
        call = make_call(op, impl, pass_, tensors, grad_output)
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


def check(op: str, impl: str, dtype: torch.dtype, device: str = "cuda") -> float:
    """The largest error of output and gradients, relative to the largest value, against the reference in float64."""
    tensors, grad_output = inputs(op, (2, 3, 40, 70), dtype, device)
    own = results(op, impl, tensors, grad_output)
    exact = results(op, "reference", [tensor.double() for tensor in tensors], grad_output.double())
    return max(((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(own, exact, strict=True))


def results(op: str, impl: str, tensors: Sequence[Tensor], grad_output: Tensor) -> list[Tensor]:
    return [result for pass_ in counts.PASSES for result in make_call(op, impl, pass_, tensors, grad_output)()]


def plan(names: Sequence[str]) -> list[tuple[str, str, torch.dtype, counts.Shape]]:
    """What is measured, in both passes: reblur on every size, type and implementation; the others on fewer."""
    of_reblur = [("reblur", impl, dtype, shape) for shape in SIZES for dtype in DTYPES for impl in names]
    others = [op for op in OPERATORS if op != "reblur"]
    return of_reblur + [
        (op, impl, torch.float32, shape) for op in others for shape in FAMILY_SIZES for impl in ("cuda", "reference")
    ]


def measure() -> bool:
    from reblur_ops.testing import TOLERANCE

    planned = plan(implementations())
    errors = {key: check(*key) for key in dict.fromkeys(what[:3] for what in planned)}
    wrong = [
        f"{op} {impl} {dtype}: {error:.2g}"
        for (op, impl, dtype), error in errors.items()
        if not error <= TOLERANCE[dtype]
    ]
    bandwidth = copy_bandwidth()
    rows = []
    for op, impl, dtype, shape in planned:
        for pass_ in counts.PASSES:
            rows.append(measure_row(op, impl, pass_, dtype, shape, bandwidth))
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
        "errors": {f"{op} {impl} {dtype}": error for (op, impl, dtype), error in errors.items()},
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
        f"# reblur_ops on {record['device']}",
        "",
        f"Driver {record['driver']}, torch {record['torch']}, CUDA {record['cuda']}, {record['date']}. Radii 1 … 7. "
        f"A copy moves {record['copy_bandwidth_gbps']:.0f} GB/s; the floor is what it would take to move inputs and "
        "results.",
        "",
        "| operator | size | dtype | pass | implementation | ms (20 / 50 / 80 %) | × floor | extra memory, MB |",
        "|---|---|---|---|---|---:|---:|---:|",
    ]
    for row in record["rows"]:
        size = "×".join(map(str, row["shape"]))
        head = f"| {row['op']} | {size} | {row['dtype']} | {row['pass']} | {row['impl']} "
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
