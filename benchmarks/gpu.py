"""Everything that only a GPU can tell: build, tests, sanitizers, and the operator against its rivals.

    python3 -m benchmarks.gpu [--only build test sanitize measure]     (make gpu: ten minutes at most)
    python3 -m benchmarks.gpu --only measure --no-limits               (make gpu-rest: the measurements still missing)

Needs no network and no virtual environment: the python3 that runs it, with torch for CUDA, numpy, pytest and a CUDA
toolkit. Writes <device>.json and .md into the folder --results, row by row; a rerun goes on where the last one ended. A
step that fails is told at the end; the others still run, but for a build.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import reblur_ops
from benchmarks import cases, counts, harness
from benchmarks.cases import DIRECTIONS, OPERATORS, Case
from benchmarks.gpu_record import Planned, Record
from reblur_ops.testing import TOLERANCE

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "runs" / "gpu"
# Seconds of each step under `make gpu`; what starts and ends them takes the rest of ten minutes.
LIMITS = {"build": 210, "test": 140, "sanitize": 50, "measure": 160}
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
# By name: an operator in one direction.
CASES = {
    op if direction == "gather" else f"{op}-{direction}": Case(op, direction)
    for op in OPERATORS
    for direction in DIRECTIONS
}
# The tensors of other sizes would lie beside small ones in the allocator's blocks, where no access is out of bounds.
SANITIZER_ENVIRONMENT = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def run(
    arguments: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None, capture: bool = False
) -> tuple[int, str]:
    """Run a command in the checkout; its exit status, and its output if that is captured.

    Raises:
        subprocess.TimeoutExpired: it was not done in time, and was ended with all that it had started.
    """
    output = subprocess.PIPE if capture else None
    errors = subprocess.STDOUT if capture else None
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=output,
        stderr=errors,
        text=True,
        start_new_session=True,  # compilers, and programs under a sanitizer, would go on alone
    ) as process:
        try:
            text, _ = process.communicate(timeout=seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, text or ""


def command(arguments: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None) -> bool:
    """Run a command in the checkout, its output passed on; whether it succeeded in time."""
    print(f"$ {' '.join(arguments)}", flush=True)
    try:
        return run(arguments, seconds, environment)[0] == 0
    except subprocess.TimeoutExpired:
        print(f"ended after {seconds:.0f} seconds")
        return False


def build(seconds: float) -> bool:
    arguments = [sys.executable, "setup.py", "-q", "build_clib", "build_ext", "--inplace"]
    return command(arguments, seconds, {"FORCE_CUDA": "1"})


def has_kernels() -> bool:
    """Whether the native kernels are built for CUDA; asked in a new process, as this one may have loaded others."""
    asked = "import sys, reblur_ops; sys.exit('cuda' not in reblur_ops.backends().get('native', ()))"
    if run([sys.executable, "-c", asked], 120)[0] == 0:
        return True
    print("reblur_ops has no CUDA kernels here: nothing can be tested or measured before they are built")
    return False


def test(seconds: float) -> bool:
    pytest = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/cuda"]
    return has_kernels() and command(pytest, seconds, {"OMP_NUM_THREADS": "1"})


def sanitize(seconds: float) -> bool:
    """compute-sanitizer on small cases. A tool that is missing or refuses the device is told, and no failure."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        print("compute-sanitizer is not on the PATH: not run")
        return True
    checks = ("memcheck", "racecheck")
    return has_kernels() and all([sanitized(tool, check, seconds / len(checks)) for check in checks])


def sanitized(tool: str, check: str, seconds: float) -> bool:
    program = [sys.executable, "-m", "benchmarks.sanitized"]
    arguments = [tool, "--tool", check, "--error-exitcode", "9", *program]
    try:
        status, output = run(arguments, seconds, SANITIZER_ENVIRONMENT, capture=True)
    except subprocess.TimeoutExpired:
        print(f"compute-sanitizer {check}: not done after {seconds:.0f} seconds")
        return True
    lines = output.strip().splitlines() or ["no output"]
    print(f"compute-sanitizer {check}: {lines[-1]}")
    if status in (0, 9):
        return status == 0
    try:  # the tool's fault, if the program runs without it
        status, output = run(program, seconds, capture=True)
    except subprocess.TimeoutExpired:
        return True
    if status:
        print(output)
    return status == 0


def implementations() -> list[str]:
    """The implementations that can run here; one that is missing is named."""
    if importlib.util.find_spec("triton") is None:
        print("triton is not installed: not measured")
        return [name for name in IMPLEMENTATIONS if name != "triton"]
    return list(IMPLEMENTATIONS)


def function(case: Case, impl: str) -> harness.Function:
    """(image, parameters…) -> output by an implementation."""
    if impl == "taps":
        from benchmarks.rivals import taps

        return taps.reblur
    if impl == "triton":
        from benchmarks.rivals import triton_reblur

        return triton_reblur.reblur
    operator = cases.function(case)
    backend = IMPLEMENTATIONS[impl]
    assert backend is not None
    return harness.on_backend(backend, torch.compile(operator) if impl == "torch-compiled" else operator)


def problem(op: str, shape: counts.Shape, dtype: torch.dtype, device: str) -> tuple[Case, harness.Problem]:
    batch, channels, *size = shape
    case = replace(CASES[op], batch=batch, channels=channels, size=(size[0], size[1]), dtype=dtype)
    return case, cases.problem(case, device)


def measure_row(
    op: str, impl: str, pass_: str, dtype: torch.dtype, shape: counts.Shape, bandwidth: float
) -> dict[str, Any]:
    floor = counts.floor_bytes(shape, dtype, pass_, sum(CASES[op].parameter_channels))
    row: dict[str, Any] = {
        "op": op,
        "pass": pass_,
        "impl": impl,
        "dtype": str(dtype).removeprefix("torch."),
        "shape": list(shape),
        "floor_ms": floor / bandwidth / 1e6,
    }
    try:
        case, given = problem(op, shape, dtype, "cuda")
        call = harness.make_call(function(case, impl), pass_, given.tensors, given.grad_output)
        results_bytes = sum(tensor.numel() * tensor.itemsize for tensor in call())
        row["peak_extra_mb"] = max(harness.peak_memory(call, "cuda") - results_bytes, 0) / 1e6
        row.update(zip(("ms_p20", "ms_p50", "ms_p80"), harness.device_times(call).percentiles, strict=True))
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
    case, given = problem(op, (2, 3, 40, 70), dtype, device)
    operator = function(case, impl)
    return max(
        harness.error(
            harness.make_call(operator, pass_, given.tensors, given.grad_output)(), given, pass_, max(given.shape)
        )
        for pass_ in counts.PASSES
    )


def plan(names: Sequence[str]) -> list[Planned]:
    """All rows, in order of worth: the CUDA kernels, then their rivals; reblur, then the other operators.

    Reblur is measured on every size, dtype and implementation, the others on fewer.
    """
    reblur = [
        Planned("reblur", impl, pass_, dtype, shape)
        for impl in names
        for dtype in DTYPES
        for shape in SIZES
        for pass_ in counts.PASSES
    ]
    others = [
        Planned(op, impl, pass_, torch.float32, shape)
        for impl in ("cuda", "reference")
        for op in CASES
        if op != "reblur"
        for shape in FAMILY_SIZES
        for pass_ in counts.PASSES
    ]
    return sorted(reblur + others, key=lambda row: row.impl != "cuda")


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


def measure(seconds: float, results: Path = RESULTS) -> bool:
    """Measure the rows that the record lacks, in order of worth, until the time is over."""
    if "cuda" not in reblur_ops.backends().get("native", ()):
        print("reblur_ops has no CUDA kernels here: nothing is measured before they are built")
        return False
    torch.backends.cudnn.allow_tf32 = False  # all compute in float32, and are compared with the reference
    begin = time.monotonic()
    record = Record.this_device(results)
    missing = [row for row in plan(implementations()) if not record.has(row)]
    bandwidth = record.bandwidth(harness.copy_bandwidth)
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


def measure_afresh(seconds: float, results: Path) -> bool:
    """`measure` in a new process, which loads the kernels that this one has built."""
    limits = ["--no-limits"] if seconds > LIMITS["measure"] else []
    options = ["--only", "measure", "--results", str(results), *limits]
    return command([sys.executable, "-m", "benchmarks.gpu", *options], seconds + 60)  # it ends by itself


def is_right(checked: str, error: float | str) -> bool:
    dtype = getattr(torch, checked.rsplit(" ", 1)[1])
    return not isinstance(error, str) and error <= TOLERANCE[dtype]


STEPS: dict[str, Callable[[float], bool]] = {"build": build, "test": test, "sanitize": sanitize, "measure": measure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="these steps (default: all)")
    parser.add_argument("--no-limits", action="store_true", help="let every step take the time that it needs")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="folder to write to (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU is visible to torch: nothing was done")
    limits = dict.fromkeys(STEPS, 86400) if arguments.no_limits else LIMITS
    measuring = measure if arguments.only == ["measure"] else measure_afresh
    steps = dict(STEPS)
    steps["measure"] = functools.partial(measuring, results=arguments.results)
    failed = []
    for name in steps:
        if name not in arguments.only:
            continue
        if "build" in failed:
            print(f"{name}: not run, as the build failed")
        elif not steps[name](limits[name]):
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
