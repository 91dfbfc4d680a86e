"""Is the blur that is found the true one?

    python -m benchmarks.blur [--checkpoint C]

Layered scenes with occlusion (`models.synthesis.scene`) of photographs that no checkpoint has been trained on. The blur
is found between the blurry and the sharp picture by the plain search and by the checkpoint's reblurring network, if it
has one whose blur is a radius; from the aligned picture, and from the misaligned one after DIS and after alignment by
reblurring. And it is told from the blurry picture alone by the checkpoint's blur map. Intervals: 95 %, bootstrap over
scenes. Writes results/blur.json and .md.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor
from tqdm import tqdm

from benchmarks import harness
from models.blur import blur_by, disk_rms, search_radius
from models.checkpoints.load import load_framework
from models.flow import load_flow, warp
from models.framework import Framework
from models.networks import BlurRadiusNet, RadiusReblurringNet
from models.synthesis.defocus import Array
from models.synthesis.scene import Scene, SceneSettings, make_scene
from models.training.validation import BIN, effective_number

PHOTOGRAPHS = ("astronaut", "coffee")
SCALE = 0.8  # of the photographs: at full size their detail is soft
SIZE = 160
PARALLAX = 12.0  # pixels
RIM = 6  # pixels around a depth edge that is a step of the radius
Finder = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Row:
    """One way to find the blur. Means over scenes, or over all pixels of all scenes, with the ends of an interval."""

    finder: str
    sees: str  # beside the blurry picture
    correlation: float  # of the RMS radius with the truth, over all pixels
    correlation_low: float
    correlation_high: float
    rank_correlation: float  # Spearman, mean over scenes
    error: float  # mean absolute, RMS radius, pixels
    coc_error: float  # the same of the radius of the circle of confusion
    coc_error_inside: float  # away from depth edges
    effective: float  # number of different blurs in a scene, mean; of the truth: `Row` "the truth"
    explained: float | None  # dB: the aligned picture blurred by it, to the blurry one, away from depth edges


def photographs() -> list[Array]:
    """(H, W, 3) each, sRGB, 0 … 1."""
    images = [np.asarray(getattr(skimage.data, name)(), np.float32) / np.float32(255) for name in PHOTOGRAPHS]
    return [np.asarray(ndimage.zoom(image, (SCALE, SCALE, 1), order=1), np.float32) for image in images]


def scenes(count: int, seed: int) -> Iterator[Scene]:
    pictures = photographs()
    settings = SceneSettings(size=SIZE, parallax=PARALLAX)
    for index in range(count):
        yield make_scene(pictures, settings, np.random.default_rng([seed, index]))


def tensor(picture: Array) -> Tensor:
    """(1, C, H, W) of (H, W, C) or (H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1)))[None]


def coc_of(radius: Tensor) -> Tensor:
    """Radius of the circle of confusion of an RMS radius, pixels: the inverse of `disk_rms`, by a table.

    At least 0.5, as all smaller disks are the same, a single pixel, whose RMS radius is 0: any of them is right.
    """
    table = torch.arange(0.5, 16, 0.02)
    place = torch.searchsorted(disk_rms(table), radius.contiguous().clamp_min(0)).clamp_max(len(table) - 1)
    return table[place]


def finders(framework: Framework) -> dict[str, Finder]:
    """By what they are called: functions of (sharp, blurry) that tell the RMS radius."""
    found: dict[str, Finder] = {"search": lambda sharp, blurry: search_radius(sharp, blurry, max_radius=7).radius}
    network = framework.reblur
    if isinstance(network, RadiusReblurringNet):
        found["network"] = lambda sharp, blurry: network(sharp, blurry).radius
    return found


@torch.no_grad()
def find(framework: Framework, made: Sequence[Scene]) -> dict[tuple[str, str], list[Tensor]]:
    """The RMS radius of each scene by each finder and by what it sees, (1, 1, H, W)."""
    flows = {"warped by DIS": load_flow("dis"), "warped by reblurring": load_flow("reblur")}
    result: dict[tuple[str, str], list[Tensor]] = {}
    for scene in tqdm(made, "scenes"):
        blurry, sharp, aligned = (tensor(part) for part in (scene.blurry, scene.sharp, scene.aligned))
        seen = {"aligned": aligned}
        for name, flow in flows.items():
            seen[name] = warp(sharp, flow(blurry, sharp), interpolation="bicubic", padding="border").clamp(0, 1)
        for finder, call in finders(framework).items():
            for name, picture in seen.items():
                result.setdefault((finder, name), []).append(call(picture, blurry))
        if isinstance(framework.blur_map, BlurRadiusNet):
            result.setdefault(("blur map", "nothing"), []).append(framework.blur_radius(blurry))
        result.setdefault(("the truth", "aligned"), []).append(tensor(scene.blur_radius))
    return result


def inside(scene: Scene) -> NDArray[np.bool_]:
    """(H, W): away from where the radius has a step."""
    radius = scene.blur_radius
    step = ndimage.maximum_filter(radius, 3) - ndimage.minimum_filter(radius, 3) > 0.3
    return ~ndimage.binary_dilation(step, iterations=RIM)


def pooled_correlation(found: Sequence[Tensor], true: Sequence[Tensor]) -> float:
    pair = np.stack([torch.cat([part.flatten() for part in radii]).numpy() for radii in (found, true)])
    return float(np.corrcoef(pair)[0, 1])


def interval(found: Sequence[Tensor], true: Sequence[Tensor], seed: int = 0, draws: int = 200) -> tuple[float, float]:
    """95 % of the correlation, by drawing scenes with replacement."""
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        chosen = generator.integers(len(found), size=len(found))
        values.append(pooled_correlation([found[index] for index in chosen], [true[index] for index in chosen]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def explained(scene: Scene, radius: Tensor) -> float:
    """dB, away from depth edges."""
    blurred = blur_by(tensor(scene.aligned), coc_of(radius), max_radius=16)
    error = (blurred - tensor(scene.blurry)).square().mean(1)[0].numpy()
    where = inside(scene)
    return float(-10 * np.log10(error[where].mean()))


def row(finder: str, sees: str, found: Sequence[Tensor], made: Sequence[Scene]) -> Row:
    true = [tensor(scene.blur_radius) for scene in made]
    errors = [(coc_of(one) - coc_of(other)).abs()[0, 0].numpy() for one, other in zip(found, true, strict=True)]
    masks = [inside(scene) for scene in made]
    ranks = [
        stats.spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic
        for one, other in zip(found, true, strict=True)
    ]
    effective = [effective_number(np.histogram(one, np.arange(0, 64, BIN))[0]) for one in found]
    return Row(
        finder,
        sees,
        pooled_correlation(found, true),
        *interval(found, true),
        float(np.nanmean(ranks)),
        float(np.mean([(one - other).abs().mean() for one, other in zip(found, true, strict=True)])),
        float(np.mean([error.mean() for error in errors])),
        float(np.mean([error[mask].mean() for error, mask in zip(errors, masks, strict=True)])),
        float(np.mean(effective)),
        float(np.mean([explained(scene, one) for scene, one in zip(made, found, strict=True)])),
    )


def page(rows: Sequence[Row], checkpoint: str, count: int) -> str:
    lines = [
        "# The blur that is found, and the true one",
        "",
        f"{checkpoint}. {harness.setting()}",
        "",
        f"{count} layered scenes of {SIZE} × {SIZE} pixels with occlusion, of {' and '.join(PHOTOGRAPHS)}: parallax up",
        f"to {PARALLAX:g} pixels, circles of confusion up to {SceneSettings().blur} pixels of radius, gain, tone and",
        "noise. Correlation of the RMS radius over all pixels, with 95 % intervals; mean errors in pixels, disks up to",
        "half a pixel, which are a single pixel, counted as one; the number of different blurs; how well the aligned",
        "picture so blurred explains the blurry one, away from depth edges.",
        "",
    ]
    heads = (
        "correlation:",
        "rank correlation:",
        "error, RMS:",
        "error, circle of confusion:",
        "away from edges:",
        "different blurs:",
        "explains, dB:",
    )
    cells = [
        [
            each.finder,
            each.sees,
            f"{each.correlation:.3f} ({each.correlation_low:.3f} … {each.correlation_high:.3f})",
            f"{each.rank_correlation:.3f}",
            f"{each.error:.2f}",
            f"{each.coc_error:.2f}",
            f"{each.coc_error_inside:.2f}",
            f"{each.effective:.1f}",
            f"{each.explained:.1f}",
        ]
        for each in rows
    ]
    table = harness.markdown(("finder", "sees beside the blurry picture", *heads), cells)
    return "\n".join([*lines, table]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="the one that comes with the package, if not given")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    harness.add_results(parser)
    args = parser.parse_args()
    made = list(scenes(args.scenes, args.seed))
    found = find(load_framework(args.checkpoint), made)
    rows = [row(finder, sees, radii, made) for (finder, sees), radii in found.items()]
    checkpoint = f"Checkpoint {args.checkpoint}" if args.checkpoint else "The checkpoint in the box"
    harness.save("blur", rows, page(rows, checkpoint, args.scenes), args.results)


if __name__ == "__main__":
    main()
