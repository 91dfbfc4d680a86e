"""How fast is reblur, and how much memory does it take, against what one would otherwise do?

    python -m benchmarks.operator [--seconds S] [--all]                (make bench)

On the CPU; on a GPU, `python -m benchmarks.gpu`. The contenders:

    native              the kernels of this package
    ring convolution    its `torch` backend: sums over distance classes by convolutions with 0/1 filters
    explicit kernels    K² weights for every pixel, applied tap by tap: what kernel-prediction networks do
    naive unfold        the `reference` backend: K² shifted images times K² weights, for every radius
    …, compiled         the same through torch.compile

Every contender's own results, at the size at which it is timed, are compared with the reference in float64 before it is
timed (`harness.error`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

import reblur_ops
from benchmarks import harness
from benchmarks.harness import Contender, Function, Problem
from benchmarks.rivals import taps
from reblur_ops.testing import TOLERANCE

NATIVE, RING, TAPS, NAIVE = "native", "ring convolution", "explicit kernels", "naive unfold"
EAGER = (NATIVE, RING, TAPS, NAIVE)
COMPILED = (f"{RING}, compiled", f"{TAPS}, compiled", f"{NAIVE}, compiled")
TOO_MUCH = "not with less than tens of seconds, or tens of GB, a call"
TOO_LONG = "seconds a call, or minutes to compile; with --all"


@dataclass(frozen=True)
class Case:
    """A problem, and who is asked to solve it."""

    size: tuple[int, int] = (256, 256)
    channels: int = 3
    radius: int = 7  # of the largest kernel: the radii are 1 … radius
    dtype: torch.dtype = torch.float32
    names: tuple[str, ...] = EAGER
    slow: tuple[str, ...] = ()  # who runs only with --all
    never: tuple[str, ...] = ()  # whom the machine or the patience of a person does not fit
    cold: bool = False  # native once more, with its inputs out of the caches

    @property
    def radii(self) -> tuple[int, ...]:
        return tuple(range(1, self.radius + 1))


WITHOUT_NAIVE = tuple(name for name in EAGER if name != NAIVE)
RIVALS = tuple(name for name in EAGER if name != NATIVE)
CASES = (
    Case(names=(*EAGER, COMPILED[0]), slow=COMPILED[1:], cold=True),
    Case(size=(512, 512), names=WITHOUT_NAIVE, slow=(NAIVE,), cold=True),
    Case(size=(1080, 1920), names=(NATIVE,), never=RIVALS),
    Case(size=(2160, 3840), names=(NATIVE,), never=RIVALS),
    Case(radius=3),
    Case(radius=15, names=WITHOUT_NAIVE, slow=(NAIVE,)),
    Case(channels=1),
    Case(channels=16, names=WITHOUT_NAIVE, slow=(NAIVE,)),
    Case(dtype=torch.bfloat16),
)


def problem(case: Case) -> Problem:
    """Image, seeds and weights as a network would give them, and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)

    def made(make: Callable[..., Tensor], planes: int) -> Tensor:
        return make(1, planes, *case.size, generator=generator)

    seeds, weights = (made(torch.randn, planes) for planes in reblur_ops.map_channels(case.radii))
    image, grad_output = (made(torch.rand, case.channels) for _ in range(2))
    tensors = [tensor.to(case.dtype) for tensor in (image, seeds, weights.softmax(dim=1), grad_output)]
    return Problem("reblur", functions(case.radii)[NAIVE], tensors[:3], tensors[3], case.radius)


def functions(radii: Sequence[int]) -> dict[str, Function]:
    """Every contender's (image, seeds, weights) -> output."""
    operator = partial(reblur_ops.reblur, radii=radii)
    eager: dict[str, Function] = {
        NATIVE: harness.on_backend("native", operator),
        RING: harness.on_backend("torch", operator),
        TAPS: partial(taps.reblur, radii=radii),
        NAIVE: harness.on_backend("reference", operator),
    }
    compiled = {f"{name}, compiled": torch.compile(eager[name], dynamic=False) for name in (RING, TAPS, NAIVE)}
    return {**eager, **compiled}


def contenders(case: Case) -> list[Contender]:
    by_name = functions(case.radii)
    chosen = [Contender(name, by_name[name]) for name in case.names]
    if case.cold:
        chosen.insert(1, Contender(NATIVE, by_name[NATIVE], cold=True))
    chosen += [Contender(name, None, not_run=TOO_LONG) for name in case.slow]
    return chosen + [Contender(name, None, not_run=TOO_MUCH) for name in case.never]


def main() -> None:
    parser = harness.arguments(__doc__, seconds=2)
    parser.add_argument("--all", action="store_true", help="also what takes seconds a call, or minutes to compile")
    arguments = parser.parse_args()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    cases = list(CASES)
    if arguments.all:
        cases = [replace(case, names=(*case.names, *case.slow), slow=()) for case in cases]
    if arguments.quick:
        cases = [replace(case, size=(40, 56)) for case in (cases[0], *cases[4:])]
    rows = []
    for case in cases:
        rows += harness.measure(problem(case), contenders(case), arguments.seconds, tolerance=TOLERANCE[case.dtype])
        torch.compiler.reset()
    text = f"# reblur on the CPU\n\n{harness.setting()} Radii 1 … radius.\n\n"
    harness.save("operator-cpu", rows, f"{text}{harness.table(rows, ('size', 'radius', 'dtype'))}\n", arguments.results)


if __name__ == "__main__":
    main()
