"""Misaligned pairs with known truth, made of photographs.

A lens out of focus (`models.synthesis.defocus`) makes the blurry picture. The sharp one is taken by a camera that has
moved, turned and zoomed a little in between. Both get noise and are rounded. Written in the layout of SDD, beside the
truth:

    OUT/{train_patches,test}/
        blur/NAME.png
        gt/NAME.png           sharp, misaligned
        aligned/NAME.png      sharp, aligned with `blur`, free of noise
        blur_radius/NAME.tif  (H, W), RMS radius of the blur in pixels: c/√2 for circles of confusion of radius c
        flow/NAME.tif         (H, W, 2), x and y in pixels: `gt` at p + flow(p) shows what `blur` shows at p
    OUT/synthesis.json        the settings, and which photographs are for training and which for the test
"""

import argparse
import dataclasses
import sys
import textwrap
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ..core.errors import PROGRAM
from ..core.files import writable_folder
from ..core.parallel import processors
from ..data.pairs import DataError
from ..synthesis.dataset import write_dataset
from ..synthesis.photographs import find_originals, split_photographs
from ..synthesis.settings import Settings
from .arguments import integer, number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Settings()
    parser.add_argument("--photos", type=Path, help="folder of sharp photographs; those of scikit-image if not given")
    parser.add_argument(
        "--disparity",
        type=Path,
        help="folder of their disparities, same names: TIFF, PFM or PNG of one channel, the size of the photograph, "
        "larger where nearer, holes NaN or infinite; depth is random where there is none",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pairs, in the layout sdd")
    parser.add_argument("--patch", type=integer(32, 4096), default=default.patch, help="height and width, pixels")
    parser.add_argument("--patches", type=integer(1, 99999), default=default.patches, help="pairs of each photograph")
    parser.add_argument(
        "--blur",
        type=number(0, 64),
        default=default.blur,
        help="largest radius of a circle of confusion, pixels; each pair has its own, from a third of it",
    )
    parser.add_argument(
        "--misalignment",
        type=number(0, 64),
        default=default.misalignment,
        help="largest displacement, pixels, an eighth of the patch at most; each pair has its own, from half of it",
    )
    parser.add_argument(
        "--scenes",
        action="store_true",
        help="layered scenes: textures of the photograph in layers that hide one another, with parallax of up to "
        "--misalignment; what the sharp picture does not show is told by visible/",
    )
    parser.add_argument(
        "--zoom", type=number(0, 0.1), default=default.zoom, help="of scenes: largest zoom by refocusing"
    )
    parser.add_argument("--shift", type=number(0, 64), default=default.shift, help="of scenes: largest shift, pixels")
    parser.add_argument(
        "--gain", type=number(0, 0.25), default=default.gain, help="of scenes: largest difference of exposure"
    )
    parser.add_argument(
        "--noise",
        type=number(0, 1),
        default=default.noise,
        help="largest standard deviation of the noise at white, in linear light",
    )
    parser.add_argument(
        "--bits", type=int, choices=(8, 16), default=default.bits, help="bits of each channel of the images"
    )
    parser.add_argument(
        "--scale",
        type=number(0.01, 1),
        nargs="+",
        default=default.scale,
        help="factor by which photographs are made smaller first; if there are several, the pairs of a photograph use "
        "in turn those at which it is large enough",
    )
    parser.add_argument(
        "--test-fraction",
        type=number(0, 1),
        default=default.test_fraction,
        help="part of the photographs that is kept for the test",
    )
    parser.add_argument(
        "--test",
        nargs="+",
        default=default.test,
        metavar="NAME",
        help="photographs kept for the test instead, without suffix",
    )
    parser.add_argument(
        "--test-patch",
        type=integer(32, 4096),
        help="height and width in the test, pixels; if not given, those of --patch",
    )
    parser.add_argument(
        "--test-patches",
        type=integer(1, 99999),
        help="pairs of each photograph in the test; if not given, as many as --patches",
    )
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=default.seed, help="seed of the random numbers")
    parser.add_argument("--workers", type=integer(1, 1024), default=processors(), help="processes")


def run(args: argparse.Namespace) -> int:
    """Make the pairs. Exit status: 0, 1 if a process died, 130 if interrupted."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}
    settings = Settings(**values | {"scale": tuple(args.scale), "test": tuple(args.test)})
    start = time.perf_counter()
    try:
        patch = min(settings.patch, settings.for_split("test").patch)
        if settings.misalignment > patch / 8 and not settings.scenes:
            limit = f"at most {patch / 8:g}, an eighth of the patch"
            raise DataError([f"--misalignment must be {limit}, got {settings.misalignment:g}"])
        originals = find_originals(args.photos, args.disparity)
        writable_folder(args.out)
        if args.disparity:
            known = sum(original.disparity is not None for original in originals)
            print(f"disparities of {known} of {len(originals)} photographs; the others get random depth")
        for split, members in split_photographs(originals, settings).items():
            names = textwrap.shorten(", ".join(original.name for original in members), 80, placeholder=" …")
            count = settings.for_split(split).patches * len(members)
            print(f"{split}: {count} pairs of {len(members)} photographs: {names}")
        made = write_dataset(originals, settings, args.out, args.workers)
    except KeyboardInterrupt:
        return _failed("interrupted; the same command goes on", 130)
    except BrokenProcessPool:
        return _failed("a process was killed, perhaps for want of memory; the same command goes on", 1)
    seconds = time.perf_counter() - start
    print(f"made {made} pairs in {seconds:.0f} s, {made / seconds:.1f} a second")
    print(f"use them as sdd:{args.out}")
    return 0


def _failed(reason: str, status: int) -> int:
    print(f"{PROGRAM} synthesize: error: {reason}", file=sys.stderr)
    return status
