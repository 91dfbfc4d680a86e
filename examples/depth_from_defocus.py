"""Depth from defocus: which Gaussian at each pixel leads from a sharp photograph to one out of focus, and how far away
that makes it. Writes depth-from-defocus.png: python examples/depth_from_defocus.py [FOLDER]

The photograph out of focus is rendered with a lens focused in front of everything, whose light spreads; σ is found by
gradient descent through `reblur_ops.gaussian_blur`, which gathers. The two differ along the edges of what is near.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from torch.nn import functional as F

import reblur_ops

LENS = {"focus": 2.0, "aperture": 0.05, "focal_length": 0.05, "pixel_pitch": 90e-6}  # metres
STEPS = 60
SMOOTHNESS = 0.03  # how much a pixel of roughness counts against the difference of the pictures


def load_scene() -> tuple[torch.Tensor, torch.Tensor]:
    """The motorcycle of Middlebury 2014, a third of its size: (1, 3, H, W), 0 … 1, and depth, (1, 1, H, W), metres."""
    photograph, _, disparity = skimage.data.stereo_motorcycle()
    image = torch.from_numpy(photograph).permute(2, 0, 1)[None] / 255
    known = np.where(np.isfinite(disparity), disparity, np.nanmin(disparity))  # holes are mostly far away
    depth = 0.193 * 995 / (torch.from_numpy(known).float()[None, None] + 31.1)  # baseline, focal length, offset
    return F.avg_pool2d(image, 3), F.avg_pool2d(depth, 3)


def find_sigma(sharp: torch.Tensor, blurry: torch.Tensor) -> torch.Tensor:
    """σ, (1, 1, H, W), pixels, smooth but for the edges of the photograph: without texture, any blur fits."""
    size = sharp.shape[2:]
    flat = [torch.exp(-20 * sharp.diff(dim=dim).abs().mean(dim=1, keepdim=True)) for dim in (2, 3)]
    # Coarse grids carry the blur over places without texture in a few steps.
    grids = [torch.zeros(1, 1, size[0] // spacing, size[1] // spacing, requires_grad=True) for spacing in (16, 4, 1)]
    optimizer = torch.optim.Adam(grids, lr=0.1)
    for _ in range(STEPS):
        sigma = F.softplus(sum(F.interpolate(grid, size=size, mode="bilinear") for grid in grids))
        difference = reblur_ops.gaussian_blur(sharp, sigma, radius=6, padding="replicate") - blurry
        roughness = sum((weight * sigma.diff(dim=dim).abs()).mean() for weight, dim in zip(flat, (2, 3), strict=True))
        optimizer.zero_grad()
        (difference.abs().mean() + SMOOTHNESS * roughness).backward()
        optimizer.step()
    return sigma.detach()


def depth_of(sigma: torch.Tensor) -> torch.Tensor:
    """Metres: `reblur_ops.coc_radius` solved for depth, behind the plane in focus. A disk of radius 2σ is as wide."""
    scale = LENS["aperture"] * LENS["focal_length"] / (LENS["focus"] - LENS["focal_length"]) / 2 / LENS["pixel_pitch"]
    return LENS["focus"] / (1 - (2 * sigma / scale).clamp(max=0.9))


def main(folder: Path) -> None:
    sharp, depth = load_scene()
    blurry = reblur_ops.defocus(sharp, depth, **LENS, max_radius=6, kernel="gaussian")
    found = depth_of(find_sigma(sharp, blurry))
    error = (found - depth).abs()
    correlation = np.corrcoef(found.flatten(), depth.flatten())[0, 1]
    print(f"depth from {depth.min():.2f} m to {depth.max():.2f} m")
    print(f"recovered: correlation {correlation:.3f}, median error {100 * error.median():.1f} cm")

    near, far = depth.min(), depth.max()
    maps = [(255 * ((values - near) / (far - near)).clamp(0, 1))[0, 0].byte().numpy() for values in (depth, found)]
    picture = [(255 * blurry[0].clamp(0, 1)).byte().permute(1, 2, 0).numpy()[..., ::-1]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "depth-from-defocus.png"
    cv2.imwrite(str(path), np.hstack(picture + [cv2.applyColorMap(each, cv2.COLORMAP_TURBO) for each in maps]))
    print(f"{path}: out of focus, true depth, recovered depth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/examples"), help="for the picture")
    main(parser.parse_args().folder)
