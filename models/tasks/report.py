"""The task that shows a training run on one page."""

import argparse
from pathlib import Path

from ..alignment.pair import FLOWS
from ..checkpoints.load import load_framework
from ..core.devices import usable_device
from ..core.errors import UserError
from ..core.files import writable_folder
from ..data.layouts import NOTATION, load_pairs
from ..data.pairs import DataError
from ..data.samples import WholePairs
from ..evaluation.metrics import SMALLEST
from ..evaluation.protocols import choose_protocols
from ..flow import load_flow
from ..inference.tiling import TiledFramework
from ..reporting import page
from ..reporting.restored import picture_section, restore, score_table
from ..reporting.training_run import curves, sources_of, summary
from ..training.validation import spread
from .arguments import integer
from .framework_arguments import add_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a training run, or of a framework")
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="SOURCE",
        help=f"pairs to show, {NOTATION}; if not given, the test split of the training data",
    )
    parser.add_argument(
        "--pictures", type=integer(1, 100), default=4, metavar="N", help="number of pairs, spread over the data"
    )
    parser.add_argument(
        "--flow",
        choices=FLOWS,
        default="dis",
        help="how pictures are aligned before the blur between them is found; reblur: by reblurring, more exact, "
        "about 25 s a megapixel (default: dis)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; if not given, RUN/report.html")
    add_trust(parser)
    parser.add_argument("--device", type=usable_device, default="cpu", help="where PyTorch computes: cpu, cuda, …")


def run(args: argparse.Namespace) -> int:
    """Write the page. The exit status: 0."""
    if not args.folder.is_dir():
        raise UserError(f"{args.folder} is not the folder of a training run")
    try:
        pairs = load_pairs(args.data or sources_of(args.folder), "test", smallest=SMALLEST, truth=True)
    except DataError as error:
        if args.data:
            raise
        raise UserError(f"{error}; --data names other pairs, {NOTATION}") from error
    tiled = TiledFramework(load_framework(args.folder, args.trust), args.device, source=args.folder)
    out = args.out or args.folder / "report.html"
    writable_folder(out.parent)

    samples = WholePairs(spread(pairs, args.pictures))
    pictures = restore(tiled, (samples[number] for number in range(len(samples))), len(samples), load_flow(args.flow))
    body = [summary(tiled.framework, args.folder), curves(args.folder)]
    body.append(score_table(pictures, choose_protocols(samples.pairs, None)))
    body += [picture_section(tiled, restored) for restored in pictures]
    page.write(out, f"Run {args.folder.resolve().name}", "\n".join(body))
    print(out)
    return 0
