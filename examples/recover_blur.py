"""Which blur leads from a sharp photograph to one out of focus, found by gradient descent through `reblur_ops.reblur`.
Writes recover-blur.png: python examples/recover_blur.py [FOLDER]

Beside the edge of something near, the lens mixes only what lies behind that edge, but a kernel gathers from all around:
the few pixels there cannot be matched entirely.
"""

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

import reblur_ops

FOCUS = (0.66, 0.50)  # the point in focus, as parts of the height and the width: the engine
LARGEST = 6.5  # pixels, the radius of the largest circle of confusion; the largest kernels have radius 7
PADDING, SUPPORT = "replicate", "disk"
SEED_SPACING, WEIGHT_SPACINGS = 16, (16, 4, 1)  # pixels from one node of a grid to the next
SMOOTHNESS = 0.005  # how much a pixel of roughness counts against the difference of the pictures


def load_scene(scale: float) -> tuple[Tensor, Tensor]:
    """The motorcycle of Middlebury 2014, linear light, (1, 3, H, W), and its circles of confusion, (1, 1, H, W).

    These are radii in pixels, proportional to the difference in disparity, above 0 in front of the plane in focus.
    """
    photograph, _, disparity = skimage.data.stereo_motorcycle()
    known = np.where(np.isfinite(disparity), disparity, np.inf).astype(np.float32)
    while np.isinf(known).any():  # holes close from the rim, the farthest first: most lie beside something near
        known = np.where(np.isinf(known), cv2.erode(known, None, borderType=cv2.BORDER_REPLICATE), known)
    size = round(scale * known.shape[1]), round(scale * known.shape[0])
    photograph = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    # Not averaged: between near and far there is nothing.
    known = cv2.resize(cv2.medianBlur(known, 5), size, interpolation=cv2.INTER_NEAREST)
    defocus = torch.from_numpy(known - known[int(FOCUS[0] * size[1]), int(FOCUS[1] * size[0])])[None, None]
    return torch.from_numpy(photograph).permute(2, 0, 1)[None].div(255) ** 2.2, LARGEST * defocus / defocus.abs().max()


def throw_out_of_focus(light: Tensor, coc: Tensor, step: float = 0.25) -> Tensor:
    """Layers of depth, each blurred by the disk of its own; from the nearest back, each gets what is left uncovered."""
    result, left = torch.zeros_like(light), torch.ones_like(coc)
    for level in range(math.ceil(coc.max() / step), math.floor(coc.min() / step) - 1, -1):
        share = (1 - (coc / step - level).abs()).clamp(min=0)
        layer, disk = torch.cat([light * share, share], dim=1), torch.full_like(coc, abs(level) * step)
        blurred = reblur_ops.disk_blur(layer, disk, max_radius=7, padding=PADDING)
        taken = blurred[:, 3:].minimum(left)
        result += blurred[:, :3] * taken / blurred[:, 3:].clamp(min=1e-6)
        left -= taken
    return result / (1 - left)  # what hides behind edges is made up from what is seen around it


def as_seen(light: Tensor) -> Tensor:
    """0 … 1: differences of light count as they are seen."""
    return (light.clamp(0, 1) + 1e-3) ** (1 / 2.2)


def psnr(picture: Tensor, target: Tensor) -> float:
    return -10 * math.log10(F.mse_loss(as_seen(picture), as_seen(target)).item())


class BlurMaps(torch.nn.Module):
    """Seeds and weights as grids that are enlarged bilinearly.

    The weights come from a sum of grids: the coarse ones carry the blur over places without texture in a few steps, the
    finest lets it change from pixel to pixel. The seeds, which shape the kernels, vary slowly; equal ones make disks.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        seeds, weights = reblur_ops.map_channels()
        self.seeds = torch.nn.Parameter(0.5 + self.noise(seeds, SEED_SPACING))
        self.weights = torch.nn.ParameterList(self.noise(weights, spacing) for spacing in WEIGHT_SPACINGS)

    def noise(self, channels: int, spacing: int) -> Tensor:
        return 0.01 * torch.randn(1, channels, *(math.ceil((extent - 1) / spacing) + 1 for extent in self.size))

    def enlarged(self, grid: Tensor) -> Tensor:
        return F.interpolate(grid, size=self.size, mode="bilinear", align_corners=True)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.enlarged(self.seeds), sum(self.enlarged(grid) for grid in self.weights).softmax(dim=1)


def recover(sharp: Tensor, blurry: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The sharp picture reblurred, and its blur's RMS radius, smooth but at edges: without texture any blur fits."""
    maps = BlurMaps(*sharp.shape[2:])
    flat = [torch.exp(-10 * as_seen(sharp).diff(dim=dim).abs().mean(dim=1, keepdim=True)) for dim in (2, 3)]
    groups = [{"params": [maps.seeds], "lr": 0.05}, {"params": list(maps.weights), "lr": 0.15}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        seeds, weights = maps()
        reblurred = reblur_ops.reblur(sharp, seeds, weights, support=SUPPORT, padding=PADDING)
        radius = reblur_ops.blur_radius(seeds, weights, support=SUPPORT)
        difference = (as_seen(reblurred) - as_seen(blurry)).abs().mean()
        roughness = sum((weight * radius.diff(dim=dim).abs()).mean() for weight, dim in zip(flat, (2, 3), strict=True))
        optimizer.zero_grad()
        (difference + SMOOTHNESS * roughness).backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step:3d}: PSNR {psnr(reblurred, blurry):.2f} dB", flush=True)
    return reblurred.detach(), radius.detach()


def colours(radius: np.ndarray, largest: float) -> np.ndarray:
    return cv2.applyColorMap(np.rint(255 * np.clip(radius / largest, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)


def colour_scale(height: int, largest: float) -> np.ndarray:
    """From the largest radius, above, to 0."""
    labels = np.full((height, 70, 3), 255, np.uint8)
    for value in range(int(largest) + 1):
        y = min(round((1 - value / largest) * height) + 8, height - 4)
        cv2.putText(labels, f"{value} px", (6, y), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (32, 32, 32), 1, cv2.LINE_AA)
    return np.hstack([colours(np.tile(np.linspace(largest, 0, height)[:, None], (1, 24)), largest), labels])


def main(folder: Path, scale: float, steps: int) -> None:
    torch.manual_seed(0)
    sharp, coc = load_scene(scale)
    blurry = throw_out_of_focus(sharp, coc)
    print(f"sharp to out of focus: PSNR {psnr(sharp, blurry):.2f} dB")
    reblurred, radius = recover(sharp, blurry, steps)
    true = coc.abs() / 2**0.5  # the RMS radius of a disk
    correlation = np.corrcoef(radius.flatten(), true.flatten())[0, 1]
    print(f"reblurred to out of focus: PSNR {psnr(reblurred, blurry):.2f} dB")
    print(f"blur radius: correlation {correlation:.3f}, mean error {(radius - true).abs().mean():.3f} px")

    pictures = [(255 * as_seen(light)[0]).byte().permute(1, 2, 0).numpy()[..., ::-1] for light in (sharp, blurry)]
    pictures += [colours(each[0, 0].numpy(), true.max().item()) for each in (radius, true)]
    pictures += [colour_scale(sharp.shape[2], true.max().item())]
    gaps = [cv2.copyMakeBorder(each, 0, 0, 0, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for each in pictures]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recover-blur.png"
    cv2.imwrite(str(path), np.hstack(gaps))
    print(f"{path}: sharp, out of focus, blur radius found, true blur radius")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/examples"))
    parser.add_argument("--scale", type=float, default=1.0, help="of the photograph")
    parser.add_argument("--steps", type=int, default=100, help="of gradient descent")
    main(**vars(parser.parse_args()))
