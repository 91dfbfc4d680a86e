"""The task that turns a checkpoint of the published training code into a model of ours."""

import argparse
from pathlib import Path
from typing import get_args

from ..checkpoints.load import ChannelOrder, import_official
from ..core.files import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="IN", help="file that the published training wrote")
    parser.add_argument(
        "--channels",
        choices=get_args(ChannelOrder),
        help="order of colours that the networks were trained on; if not given, bgr for a deblurring network that "
        "sees no blur map, as of JDRL, and rgb for others",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for model.safetensors and config.json")


def run(args: argparse.Namespace) -> int:
    """Import. The exit status: 0."""
    writable_folder(args.out)
    framework = import_official(args.checkpoint, args.channels)
    framework.save_pretrained(args.out)
    parts = {"deblur": framework.config.deblur.network, "blur_map": "blur map network", "reblur": "reblurring network"}
    for part, title in parts.items():
        module = getattr(framework, part)
        size = "none" if module is None else f"{sum(p.numel() for p in module.parameters()) / 1e6:.3f} M parameters"
        print(f"{title}: {size}")
    print(args.out)
    return 0
