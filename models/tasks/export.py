"""The task that exports a framework for other programs."""

import argparse
import sys
from pathlib import Path

from ..checkpoints.load import DEFAULT_CHECKPOINT, load_framework
from ..checkpoints.onnx import export_onnx
from ..core.errors import UserError
from ..core.files import writable_folder
from .framework_arguments import add_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the deblurring of a framework as an ONNX file, with its weights. Its input `image` is (N, 3, height, "
        "width), float32, 0 … 1, of any size; its output `deblurred` is like it."
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CHECKPOINT",
        help="folder of a framework, folder of a training run, or file of the published training code; "
        f"if not given, the one that comes with the package, {DEFAULT_CHECKPOINT.name}",
    )
    add_trust(parser)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Export. The exit status."""
    if args.onnx.is_dir():
        raise UserError(f"--onnx names the file to write, and {args.onnx} is a folder")
    framework = load_framework(args.checkpoint, args.trust)
    writable_folder(args.onnx.absolute().parent)
    print("exporting, which takes a minute or two", file=sys.stderr)
    export_onnx(framework, args.onnx)
    print(f"exported to {args.onnx}, {args.onnx.stat().st_size / 1e6:.1f} MB")
    return 0
