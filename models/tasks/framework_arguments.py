"""Arguments of the tasks that use a framework."""

import argparse
from pathlib import Path

from ..checkpoints.load import DEFAULT_CHECKPOINT, load_framework
from ..core.devices import usable_device
from ..core.positions import COPIES
from ..inference.scales import HALVINGS
from ..inference.tiling import LARGEST_TILE, SMALLEST_TILE, TiledFramework
from .arguments import integer


def add_framework_arguments(parser: argparse.ArgumentParser) -> None:
    """Which framework, and how it computes."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="C",
        help="folder of a framework, folder of a training run, or file of the published training code; "
        f"if not given, the one that comes with the package, {DEFAULT_CHECKPOINT.name}",
    )
    add_trust(parser)
    parser.add_argument("--device", type=usable_device, default="cpu", help="where PyTorch computes: cpu, cuda, …")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--compile", action="store_true", help="compile with torch.compile first, which takes long")
    parser.add_argument(
        "--tile",
        type=integer(SMALLEST_TILE, LARGEST_TILE),
        help="height and width of the tiles, pixels; if not given, what fits into the memory that is free. Those "
        "of less than 256 are smaller than what the networks see around a pixel, and change the result",
    )
    parser.add_argument(
        "--scale",
        choices=("auto", "full"),
        default="auto",
        help="auto (the default): where the blur map tells a blur that is too large for the networks, deblur at half "
        "or a quarter of the size. full: leave such blur as it is",
    )
    parser.add_argument(
        "--keep-noise",
        action="store_true",
        help="leave the noise of the photograph as it is. Else the checkpoint in the box takes away first what exceeds "
        "2 levels of 255 and is no texture",
    )
    parser.add_argument(
        "--copies",
        type=int,
        choices=COPIES,
        default=1,
        help="deblur so many turned and mirrored copies and take their mean (geometric self-ensemble), which takes as "
        "many times as long (default: 1)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Which classes a checkpoint may ask for."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="CLASS_PATH",
        help="class of a network of your own, package.module.Class, that the checkpoint may import; its module runs",
    )


def load_tiled(args: argparse.Namespace) -> TiledFramework:
    """The framework that the arguments of `add_framework_arguments` mean."""
    return TiledFramework(
        load_framework(args.checkpoint, args.trust),
        args.device,
        bf16=args.bf16,
        compiled=args.compile,
        tile=args.tile,
        halvings=HALVINGS if args.scale == "auto" else 0,
        keep_noise=args.keep_noise,
        copies=args.copies,
        source=args.checkpoint or "the framework in the box",
    )
