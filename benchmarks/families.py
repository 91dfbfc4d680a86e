"""How fast are the blurs given by a formula or a profile, in both directions, against their naive unfold?

    python -m benchmarks.families [--seconds S]                        (make bench)

On the CPU, at 1×3×512×512 with R = 7. Besides, all of them and reblur side by side, native.
"""

from functools import partial

import torch

import reblur_ops
from benchmarks import harness, operator
from benchmarks.counts import PASSES
from benchmarks.harness import Contender, Function, Problem, Row
from reblur_ops.testing import TOLERANCE

RADIUS = 7
FAMILIES = ("gaussian_blur", "disk_blur", "radial_blur")
DIRECTIONS = ("gather", "scatter")


def function(family: str, direction: str = "gather") -> Function:
    options = {"gaussian_blur": {"radius": RADIUS}, "disk_blur": {"max_radius": RADIUS}, "radial_blur": {}}
    return partial(getattr(reblur_ops, family), direction=direction, **options[family])


def problem(family: str, direction: str, size: tuple[int, int]) -> Problem:
    """Radii spread evenly over what the window holds, σ up to R/3; profiles with noise."""
    generator = torch.Generator().manual_seed(0)
    largest = {"gaussian_blur": RADIUS / 3, "disk_blur": float(RADIUS)}
    if family in largest:
        parameters = largest[family] * torch.rand(1, 1, *size, generator=generator)
    else:
        parameters = torch.randn(1, RADIUS + 1, *size, generator=generator)
    image, grad_output = (torch.rand(1, 3, *size, generator=generator) for _ in range(2))
    reference = harness.on_backend("reference", function(family, direction))
    return Problem(f"{family}, {direction}", reference, [image, parameters], grad_output, RADIUS)


def side_by_side(size: tuple[int, int], seconds: float) -> list[Row]:
    """reblur and the families, native, in turns: the same image, each with its own parameters."""
    problems = {"reblur": operator.problem(operator.Case(size=size))}
    problems |= {family: problem(family, "gather", size) for family in FAMILIES}
    rows = []
    for pass_ in PASSES:
        calls = []
        for name, given in problems.items():
            operation: Function = reblur_ops.reblur if name == "reblur" else function(name)
            native = harness.on_backend("native", operation)
            calls.append(harness.make_call(native, pass_, given.tensors, given.grad_output))
        times = harness.time_in_turns(calls, seconds=seconds, description=f"side by side {pass_}")
        for name, call, of_call in zip(problems, calls, times, strict=True):
            row = Row(name, pass_, "native", "float32", problems[name].shape, RADIUS, "warm", *of_call.percentiles)
            row.samples, row.peak_mb = len(of_call.samples), harness.peak_memory(call) / 1e6
            row.error = harness.error(call(), problems[name], pass_)
            rows.append(row)
    return rows


def relative(rows: list[Row]) -> str:
    """Markdown: the families' times next to reblur's."""
    of_reblur = {row.pass_: row.ms_p50 for row in rows if row.op == "reblur"}
    lines = ["| operator | pass | ms (20 / 50 / 80 %) | × reblur |", "|---|---|---:|---:|"]
    for row in rows:
        times = [value for value in (row.ms_p20, row.ms_p50, row.ms_p80) if value is not None]
        ratio = times[1] / (of_reblur[row.pass_] or 1)
        lines.append(f"| {row.op} | {row.pass_} | {' / '.join(map(harness.milliseconds, times))} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    arguments = harness.arguments(__doc__, seconds=1).parse_args()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    size = (40, 56) if arguments.quick else (512, 512)
    rows = []
    for family in FAMILIES:
        for direction in DIRECTIONS:
            own = function(family, direction)
            chosen = [
                Contender(operator.NATIVE, harness.on_backend("native", own)),
                Contender(operator.NAIVE, harness.on_backend("reference", own)),
            ]
            given = problem(family, direction, size)
            rows += harness.measure(given, chosen, arguments.seconds, tolerance=TOLERANCE[torch.float32])
    native = side_by_side(size, arguments.seconds)
    text = (
        f"# Blurs by a formula or a profile, on the CPU\n\n{harness.setting()} R = {RADIUS}.\n\n"
        f"{harness.table(rows, ('op', 'size'))}\n\n"
        f"## Side by side with reblur, radii 1 … {RADIUS}, native\n\n{relative(native)}\n"
    )
    harness.save("families-cpu", rows + native, text, arguments.results)


if __name__ == "__main__":
    main()
