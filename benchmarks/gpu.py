"""Everything that only a GPU can tell: build, tests, sanitizers, and the operator against its rivals.

    python3 -m benchmarks.gpu [--only build test sanitize measure]     (make gpu: ten minutes at most)
    python3 -m benchmarks.gpu --only measure --no-limits               (make gpu-rest: the measurements still missing)

Needs no network and no virtual environment: the python3 that runs it, with torch for CUDA, numpy, pytest and a CUDA
toolkit. Writes benchmarks/results/<device>.json and .md, row by row; a rerun goes on where the last one ended. A step
that fails is told at the end; the others still run.
"""

import argparse
import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import counts
from benchmarks.gpu_record import Planned, Record
from benchmarks.gpu_timing import copy_bandwidth, milliseconds
from reblur_ops.testing import TOLERANCE

ROOT = Path(__file__).parents[1]
# Seconds of each step under `make gpu`.
LIMITS = {"build": 210, "test": 150, "sanitize": 60, "measure": 180}
SIZES = ((1, 3, 1080, 1920), (1, 3, 256, 256), (8, 3, 256, 256), (1, 3, 2160, 3840))
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


def command(arguments: Sequence[str], seconds: float) -> bool:
    """Run a command in the checkout, its output passed on; whether it succeeded in time."""
    print(f"$ {' '.join(arguments)}", flush=True)
    try:
        return subprocess.run(arguments, cwd=ROOT, timeout=seconds, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"ended after {seconds:.0f} seconds")
        return False


def build(seconds: float) -> bool:
    return command([sys.executable, "setup.py", "-q", "build_clib", "build_ext", "--inplace"], seconds)


def test(seconds: float) -> bool:
    return command([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/cuda"], seconds)


def sanitize(seconds: float) -> bool:
    """compute-sanitizer on a small case. A tool that is missing or refuses the device is told, and no failure."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        print("compute-sanitizer is not on the PATH: not run")
        return True
    checks = ("memcheck", "racecheck")
    return all([sanitized(tool, check, seconds / len(checks)) for check in checks])


def sanitized(tool: str, check: str, seconds: float) -> bool:
    arguments = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", SANITIZED]
    try:
        result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        print(f"compute-sanitizer {check}: not done after {seconds:.0f} seconds")
        return True
    lines = result.stdout.strip().splitlines() or ["no output"]
    print(f"compute-sanitizer {check}: {lines[-1]}")
    return result.returncode != 9


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
    except Exception as error:  # whatever a rival raises, the other rows are measured
        row["error"] = told(error)
    return row


def told(error: Exception) -> str:
    """An error in one short line of a table."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    first = (str(error).strip().splitlines() or [""])[0].replace("|", "/")
    return f"{type(error).__name__}: {first}"[:120]


def check(op: str, impl: str, dtype: torch.dtype, device: str = "cuda") -> float:
    """The largest error of output and gradients, relative to the largest value, against the reference in float64."""
    tensors, grad_output = inputs(op, (2, 3, 40, 70), dtype, device)
    own = results(op, impl, tensors, grad_output)
    exact = results(op, "reference", [tensor.double() for tensor in tensors], grad_output.double())
    return max(((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(own, exact, strict=True))


def results(op: str, impl: str, tensors: Sequence[Tensor], grad_output: Tensor) -> list[Tensor]:
    return [result for pass_ in counts.PASSES for result in make_call(op, impl, pass_, tensors, grad_output)()]


def plan(names: Sequence[str]) -> list[Planned]:
    """All rows, in order of worth: the CUDA kernels, then their rivals; of reblur, then of the other operators.

    Reblur is measured on every size, type and implementation, the others on fewer.
    """
    of_reblur = [
        Planned("reblur", impl, pass_, dtype, shape)
        for impl in names
        for dtype in DTYPES
        for shape in SIZES
        for pass_ in counts.PASSES
    ]
    others = [
        Planned(op, impl, pass_, torch.float32, shape)
        for impl in ("cuda", "reference")
        for op in OPERATORS
        if op != "reblur"
        for shape in FAMILY_SIZES
        for pass_ in counts.PASSES
    ]
    return sorted(of_reblur + others, key=lambda row: row.impl != "cuda")


def checked(row: Planned) -> float | str:
    """The error of what a row times, or why there is none."""
    try:
        return check(row.op, row.impl, row.dtype)
    except Exception as error:  # a rival that does not work is told in the record
        return told(error)


def usable() -> bool:
    """Whether the device still answers: after an illegal access nothing does, in this process."""
    try:
        torch.compiler.reset()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def measure(seconds: float) -> bool:
    """Measure the rows that the record lacks, in order of worth, until the time is over."""
    begin = time.monotonic()
    record = Record.of_this_device()
    missing = [row for row in plan(implementations()) if not record.has(row)]
    bandwidth = record.bandwidth(copy_bandwidth)
    for done, row in enumerate(missing):
        if time.monotonic() - begin > seconds:
            print(f"{len(missing) - done} rows are still missing: make gpu-rest")
            break
        if row.checked not in record.errors:
            record.add_error(row.checked, checked(row))
        measured = measure_row(*row, bandwidth)
        record.add_row(measured)
        print(json.dumps(measured), flush=True)
        if not usable():
            print("the GPU does not answer any more after this row; a rerun goes on with the next one")
            return False
    wrong = [f"{key}: {error}" for key, error in record.errors.items() if not is_right(key, error)]
    if wrong:
        print("wrong results: " + "; ".join(wrong))
    return not wrong


def is_right(checked: str, error: float | str) -> bool:
    dtype = getattr(torch, checked.rsplit(" ", 1)[1])
    return not isinstance(error, str) and error <= TOLERANCE[dtype]


STEPS: dict[str, Callable[[float], bool]] = {"build": build, "test": test, "sanitize": sanitize, "measure": measure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="these steps (default: all)")
    parser.add_argument("--no-limits", action="store_true", help="let every step take the time that it needs")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU is visible to torch: nothing was done")
    limits = dict.fromkeys(STEPS, 86400) if arguments.no_limits else LIMITS
    failed = [name for name in STEPS if name in arguments.only and not STEPS[name](limits[name])]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
