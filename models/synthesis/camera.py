"""The processing of light in a camera: noise, white balance, tone curve, sharpening, JPEG, 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..blur.light import to_linear, to_srgb
from ..core.tensors import cosine_basis

# Quantization of luma and chroma at quality 50 (ITU-T T.81, annex K, tables K.1 and K.2).
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
# JFIF's YCbCr, without the offset of the chroma.
_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class Cameras:
    """Settings for N images; tensors of shape (N,).

    Attributes:
        photons: variance of the noise at white, which is proportional to the light; linear light.
        reading: standard deviation of the noise in the dark, linear light.
        grain: standard deviation of noise after the tone curve, sRGB values.
        clumping: share of a 3 × 3 mean in the noise, as demosaicking leaves it, 0 … 1.
        contrast: of the tone curve, -1 … 1; 0 is sRGB's.
        sharpening: of an unsharp mask of σ 1 pixel.
        quality: of JPEG, 1 … 100; 0: none.
        subsampled: whether JPEG halves the size of the chroma, 0 or 1.
    """

    photons: Tensor
    reading: Tensor
    grain: Tensor
    clumping: Tensor
    contrast: Tensor
    sharpening: Tensor
    quality: Tensor
    subsampled: Tensor


def draw_cameras(
    generators: Sequence[np.random.Generator],
    *,
    noise: float,
    compressed: float,
    quality: tuple[int, int],
    tone: float,
    sharpening: float,
) -> Cameras:
    """One of each generator: a third without noise, four in ten with sharpening.

    Args:
        noise: largest standard deviation, sRGB values of 0 … 1.
        compressed: part with JPEG.
        quality: of JPEG, from … to.
        tone: largest contrast of the tone curve, either way.
        sharpening: largest strength.
    """
    rows = []
    for generator in generators:
        noisy, kind = generator.random() < 0.65, generator.random()
        strength = noise * generator.random() ** 1.5 if noisy else 0.0
        rows.append(
            (
                # About what gives a standard deviation of `strength` in sRGB values of middle brightness.
                (1.4 * strength) ** 2 if kind < 0.6 else 0.0,
                0.15 * strength * generator.random() if kind < 0.6 else 0.0,
                strength if kind >= 0.6 else 0.0,
                generator.uniform(0, 0.8) if generator.random() < 0.4 else 0.0,
                generator.uniform(-tone, tone),
                generator.uniform(0, sharpening) if generator.random() < 0.4 else 0.0,
                generator.integers(quality[0], quality[1] + 1) if generator.random() < compressed else 0,
                generator.random() < 0.5,
            )
        )
    return Cameras(*torch.tensor(rows, dtype=torch.float32).T.unbind())


def develop(light: Tensor, cameras: Cameras) -> Tensor:
    """sRGB values, 0 … 1, of linear light, (N, 3, H, W): clipped, tone curve, sharpening. No noise."""
    return _sharpened(_toned(to_srgb(light.clamp(0, 1)), cameras), cameras)


def photograph(light: Tensor, cameras: Cameras, noise: Tensor) -> Tensor:
    """The image that the camera writes for linear light, (N, 3, H, W), which may exceed 1: sRGB in 256 steps, 0 … 1.

    Args:
        noise: of the shape of the light, standard normal.
    """
    noise = _clumped(noise, cameras)
    toned = _toned(to_srgb(_noisy(light, cameras, noise)), cameras)
    return _written(_sharpened(toned, cameras) + _each(cameras.grain) * noise, cameras)


def photograph_again(image: Tensor, cameras: Cameras, noise: Tensor) -> Tensor:
    """An image without noise, sRGB 0 … 1, as `photograph` writes it: it is developed already.

    Args:
        noise: of the shape of the image, standard normal.
    """
    noise = _clumped(noise, cameras)
    return _written(to_srgb(_noisy(to_linear(image), cameras, noise)) + _each(cameras.grain) * noise, cameras)


def _clumped(noise: Tensor, cameras: Cameras) -> Tensor:
    """Noise as demosaicking leaves it."""
    some = _members(cameras.clumping > 0)
    mean = 2 * _filtered(noise[some], (1 / 3,) * 3, "constant")
    return _with(noise, some, torch.lerp(noise[some], mean, _each(cameras.clumping[some])))


def _noisy(light: Tensor, cameras: Cameras, noise: Tensor) -> Tensor:
    """Light with the noise of photons and of reading."""
    deviation = (_each(cameras.photons) * light.clamp(0, 1) + _each(cameras.reading).square()).sqrt()
    return (light + deviation * noise).clamp(0, 1)


def _written(values: Tensor, cameras: Cameras) -> Tensor:
    """sRGB values after JPEG, in 256 steps, 0 … 1."""
    return (255 * jpeg(values.clamp(0, 1), cameras.quality, cameras.subsampled)).round().clamp(0, 255) / 255


def jpeg(image: Tensor, quality: Tensor, subsampled: Tensor) -> Tensor:
    """The image after JPEG, (N, 3, H, W), 0 … 1; H and W multiples of 16. Not rounded, and not clipped.

    Args:
        quality: (N,), 1 … 100, as libjpeg scales the tables; where it is 0 the image is returned as it is.
        subsampled: (N,), 1 where the chroma has half the size (4:2:0).
    """
    some = _members(quality > 0)
    return _with(image, some, _coded(image[some], quality[some], subsampled[some]))


def _coded(image: Tensor, quality: Tensor, subsampled: Tensor) -> Tensor:
    values = 255 * image - 128
    matrix = torch.tensor(_YCC, device=image.device)
    ycc = torch.einsum("ij,njhw->nihw", matrix, values)
    small = _quantized(F.avg_pool2d(ycc[:, 1:], 2), quality, _CHROMA)
    small = F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)
    chroma = torch.where(_each(subsampled) > 0, small, _quantized(ycc[:, 1:], quality, _CHROMA))
    coded = torch.cat([_quantized(ycc[:, :1], quality, _LUMA), chroma], dim=1)
    decoded = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix), coded)
    return torch.where(_each(quality) > 0, (decoded + 128) / 255, image)


def _quantized(planes: Tensor, quality: Tensor, table: str) -> Tensor:
    """Planes (N, C, H, W) whose DCT of 8 × 8 blocks is rounded to multiples of the table's steps."""
    n, channels, height, width = planes.shape
    scale = torch.where(quality < 50, 5000 / quality.clamp_min(1), 200 - 2 * quality)
    steps = torch.tensor([float(step) for step in table.split()], device=planes.device).reshape(8, 8)
    steps = ((steps * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)[:, None, None, :, None, :]
    basis = cosine_basis(8).to(planes.device)
    blocks = planes.reshape(n, channels, height // 8, 8, width // 8, 8)
    coded = torch.einsum("ui,nchiwj,vj->nchuwv", basis, blocks, basis)
    coded = (coded / steps).round() * steps
    return torch.einsum("ui,nchuwv,vj->nchiwj", basis, coded, basis).reshape(planes.shape)


def _toned(srgb: Tensor, cameras: Cameras) -> Tensor:
    """An S-shaped curve, or its opposite, that keeps 0, 1/2 and 1."""
    return srgb + _each(cameras.contrast) * 0.3 * srgb * (1 - srgb) * (2 * srgb - 1)


def _sharpened(image: Tensor, cameras: Cameras) -> Tensor:
    taps = torch.exp(-torch.arange(-2.0, 3.0).square() / 2)
    some = _members(cameras.sharpening > 0)
    soft = _filtered(image[some], (taps / taps.sum()).tolist(), "replicate")
    sharpened = image[some] + _each(cameras.sharpening[some]) * (image[some] - soft)
    return _with(image, some, sharpened).clamp(0, 1)


def _filtered(image: Tensor, taps: Sequence[float], mode: str) -> Tensor:
    """An image filtered along rows and columns; a sum of shifted copies, as convolutions of each channel by itself take
    a CPU several times as long.
    """
    reach = len(taps) // 2
    for axis, padding in ((-2, (0, 0, reach, reach)), (-1, (reach, reach, 0, 0))):
        extent = image.shape[axis]
        padded = F.pad(image, padding, mode=mode)
        image = taps[0] * padded.narrow(axis, 0, extent)
        for offset, tap in enumerate(taps[1:], 1):
            image = image.add_(padded.narrow(axis, offset, extent), alpha=tap)
    return image


def _members(wanted: Tensor) -> Tensor | slice:
    """The images for which something is wanted, (N,); on a GPU all, as the answer would have to be waited for."""
    return wanted.nonzero()[:, 0] if wanted.device.type == "cpu" else slice(None)


def _with(images: Tensor, some: Tensor | slice, changed: Tensor) -> Tensor:
    if isinstance(some, slice):
        return changed
    return images.index_copy(0, some, changed) if len(some) else images


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
