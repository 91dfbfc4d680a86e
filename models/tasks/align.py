"""The task that aligns the pictures of pairs."""

import argparse
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ..alignment import AlignmentSettings, align_dataset
from ..alignment.dataset import other_pairs
from ..alignment.pair import FLOWS
from ..core.errors import PROGRAM
from ..core.files import writable_folder
from ..core.parallel import processors
from ..data.layouts import NOTATION, describe_layouts, load_pairs
from .arguments import integer

DEFAULT = AlignmentSettings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Align whole pairs once: the sharp pictures warped to the blurry ones, how far that can be trusted, the blur "
        "between the two, and the flow. OUT has the layout sdd: data.train=[sdd:OUT] data.target=aligned trains on it "
        "without any flow. The same command goes on after an interruption."
    )
    parser.epilog = f"layouts:\n{describe_layouts()}"
    parser.add_argument("--data", nargs="+", required=True, metavar="SOURCE", help=f"pairs, {NOTATION}")
    parser.add_argument("--split", default="train", choices=("train", "val", "test"), help="of sources that name none")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--flow",
        choices=FLOWS,
        default=DEFAULT.flow,
        help="reblur: refined by reblurring, about 25 s a megapixel, and 12 more for the radius; the others: without "
        "(default: reblur)",
    )
    parser.add_argument(
        "--max-radius",
        type=integer(1, 64),
        default=DEFAULT.max_radius,
        help="largest circle of confusion that is searched, pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=integer(1, 1024), default=processors(), help="processes (default: one for each processor)"
    )


def run(args: argparse.Namespace) -> int:
    """Align. Exit status: 0, 1 if a process died, 130 if interrupted."""
    pairs = load_pairs(args.data, args.split, smallest=16)
    writable_folder(args.out)
    try:
        made = align_dataset(pairs, AlignmentSettings(args.flow, args.max_radius), args.out, args.workers)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on", 130)
    except BrokenProcessPool:
        return _failed("a process was killed, perhaps for want of memory; the same command goes on", 1)
    print(f"aligned {made} pairs, {len(pairs) - made} were there already")
    if others := other_pairs(pairs, args.out):
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        print(f"notice: {args.out} holds {len(others)} other pairs, which training takes, too: {shown}")
    print(f"use them as data.train=[sdd:{args.out}] data.target=aligned")
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"{PROGRAM} align: error: {reason}", file=sys.stderr)
    return status
