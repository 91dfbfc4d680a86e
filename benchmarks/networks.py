"""How large are the networks, how fast on the CPU, and how much memory do they take?

    python -m benchmarks.networks [--seconds S]                        (make bench)

Without gradients, in evaluation mode: the published form at its default sizes, and those of the checkpoint in the box.
Memory is in proportion to the pixels, so that of a 4K
image (3840 × 2160) follows from the measured one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import reblur_ops
from benchmarks import harness
from models import load_framework
from models.networks import BlurMapNet, CompactNet, ReblurringNet, Restormer, UNet

SIZE = 256  # pixels, height and width: a multiple of what any of them needs
PIXELS_4K = 3840 * 2160


@dataclass
class Row:
    """One network."""

    network: str
    parameters: int
    shape: list[int]
    ms_p20: float
    ms_p50: float
    ms_p80: float
    bytes_per_pixel: float  # largest memory allocated at once during a call, output included, inputs not

    @property
    def gb_4k(self) -> float:
        return self.bytes_per_pixel * PIXELS_4K / 1e9


def networks() -> dict[str, tuple[nn.Module, int]]:
    """Each network, and the channels of what it takes beside the blurry image."""
    map_channels, _ = reblur_ops.map_channels()
    box = load_framework()
    assert box.blur_map is not None
    assert box.reblur is not None
    return {
        "blur map": (BlurMapNet(), 0),
        "reblurring": (ReblurringNet(), 3),
        "compact": (CompactNet(), map_channels),
        "U-Net": (UNet(), map_channels),
        "Restormer": (Restormer(), map_channels),
        "blur map, in the box": (box.blur_map, 0),
        "reblurring, in the box": (box.reblur, 3),
        "compact, in the box": (box.deblur, box.deblur.map_channels),
    }


def call(network: nn.Module, channels: int, size: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    blurry = torch.rand(1, 3, size, size, generator=generator)
    arguments = (blurry, torch.rand(1, channels, size, size, generator=generator)) if channels else (blurry,)
    network.eval()

    def run() -> object:
        with torch.inference_mode():
            return network(*arguments)

    return run


def table(rows: list[Row]) -> str:
    cells = [
        [
            row.network,
            f"{row.parameters / 1e6:.3f} M",
            harness.spread((row.ms_p20, row.ms_p50, row.ms_p80)),
            f"{row.bytes_per_pixel:.0f}",
            f"{row.gb_4k:.3g}",
        ]
        for row in rows
    ]
    return harness.markdown(("network", "parameters:", "ms (20 / 50 / 80 %):", "bytes a pixel:", "GB at 4K:"), cells)


def main() -> None:
    arguments = harness.arguments(__doc__, seconds=10).parse_args()
    size = 32 if arguments.quick else SIZE
    contenders = networks()
    calls = [call(*contender, size) for contender in contenders.values()]
    peaks = [harness.peak_memory(each) for each in calls]
    times = harness.time_in_turns(calls, seconds=arguments.seconds)
    rows = [
        Row(
            name, sum(p.numel() for p in network.parameters()), [1, 3, size, size], *of_call.percentiles, peak / size**2
        )
        for (name, (network, _)), of_call, peak in zip(contenders.items(), times, peaks, strict=True)
    ]
    title = f"# The networks on the CPU\n\n{harness.setting()} 1×3×{size}×{size}, "
    text = f"{title}float32, without gradients.\n\n{table(rows)}\n"
    harness.save("networks-cpu", rows, text, arguments.results)


if __name__ == "__main__":
    main()
