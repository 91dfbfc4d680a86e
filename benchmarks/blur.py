"""Is the blur that is found the true one?

    python -m benchmarks.blur [--checkpoint C] [--data DIR]

Layered scenes with occlusion (`models.synthesis.scene`) of photographs that no checkpoint has been trained on. The blur
is found between the blurry and the sharp picture by the plain search and by the checkpoint's reblurring network, if it
has one whose blur is a radius; from the aligned picture, and from the misaligned one after DIS and after alignment by
reblurring. And it is told from the blurry picture alone by the checkpoint's blur map. Intervals: 95 %, bootstrap over
scenes. Then it is found in the same scenes, aligned, with pictures that differ in more than blur, or with noise, and in
scenes with more blur.

DIR holds folders of real photographs, each of which is left out, with a word, where it is not there:

    multifocus_aligned/lytro/   SCENE_A and SCENE_B, focused near and far, and SCENE_fused, sharp all over
    blur_masks/*/               NAME.jpg and NAME.png, white where out of focus

Their blur is not known. So the radius told of a photograph alone is compared with the one found between it and the
sharp picture, and with the mask. And two pictures focused apart share one depth, which the matching costs of both tell
better than those of one: the radii found and told are compared with it. Writes results/blur.json and .md.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks import harness
from benchmarks.real import MASKS, area_under_curve, read
from models.blur import blur_by, disk_rms, search_radius
from models.blur.light import decode
from models.blur.search import matching_costs
from models.checkpoints.load import load_framework
from models.evaluation.protocols import to_array
from models.flow import load_flow, warp
from models.framework import Framework
from models.inference.tiling import TiledFramework
from models.networks import BlurRadiusNet, RadiusReblurringNet
from models.synthesis.defocus import Array
from models.synthesis.scene import Scene, SceneSettings, make_scene
from models.training.validation import BIN, effective_number

PHOTOGRAPHS = ("astronaut", "coffee")
SCALE = 0.8  # of the photographs: at full size their detail is soft
SIZE = 160
PARALLAX = 12.0  # pixels
RIM = 6  # pixels around a depth edge that is a step of the radius
NEAR_AND_FAR = Path("multifocus_aligned/lytro")
LARGE = {14.0: 256, 20.0: 256, 30.0: 320}  # radius of the circle of confusion: side of the scenes, pixels
STEP = 0.25  # pixels, of the circles of confusion that near and far focus share
FARTHEST = 10.5  # pixels: by how much the circles of confusion of near and far focus may differ
SURE = 0.5  # pixels: standard deviation below which they are known
Finder = Callable[[Tensor, Tensor], Tensor]
Change = Callable[[Tensor, torch.Generator], Tensor]


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


@dataclass
class Agreement:
    """A scene photographed twice, focused near and far; rank correlations (Spearman) over its pixels."""

    name: str
    told: float  # of the radius told of each photograph alone with that found by the sharp picture, mean of the two
    opposed: float  # of the radius told of one with that of the other, the sign turned, as what one has in focus the
    # other has not
    shared_found: float  # where the depth that both share is known: of the radius found with its circle of confusion
    shared_told: float  # the same, of the radius told


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


def unchanged(image: Tensor, _: torch.Generator) -> Tensor:
    return image


def noisy(deviation: float) -> Change:
    def change(image: Tensor, generator: torch.Generator) -> Tensor:
        return (image + deviation * torch.randn(image.shape, generator=generator)).clamp(0, 1)

    return change


def grey(image: Tensor, _: torch.Generator) -> Tensor:
    return image.mean(1, keepdim=True).expand_as(image).contiguous()


def linear_light(image: Tensor, _: torch.Generator) -> Tensor:
    return (255 * decode(image, "linear")).round() / 255


# What is done to the aligned sharp picture, and to the blurry one; sRGB values.
CHANGES: dict[str, tuple[Change, Change]] = {
    "as they are": (unchanged, unchanged),
    "noise of σ 0.02 in both": (noisy(0.02), noisy(0.02)),
    "noise of σ 0.04 in both": (noisy(0.04), noisy(0.04)),
    "both stored as linear light": (linear_light, linear_light),
    "both grey": (grey, grey),
    "the sharp one with an exponent of 1.15": (lambda image, _: image**1.15, unchanged),
    "the sharp one at 0.7 of the light": (lambda image, _: 0.85 * image, unchanged),
    "haze of 3 % in the sharp one": (lambda image, _: 0.03 + 0.95 * image, unchanged),
}


def changed(made: Sequence[Scene], change: tuple[Change, Change]) -> list[Scene]:
    """The scenes with other pictures of the same things."""
    generator = torch.Generator().manual_seed(0)
    of_sharp, of_blurry = change
    return [
        scene._replace(
            aligned=to_array(of_sharp(tensor(scene.aligned), generator)[0]),
            blurry=to_array(of_blurry(tensor(scene.blurry), generator)[0]),
        )
        for scene in made
    ]


@torch.no_grad()
def conditions(framework: Framework, made: Sequence[Scene], seed: int) -> list[Row]:
    """The blur found from aligned pictures of other kinds, and in scenes with more blur; not what it explains."""
    parts = [(name, changed(made, change), 7.0) for name, change in CHANGES.items()]
    for largest, size in LARGE.items():
        settings = SceneSettings(size=size, parallax=2, blur=largest)
        pictures = photographs()
        generators = [np.random.default_rng([seed, 3, index]) for index in range((len(made) + 1) // 2)]
        name = f"circles of confusion up to {largest:g} px"
        parts.append((name, [make_scene(pictures, settings, generator) for generator in generators], largest))
    rows = []
    for name, pairs, largest in tqdm(parts, "conditions"):
        for finder, call in finders(framework, largest).items():
            found = [call(tensor(scene.aligned), tensor(scene.blurry)) for scene in pairs]
            rows.append(row(finder, name, found, pairs, explains=False))
    return rows


def coc_of(radius: Tensor) -> Tensor:
    """Radius of the circle of confusion of an RMS radius, pixels: the inverse of `disk_rms`, by a table.

    At least 0.5, as all smaller disks are the same, a single pixel, whose RMS radius is 0: any of them is right.
    """
    table = torch.arange(0.5, 64, 0.02)
    place = torch.searchsorted(disk_rms(table), radius.contiguous().clamp_min(0)).clamp_max(len(table) - 1)
    return table[place]


def finders(framework: Framework, largest: float = 7.0) -> dict[str, Finder]:
    """By what they are called: functions of (sharp, blurry) that tell the RMS radius.

    Args:
        largest: circle of confusion that is searched, pixels; a network has its own.
    """
    found: dict[str, Finder] = {"search": lambda sharp, blurry: search_radius(sharp, blurry, max_radius=largest).radius}
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


def row(finder: str, sees: str, found: Sequence[Tensor], made: Sequence[Scene], explains: bool = True) -> Row:
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
        float(np.mean([explained(scene, one) for scene, one in zip(made, found, strict=True)])) if explains else None,
    )


def ranks(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(stats.spearmanr(one, other, axis=None).statistic)


def shared_blur(sharp: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Circles of confusion of two pictures focused apart, by one depth: theirs, signed, differ by the same everywhere.

    Returns:
        Of the near one and of the far one, (⌈H/2⌉, ⌈W/2⌉), pixels, and where both are known.
    """
    radii = torch.arange(0, 12 + STEP / 2, STEP)
    costs = [matching_costs(sharp, blurry, radii, window=21)[0] for blurry in (near, far)]
    least, result = math.inf, None
    for apart in np.arange(1, FARTHEST, 2 * STEP).tolist():
        signed = torch.arange(-4, apart + 4 + STEP / 2, STEP)
        of_near, of_far = ((distance.abs() / STEP).round().long() for distance in (signed, signed - apart))
        both = costs[0][of_near.clamp_max(len(radii) - 1)] + costs[1][of_far.clamp_max(len(radii) - 1)]
        if (error := float(both.amin(0).mean())) < least:
            least = error
            weights = (-4 * both).softmax(0)
            depth = (weights * signed[:, None, None]).sum(0)
            deviation = (weights * (signed[:, None, None] - depth).square()).sum(0).sqrt()
            result = depth.abs(), (depth - apart).abs(), deviation < SURE
    assert result is not None
    return result


@torch.no_grad()
def agreement(tiled: TiledFramework, folder: Path, name: str) -> Agreement:
    """Of a scene of `NEAR_AND_FAR`."""
    find = finders(tiled.framework)
    finder = find.get("network", find["search"])
    near, far, sharp = (tensor(read(next(folder.glob(f"{name}_{part}.*")))) for part in ("A", "B", "fused"))
    told = [tiled.map_radius(picture[0])[0] for picture in (near, far)]
    found = [finder(sharp, picture)[0, 0] for picture in (near, far)]
    *shared, known = shared_blur(sharp, near, far)

    def with_shared(radii: Sequence[Tensor]) -> float:
        halved = [F.avg_pool2d(radius[None], 2, ceil_mode=True)[0] for radius in radii]
        pairs = zip(halved, shared, strict=True)
        return float(np.mean([ranks(one[known].numpy(), other[known].numpy()) for one, other in pairs]))

    coarse = [[radius[::4, ::4].numpy() for radius in radii] for radii in (told, found)]
    return Agreement(
        name,
        float(np.mean([ranks(*pair) for pair in zip(*coarse, strict=True)])),
        ranks(coarse[0][0], -coarse[0][1]),
        with_shared(found),
        with_shared(told),
    )


def on_real_photographs(framework: Framework, data: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """Lines for the page, and what they are means of; folders that are not there are named."""
    if not isinstance(framework.blur_map, BlurRadiusNet):
        print("the checkpoint tells no radius of a photograph alone: real photographs are left out")
        return [], {}
    tiled = TiledFramework(framework)
    lines, parts = ["", "## Real photographs", ""], dict[str, list[Any]]()
    for part in (NEAR_AND_FAR, MASKS):
        if not (data / part).is_dir():
            print(f"{data / part} is not there: left out")
    if scenes := sorted(path.stem.removesuffix("_fused") for path in (data / NEAR_AND_FAR).glob("*_fused.*")):
        found = [agreement(tiled, data / NEAR_AND_FAR, name) for name in tqdm(scenes, "near and far")]
        parts["near_and_far"] = [asdict(each) for each in found]
        fields = ("told", "opposed", "shared_found", "shared_told")
        told, opposed, *shared = (np.mean([getattr(each, name) for each in found]) for name in fields)
        lines += [
            f"{len(found)} scenes, focused near and far. Rank correlation of the radius told of a photograph alone",
            f"with that found by the sharp picture: {told:.3f}; told of one photograph with that of the other, the",
            f"sign turned: {opposed:.3f}. With the depth that both share, where it is known: of the radius found",
            f"{shared[0]:.3f}, of the one told {shared[1]:.3f}.",
            "",
        ]
    if masked := sorted((data / MASKS).glob("*/*.jpg")):
        areas = [area_under_curve(tiled, path, path.with_suffix(".png")) for path in tqdm(masked, "masks")]
        known = parts["areas"] = [area for area in areas if area is not None]
        lines += [
            f"Blurry against sharp places by the radius told of the photograph alone, {len(known)} photographs:",
            f"mean area under the curve {np.mean(known):.3f}, the worst {min(known):.3f}.",
        ]
    return (lines, parts) if parts else ([], {})


def page(rows: Sequence[Row], others: Sequence[Row], checkpoint: str, count: int) -> str:
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
            "" if each.explained is None else f"{each.explained:.1f}",
        ]
        for each in rows
    ]
    lines += [harness.markdown(("finder", "sees beside the blurry picture", *heads), cells), ""]
    lines += [
        "## Pictures of other kinds, and more blur",
        "",
        f"Found from the aligned picture. More blur: {(count + 1) // 2} scenes of 256 and 320 pixels with little",
        "parallax; the search looks for as much.",
        "",
    ]
    cells = [
        [each.sees, each.finder, f"{each.correlation:.3f}", f"{each.rank_correlation:.3f}", f"{each.error:.2f}"]
        for each in others
    ]
    return "\n".join([*lines, harness.markdown(("pictures", "finder", *heads[:3]), cells)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="the one that comes with the package, if not given")
    parser.add_argument("--data", type=Path, help="folder of the folders of real photographs")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    harness.add_results(parser)
    args = parser.parse_args()
    if args.data is not None and not args.data.is_dir():
        parser.error(f"--data must name a folder, got {args.data}")
    framework = load_framework(args.checkpoint)
    made = list(scenes(args.scenes, args.seed))
    found = find(framework, made)
    rows = [row(finder, sees, radii, made) for (finder, sees), radii in found.items()]
    others = conditions(framework, made, args.seed)
    checkpoint = f"Checkpoint {args.checkpoint}" if args.checkpoint else "The checkpoint in the box"
    lines, parts = on_real_photographs(framework, args.data) if args.data else ([], {})
    text = page(rows, others, checkpoint, args.scenes) + "\n".join([*lines, ""])
    harness.save("blur", rows, text, args.results, conditions=[asdict(each) for each in others], **parts)


if __name__ == "__main__":
    main()
