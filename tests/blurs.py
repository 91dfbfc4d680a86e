"""The families of kernels as calls on an image and one parameter, with inputs: what several test files share."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

import reblur_ops
from reblur_ops.testing import assert_close


class Blur(NamedTuple):
    """A family with its options, as a call on an image and one parameter."""

    name: str
    radius: int
    options: Mapping[str, Any] = MappingProxyType({})

    def __str__(self) -> str:
        return "-".join([self.name, str(self.radius), *map(str, self.options.values())])

    def parameter(self, height: int, width: int, batch: int = 2, seed: int = 0) -> Tensor:
        """Random, in float64; of either sign, from nothing up to beyond the largest."""
        generator = torch.Generator().manual_seed(seed)
        if self.name == "radial":
            profile = torch.randn(batch, self.radius + 1, height, width, generator=generator, dtype=torch.float64)
            return profile.abs() + 0.1 if self.options.get("normalize") == "sum" else 2 * profile
        if self.name == "taps":
            planes = (self.radius + 1) * (self.radius + 2) // 2
            # Mostly positive, or a scatter's normalization would divide by sums near 0.
            return 1 + 0.5 * torch.randn(batch, planes, height, width, generator=generator, dtype=torch.float64)
        uniform = torch.rand(batch, 1, height, width, generator=generator, dtype=torch.float64)
        largest = self.radius * (0.6 if self.name == "gaussian" else 1.2)
        sign = torch.where(torch.arange(width) % 3 == 0, -1.0, 1.0)
        return uniform * largest * sign

    def __call__(self, image: Tensor, parameter: Tensor, **options: Any) -> Tensor:
        if self.name == "gaussian":
            return reblur_ops.gaussian_blur(image, parameter, radius=self.radius, **options)
        if self.name == "disk":
            return reblur_ops.disk_blur(image, parameter, max_radius=self.radius, **options)
        if self.name == "taps":
            return reblur_ops.isotropic_blur(image, parameter, self.radius, **options)
        return reblur_ops.radial_blur(image, parameter, **self.options, **options)


BLURS = [
    Blur("gaussian", 3),
    Blur("gaussian", 7),
    Blur("disk", 3),
    Blur("disk", 7),
    Blur("taps", 3),
    Blur("taps", 7),
    *(
        Blur("radial", radius, {"normalize": normalize, "support": support})
        for radius in (3, 7)
        for normalize in ("softmax", "sum", "none")
        for support in ("square", "disk")
    ),
]
WIDE = [Blur("gaussian", 20), Blur("disk", 20), Blur("disk", 64)]


def images(height: int, width: int, batch: int = 2, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, g = (torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, g


def run(blur: Blur, image: Tensor, parameter: Tensor, grad_output: Tensor, backend: str, **options: Any):
    leaves = [t.detach().requires_grad_() for t in (image, parameter)]
    with reblur_ops.use_backend(backend):
        output = blur(*leaves, **options)
    output.backward(grad_output)
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def compare(actual, expected, dtype):
    for name, a, e in zip(("output", "grad_image", "grad_parameter"), actual, expected, strict=True):
        assert a.dtype == dtype
        assert_close(a, e, dtype, name)
