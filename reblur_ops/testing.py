"""Problems, tolerances and comparisons for those who test or measure the operators."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

import reblur_ops

BACKENDS = tuple(reblur_ops.backends())
RADII = (reblur_ops.PUBLISHED_RADII, (1,), (2, 5), (3, 12))
# A pixel, one row, one column, smaller than the kernel, a vector's width, more than a tile's width.
SHAPES = ((1, 1), (1, 37), (37, 1), (5, 3), (9, 16), (3, 65))

# Largest error against float64, relative to the largest value (or 0.01 where all cancel): a few roundings of the dtype.
# float16 and bfloat16 are computed in float32 and rounded once, 2^-11 and 2^-8, and their inputs are exact.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class Problem(NamedTuple):
    """Arguments of `reblur` and the gradient of its output."""

    image: Tensor
    seeds: Tensor
    weights: Tensor
    grad_output: Tensor
    options: dict[str, Any]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.image, self.seeds, self.weights

    def to(self, dtype: torch.dtype) -> "Problem":
        return self._replace(
            image=self.image.to(dtype),
            seeds=self.seeds.to(dtype),
            weights=self.weights.to(dtype),
            grad_output=self.grad_output.to(dtype),
        )


def problem(
    height: int = 12,
    width: int = 21,
    *,
    batch: int = 2,
    channels: int = 3,
    radii: tuple[int, ...] = reblur_ops.PUBLISHED_RADII,
    support: str = "square",
    padding: str = "zeros",
    seed: int = 0,
) -> Problem:
    """A random problem in float64. Seeds have either sign, and a size at which kernels differ much."""
    generator = torch.Generator().manual_seed(seed)

    def randn(planes: int) -> Tensor:
        return torch.randn(batch, planes, height, width, dtype=torch.float64, generator=generator)

    seed_channels, weight_channels = reblur_ops.map_channels(radii)
    options = {"radii": radii, "support": support, "padding": padding}
    return Problem(randn(channels), 2 * randn(seed_channels), randn(weight_channels), randn(channels), options)


def run(problem: Problem, backend: str) -> list[Tensor]:
    """The output and the gradients to image, seeds and weights."""
    leaves = [t.detach().requires_grad_() for t in problem.tensors]
    with reblur_ops.use_backend(backend):
        output = reblur_ops.reblur(*leaves, **problem.options)
    output.backward(problem.grad_output)
    return [output.detach(), *(cast(Tensor, leaf.grad) for leaf in leaves)]


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, name: str = "") -> None:
    """The largest error, relative to the largest value, is within the tolerance of the dtype."""
    assert actual.shape == expected.shape, name
    if expected.numel() == 0:
        return
    error = (actual.double() - expected.double()).abs().max().item()
    scale = max(expected.double().abs().max().item(), 0.01)
    assert error <= TOLERANCE[dtype] * scale, f"{name}: error {error:.3g} with values up to {scale:.3g}"


def assert_all_close(actual: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for name, a, e in zip(("output", "grad_image", "grad_seeds", "grad_weights"), actual, expected, strict=True):
        assert_close(a, e, dtype, name)
