"""Distances and distance classes of an isotropic kernel.

The taps (±a, ±b) and (±b, ±a) lie at one distance and weigh the same: a class, named (a, b) with 0 <= a <= b <= R and
numbered b(b+1)/2 + a. The classes of a smaller radius are the first ones of a larger.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

MAX_RADIUS = 15  # of kernels with a weight for every distance class: seeds, radial and taps
MAX_ANALYTIC_RADIUS = 64  # of kernels whose weights are a formula: gaussian and disk


class Interpolation(NamedTuple):
    """The place of a distance between two integer ones: at `ring`, or `fraction` of the way to ring + 1."""

    ring: int
    fraction: float


class DistanceClass(NamedTuple):
    """The taps (±a, ±b) and (±b, ±a)."""

    a: int
    b: int

    @property
    def squared_distance(self) -> int:
        return self.a**2 + self.b**2

    @property
    def multiplicity(self) -> int:
        """Number of taps of the class: 1, 4 or 8."""
        if self.b == 0:
            return 1
        return 4 if self.a in (0, self.b) else 8


def interpolation(squared_distance: int) -> Interpolation:
    ring = math.isqrt(squared_distance)
    return Interpolation(ring, math.sqrt(squared_distance) - ring)


_CLASSES = tuple(DistanceClass(a, b) for b in range(MAX_ANALYTIC_RADIUS + 1) for a in range(b + 1))


def distance_classes(radius: int) -> tuple[DistanceClass, ...]:
    """Every class of a (2 radius + 1)² window, in the order of their numbers, for a radius up to 64."""
    return _CLASSES[: (radius + 1) * (radius + 2) // 2]


def class_map(radius: int, device: torch.device) -> Tensor:
    """(2 radius + 1, 2 radius + 1): the number of the class of each tap of the window."""
    offset = torch.arange(-radius, radius + 1, device=device).abs()
    a, b = torch.minimum(offset, offset[:, None]), torch.maximum(offset, offset[:, None])
    return b * (b + 1) // 2 + a
