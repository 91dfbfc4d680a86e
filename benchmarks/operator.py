"""How fast is reblur, and how much memory does it take, against the naive unfold and against pure PyTorch?

    python -m benchmarks.operator [--seconds S]

On the CPU. Every contender is compared with the reference in float64 before it is timed.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

import reblur_ops
from benchmarks import harness

TOLERANCE = 1e-5  # float32, relative to the largest value

# Size and the contenders that fit it and the patience of a person: at 1080p pure PyTorch takes 25 s a call forward and
# backward, the reference more memory than there is.
SIZES: tuple[tuple[tuple[int, int, int, int], tuple[str, ...]], ...] = (
    ((1, 3, 256, 256), ("native", "torch", "reference")),
    ((1, 3, 512, 512), ("native", "torch", "reference")),
    ((1, 3, 1080, 1920), ("native",)),
)


def inputs(shape: tuple[int, int, int, int]) -> tuple[list[Tensor], Tensor]:
    """Image, seeds and weights as a network would give them, and the gradient of the output."""
    n, _, h, w = shape
    generator = torch.Generator().manual_seed(0)
    seeds, weights = (torch.randn(n, planes, h, w, generator=generator) for planes in reblur_ops.map_channels())
    image, grad_output = (torch.rand(shape, generator=generator) for _ in range(2))
    return [image, seeds, weights.softmax(dim=1)], grad_output


def forward(backend: str, tensors: list[Tensor], grad_output: Tensor) -> Callable[[], list[Tensor]]:
    def call() -> list[Tensor]:
        with reblur_ops.use_backend(backend), torch.no_grad():
            return [reblur_ops.reblur(*tensors)]

    return call


def forward_backward(backend: str, tensors: list[Tensor], grad_output: Tensor) -> Callable[[], list[Tensor]]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]

    def call() -> list[Tensor]:
        with reblur_ops.use_backend(backend):
            output = reblur_ops.reblur(*leaves)
        return list(torch.autograd.grad(output, leaves, grad_output))

    return call


def error(actual: list[Tensor], expected: list[Tensor]) -> float:
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, expected, strict=True))


def measure(shape: tuple[int, int, int, int], backends: tuple[str, ...], seconds: float) -> list[harness.Row]:
    rows = []
    tensors, grad_output = inputs(shape)
    # In float64 the definition fits any of the sizes on a strip of rows.
    strip = [tensor[:, :, :32].double() for tensor in (*tensors, grad_output)]
    for name, make in (("forward", forward), ("forward+backward", forward_backward)):
        expected = make("reference", strip[:3], strip[3])()
        calls = [make(backend, tensors, grad_output) for backend in backends]
        errors = []
        for backend in backends:
            errors.append(error(make(backend, [t.float() for t in strip[:3]], strip[3].float())(), expected))
            if errors[-1] > TOLERANCE:
                raise SystemExit(f"{backend}, {name}, {shape}: error {errors[-1]:.2g} is above {TOLERANCE}")
        peaks = [harness.peak_memory(call) for call in calls]
        times = harness.time_in_turns(calls, seconds=seconds, description=f"{name} {shape}")
        for backend, wrong, peak, (p20, p50, p80) in zip(backends, errors, peaks, times, strict=True):
            rows.append(harness.Row("reblur", name, backend, "float32", list(shape), p20, p50, p80, peak / 1e6, wrong))
    return rows


def table(rows: list[harness.Row]) -> str:
    """Markdown: every row, and how much longer it takes than native."""
    quickest = {(tuple(row.shape), row.pass_): row.ms_p50 for row in rows if row.impl == "native"}
    lines = [
        "| size | pass | implementation | ms (20 / 50 / 80 %) | × native | peak memory, MB |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in rows:
        ratio = row.ms_p50 / quickest[tuple(row.shape), row.pass_]
        times = " / ".join(harness.milliseconds(value) for value in (row.ms_p20, row.ms_p50, row.ms_p80))
        size = "×".join(map(str, row.shape))
        lines.append(f"| {size} | {row.pass_} | {row.impl} | {times} | {ratio:.3g} | {row.peak_mb:.4g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="per size and pass (default: %(default)s)")
    arguments = parser.parse_args()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    rows = [row for shape, backends in SIZES for row in measure(shape, backends, arguments.seconds)]
    where = harness.environment()
    capability = where["reblur_ops"]["cpu_capability"]
    setting = f"{where['device']}, {capability}, torch {where['torch']}, {where['date']}"
    title = f"# reblur on the CPU\n\n{setting}. float32, radii 1 … 7.\n\n"
    harness.save("operator-cpu", rows, f"{title}{table(rows)}\n")


if __name__ == "__main__":
    main()
