"""How much reblur must move and compute, counted: what a time can be compared with.

`make gpu` imports it before reblur_ops is built, so nothing here imports that until it is needed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

Shape = tuple[int, int, int, int]
PASSES = ("forward", "forward+backward")
PUBLISHED_CHANNELS = 35 + 8  # of seeds and weights, for the radii 1 … 7

# Vector instructions for 2^x: the fraction, a polynomial of degree 5 by Horner's rule, and the scaling. Processors
# without an instruction for the fraction or the scaling need more.
EXPONENTIAL = 7


def floor_bytes(shape: Shape, dtype: torch.dtype, pass_: str, parameter_channels: int = PUBLISHED_CHANNELS) -> int:
    """The bytes that must be read and written at least: each input and each result once in each pass.

    Args:
        shape: (N, C, H, W) of the image.
        dtype: of all tensors.
        pass_: "forward" or "forward+backward".
        parameter_channels: of the maps that say how a pixel is blurred; seeds and weights for the published radii.
    """
    n, c, h, w = shape
    forward = parameter_channels + 2 * c
    # Image, gradient of the output and parameters are read, the gradients written.
    backward = 2 * parameter_channels + 3 * c
    values = forward if pass_ == "forward" else forward + backward
    return values * n * h * w * dtype.itemsize


class Operations(NamedTuple):
    """Operations on one pixel, by what they are for. A fused multiply-add is one."""

    kernel: int  # class weights, from seeds and weights
    sums: int  # of the image over each class, all channels
    product: int  # of class weights and sums, all channels
    adjoint: int = 0  # gradients to seeds and weights, from those to the class weights
    scatter: int = 0  # gradient to the image, all channels

    @property
    def total(self) -> int:
        return sum(self)


def operations(radii: Sequence[int], channels: int, pass_: str) -> Operations:
    """The operations of reblur on a pixel, support "square": those of the algorithm, however a processor does them.

    Additions, multiplications, comparisons and fused multiply-adds are one each, an exponential `EXPONENTIAL`. What a
    program needs besides, addresses, loads and stores, is what the limit leaves out.
    """
    from reblur_ops.geometry import distance_classes, interpolation

    radius = radii[-1]
    classes = distance_classes(radius)
    kernel = adjoint = 0
    for r in radii:
        inside = [cls for cls in distance_classes(r) if cls.squared_distance <= r**2]
        between = sum(interpolation(cls.squared_distance).fraction != 0 for cls in inside)
        outside = len(distance_classes(r)) - len(inside)
        # |s|, the largest, its subtraction and scaling, differences of neighbours; the interpolation, exponential and
        # sum of a class; one exponential for all taps outside; the quotient; what is added to the class weights.
        kernel += 4 * (r + 1) + r + between + (EXPONENTIAL + 1) * (len(inside) + 1) + 2 + len(inside) + outside
        # The gradient to the weight, from every class; to a logit, three; shared by two seeds or given to one; signs.
        adjoint += len(inside) + outside + 2 + 3 * len(inside) + 4 * between + (len(inside) - between) + 2 * (r + 1)
    # Rows y - a and y + a are added first. A class (a, b) then has two taps in row a and two in row b; those of (a, a)
    # are the same row, those of column 0 one tap.
    number_by_class = {(0, 0): 0}
    for cls in classes[1:]:
        number_by_class[cls] = 1 if cls.a == cls.b else (2 if cls.a == 0 else 3)
    sums = channels * (radius + sum(number_by_class.values()))
    product = channels * len(classes)
    forward = Operations(kernel, sums, product)
    if pass_ == "forward":
        return forward
    # Backward, the kernel and the sums are computed again, nothing of the size of a window being kept. The scatter
    # multiplies 2R + 1 rows by R + 1 columns of weights and adds up the columns.
    scatter = channels * ((2 * radius + 1) * (radius + 1) + 2 * radius)
    return Operations(2 * kernel, 2 * sums, 2 * product, adjoint, scatter)
