"""`python -m reblur_ops`: what a bug report needs, and a check of the native kernels against the definition."""

import argparse
import platform
import sys
from pathlib import Path

import torch

import reblur_ops
from reblur_ops import explain_backend, native
from reblur_ops.options import DIRECTIONS, Direction

_TOLERANCE = 1e-12


def describe() -> list[tuple[str, str]]:
    """Installed versions, the build, and the backend that answers, as (name, value)."""
    build = reblur_ops.build_info()
    record = native.build_record()
    module = native.MODULE
    rows = [
        ("reblur_ops", f"{reblur_ops.__version__}, {Path(__file__).parent}"),
        ("compiled module", str(module.__file__) if module else f"none: {native.REASON}"),
        ("decided at build", record.get("decision", "unknown")),
        ("compiled with", f"torch {build['torch']}, GCC or Clang {build['compiler']}" if build else "–"),
        ("running", f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}"),
        (
            "CPU",
            f"{build.get('cpu_capability', '–')}, {torch.get_num_threads()} threads: {explain_backend('cpu')}",
        ),
        ("CUDA architectures", build.get("cuda_architectures") or "none"),
    ]
    if native.is_stale():
        rows.insert(2, ("stale", "compiled from other sources than csrc/ holds now; run `make build`"))
    for index in range(torch.cuda.device_count()):
        rows.append((f"GPU {index}", f"{torch.cuda.get_device_name(index)}: {explain_backend(f'cuda:{index}')}"))
    return rows


def check() -> float:
    """The largest difference between native results and gradients and those of the definition, in float64.

    Raises:
        RuntimeError: there is no compiled module.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.rand(1, c, 12, 40, dtype=torch.float64, generator=generator) for c in (3, 35, 8)]
    largest = 0.0
    for direction in DIRECTIONS:
        native_results, expected = (_results(name, tensors, direction) for name in ("native", "reference"))
        for actual, wanted in zip(native_results, expected, strict=True):
            largest = max(largest, (actual - wanted).abs().max().item())
    return largest


def _results(name: str, tensors: list[torch.Tensor], direction: Direction) -> list[torch.Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    with reblur_ops.use_backend(name):
        output = reblur_ops.reblur(*leaves, direction=direction)
    output.square().sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reblur_ops", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare native results and gradients with the definition")
    arguments = parser.parse_args()
    for name, value in describe():
        print(f"{name + ':':20}{value}")
    if not arguments.check:
        return
    try:
        difference = check()
    except RuntimeError as error:
        sys.exit(f"check failed: {error}")
    if not difference < _TOLERANCE:
        sys.exit(f"check failed: native results differ from the definition by {difference:.1e}")
    print(f"{'check:':20}passed, native results differ from the definition by {difference:.1e}")


if __name__ == "__main__":
    main()
