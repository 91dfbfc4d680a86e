"""Restraint: what deblurring may change in a photograph, whatever its network says."""

import math

from torch import Tensor
from torch.nn import functional as F

import reblur_ops

from ..blur.light import decode
from ..core.tensors import IMAGE_CHANNELS, check_image, check_same_size, pad_to_multiple

CELL = 4  # pixels: contrast, colour and errors are those of cells
CONTRAST = (4 / 255, 12 / 255)  # of a cell to its neighbours: up to the first nothing is deblurred, from the second all
COLOUR_WINDOW = 5  # cells across which a change of colour must cancel
MAX_RADIUS = 12  # pixels, of the disks by which the deblurred image is blurred again
# Of the change, 1.4 - 0.7 q is kept, 0 … 1, where q is the error after reblurring over that of the photograph itself,
# so blurred, and a fifth of the change: where blur is strong, more of it alters little, whatever its radius.
KEPT, PER_RATIO, PER_CHANGE = 1.4, 0.7, 0.2
FLOOR = 1e-6  # of errors: mean squares of roots of light, as 8 bits leave anywhere
MULTIPLE = CELL
REACH = CELL * (COLOUR_WINDOW // 2 + 3) + MAX_RADIUS + CELL  # pixels


def restrain(deblurred: Tensor, blurry: Tensor, radius: Tensor | None = None) -> Tensor:
    """A deblurred image without the changes that the photograph contradicts.

    Blur has nothing to hide where the photograph is flat: the change of the image fades out there. Blur only moves
    light, so that a neighbourhood keeps its colour: what a change adds to the difference of channels, it must take
    elsewhere nearby. (Its luminance is not held, as the mean in sRGB of what is sharper is lower.) And the deblurred
    image, blurred again in light by the radius that was seen, must give the photograph back: where it does so no better
    than the photograph would itself, the change fades out.

    A network trained on few photographs breaks all three: it tints skies of a colour that it has not seen, and draws
    seams where blur is stronger than it knows. Measured on real photographs: `benchmarks/LOG.md`.

    Args:
        deblurred: (N, 3, H, W).
        blurry: (N, 3, H, W), the photograph, 0 … 1.
        radius: (N, 1, H, W), RMS radius of its blur in pixels; None: it is not blurred again.

    Returns:
        (N, 3, H, W), not clipped.
    """
    check_image("blurry", blurry, IMAGE_CHANNELS)
    check_same_size("deblurred", deblurred, "blurry", blurry)
    change = _without_tint(deblurred - blurry) * _share_of_contrast(blurry)
    if radius is not None:
        change = change * _share_explained(blurry + change, blurry, radius)
    return blurry + change


def _share_of_contrast(blurry: Tensor) -> Tensor:
    """(N, 1, H, W): 0 where an image is flat, 1 where it is not."""
    cells = _cells(blurry)
    contrast = (F.max_pool2d(cells, 3, 1, 1) + F.max_pool2d(-cells, 3, 1, 1)).amax(1, keepdim=True)
    low, high = CONTRAST
    return _pixels(((contrast - low) / (high - low)).clamp(0, 1), blurry)


def _without_tint(change: Tensor) -> Tensor:
    """A change (N, 3, H, W) that leaves the mean colour of neighbourhoods."""
    tint = _cells(change - change.mean(1, keepdim=True))
    tint = F.avg_pool2d(tint, COLOUR_WINDOW, 1, COLOUR_WINDOW // 2, count_include_pad=False)
    return change - _pixels(tint, change)


def _share_explained(deblurred: Tensor, blurry: Tensor, radius: Tensor) -> Tensor:
    """(N, 1, H, W): the share of a change that the photograph confirms."""
    coc = math.sqrt(2) * radius  # of a disk without a pixel grid; what is kept was chosen with it
    photograph, sharper = decode(blurry.clamp(0, 1)), decode(deblurred.clamp(0, 1))
    target = photograph.sqrt()

    def error(light: Tensor) -> Tensor:
        return _with_neighbours(_cells((light.sqrt() - target).square().mean(1, keepdim=True)))

    def again(light: Tensor) -> Tensor:
        return reblur_ops.disk_blur(light, coc, max_radius=MAX_RADIUS, padding="replicate")

    ratio = error(again(sharper)) / (error(again(photograph)) + PER_CHANGE * error(sharper) + FLOOR)
    return _pixels((KEPT - PER_RATIO * ratio).clamp(0, 1), blurry)


def _cells(image: Tensor) -> Tensor:
    """Means of cells, (N, C, ⌈H/4⌉, ⌈W/4⌉)."""
    return F.avg_pool2d(pad_to_multiple(image, CELL), CELL)


def _with_neighbours(cells: Tensor) -> Tensor:
    """Cells averaged with their neighbours, 1 2 1 both ways: shares that jump between cells cut lines into dashes."""
    padded = F.pad(cells, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1)


def _pixels(cells: Tensor, like: Tensor) -> Tensor:
    """Cells at the height and width of an image, interpolated."""
    height, width = like.shape[2:]
    return F.interpolate(cells, scale_factor=CELL, mode="bilinear", align_corners=False)[..., :height, :width]
