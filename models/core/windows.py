"""Sums and means over square windows."""

import torch
from torch import Tensor


def box_mean(planes: Tensor, side: int) -> Tensor:
    """Means over square windows of an odd side, cut off at the borders; one direction after the other."""
    if side == 1:
        return planes
    for dim in (2, 3):
        count = box_sum(planes.new_ones(planes.shape[dim]), side, 0).view(-1, *[1] * (3 - dim))
        planes = box_sum(planes, side, dim).div_(count)
    return planes


def box_sum(values: Tensor, side: int, dim: int) -> Tensor:
    """Sums over runs of an odd side around each place of a dimension, cut off at the borders.

    Of runs of 1, 2, 4 … those are added up that make the side: a few additions whatever its length.
    """
    size, reach = values.shape[dim], side // 2
    border = [*values.shape[:dim], reach, *values.shape[dim + 1 :]]
    runs = torch.cat([values.new_zeros(border), values, values.new_zeros(border)], dim)
    total, begin, length = None, 0, 1
    while True:
        if side & length:
            run = runs.narrow(dim, begin, size)
            total = run if total is None else total + run
            begin += length
        length *= 2
        if length > side:
            assert total is not None
            return total
        runs = runs.narrow(dim, 0, runs.shape[dim] - length // 2) + runs.narrow(
            dim, length // 2, runs.shape[dim] - length // 2
        )
