"""The task that deblurs photographs."""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from ..core.errors import PROGRAM, UserError, describe
from ..core.files import clear_parts, writable_folder
from ..data import images
from ..inference.files import RADIUS_STEPS, Outputs, deblur_file, find_photographs, plan, skipped
from ..inference.tiling import TiledFramework
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
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files")
    parser.add_argument(
        "--json", action="store_true", help="print a line of JSON about each photograph once it is done"
    )


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
    missing = {
        photograph: {path for path in files.paths if args.overwrite or not path.exists()}
        for photograph, files in outputs.items()
    }
    sizes = {photograph: megapixels(photograph) for photograph, wanted in missing.items() if wanted}
    failed = 0
    with tqdm(
        desc="photographs",
        total=sum(sizes.values()),
        disable=len(outputs) == 1,
        bar_format="{desc}: {percentage:3.0f}% |{bar}| {n:.1f}/{total:.1f} megapixels, {remaining} left",
    ) as progress:
        for photograph, wanted in missing.items():
            error: str | None = None
            notices: list[str] = []
            if wanted:
                error, notices = _deblur(framework, photograph, outputs[photograph], wanted)
                failed += error is not None
                progress.update(sizes[photograph])
            if args.json:
                _print_json(photograph, outputs[photograph], bool(wanted), notices, error)
    written, there = len(sizes) - failed, len(outputs) - len(sizes)
    if not args.json:
        if there:
            print(f"{there} were there already: --overwrite writes them again")
        print(f"{written} deblurred into {args.out}" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


def megapixels(photograph: Path) -> float:
    """The megapixels of a file, by its head; 0 where that cannot be read, which deblurring it will tell."""
    try:
        height, width = images.read_size(photograph)
    except images.ImageError:
        return 0.0
    return height * width / 1e6


def _deblur(
    framework: TiledFramework, photograph: Path, files: Outputs, wanted: set[Path]
) -> tuple[str | None, list[str]]:
    """Deblur one photograph. What went wrong, if anything, and what its user should know; both are told, too."""
    try:
        for folder in {path.parent for path in wanted}:
            folder.mkdir(exist_ok=True)
        notices = deblur_file(framework, photograph, files, wanted)
    except (UserError, OSError) as error:
        tqdm.write(f"{PROGRAM} deblur: error: {describe(error)}", file=sys.stderr)
        return describe(error), []
    for notice in notices:
        tqdm.write(f"{PROGRAM} deblur: {photograph}: {notice}", file=sys.stderr)
    return None, notices


def _print_json(photograph: Path, files: Outputs, made: bool, notices: list[str], error: str | None) -> None:
    """A line about a photograph, once it is done."""
    written = {name: str(path) for name, path in vars(files).items() if path is not None}
    status = "failed" if error else "deblurred" if made else "there already"
    line = {"photograph": str(photograph), "status": status, "outputs": written, "notices": notices, "error": error}
    tqdm.write(json.dumps(line), file=sys.stdout)
    sys.stdout.flush()
