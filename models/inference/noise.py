"""Noise of a photograph: how strong it is, and the photograph without it.

Networks that deblur have to leave fine grain alone, as photographs that they learn from have some. So noise is taken
away before them, where there is enough of it to be told from texture.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.tensors import IMAGE_CHANNELS, check_image, cosine_basis

CELL = 8  # pixels; noise is measured in cells
FLATTEST = 0.1  # the quantile of cells by whose residual it is told: nearly all photographs are flat in so many
CLIPPED = (8 / 255, 247 / 255)  # means of cells beyond these have lost their noise
# Standard deviations: up to the first it may be texture (a hundred sharp photographs, a lawn and fur among them, show
# 1.6 levels at most), from the second on it is noise.
TELLING = (1.5 / 255, 2 / 255)
BIAS = 1.25  # of white noise of σ 2 to 5 levels, the flattest cells show this much less
BLOCK = 4  # pixels; side of the cosine transforms
THRESHOLD = 2.7  # standard deviations, below which a coefficient is noise
REACH = BLOCK - 1  # pixels


def noise_level(image: Tensor) -> Tensor:
    """The standard deviation of the white noise of images.

    What the product of two second differences leaves is noise and texture (Immerkær, CVIU 64, 1996). It is told by the
    cells that have least of it, and in luma and two differences of colours by the one that has least: noise of the
    channels is independent, and texture has hardly any colour of its own. Noise that is no longer so is told too small:
    that of grey photographs, and of colours at half their size, as most JPEG files have them.

    Args:
        image: (N, 3, H, W), 0 … 1.

    Returns:
        (N,), as image values; 0 where no cell of 8 × 8 pixels is whole, or all are black or white.
    """
    check_image("image", image, IMAGE_CHANNELS)
    height, width = (CELL * ((extent - 2) // CELL) for extent in image.shape[2:])
    if height <= 0 or width <= 0:
        return image.new_zeros(len(image))
    second = image.new_tensor([1.0, -2.0, 1.0])
    mask = torch.einsum("ij,y,x->ijyx", _colours(image), second, second / 6)
    residual = F.conv2d(image, mask)[..., :height, :width].abs()
    found = F.avg_pool2d(residual, CELL).flatten(2) * math.sqrt(math.pi / 2)
    mean = F.avg_pool2d(image[..., 1 : height + 1, 1 : width + 1].mean(1, keepdim=True), CELL).flatten(2)
    usable = (mean > CLIPPED[0]) & (mean < CLIPPED[1])
    place = (FLATTEST * usable.sum(2, keepdim=True)).long().expand(-1, IMAGE_CHANNELS, -1)
    level = found.masked_fill(~usable, math.inf).sort(2).values.gather(2, place)[..., 0].amin(1)
    return torch.where(level.isfinite(), BIAS * level, 0)


def noise_to_remove(level: Tensor) -> Tensor:
    """What of noise levels, of any shape, is noise for sure: nothing up to 1.5 levels of 255, all from 2 on."""
    low, high = TELLING
    return level * ((level - low) / (high - low)).clamp(0, 1)


def without_noise(image: Tensor, level: Tensor) -> Tensor:
    """Images without white noise of a standard deviation.

    Coefficients of the cosine transforms of all blocks of 4 × 4 pixels that noise explains are set to 0, in luma and
    two differences of colours; a pixel is the mean of the blocks that hold it, each weighted by how few coefficients it
    needs (Yu and Sapiro, IPOL 1, 2011).

    Args:
        image: (N, 3, H, W), 0 … 1, of any size.
        level: (N,), the standard deviation of each, as image values.

    Returns:
        (N, 3, H, W), float32, not clipped.
    """
    check_image("image", image, IMAGE_CHANNELS)
    n, channels, height, width = image.shape
    with torch.autocast(image.device.type, enabled=False):  # noise is not far above what bfloat16 rounds
        image = image.float()
        colours, blocks = _colours(image), _cosines(image)
        planes = torch.einsum("ij,njhw->nihw", colours, image).reshape(n * channels, 1, height, width)
        planes = F.pad(planes, (REACH,) * 4, mode="replicate")
        coefficients = F.conv2d(planes, blocks)
        kept = coefficients.abs() > THRESHOLD * level.float().repeat_interleave(channels)[:, None, None, None]
        kept[:, 0] = True  # means
        weights = 1 / kept.sum(1, keepdim=True, dtype=torch.float32)
        total = F.conv_transpose2d(coefficients * kept * weights, blocks)
        weights = F.avg_pool2d(F.pad(weights, (REACH,) * 4), BLOCK, 1, divisor_override=1)
        inner = (total / weights)[..., REACH : REACH + height, REACH : REACH + width]
        return torch.einsum("ji,njhw->nihw", colours, inner.reshape(image.shape))


def _colours(like: Tensor) -> Tensor:
    """(3, 3), orthonormal: the sum of the channels, red against blue, green against both."""
    rows = like.new_tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    return rows / rows.norm(dim=1, keepdim=True)


def _cosines(like: Tensor) -> Tensor:
    """(16, 1, 4, 4): the orthonormal cosines of a block (DCT-II), the constant one first."""
    rows = cosine_basis(BLOCK, like.dtype).to(like.device)
    return torch.einsum("ia,jb->ijab", rows, rows).reshape(BLOCK**2, 1, BLOCK, BLOCK)
