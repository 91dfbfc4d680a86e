"""The task that deblurs photographs."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ..core.errors import PROGRAM, UserError, describe
from ..core.files import clear_parts, writable_folder
from ..data import images
from ..inference.files import RADIUS_STEPS, deblur_file, find_photographs, plan, skipped
from .arguments import integer
from .framework_arguments import add_framework_arguments, load_tiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Deblur photographs of any size. Results have the names, formats and bit depths of the originals, their EXIF "
        "data and colour profile, and are upright. Opacity is kept, and colours below it are deblurred like all "
        "others. Grey photographs are deblurred as colour and written as grey (luma, BT.709). Floating point is "
        "clipped to 0 … 1."
    )
    parser.add_argument("inputs", nargs="+", metavar="IN", help="photograph, folder of photographs, or pattern")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add_framework_arguments(parser)
    parser.add_argument(
        "--blur-map",
        action="store_true",
        help="write the radius of the blur that the photograph shows, RMS: NAME.blur-radius.png, grey of 16 bits, "
        f"{RADIUS_STEPS} to a pixel, and NAME.blur-radius-colours.png",
    )
    parser.add_argument(
        "--max-pixels",
        type=integer(1, 10**12),
        default=10**9,
        help="refuse photographs of more pixels than this: a small file can claim any size (default: a billion)",
    )
    parser.add_argument("--side-by-side", action="store_true", help="write before and after as NAME.side-by-side.png")
    parser.add_argument("--overwrite", action="store_true", help="write files that exist already")


def run(args: argparse.Namespace) -> int:
    """Deblur. The exit status: 0, or 1 if some photographs could not be: they are named, and the others are done."""
    images.limit_pixels(args.max_pixels)
    if ignored := skipped(args.inputs):
        told = ", ".join(f"{count} {suffix}" for suffix, count in ignored.items())
        print(f"not read, as their suffix is none of {', '.join(images.SUFFIXES)}: {told}", file=sys.stderr)
    outputs = plan(find_photographs(args.inputs), args.out, args.blur_map, args.side_by_side)
    framework = load_tiled(args)
    if args.blur_map and not framework.tells_radius:
        raise UserError("--blur-map needs a checkpoint with a blur map or a reblurring network")
    writable_folder(args.out)
    clear_parts(args.out, older=3600)
    written, there, failed = 0, 0, 0
    for photograph, files in tqdm(outputs.items(), "photographs", unit="photograph", disable=len(outputs) == 1):
        wanted = {path for path in files.paths if args.overwrite or not path.exists()}
        if not wanted:
            there += 1
            continue
        try:
            for folder in {path.parent for path in wanted}:
                folder.mkdir(exist_ok=True)
            for notice in deblur_file(framework, photograph, files, wanted):
                tqdm.write(f"{PROGRAM} deblur: {photograph}: {notice}", file=sys.stderr)
            written += 1
        except (UserError, OSError) as error:
            failed += 1
            tqdm.write(f"{PROGRAM} deblur: error: {describe(error)}", file=sys.stderr)
    if there:
        print(f"{there} were there already: --overwrite writes them again")
    print(f"{written} deblurred into {args.out}" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0
