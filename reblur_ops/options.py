"""The options of the operators, typed once: checks, documentation and command lines follow."""

from typing import Literal, get_args

Support = Literal["square", "disk"]
Padding = Literal["zeros", "replicate", "reflect"]
Direction = Literal["gather", "scatter"]
Normalization = Literal["softmax", "sum", "none"]
LensKernel = Literal["disk", "gaussian"]

SUPPORTS: tuple[Support, ...] = get_args(Support)
PADDINGS: tuple[Padding, ...] = get_args(Padding)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
LENS_KERNELS: tuple[LensKernel, ...] = get_args(LensKernel)
