"""Kernels of real apertures: round, polygonal, ring-shaped, cut by the rim of the lens, soft, of a size by colour."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Apertures:
    """Shapes of N apertures; tensors of shape (N,).

    Attributes:
        blades: sides of a polygon; 0: round.
        turn: of the polygon and of the cut, radians.
        ring: how much darker the middle is, 0 … 1: spherical aberration, or the mirror of a mirror lens.
        cut: how far the rim of the lens, another disk of the same radius, is shifted, in radii.
        softness: share of a Gaussian of the same RMS radius, 0 … 1.
        dispersion: how much larger the kernel of blue is than that of green, and that of red smaller, in radii.
    """

    blades: Tensor
    turn: Tensor
    ring: Tensor
    cut: Tensor
    softness: Tensor
    dispersion: Tensor

    def to(self, device: torch.device) -> "Apertures":
        return Apertures(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_apertures(
    generators: "list[np.random.Generator]",
    *,
    disks: float,
    polygons: float,
    rings: float,
    cut: float,
    softness: float,
    dispersion: float,
) -> Apertures:
    """One of each generator.

    Args:
        disks: part that is plain, with a trace of softness.
        polygons, rings, cut: parts of the others that have five to nine blades, a darker middle, a cut by the rim.
        softness: largest share of a Gaussian in the others.
        dispersion: standard deviation of theirs, in radii.
    """
    rows = []
    for generator in generators:
        plain = generator.random() < disks
        shape = generator.random()
        rows.append(
            (
                0 if plain or shape < 1 - polygons else int(generator.integers(5, 10)),
                generator.uniform(0, 2 * math.pi),
                0.0 if plain or generator.random() < 1 - rings else generator.uniform(0, 0.8),
                0.0 if plain or generator.random() < 1 - cut else generator.uniform(0, 0.8),
                generator.uniform(0, 0.1) if plain else softness * generator.uniform(0, 1) ** 2,
                0.0 if plain else generator.normal(0, dispersion),
            )
        )
    return Apertures(*torch.tensor(rows, dtype=torch.float32).T.unbind())


def kernels(coc: Tensor, apertures: Apertures, reach: int) -> Tensor:
    """Kernels that each sum to 1.

    Args:
        coc: (N, K), radii of the circles of confusion in pixels, >= 0. Below 0.5 the kernel is the identity.
        apertures: of N.
        reach: pixels; kernels are cut there.

    Returns:
        (N, K, 3, 2·reach + 1, 2·reach + 1), for red, green and blue.
    """
    offset = torch.arange(-reach, reach + 1, device=coc.device, dtype=torch.float32)
    y, x = offset[:, None], offset[None]
    angle, distance = torch.atan2(y, x), torch.hypot(y, x)

    def each(values: Tensor) -> Tensor:  # (N,) -> (N, 1, 1, 1, 1)
        return values[:, None, None, None, None]

    colour = torch.tensor([-1.0, 0.0, 1.0], device=coc.device)
    radius = coc[:, :, None, None, None] * (1 + each(apertures.dispersion) * colour[:, None, None])
    edge = radius.clamp_min(0.5)
    # A polygon of the area of the disk: its distance to the middle of a side, times what the area asks for.
    sector = 2 * math.pi / each(apertures.blades).clamp_min(3)
    within = (angle - each(apertures.turn)).remainder(sector) - sector / 2
    area = (math.pi / (math.pi / (sector / 2) * torch.tan(sector / 2))).sqrt()
    polygon = distance * torch.cos(within) / area
    shaped = (each(apertures.blades) > 0) & (radius > 1)  # smaller ones are within a pixel or two
    gauge = torch.where(shaped, polygon, distance)
    shift = each(apertures.cut) * radius
    rim = torch.hypot(y - shift * torch.sin(each(apertures.turn)), x - shift * torch.cos(each(apertures.turn)))
    kernel = (edge + 0.5 - torch.where(each(apertures.cut) > 0, torch.maximum(gauge, rim), gauge)).clamp(0, 1)
    dark = each(apertures.ring) * (0.6 * radius + 0.5 - distance).clamp(0, 1) * (radius > 1.5)
    kernel = _unit_sum(kernel * (1 - dark))
    gaussian = _unit_sum(torch.exp(-(distance**2) / radius.square().div(2).clamp_min(1e-3)))
    softness = each(apertures.softness) * (radius > 0.5)
    return kernel + softness * (gaussian - kernel)


def rms_radius(kernel: Tensor) -> Tensor:
    """RMS radius in pixels, (...), of kernels (..., D, D) that sum to 1, D odd, about their centre of mass."""
    reach = kernel.shape[-1] // 2
    offset = torch.arange(-reach, reach + 1, device=kernel.device, dtype=kernel.dtype)
    rows, columns = kernel.sum(-1), kernel.sum(-2)
    spread = [(part * offset.square()).sum(-1) - (part * offset).sum(-1).square() for part in (rows, columns)]
    return (spread[0] + spread[1]).clamp_min(0).sqrt()


def _unit_sum(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum((-2, -1), keepdim=True)
