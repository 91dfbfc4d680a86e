"""How long does a training step take, how much of it is reblurring, and what fits into a GPU's memory?

    python -m benchmarks.training_step [--seconds S] [--device cuda]   (make bench)

One step of each stage, by the objective that training minimises, with the published losses: the forward pass of the
networks that the stage trains, the frozen flow, the loss, the backward pass, Adam. The operator answers in turn
natively, in pure PyTorch and by the naive unfold. Its share of a step is the time of the operator alone, forward and
backward at the step's size, over that of the step.

On a CPU, memory is measured at two sizes, and what larger ones need is computed from those: memory is a constant, of
weights, gradients and Adam's moments, and a part in proportion to the pixels. On a GPU the largest batch and frame that
its own memory holds are tried as well.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import reblur_ops
from benchmarks import harness
from models.framework import Framework, FrameworkConfig, ReblurConfig
from models.training.config import AlignmentConfig
from models.training.losses import PUBLISHED_LOSSES
from models.training.objective import Aligner, Objective

STAGES = ("deblur", "joint")  # the first one does not reblur, as published
BACKENDS = ("native", "torch", "reference")
CROP = (256, 256)
FRAME = (1120, 1680)  # of DPDD's photographs as they are distributed
MEMORIES = (24, 48, 80, 140)  # GB of GPUs
HEADROOM = 0.9  # of a GPU's memory that a training can have: the rest is fragmentation, libraries and the context
MULTIPLE = 16  # pixels: what the networks divide sizes by


@dataclass
class Row:
    """A step of one stage, on one backend of the operator."""

    stage: str
    impl: str
    shape: list[int]
    ms_p20: float | None = None
    ms_p50: float | None = None
    ms_p80: float | None = None
    samples: int = 0
    reblur_ms: float = 0.0  # the operator alone, forward and backward; 0 where the stage does not reblur
    peak_mb: float = 0.0
    computed: bool = False  # from smaller sizes
    note: str = ""

    @property
    def share(self) -> float | None:
        return self.reblur_ms / self.ms_p50 if self.ms_p50 else None


@dataclass
class Fit:
    """The memory of a step, as a line over pixels, and what fits."""

    stage: str
    impl: str
    constant_bytes: float
    bytes_per_pixel: float

    def bytes(self, pixels: int) -> float:
        return self.constant_bytes + pixels * self.bytes_per_pixel

    def pixels(self, gigabytes: float) -> int:
        return max(0, int((HEADROOM * 1e9 * gigabytes - self.constant_bytes) / self.bytes_per_pixel))

    def batch(self, gigabytes: float) -> int:
        """The most crops of 256²."""
        return self.pixels(gigabytes) // math.prod(CROP)

    def frame(self, gigabytes: float) -> tuple[int, int]:
        """The largest frame of the proportions of a photograph, height and width."""
        width = math.sqrt(self.pixels(gigabytes) * FRAME[1] / FRAME[0])
        return int(width * FRAME[0] / FRAME[1]) // MULTIPLE * MULTIPLE, int(width) // MULTIPLE * MULTIPLE


class Step:
    """A training step of a stage on random images, of which a call makes one."""

    def __init__(self, stage: str, backend: str, shape: Sequence[int], device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        self.stage, self.backend = stage, backend
        self.blurry, self.sharp = (torch.rand(*shape, generator=generator).to(device) for _ in range(2))
        torch.manual_seed(0)
        self.framework = Framework(FrameworkConfig(reblur=ReblurConfig(light="srgb"))).to(device)
        alignment = AlignmentConfig(first_mask="none", mask="calibration")
        aligner = Aligner(alignment, device=torch.device(device))
        self.objective = Objective(self.framework, aligner, PUBLISHED_LOSSES, "float32")
        self.objective.prepare(stage)
        self.optimizer = torch.optim.Adam(self.framework.parameters(), lr=1e-5)

    def __call__(self) -> float:
        with reblur_ops.use_backend(self.backend):
            loss = self.objective(self.blurry, self.sharp, self.stage).losses.total
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return float(loss.item())


def reblur_call(backend: str, shape: Sequence[int], device: str) -> Callable[[], list[Tensor]]:
    """The operator by itself, forward and backward, as the stage "joint" calls it."""
    n, _, height, width = shape
    seeds, weights = (torch.randn(n, planes, height, width, device=device) for planes in reblur_ops.map_channels())
    tensors = [torch.rand(*shape, device=device), seeds, weights.softmax(dim=1)]
    function = harness.on_backend(backend, reblur_ops.reblur)
    return harness.make_call(function, "forward+backward", tensors, torch.rand(*shape, device=device))


def check(device: str) -> None:
    """One step on every backend from the same weights gives the same loss."""
    for stage in STAGES:
        losses = [Step(stage, backend, (1, 3, 32, 48), device)() for backend in BACKENDS]
        if not max(losses) - min(losses) <= 1e-4 * abs(losses[-1]):
            raise SystemExit(f"stage {stage}: {', '.join(BACKENDS)} disagree, losses {losses}")


def measure(shape: Sequence[int], backends: Sequence[str], seconds: float, device: str) -> list[Row]:
    """Both stages, on every backend that the stage asks for: the first does not reblur."""
    asked = [(stage, backend) for stage in STAGES for backend in (backends if stage == "joint" else backends[:1])]
    rows, calls = [], []
    for stage, backend in asked:
        step = Step(stage, backend, shape, device)
        step()  # Adam's moments are there from now on
        step.optimizer.zero_grad()  # frees the gradients, which the step then counts
        rows.append(Row(stage, backend if stage == "joint" else "no reblurring", list(shape)))
        rows[-1].peak_mb = (harness.peak_memory(step, device) + resident_bytes(step)) / 1e6
        calls.append(step)
    operators = [reblur_call(backend, shape, device) for backend in backends]
    times = harness.time_in_turns(
        [*calls, *operators], seconds=seconds, description=f"step {'×'.join(map(str, shape))}", device=device
    )
    alone = dict(zip(backends, (of_call.median for of_call in times[len(calls) :]), strict=True))
    for row, (stage, backend), of_call in zip(rows, asked, times[: len(calls)], strict=True):
        row.ms_p20, row.ms_p50, row.ms_p80 = of_call.percentiles
        row.samples = len(of_call.samples)
        row.reblur_ms = alone[backend] if stage == "joint" else 0.0
    return rows


def resident_bytes(step: Step) -> int:
    """The bytes held when a step begins: weights, Adam's moments and the images."""
    tensors = [*step.framework.parameters(), step.blurry, step.sharp]
    tensors += [t for state in step.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fit(rows: Sequence[Row]) -> list[Fit]:
    """The line through the memory of the smallest and the largest measured size, for each stage and backend."""
    fits = []
    for stage, impl in dict.fromkeys((row.stage, row.impl) for row in rows):
        measured = sorted(
            (row.shape[0] * row.shape[2] * row.shape[3], 1e6 * row.peak_mb)
            for row in rows
            if (row.stage, row.impl) == (stage, impl) and not row.computed and not row.note
        )
        (few, small), (many, large) = measured[0], measured[-1]
        if few < many:
            rate = (large - small) / (many - few)
            fits.append(Fit(stage, impl, small - rate * few, rate))
    return fits


def computed(fits: Sequence[Fit], rows: Sequence[Row], shape: Sequence[int]) -> list[Row]:
    """A step too large to be made here, its time in proportion to the largest measured, its memory by the fit."""
    pixels = shape[0] * shape[2] * shape[3]
    result = []
    for of_impl in fits:
        measured = [row for row in rows if (row.stage, row.impl) == (of_impl.stage, of_impl.impl) and row.ms_p50]
        largest = max(measured, key=lambda row: math.prod(row.shape))
        scale = pixels * 3 / math.prod(largest.shape)
        row = Row(of_impl.stage, of_impl.impl, list(shape), computed=True)
        assert largest.ms_p50 is not None
        row.ms_p50, row.reblur_ms = scale * largest.ms_p50, scale * largest.reblur_ms
        row.peak_mb = of_impl.bytes(pixels) / 1e6
        result.append(row)
    return result


def largest_that_runs(stage: str, candidates: Sequence[Sequence[int]]) -> list[int] | None:
    """On a GPU: the last of the shapes, small to large, at which a step of the native operator runs."""
    best = None
    for shape in candidates:
        try:
            Step(stage, "native", shape, "cuda")()
            torch.cuda.synchronize()
            best = list(shape)
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
    return best


def table(rows: Sequence[Row]) -> str:
    heads = ("stage:", "size", "reblurring by", "ms (20 / 50 / 80 %):")
    cells = []
    for row in rows:
        head = [row.stage, harness.size(row.shape), row.impl]
        if row.ms_p50 is None or row.share is None:
            cells.append([*head, row.note])
            continue
        mark = ", computed" if row.computed else ""
        times = f"{harness.spread((row.ms_p20, row.ms_p50, row.ms_p80))}{mark}"
        share = f"{100 * row.share:.1f} %"
        cells.append([*head, times, harness.milliseconds(row.reblur_ms), share, f"{row.peak_mb:.0f}{mark}"])
    return harness.markdown((*heads, "reblurring alone, ms:", "its share:", "memory, MB:"), cells)


def capacity_table(fits: Sequence[Fit]) -> str:
    heads = ("stage:", "reblurring by", "bytes a pixel:", *(f"{memory} GB:" for memory in MEMORIES))
    cells = [
        [
            fit.stage,
            fit.impl,
            f"{fit.bytes_per_pixel:.0f}",
            *(f"{fit.batch(memory)}, {harness.size(fit.frame(memory))}" for memory in MEMORIES),
        ]
        for fit in fits
    ]
    return harness.markdown(heads, cells)


def main() -> None:
    parser = harness.arguments(__doc__, seconds=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    device = arguments.device
    if "native" not in reblur_ops.backends():
        raise SystemExit("nothing to measure: the native kernels are not built")
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU is visible to torch")
    check(device)
    crop = (48, 64) if arguments.quick else CROP
    frame = (96, 128) if arguments.quick else FRAME
    rows = measure((1, 3, crop[0] // 2, crop[1] // 2), BACKENDS, arguments.seconds / 4, device)
    rows += measure((1, 3, *crop), BACKENDS, arguments.seconds, device)
    tried = {}
    if device == "cuda":
        rows += measure((1, 3, *frame), ("native",), arguments.seconds, device)
        for stage in STAGES:
            batches = [(n, 3, *CROP) for n in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)]
            frames = [(1, 3, MULTIPLE * 7 * n, MULTIPLE * 10 * n) for n in range(4, 40, 2)]
            tried[stage] = [largest_that_runs(stage, candidates) for candidates in (batches, frames)]
    fits = fit(rows)
    if device == "cpu":
        rows += computed(fits, rows, (1, 3, *frame))
    text = (
        f"# The training step\n\n{harness.setting(device)} The compact network, float32, Adam.\n\n{table(rows)}\n\n"
        "Memory is what Torch allocates: weights, gradients, moments, activations.\n\n"
        "## What fits\n\nThe most crops of 256×256, and the largest frame, computed from the memory measured at two "
        f"sizes, with {100 * HEADROOM:.0f} % of a GPU's memory to use:\n\n{capacity_table(fits)}\n"
    )
    if tried:
        lines = [f"- stage {stage}: {batch} and {of_frame}" for stage, (batch, of_frame) in tried.items()]
        text += "\nTried on this GPU, natively, the largest batch and frame that ran:\n\n" + "\n".join(lines) + "\n"
    name = "training-step-cpu" if device == "cpu" else "training-step-cuda"
    harness.save(name, rows, text, arguments.results, tried=tried)


if __name__ == "__main__":
    main()
