"""The demonstration: recover the spatially variant blur of a photograph out of focus.

A sharp photograph with measured disparity gives a defocused one, rendered without the operator (`models.defocus`).
Gradient descent on `seeds` and `weights` then brings `reblur_ops.reblur` of the sharp one to the defocused one, and the
radius of the kernels that it ends with is compared with the radius that the lens had.
"""

import argparse
import functools
import operator
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import reblur_ops
from models import demo_page
from models.arguments import integer, number
from models.defocus import Array, coc, fill_disparity, render_defocus, to_linear, to_srgb
from models.devices import usable_device
from models.files import writable_folder

LARGEST_COC = 6.5  # pixels; the largest kernels have radius 7
FOCUS = (0.66, 0.50)  # the point in focus, as parts of the height and the width: the engine
SUPPORT = "disk"
PADDING = "replicate"
SMOOTHNESS = 0.005  # how much a pixel of roughness counts against the difference of the pictures


class Scene(NamedTuple):
    """A photograph, sharp and defocused, (H, W, 3), linear light; its circles of confusion, (H, W), radii in pixels."""

    sharp: Array
    defocused: Array
    coc: Array


def load_scene(scale: float) -> Scene:
    """The motorcycle that comes with scikit-image (Middlebury Stereo 2014), left picture, focused on the engine.

    Args:
        scale: of the full 500 × 741 pixels, at most 1. Circles of confusion reach LARGEST_COC pixels at any.
    """
    photograph, _, disparity = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call, unused-ignore]
    srgb: Array = np.asarray(photograph, np.float32) / np.float32(255)
    disparity = fill_disparity(disparity)
    if scale != 1:
        size = round(scale * srgb.shape[1]), round(scale * srgb.shape[0])
        srgb = np.asarray(cv2.resize(srgb, size, interpolation=cv2.INTER_AREA), np.float32)
        # Not averaged: between near and far there is nothing.
        disparity = cv2.resize(disparity, size, interpolation=cv2.INTER_NEAREST)
    height, width = disparity.shape
    in_focus = float(disparity[int(FOCUS[0] * height), int(FOCUS[1] * width)])
    radius = coc(disparity, in_focus, LARGEST_COC)
    sharp = to_linear(srgb)
    return Scene(sharp, render_defocus(sharp, radius), np.abs(radius))


class BlurMaps(nn.Module):
    """Seeds and weights for one picture, as grids that are enlarged bilinearly.

    The weights are a softmax over a sum of grids: the coarse ones carry the blur over places without texture in a few
    steps, the finest one lets it change from pixel to pixel. The seeds, which shape the kernels, vary slowly.

    Args:
        height, width: of the picture, pixels.
    """

    SEED_SPACING = 16
    WEIGHT_SPACINGS = (16, 4, 1)

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        seed_channels, weight_channels = reblur_ops.map_channels()
        # Equal seeds make disks.
        self.seeds = nn.Parameter(0.5 + self._noise(seed_channels, self.SEED_SPACING))
        self.weights = nn.ParameterList(self._noise(weight_channels, spacing) for spacing in self.WEIGHT_SPACINGS)

    def _noise(self, channels: int, spacing: int) -> Tensor:
        rows, columns = (-(-(extent - 1) // spacing) + 1 for extent in self.size)
        return 0.01 * torch.randn(1, channels, rows, columns)

    def _enlarged(self, grid: Tensor) -> Tensor:
        return F.interpolate(grid, size=self.size, mode="bilinear", align_corners=True)

    def forward(self) -> tuple[Tensor, Tensor]:
        """(1, 35, H, W) seeds and (1, 8, H, W) weights, for the operator's default radii."""
        logits = functools.reduce(operator.add, (self._enlarged(grid) for grid in self.weights))
        return self._enlarged(self.seeds), logits.softmax(dim=1)


def psnr(picture: Array, target: Array) -> float:
    """Peak signal-to-noise ratio, dB, of two pictures in linear light, measured as they are seen: in sRGB."""
    return float(-10 * np.log10(np.mean((to_srgb(picture) - to_srgb(target)) ** 2)))


def recover(maps: BlurMaps, scene: Scene, steps: int) -> int:
    """Fit the maps until the sharp picture, reblurred with them, is the defocused one.

    Adam, on the mean absolute difference: it bears with outliers, and beside something near no kernel fits, since a
    lens looks around its edge and a kernel gathers from across it. Without texture any blur fits; there one is
    preferred whose radius is smooth, but for the edges of the photograph.

    Args:
        maps: changed in place.
        scene: the pictures.
        steps: of Adam, at least 1.

    Returns:
        The steps done: fewer after Ctrl-C.
    """
    device = maps.seeds.device
    sharp, defocused = to_tensor(scene.sharp, device), to_tensor(scene.defocused, device)
    target = as_seen(defocused)
    flatness = {dim: torch.exp(-10 * as_seen(sharp).diff(dim=dim).abs().mean(dim=1, keepdim=True)) for dim in (2, 3)}
    optimizer = torch.optim.Adam(
        [{"params": [maps.seeds], "lr": 0.05}, {"params": list(maps.weights), "lr": 0.15}],
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    done = 0
    with tqdm(total=steps, desc="recovering the blur", unit="step", mininterval=0.5) as progress:
        try:
            while done < steps:
                seeds, weights = maps()
                reblurred = reblur_ops.reblur(sharp, seeds, weights, support=SUPPORT, padding=PADDING)
                radius = reblur_ops.blur_radius(seeds, weights, support=SUPPORT)
                difference = (as_seen(reblurred) - target).abs().mean()
                roughness = torch.stack([(flatness[dim] * radius.diff(dim=dim).abs()).mean() for dim in flatness]).sum()
                optimizer.zero_grad()
                torch.autograd.backward(difference + SMOOTHNESS * roughness)
                optimizer.step()
                schedule.step()
                if done % 10 == 0:
                    progress.set_postfix_str(f"PSNR {psnr(to_array(reblurred), scene.defocused):.2f} dB", refresh=False)
                done += 1
                progress.update()
        except KeyboardInterrupt:
            pass
    return done


def as_seen(light: Tensor) -> Tensor:
    """The square root of linear light, close to sRGB: differences count as they are seen. Any shape."""
    return (light.clamp_min(0) + 0.001).sqrt()


def to_tensor(picture: Array, device: torch.device) -> Tensor:
    """(1, C, H, W) of (H, W, C)."""
    return torch.from_numpy(picture).to(device).permute(2, 0, 1).unsqueeze(0).contiguous()


def to_array(tensor: Tensor) -> Array:
    """(H, W, C) of (1, C, H, W)."""
    return np.asarray(tensor.detach()[0].permute(1, 2, 0).cpu().numpy(), np.float32)


def sample_pixels(scene: Scene, count: int) -> list[tuple[int, int]]:
    """Pixels (y, x) with kernels worth a look: from sharp to most blurred, apart, textured, away from depth edges."""
    reach = 8
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    unevenness = cv2.dilate(scene.coc, window) - cv2.erode(scene.coc, window)
    grey = cv2.cvtColor(to_srgb(scene.sharp), cv2.COLOR_RGB2GRAY)
    texture = np.sqrt(np.maximum(cv2.blur(grey**2, window.shape) - cv2.blur(grey, window.shape) ** 2, 0))
    inside = (slice(reach, -reach), slice(reach, -reach))
    radius, fitness = scene.coc[inside], (2 * texture - unevenness)[inside]
    pixels = []
    for wanted in np.linspace(radius.min(), radius.max(), count):
        y, x = np.unravel_index(np.argmax(fitness - np.abs(radius - wanted)), radius.shape)
        pixels.append((int(y) + reach, int(x) + reach))
        fitness[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = -np.inf
    return pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the page and the pictures")
    parser.add_argument("--steps", type=integer(1, 10**6), default=200, help="steps of gradient descent")
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, help="of the random numbers to start from")
    parser.add_argument("--device", type=usable_device, default="cpu", help="where PyTorch computes: cpu, cuda, …")
    parser.add_argument(
        "--scale", type=number(0.1, 1), default=1.0, help="of the photograph, 0.1 to 1; less is quicker"
    )


def run(args: argparse.Namespace) -> int:
    """Do the demonstration. The exit status: 0, 130 if it was interrupted."""
    writable_folder(args.out)
    start = time.perf_counter()
    torch.manual_seed(args.seed)
    scene = load_scene(args.scale)
    height, width = scene.coc.shape
    before = psnr(scene.sharp, scene.defocused)
    print(f"sharp to defocused: PSNR {before:.2f} dB")

    maps = BlurMaps(height, width).to(args.device)
    done = recover(maps, scene, args.steps)
    if done < args.steps:
        print(f"interrupted after {done} of {args.steps} steps: the results so far")

    with torch.no_grad():
        seeds, weights = maps()
        sharp = to_tensor(scene.sharp, args.device)
        reblurred = to_array(reblur_ops.reblur(sharp, seeds, weights, support=SUPPORT, padding=PADDING))
        radius = to_array(reblur_ops.blur_radius(seeds, weights, support=SUPPORT))[..., 0]
        pixels = sample_pixels(scene, 6)
        kernels = reblur_ops.kernel_image(seeds, weights, [(0, y, x) for y, x in pixels], support=SUPPORT)
    # The RMS radius of a uniform disk.
    true_radius = scene.coc / np.float32(2**0.5)
    deviation = np.abs(radius - true_radius)
    scores = demo_page.Scores(
        psnr_before_db=before,
        psnr_after_db=psnr(reblurred, scene.defocused),
        radius_correlation=float(np.corrcoef(radius.ravel(), true_radius.ravel())[0, 1]),
        radius_mean_absolute_error_px=float(deviation.mean()),
        radius_median_absolute_error_px=float(np.median(deviation)),
        width=width,
        height=height,
        steps=done,
        seed=args.seed,
        device=str(args.device),
        seconds=time.perf_counter() - start,
    )
    recovery = demo_page.Recovery(
        sharp=to_srgb(scene.sharp),
        defocused=to_srgb(scene.defocused),
        reblurred=to_srgb(reblurred),
        radius=radius,
        true_radius=true_radius,
        pixels=pixels,
        kernels=kernels.cpu().numpy(),
    )
    page = demo_page.write(args.out, recovery, scores)
    print(f"reblurred to defocused: PSNR {scores.psnr_after_db:.2f} dB")
    print(
        f"blur radius, recovered to true: correlation {scores.radius_correlation:.4f}, "
        f"mean absolute error {scores.radius_mean_absolute_error_px:.3f} px"
    )
    print(f"{scores.seconds:.0f} s")
    print(page)
    return 0 if done == args.steps else 130
