"""How fast are the blurs given by a formula or a profile, in both directions, against their naive unfold?

    python -m benchmarks.families [--seconds S]                        (make bench)

On the CPU, at 1×3×512×512 with R = 7. Besides, all of them and reblur side by side, native.
"""

from collections.abc import Sequence

import reblur_ops
from benchmarks import cases, harness, operator
from benchmarks.cases import DIRECTIONS, OPERATORS, Case
from benchmarks.counts import PASSES
from benchmarks.harness import Row

FAMILIES = tuple(op for op in OPERATORS if op != "reblur")


def side_by_side(size: tuple[int, int], seconds: float) -> list[Row]:
    """reblur and the families, native, in turns: the same image, each with its own parameters."""
    chosen = {op: Case(op, size=size) for op in OPERATORS}
    problems = {op: cases.problem(case) for op, case in chosen.items()}
    rows = []
    for pass_ in PASSES:
        calls = []
        for op, given in problems.items():
            native = harness.on_backend("native", cases.function(chosen[op]))
            calls.append(harness.make_call(native, pass_, given.tensors, given.grad_output))
        times = harness.time_in_turns(calls, seconds=seconds, description=f"side by side {pass_}")
        for (op, given), call, measured in zip(problems.items(), calls, times, strict=True):
            row = Row(op, pass_, "native", "float32", given.shape, given.radius, "warm", *measured.percentiles)
            row.samples, row.peak_mb = len(measured.samples), harness.peak_memory(call) / 1e6
            row.error = harness.error(call(), given, pass_)
            rows.append(row)
    return rows


def relative(rows: Sequence[Row]) -> str:
    """Markdown: the families' times next to reblur's."""
    base = {row.pass_: row.ms_p50 for row in rows if row.op == "reblur"}
    cells = []
    for row in rows:
        ratio = (row.ms_p50 or 0) / (base[row.pass_] or 1)
        cells.append([row.op, row.pass_, harness.spread((row.ms_p20, row.ms_p50, row.ms_p80)), f"{ratio:.2f}"])
    return harness.markdown(("operator", "pass", "ms (20 / 50 / 80 %):", "× reblur:"), cells)


def main() -> None:
    arguments = harness.arguments(__doc__, seconds=1).parse_args()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    size = (40, 56) if arguments.quick else (512, 512)
    rows = []
    for op in FAMILIES:
        for direction in DIRECTIONS:
            comparison = operator.Comparison(Case(op, direction, size), (operator.NATIVE, operator.NAIVE))
            rows += operator.measure(comparison, arguments.seconds)
    native = side_by_side(size, arguments.seconds)
    radius = native[0].radius
    text = (
        f"# Blurs by a formula or a profile, on the CPU\n\n{harness.setting()} R = {radius}.\n\n"
        f"{harness.table(rows, ('op', 'size'))}\n\n"
        f"## Side by side with reblur, radii 1 … {radius}, native\n\n{relative(native)}\n"
    )
    harness.save("families-cpu", rows + native, text, arguments.results)


if __name__ == "__main__":
    main()
