"""A bokeh render: throw the background of a photograph out of focus, as a fast lens would. Writes bokeh.png:
python examples/bokeh.py [FOLDER]

Light spreads, so it is a scatter of disks in linear light: each pixel is spread over its circle of confusion, and what
is brighter than white, as lamps and reflections are, makes disks that can be seen.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch

import reblur_ops

FOCUS = (330, 370)  # the pixel in focus, row and column: the engine
LARGEST = 12  # pixels, the radius of the largest circle of confusion


def load_scene() -> tuple[torch.Tensor, torch.Tensor]:
    """The motorcycle of Middlebury 2014: linear light, (1, 3, H, W), and disparity, (1, 1, H, W), pixels."""
    photograph, _, disparity = skimage.data.stereo_motorcycle()
    light = torch.from_numpy(photograph).permute(2, 0, 1)[None].float().div(255) ** 2.2
    known = np.where(np.isfinite(disparity), disparity, np.nanmin(disparity)).astype(np.float32)
    return light, torch.from_numpy(cv2.medianBlur(known, 5))[None, None]


def main(folder: Path) -> None:
    light, disparity = load_scene()
    light = light * (1 + 8 * light.amin(dim=1, keepdim=True) ** 4)  # the sensor has cut off the highlights
    # The circle of confusion of a thin lens is proportional to the difference in disparity: `reblur_ops.coc_radius`.
    defocus = (disparity - disparity[..., FOCUS[0], FOCUS[1]]).abs()
    radius = LARGEST * defocus / defocus.max()
    render = reblur_ops.disk_blur(
        light, radius, max_radius=LARGEST, direction="scatter", padding="replicate", normalize_scatter=True
    )
    print(f"{light.shape[3]} × {light.shape[2]} pixels, circles of confusion up to {radius.max():.1f} pixels")
    print(f"light kept: {100 * render.sum() / light.sum():.1f} %")

    both = torch.cat([light, render], dim=3)[0].clamp(0, 1) ** (1 / 2.2)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bokeh.png"
    cv2.imwrite(str(path), (255 * both).byte().permute(1, 2, 0).numpy()[..., ::-1])
    print(f"{path}: the photograph, and the render")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/examples"), help="for the picture")
    main(parser.parse_args().folder)
