"""The operators on problems of any size: what the benchmarks of operators measure."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import reblur_ops
from benchmarks.harness import Function, Problem, on_backend

OPERATORS = ("reblur", "gaussian_blur", "disk_blur", "radial_blur")
DIRECTIONS = ("gather", "scatter")


@dataclass(frozen=True)
class Case:
    """An operator, and the size of its problem."""

    op: str = "reblur"  # of OPERATORS
    direction: str = "gather"
    size: tuple[int, int] = (256, 256)
    channels: int = 3
    batch: int = 1
    radius: int = 7  # reach of the window; for reblur the radii are 1 … radius
    dtype: torch.dtype = torch.float32

    @property
    def radii(self) -> tuple[int, ...]:
        return tuple(range(1, self.radius + 1))

    @property
    def parameter_channels(self) -> tuple[int, ...]:
        """The channels of each map of parameters."""
        if self.op == "reblur":
            return reblur_ops.map_channels(self.radii)
        return (self.radius + 1,) if self.op == "radial_blur" else (1,)


def function(case: Case) -> Function:
    """The operator with its options: (image, parameters…) -> output."""
    options: dict[str, dict[str, Any]] = {
        "reblur": {"radii": case.radii},
        "gaussian_blur": {"radius": case.radius},
        "disk_blur": {"max_radius": case.radius},
        "radial_blur": {},
    }
    return partial(getattr(reblur_ops, case.op), direction=case.direction, **options[case.op])


def problem(case: Case, device: str = "cpu") -> Problem:
    """Image, parameters as a network would give them, and the gradient of the output.

    Radii of disks are spread evenly over what the window holds, σ from 0 to R/3. Profiles and seeds are noise.
    """
    generator = torch.Generator(device).manual_seed(0)

    def made(make: Callable[..., Tensor], planes: int) -> Tensor:
        return make(case.batch, planes, *case.size, generator=generator, device=device)

    if case.op in ("gaussian_blur", "disk_blur"):
        largest = case.radius / 3 if case.op == "gaussian_blur" else float(case.radius)
        parameters = [largest * made(torch.rand, 1)]
    else:
        parameters = [made(torch.randn, planes) for planes in case.parameter_channels]
        parameters[1:] = [weights.softmax(dim=1) for weights in parameters[1:]]
    image, grad_output = (made(torch.rand, case.channels) for _ in range(2))
    *tensors, grad_output = (tensor.to(case.dtype) for tensor in (image, *parameters, grad_output))
    name = case.op if case.op == "reblur" and case.direction == "gather" else f"{case.op}, {case.direction}"
    return Problem(name, on_backend("reference", function(case)), tensors, grad_output, case.radius)
