"""How fast is an operator, and how much memory does it take, against what one would otherwise do?

    python -m benchmarks.operator [--seconds S] [--all]        reblur on all CASES (make bench)
    python -m benchmarks.operator --op gaussian --size 512 512 --radius 5 --channels 3 --dtype bfloat16 --threads 4

The second line asks one question, and prints the answer. On a GPU, `python -m benchmarks.gpu`. The contenders:

    native              the kernels of this package
    ring convolution    the `torch` backend: sums over taps of equal distance by convolutions with 0/1 filters
    explicit kernels    K² weights for every pixel, applied tap by tap, as kernel-prediction networks do; reblur only
    naive unfold        the `reference` backend: K² shifted images times K² weights, for every radius
    …, compiled         the same through torch.compile

The results of every contender, at the size at which it is timed, are compared with the reference in float64 before it
is timed (`harness.error`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

import reblur_ops
from benchmarks import cases, harness
from benchmarks.cases import Case, problem
from benchmarks.harness import Contender, Function
from benchmarks.rivals import taps
from reblur_ops.testing import TOLERANCE

NATIVE, RING, TAPS, NAIVE = "native", "ring convolution", "explicit kernels", "naive unfold"
EAGER = (NATIVE, RING, TAPS, NAIVE)
COMPILED = (f"{RING}, compiled", f"{TAPS}, compiled", f"{NAIVE}, compiled")
TOO_MUCH = "not with less than tens of seconds, or tens of GB, a call"
TOO_LONG = "seconds a call, or minutes to compile; with --all"
# How the command line calls operators: without "_blur".
NAMES = {op.removesuffix("_blur"): op for op in cases.OPERATORS}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCE}


@dataclass(frozen=True)
class Comparison:
    """A case of reblur, and the contenders on it."""

    case: Case
    names: tuple[str, ...] = EAGER
    slow: tuple[str, ...] = ()  # run only with --all
    never: tuple[str, ...] = ()  # do not fit the machine, or a person's patience
    cold: bool = False  # native once more, with its inputs out of the caches

    def __str__(self) -> str:
        return str(self.case)


WITHOUT_NAIVE = tuple(name for name in EAGER if name != NAIVE)
RIVALS = tuple(name for name in EAGER if name != NATIVE)
COMPARISONS = (
    Comparison(Case(), names=(*EAGER, COMPILED[0]), slow=COMPILED[1:], cold=True),
    Comparison(Case(size=(512, 512)), names=WITHOUT_NAIVE, slow=(NAIVE,), cold=True),
    Comparison(Case(size=(1080, 1920)), names=(NATIVE,), never=RIVALS),
    Comparison(Case(size=(2160, 3840)), names=(NATIVE,), never=RIVALS),
    Comparison(Case(radius=3)),
    Comparison(Case(radius=15), names=WITHOUT_NAIVE, slow=(NAIVE,)),
    Comparison(Case(channels=1)),
    Comparison(Case(channels=16), names=WITHOUT_NAIVE, slow=(NAIVE,)),
    Comparison(Case(dtype=torch.bfloat16)),
)


def functions(case: Case) -> dict[str, Function]:
    """By contender: (image, parameters…) -> output."""
    operator = cases.function(case)
    eager: dict[str, Function] = {
        NATIVE: harness.on_backend("native", operator),
        RING: harness.on_backend("torch", operator),
        NAIVE: harness.on_backend("reference", operator),
    }
    if (case.op, case.direction) == ("reblur", "gather"):
        eager[TAPS] = partial(taps.reblur, radii=case.radii)
    compiled = {f"{name}, compiled": torch.compile(eager[name], dynamic=False) for name in RIVALS if name in eager}
    return {**eager, **compiled}


def contenders(comparison: Comparison) -> list[Contender]:
    by_name = functions(comparison.case)
    chosen = [Contender(name, by_name[name]) for name in comparison.names]
    if comparison.cold:
        chosen.insert(1, Contender(NATIVE, by_name[NATIVE], cold=True))
    chosen += [Contender(name, None, not_run=TOO_LONG) for name in comparison.slow]
    return chosen + [Contender(name, None, not_run=TOO_MUCH) for name in comparison.never]


def measure(comparison: Comparison, seconds: float) -> list[harness.Row]:
    given = problem(comparison.case)
    return harness.measure(given, contenders(comparison), seconds, tolerance=TOLERANCE[given.dtype])


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = harness.arguments(__doc__, seconds=2)
    parser.add_argument("--all", action="store_true", help="also what takes seconds a call, or minutes to compile")
    one = parser.add_argument_group("one question")
    one.add_argument("--op", choices=NAMES, help="the operator; the options below are for it")
    one.add_argument("--direction", choices=cases.DIRECTIONS, default="gather")
    one.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(256, 256), help="pixels")
    one.add_argument("--batch", type=int, default=1, help="images (default: %(default)s)")
    one.add_argument("--channels", type=int, default=3, help="channels of an image (default: %(default)s)")
    one.add_argument("--radius", type=int, default=7, help="reach of a kernel, pixels (default: %(default)s)")
    one.add_argument("--dtype", choices=DTYPES, default="float32")
    one.add_argument("--threads", type=int, help="threads of PyTorch; if not given, as many as it takes by itself")
    one.add_argument(
        "--contenders", nargs="+", choices=EAGER, default=(NATIVE, RING), help="who takes part (default: the first two)"
    )
    return parser.parse_args(argv)


def answer(arguments: argparse.Namespace) -> None:
    """Answer one question."""
    sizes = [*arguments.size, arguments.batch, arguments.channels, arguments.radius]
    if min(sizes) < 1:
        raise SystemExit(f"--size, --batch, --channels and --radius must be at least 1, got {min(sizes)}")
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise SystemExit(f"--threads must be at least 1, got {arguments.threads}")
        torch.set_num_threads(arguments.threads)
    size = (40, 56) if arguments.quick else tuple(arguments.size)
    dtype = DTYPES[arguments.dtype]
    case = Case(
        NAMES[arguments.op], arguments.direction, size, arguments.channels, arguments.batch, arguments.radius, dtype
    )
    unknown = [name for name in arguments.contenders if name not in functions(case)]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)} cannot compute {case.op}, {case.direction}")
    try:
        rows = measure(Comparison(case, tuple(arguments.contenders)), arguments.seconds)
    except ValueError as error:  # a radius beyond those of the operator, for example
        raise SystemExit(str(error)) from error
    text = f"# {case.op} on the CPU\n\n{harness.setting()}\n\n{harness.table(rows)}\n"
    harness.save(f"{arguments.op}-cpu-once", rows, text, arguments.results)


def answer_all(arguments: argparse.Namespace) -> None:
    """Measure reblur on every comparison."""
    chosen = list(COMPARISONS)
    if arguments.all:
        chosen = [replace(each, names=(*each.names, *each.slow), slow=()) for each in chosen]
    if arguments.quick:
        chosen = [replace(each, case=replace(each.case, size=(40, 56))) for each in (chosen[0], *chosen[4:])]
    rows = []
    for comparison in chosen:
        rows += measure(comparison, arguments.seconds)
        torch.compiler.reset()
    text = f"# reblur on the CPU\n\n{harness.setting()} Radii 1 … radius.\n\n"
    harness.save("operator-cpu", rows, f"{text}{harness.table(rows, ('size', 'radius', 'dtype'))}\n", arguments.results)


def main() -> None:
    arguments = parse()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    if arguments.op:
        answer(arguments)
    else:
        answer_all(arguments)


if __name__ == "__main__":
    main()
