"""How fast does training go, and where does the time go?

    python -m benchmarks.training_throughput [--data DIR] [--batch 8] [--steps 12] [--device cuda]

The recipe `compact` on pairs that are made while training, of photographs in DIR or those of scikit-image. A step is
timed whole, and so are its parts in turns with it: making the pairs, the networks alone (forward, backward and
optimizer on pairs that are there), and what the objective adds to these. The networks-alone rate is what the machine
could do; the reach is 85 % of it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import harness
from models.synthesis.generator import PairGenerator
from models.synthesis.photographs import find_originals
from models.tasks.arguments import integer
from models.training.config import load_config
from models.training.objective import Aligner, Objective
from models.training.state import make_state, precision_of

STAGE = "deblur"
WARM_UP = 2  # steps before the first that counts


@dataclass
class Row:
    """A part of a training step."""

    part: str
    ms_p20: float
    ms_p50: float
    ms_p80: float
    images_per_second: float


class Training:
    """A training of the recipe `compact`, taken apart; `overrides` change it."""

    def __init__(self, data: Path | None, batch: int, device: torch.device, overrides: Sequence[str] = ()) -> None:
        self.config = config = load_config("compact", [f"data.batch={batch}", *overrides])
        self.device, self.number = device, 0
        originals = find_originals(data, None)
        self.generator = PairGenerator(originals, config.data.generator, config.data.crop, 0, device)
        self.state = make_state(config, device)
        aligner = Aligner(config.alignment, config.data.target, device)
        self.precision = precision_of(config.optimizer, device)
        frozen = config.schedule.frozen
        self.objective = Objective(self.state.framework, aligner, config.losses, self.precision, frozen)
        self.objective.prepare(STAGE)
        self.pairs = self.make()

    def make(self) -> dict[str, torch.Tensor]:
        """The next batch of pairs."""
        size = self.config.data.batch
        self.number += size
        return self.generator.batch(range(self.number, self.number + size), misaligned=False)

    def learn(self, pairs: dict[str, torch.Tensor]) -> None:
        """Loss, gradients and update, as the loop does."""
        outcome = self.objective(pairs["blurry"], pairs["aligned"], STAGE, 1.0, pairs["blur_radius"])
        self._update(outcome.losses.total)

    def networks(self) -> None:
        """Both networks and an update, without losses: their outputs' means are what has gradients."""
        framework, blurry = self.state.framework, self.pairs["blurry"]
        assert framework.blur_map is not None
        with torch.autocast(self.device.type, self.objective.dtype, enabled=self.precision != "float32"):
            blur_map = framework.blur_map(blurry)
            deblurred = framework.deblur(blurry, blur_map.detach())
        self._update(deblurred.float().mean() + blur_map.float().mean())

    def _update(self, loss: torch.Tensor) -> None:
        loss.backward()
        self.state.update(self.config.optimizer)
        self.state.optimizer.zero_grad(set_to_none=True)

    def parts(self) -> dict[str, Callable[[], object]]:
        """By name: a whole step first."""
        return {
            "a whole step": lambda: self.learn(self.make()),
            "the pairs": self.make,
            "objective and networks": lambda: self.learn(self.pairs),
            "the networks alone": self.networks,
        }


def measure(training: Training, steps: int) -> list[Row]:
    """All parts in turns."""
    parts = training.parts()
    times: dict[str, list[float]] = {name: [] for name in parts}
    for step in range(steps + WARM_UP):
        for name, call in parts.items():
            _synchronize(training.device)
            begun = time.perf_counter()
            call()
            _synchronize(training.device)
            if step >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - begun))
    batch = training.config.data.batch
    rows = []
    for name, values in times.items():
        low, middle, high = (float(value) for value in np.quantile(values, (0.2, 0.5, 0.8)))
        rows.append(Row(name, low, middle, high, 1e3 * batch / middle))
    return rows


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def page(rows: list[Row], training: Training) -> str:
    config = training.config
    whole, alone = (next(row for row in rows if row.part == name) for name in ("a whole step", "the networks alone"))
    lines = [
        "# How fast training goes",
        "",
        f"{harness.setting(training.device.type)}",
        "",
        f"Recipe `compact`: batches of {config.data.batch} crops of {config.data.crop} pixels, made while training,",
        f"{training.precision}. Medians of steps in turns. A whole step reaches {whole.images_per_second:.3g} images a",
        f"second, {100 * alone.ms_p50 / whole.ms_p50:.0f} % of what the networks alone do.",
        "",
    ]
    cells = [
        [row.part, harness.spread((row.ms_p20, row.ms_p50, row.ms_p80)), f"{row.images_per_second:.3g}"] for row in rows
    ]
    table = harness.markdown(("part", "ms, 20 / 50 / 80 %:", "images a second:"), cells)
    return "\n".join([*lines, table]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photographs; those of scikit-image if not given")
    parser.add_argument("--batch", type=integer(1, 4096), default=8)
    parser.add_argument("--steps", type=integer(1, 1000), default=12)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    harness.add_results(parser)
    args = parser.parse_args()
    training = Training(args.data, args.batch, torch.device(args.device))
    rows = measure(training, args.steps)
    where = harness.environment(args.device)
    harness.save(f"training-throughput-{args.device}", rows, page(rows, training), args.results, **where)


if __name__ == "__main__":
    main()
