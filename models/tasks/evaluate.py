"""The task that scores a checkpoint, or other people's pictures, by named protocols."""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..core.errors import UserError
from ..core.files import writable_folder
from ..data import images
from ..data.layouts import NOTATION, describe_layouts, load_pairs
from ..data.samples import WholePairs
from ..evaluation.metrics import (
    PROTOCOLS,
    SMALLEST,
    load_lpips,
)
from ..evaluation.protocols import choose_protocols, make_flow, outputs_of, radius_score, score_picture, to_array
from ..evaluation.results import RANKING, Extremes, Result, means, means_as_json, table, write_results
from ..flow.load import FLOWS
from ..reporting.pictures import side_by_side, to_bytes
from .arguments import integer
from .framework_arguments import add_framework_arguments, load_tiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    protocols = "\n".join(f"  {name}: {definition}" for name, definition in PROTOCOLS.items())
    parser.epilog = f"protocols:\n{protocols}\n\nlayouts:\n{describe_layouts()}"
    parser.add_argument("--data", nargs="+", required=True, metavar="SOURCE", help=f"{NOTATION}; split: test")
    parser.add_argument(
        "--outputs",
        type=Path,
        metavar="DIR",
        help="score the images in this folder, named as the blurry ones, instead of a checkpoint",
    )
    add_framework_arguments(parser)
    parser.add_argument(
        "--protocols",
        nargs="+",
        choices=tuple(PROTOCOLS),
        metavar="PROTOCOL",
        help="protocols to score by, of those below; if not given, all that the data allows",
    )
    parser.add_argument(
        "--flow", choices=tuple(FLOWS), default="dis", help="optical flow for the protocol warped (default: dis)"
    )
    parser.add_argument("--flow-weights", type=Path, metavar="FILE", help="weights of the flow pwc")
    parser.add_argument("--round", action="store_true", help="round the deblurred pictures to 8 bits first")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/evaluation"),
        metavar="DIR",
        help="folder for scores.json, scores.csv and pictures (default: runs/evaluation)",
    )
    parser.add_argument("--json", action="store_true", help="print the means as one line of JSON, for scripts")
    parser.add_argument(
        "--pictures",
        type=integer(0, 1000),
        default=3,
        metavar="N",
        help="number of the best and of the worst to show (default: 3)",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate. The exit status: 0."""
    if args.outputs and args.checkpoint:
        raise UserError("--checkpoint and --outputs cannot be given together")
    pairs = load_pairs(args.data, "test", smallest=SMALLEST, truth=True)
    protocols = choose_protocols(pairs, args.protocols)
    outputs = outputs_of(pairs, args.outputs) if args.outputs else None
    framework = None if args.outputs else load_tiled(args)
    flow = make_flow(args.flow, args.flow_weights)
    lpips = load_lpips()
    writable_folder(args.out)

    results, extremes = [], Extremes(args.pictures)
    ranking = next(name for name in RANKING if name in protocols)
    samples = WholePairs(pairs)
    for number in tqdm(range(len(pairs)), "evaluating", unit="picture"):
        sample = samples[number]
        if framework:
            picture = to_array(framework.deblur(sample["blurry"], sample["name"]))
        else:
            assert outputs is not None
            picture = np.clip(images.read(outputs[sample["name"]]).pixels, 0, 1)
        if args.round:
            picture = to_bytes(picture) / np.float32(255)
        scores, shift = score_picture(picture, sample, protocols, flow, lpips)
        radius = radius_score(framework, picture, sample) if framework else None
        blurry, _ = score_picture(to_array(sample["blurry"]), sample, protocols, flow, lpips)
        results.append(Result(sample["name"], scores, blurry, shift, radius))
        psnr = scores[ranking].psnr
        captions = ["blurry", f"deblurred: {psnr:.2f} dB ({ranking})", "sharp"]
        shown = [to_bytes(image) for image in (to_array(sample["blurry"]), picture, to_array(sample["sharp"]))]
        extremes.add(psnr, sample["name"], side_by_side(captions, shown))

    description = {
        "data": args.data,
        "evaluated": str(args.outputs or args.checkpoint or "the framework of the project"),
        "flow": args.flow,
        "rounded": args.round,
    }
    # Told first: a disk that is full shall not cost the work.
    if args.json:
        print(means_as_json(results), flush=True)
    else:
        both = table(means(results), means(results, blurry=True))
        print(f"{len(results)} pictures, flow of the protocol warped: {args.flow}\n\n{both}\n\n{args.out}", flush=True)
    write_results(args.out, description, results)
    extremes.write(args.out)
    return 0
