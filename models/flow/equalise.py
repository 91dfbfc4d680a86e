"""Making two images of one scene equally blurred: what is sharp in one only cannot be found in the other."""

import torch
from torch import Tensor
from torch.nn import functional as F

import reblur_ops

RADII = reblur_ops.PUBLISHED_RADII
CELL = 8  # pixels
WINDOW = 9  # cells, twice: wide against the displacements of a pair, which are not known yet
FLOOR = 1e-6  # mean squared gradient below which there is nothing to compare: what rounding to 8 bits makes


def equalise_blur(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Blur each image where the other is blurrier.

    Blur is told by how much gradient is left, on average over windows of some 100 pixels, in which misaligned images
    still show much the same. The sharper image is blurred with the disk that leaves it the gradient of the other, by
    `reblur_ops.reblur`, whose kernels with equal seeds are disks.

    Args:
        first, second: (N, 1, H, W), from 0 to 1, float32 or float64.

    Returns:
        Both, of the same shape. Disks have a radius of up to 7 pixels.
    """
    contrasts = local_contrast(first), local_contrast(second)
    return blurred_to(first, contrasts[0], contrasts[1]), blurred_to(second, contrasts[1], contrasts[0])


def blurred_to(image: Tensor, contrast: Tensor, wanted: Tensor) -> Tensor:
    """The image, each pixel blurred with the disk that leaves it the contrast wanted, or a mix of two.

    Args:
        image: (N, 1, H, W).
        contrast: (N, 1, h, w), its own, as from `local_contrast`.
        wanted: (N, 1, h, w). Where the image has less, it stays as it is.
    """
    blurred = image
    for radius in RADII:
        if (contrast <= wanted).all():
            break
        disk = disk_blur(image, radius)
        left = torch.minimum(local_contrast(disk), contrast)
        # From this disk on where less is still wanted, from 0 to 1 between the last one and this one.
        part = ((contrast - wanted) / (contrast - left).clamp_min(1e-6)).clamp(0, 1)
        part = F.interpolate(part, size=image.shape[2:], mode="bilinear", align_corners=False)
        blurred = blurred + part * (disk - blurred)
        contrast = left
    return blurred


def disk_blur(image: Tensor, radius: int) -> Tensor:
    """The image, (N, 1, H, W), blurred with a disk; beyond it its edge is repeated."""
    n, _, height, width = image.shape
    seeds = image.new_zeros(n, radius + 1, height, width)
    weights = torch.cat([torch.zeros_like(image), torch.ones_like(image)], dim=1)
    return reblur_ops.reblur(image, seeds, weights, radii=(radius,), support="disk", padding="replicate")


def local_contrast(image: Tensor) -> Tensor:
    """The logarithm of the mean squared gradient around each cell: (N, 1, ⌈H/8⌉, ⌈W/8⌉).

    Sobel's gradient, which averages across its direction: mere differences see more of the noise than of the blur.
    """
    across = image.new_tensor([1, 2, 1]) / 4
    along = image.new_tensor([-1, 0, 1]) / 2
    sobel = torch.stack([torch.outer(across, along), torch.outer(along, across)])[:, None]
    gradient = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), sobel)
    mean = F.avg_pool2d((gradient**2).sum(dim=1, keepdim=True), CELL, ceil_mode=True)
    for _ in range(2):
        mean = F.avg_pool2d(mean, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    return (mean + FLOOR).log()
