"""One photograph through every family of kernels, as pictures and a page."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import reblur_ops

from ..synthesis.defocus import Array, coc, to_linear
from ..synthesis.photographs import Original
from . import page
from .pictures import Picture, magnified, write_picture

TITLE = "One photograph, every family, both directions"
INTRODUCTION = """A motorcycle with its measured disparity (Middlebury Stereo 2014), by a lens that is opened wide and
focused on the engine. Look at the edges between near and far: in a <b>gather</b> each pixel uses its own kernel, so a
sharp thing keeps a hard edge against a blurred background, and its colours leak into the blur around it. In a
<b>scatter</b> each pixel spreads its own light: what is blurred reaches over what is sharp, and adds to it; dark and
bright rims appear where the blur changes. <b>Normalised</b>, by the scatter of ones, brightness is kept."""
FOCUS = (0.66, 0.50)  # the point in focus, as parts of the height and the width: the engine
LARGEST_COC = 12.0  # pixels
MAX_RADIUS = 13
# The handlebar and the saddle, sharp before a blurred wall: corners (y, x) and size, as parts of the picture.
DETAILS = ((0.04, 0.55), (0.36, 0.20))
DETAIL_SIZE = (0.22, 0.2)
MAGNIFICATION = 3


class Variant(NamedTuple):
    """A column: how the pixels' kernels are applied."""

    name: str
    options: dict[str, object]


VARIANTS = (
    Variant("gather", {"direction": "gather"}),
    Variant("scatter", {"direction": "scatter"}),
    Variant("scatter, normalised", {"direction": "scatter", "normalize_scatter": True}),
)


class Family(NamedTuple):
    """A row: a blur of an image (1, 3, H, W) by radii (1, 1, H, W), and what it shows."""

    name: str
    caption: str
    blur: Callable[..., Tensor]


def disk(image: Tensor, radius: Tensor, **options: object) -> Tensor:
    return reblur_ops.disk_blur(image, radius, max_radius=MAX_RADIUS, padding="replicate", **options)  # type: ignore[arg-type]


def gaussian(image: Tensor, radius: Tensor, **options: object) -> Tensor:
    return reblur_ops.gaussian_blur(image, radius / 2, radius=20, padding="replicate", **options)  # type: ignore[arg-type]


def ring(image: Tensor, radius: Tensor, **options: object) -> Tensor:
    """A mirror lens: its secondary mirror shades the middle of the pupil, and the disk has a hole of half its width."""
    distance = torch.arange(MAX_RADIUS + 1, device=image.device, dtype=image.dtype)[:, None, None]
    outer = (radius + 0.5 - distance).clamp(0, 1)
    hole = (radius / 2 - 0.5 - distance).clamp(0, 1)
    return reblur_ops.radial_blur(image, outer - hole, normalize="sum", padding="replicate", **options)  # type: ignore[arg-type]


def mixture(image: Tensor, radius: Tensor, **options: object) -> Tensor:
    """The two nearest of the flat disks of radii 1, 3, … 13 and no blur, mixed as the reblurring network can."""
    radii = tuple(range(1, MAX_RADIUS + 1, 2))
    seeds = image.new_zeros(1, reblur_ops.map_channels(radii)[0], *image.shape[2:])
    sizes = image.new_tensor([0, *radii])[:, None, None]
    width = torch.tensor([1, *[b - a for a, b in zip((0, *radii), radii, strict=False)]], device=image.device)
    weights = (1 - (radius - sizes).abs() / width[:, None, None].to(image.dtype)).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return reblur_ops.reblur(
        image,
        seeds,
        weights,
        radii=radii,
        support="disk",
        padding="replicate",
        **options,  # type: ignore[arg-type]
    )


FAMILIES = (
    Family("disk_blur", "The circle of confusion of a good lens.", disk),
    Family("gaussian_blur", "σ of half the radius: as wide in the mean square, without an edge.", gaussian),
    Family("radial_blur", "A disk with a hole: the rings that a mirror lens makes of bright spots.", ring),
    Family("reblur", "A mix of flat disks of a few radii, as the reblurring network makes it.", mixture),
)


def load_scene(scale: float) -> tuple[Array, Array]:
    """The motorcycle, (H, W, 3), linear light, and its circles of confusion, (H, W), signed radii in pixels: `coc`."""
    photograph, disparity = Original("motorcycle").load(scale)
    assert disparity is not None
    height, width = disparity.shape
    in_focus = float(disparity[int(FOCUS[0] * height), int(FOCUS[1] * width)])
    return to_linear(photograph), coc(disparity, in_focus, LARGEST_COC * scale)


def write(out: Path, pictures: dict[str, Picture], largest: float) -> Path:
    """Write the pictures, and `index.html` with them in it, into a folder that exists; the page's path."""
    for name, picture in pictures.items():
        write_picture(out / f"{name.replace(', ', '-').replace(' ', '-')}.png", picture)
    given = (
        figure("sharp", pictures["sharp"])
        + figure("rendered by layers, without the operators", pictures["lens"])
        + figure(f"radius of the circle of confusion, 0 … {largest:.0f} px", pictures["radius"])
    )
    body = f"<p>{INTRODUCTION}</p><div class=row>{given}</div>"
    for family in FAMILIES:
        columns = "".join(figure(variant.name, pictures[f"{family.name}, {variant.name}"]) for variant in VARIANTS)
        body += f"<h2>{family.name}</h2><p>{family.caption}</p><div class=row>{columns}</div>"
    page.write(out / "index.html", TITLE, body)
    return out / "index.html"


def figure(caption: str, picture: Picture) -> str:
    """The picture with its details below it, magnified; the exact ones lie beside the page."""
    details = "".join(page.image(detail, f"detail of {caption}", small=True) for detail in details_of(picture))
    whole = page.image(picture, caption, small=True)
    return f"<figure>{whole}<div class=details>{details}</div><figcaption>{caption}</figcaption></figure>"


def details_of(picture: Picture) -> list[Picture]:
    height, width = picture.shape[:2]
    h, w = round(DETAIL_SIZE[0] * height), round(DETAIL_SIZE[1] * width)
    corners = [(round(top * height), round(left * width)) for top, left in DETAILS]
    return [magnified(picture[y : y + h, x : x + w], MAGNIFICATION) for y, x in corners]
