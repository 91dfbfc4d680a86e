"""How fast are the costs that the search of a blur looks at?

    python -m benchmarks.search [--seconds S]

`reblur_ops.cost_volume` of two images in linear light, for all candidate radii of the search at once, against the same
by `conv2d` with a bank of disks, which is what other devices do. Both take turns, after their results were compared.
Milliseconds a radius and megapixel. Writes results/search-cpu.json and .md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import reblur_ops
from benchmarks import harness
from models.blur.disks import disk_bank
from models.blur.search import CELL, candidate_radii

SIZE = 1024  # pixels, height and width
RADII = (7, 16)  # pixels, the largest of the candidates
SLACKS = (0, 1)  # pixels
BACKENDS = {"native": "one pass for all candidates", "torch": "conv2d with a bank"}
TOLERANCE = 1e-5  # of mean square errors of values 0 … 1


@dataclass
class Row:
    """One contender on one problem."""

    contender: str
    max_radius: int
    slack: int
    candidates: int
    ms_p20: float  # a radius and megapixel
    ms_p50: float
    ms_p80: float
    samples: int


def problem(size: int, max_radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two images, (1, 3, size, size), 0 … 1, and the bank of the candidates."""
    generator = torch.Generator().manual_seed(0)
    sharp, blurry = (torch.rand(1, 3, size, size, generator=generator) for _ in range(2))
    return sharp, blurry, disk_bank(candidate_radii(max_radius), max_radius)


def measure(size: int, max_radius: int, slack: int, seconds: float) -> list[Row]:
    sharp, blurry, bank = problem(size, max_radius)

    def costs() -> Tensor:
        options = {"slack": slack, "cell": CELL, "root": True}
        return reblur_ops.cost_volume(sharp, blurry, bank, max_radius, **options, padding="replicate")  # type: ignore[arg-type]

    calls: list[Callable[[], Tensor]] = [harness.on_backend(backend, costs) for backend in BACKENDS]
    first, second = (call() for call in calls)
    if (difference := float((first - second).abs().max())) > TOLERANCE:
        raise SystemExit(f"the contenders differ by {difference:.2g}")
    per = 1e6 / (len(bank) * size**2)
    description = f"up to {max_radius} pixels, slack {slack}"
    times = harness.time_in_turns(calls, seconds=seconds, description=description)
    rows = []
    for name, each in zip(BACKENDS.values(), times, strict=True):
        low, middle, high = (per * value for value in each.percentiles)
        rows.append(Row(name, max_radius, slack, len(bank), low, middle, high, len(each.samples)))
    return rows


def page(rows: Sequence[Row]) -> str:
    lines = [
        "# The costs that the search of a blur looks at",
        "",
        harness.setting(),
        "",
        "Milliseconds for each candidate radius and megapixel, 20 / 50 / 80 % of repetitions in turns, in cells of",
        f"{CELL} × {CELL} pixels. With a slack of one pixel there are nine costs in the place of one.",
        "",
    ]
    cells = []
    for row in rows:
        native = next(one for one in rows if (one.max_radius, one.slack) == (row.max_radius, row.slack))
        spread = harness.spread((row.ms_p20, row.ms_p50, row.ms_p80))
        radii = f"{row.candidates} up to {row.max_radius} px"
        cells.append([radii, str(row.slack), row.contender, spread, f"{row.ms_p50 / native.ms_p50:.1f}"])
    heads = ("radii", "slack, px:", "contender", "ms a radius and megapixel:", "× native:")
    return "\n".join([*lines, harness.markdown(heads, cells)]) + "\n"


def main() -> None:
    arguments = harness.arguments(__doc__, seconds=1).parse_args()
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    size = 64 if arguments.quick else SIZE
    rows = []
    for max_radius in RADII:
        for slack in SLACKS:
            rows += measure(size, max_radius, slack, arguments.seconds)
    harness.save("search-cpu", rows, page(rows), arguments.results)


if __name__ == "__main__":
    main()
