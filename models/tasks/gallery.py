"""The gallery: one photograph with measured disparity through every family of kernels, in both directions.

The lens is opened wide and focused on the middle of the scene, so that near and far are blurred. At the edges between
them the directions differ: a gather blurs a sharp thing with nothing and a blurred one with its sharp neighbours; a
scatter spreads what is blurred over what is sharp, as light does.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..core.devices import usable_device
from ..core.files import writable_folder
from ..reporting.gallery import FAMILIES, VARIANTS, load_scene, write
from ..reporting.pictures import coloured, to_bytes
from ..synthesis.defocus import Array, render_defocus, to_srgb
from .arguments import number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"), help="folder for the page and the pictures")
    parser.add_argument("--device", type=usable_device, default="cpu", help="where PyTorch computes: cpu, cuda, …")
    parser.add_argument(
        "--scale", type=number(0.1, 1), default=1.0, help="factor by which the photograph is made smaller, 0.1 to 1"
    )


def run(args: argparse.Namespace) -> int:
    writable_folder(args.out)
    sharp, signed = load_scene(args.scale)
    circles = np.abs(signed)
    image = torch.from_numpy(sharp.transpose(2, 0, 1)[None]).to(args.device)
    radius = torch.from_numpy(circles[None, None]).to(args.device)

    largest = float(np.ceil(circles.max()))
    pictures = {
        "sharp": to_bytes(to_srgb(sharp)),
        "radius": coloured(circles, largest, cv2.COLORMAP_VIRIDIS),
        "lens": to_bytes(to_srgb(render_defocus(sharp, signed))),
    }
    cells = [(family, variant) for family in FAMILIES for variant in VARIANTS]
    with torch.inference_mode():
        for family, variant in tqdm(cells, desc="gallery"):
            blurred = family.blur(image, radius, **variant.options)
            array: Array = blurred[0].permute(1, 2, 0).cpu().numpy()
            pictures[f"{family.name}, {variant.name}"] = to_bytes(to_srgb(array))
    print(f"gallery: {write(args.out, pictures, largest)}")
    return 0
