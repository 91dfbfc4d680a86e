"""Random calls of every operator: odd shapes, strides, types and values, and arguments that do not fit.

What fits agrees with the definition in float64, outputs and gradients, on every backend. What does not is a TypeError,
a ValueError or a RuntimeError. Nothing crashes.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import reblur_ops
from reblur_ops.testing import BACKENDS, TOLERANCE, assert_close
from tests.reliability.sizes import CALLS

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CHUNK = 50
NAMES = ("reblur", "gaussian_blur", "disk_blur", "radial_blur", "isotropic_blur")


@dataclass
class Call:
    """A call of an operator: its name, tensors (the image first), and options."""

    name: str
    tensors: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        if self.name == "isotropic_blur":
            return reblur_ops.isotropic_blur(*tensors, **self.options)
        return getattr(reblur_ops, self.name)(*tensors, **self.options)


def draw(number: int) -> Call:
    """A call whose arguments fit."""
    chance = random.Random(number)
    generator = torch.Generator().manual_seed(number)
    n, c = chance.choice((0, 1, 1, 1, 2, 3)), chance.choice((0, 1, 2, 3, 3, 4, 5))
    height, width = (chance.choice((0, 1, 2, 3, 5, 8, 13, 17, 33, 70)) for _ in range(2))
    dtype = chance.choice(DTYPES)
    name = chance.choice(NAMES)

    def tensor(planes: int, scale: float = 1.0) -> Tensor:
        values = scale * torch.randn(n, planes, height, width, generator=generator, dtype=torch.float64)
        return laid_out(values.to(dtype), chance)

    radius = chance.randint(1, 9)
    options: dict[str, Any] = {"padding": chance.choice(("zeros", "replicate", "reflect"))}
    options["direction"] = chance.choice(("gather", "scatter"))
    if name == "reblur":
        radii = tuple(sorted(chance.sample(range(1, 10), chance.randint(1, 3))))
        options |= {"radii": radii, "support": chance.choice(("square", "disk"))}
        radius = radii[-1]
        parameters = [tensor(planes, 2.0) for planes in reblur_ops.map_channels(radii)]
    elif name == "radial_blur":
        options |= {"normalize": chance.choice(("softmax", "none")), "support": chance.choice(("square", "disk"))}
        parameters = [tensor(radius + 1)]
    elif name == "isotropic_blur":
        options["radius"] = radius
        parameters = [tensor((radius + 1) * (radius + 2) // 2)]
    else:
        options["radius" if name == "gaussian_blur" else "max_radius"] = radius
        parameters = [tensor(1, radius / 2)]
    if min(height, width) <= radius and options["padding"] == "reflect":
        options["padding"] = "replicate"
    return Call(name, [tensor(c), *parameters], options)


def laid_out(values: Tensor, chance: random.Random) -> Tensor:
    """The same values in other strides."""
    kind = chance.choice(("contiguous", "channels last", "sliced", "transposed", "flipped batch"))
    if kind == "channels last":
        return values.contiguous(memory_format=torch.channels_last)
    if kind == "sliced":
        n, c, h, w = values.shape
        home = values.new_full((n, c + 1, h + 2, 2 * w + 1), torch.nan)
        home[:, 1:, 1 : 1 + h, 1::2] = values
        return home[:, 1:, 1 : 1 + h, 1::2]
    if kind == "transposed":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    if kind == "flipped batch":
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    return values


def results(call: Call, backend: str, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Output and gradients."""
    leaves = [tensor.detach().to(dtype or tensor.dtype).requires_grad_() for tensor in call.tensors]
    with reblur_ops.use_backend(backend):
        output = call(leaves)
        # In float64 first: of more than some thousand values linspace in half precision loses count.
        grad_output = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).to(output.dtype)
        output.backward(grad_output.reshape(output.shape))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("first", range(0, CALLS, CHUNK))
def test_calls_that_fit_agree(first):
    for number in range(first, first + CHUNK):
        call = draw(number)
        dtype = call.tensors[0].dtype
        if call.name == "disk_blur" and dtype != torch.float64:
            # On the edge of a disk rounding decides on which side a tap's slope lies: half steps stay off it.
            call.tensors[1] = (call.tensors[1] * 4).round() / 4 + 0.1
        expected = results(call, "reference", torch.float64)
        for backend in BACKENDS:
            if backend == "reference":
                continue
            found = results(call, backend)
            assert_agree(found, expected, dtype, f"call {number}, {call.name}, {call.options}, {backend}, {dtype}")


def assert_agree(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype, name: str) -> None:
    """The output within the tolerance of the type, and the gradients of the arguments after it."""
    assert_close(found[0], expected[0], dtype, f"{name}, output")
    for number, (a, e) in enumerate(zip(found[1:], expected[1:], strict=True)):
        if e.numel():
            # A gradient adds up rounded products of a window, and where these cancel only rounding is left.
            error = (a.double() - e).abs().max().item()
            scale = max(e.abs().max().item(), 1.0)
            limit = 4 * TOLERANCE[dtype] * scale
            assert error <= limit, f"{name}, gradient {number}: error {error:.3g}, values to {scale:.3g}"


@pytest.mark.parametrize("first", range(0, CALLS // 5, CHUNK))
def test_kernels_and_their_radii_agree(first):
    """`tap_weights` and `blur_radius`, of the maps that `reblur` takes."""
    for number in range(first, first + CHUNK):
        chance = random.Random(number)
        generator = torch.Generator().manual_seed(number)
        radii = tuple(sorted(chance.sample(range(1, 10), chance.randint(1, 3))))
        n, dtype = chance.choice((0, 1, 2)), chance.choice(DTYPES)
        height, width = (chance.choice((0, 1, 2, 5, 13, 33)) for _ in range(2))
        seeds, weights = (
            laid_out(torch.randn(n, planes, height, width, generator=generator).to(dtype), chance)
            for planes in reblur_ops.map_channels(radii)
        )
        weights = weights.softmax(1)
        options = {"radii": radii, "support": chance.choice(("square", "disk"))}
        for name in ("tap_weights", "blur_radius"):
            expected = results(Call(name, [seeds, weights], options), "reference", torch.float64)
            for backend in BACKENDS:
                found = results(Call(name, [seeds, weights], options), backend)
                assert_agree(found, expected, dtype, f"call {number}, {name}, {options}, {backend}, {dtype}")


def draw_cost_volume(number: int) -> tuple[list[Tensor], int, dict[str, Any]]:
    """Arguments of `cost_volume` that fit: tensors, radius, options."""
    chance = random.Random(number)
    generator = torch.Generator().manual_seed(number)
    cell = chance.choice((1, 2))
    n, c = chance.choice((0, 1, 1, 2)), chance.choice((0, 1, 3, 3, 4))
    height, width = (cell * chance.choice((0, 1, 2, 4, 9, 17, 35)) for _ in range(2))
    dtype = chance.choice(DTYPES)
    radius = chance.randint(1, 9)
    options: dict[str, Any] = {"slack": chance.choice((0, 0, 1, 2)), "cell": cell, "root": chance.random() < 0.5}
    options["padding"] = chance.choice(("zeros", "replicate", "reflect"))
    if min(height, width) <= radius and options["padding"] == "reflect":
        options["padding"] = "replicate"
    # Light is not negative, and root sees little difference between rounding and nothing.
    images = [
        laid_out(0.1 + 0.9 * torch.rand(n, c, height, width, generator=generator).to(dtype), chance) for _ in range(2)
    ]
    classes = (radius + 1) * (radius + 2) // 2
    bank = torch.rand(chance.choice((0, 1, 5)), classes, generator=generator).to(dtype) / (2 * radius + 1) ** 2
    return [*images, bank], radius, options


@pytest.mark.parametrize("first", range(0, CALLS // 5, CHUNK))
def test_cost_volumes_that_fit_agree(first):
    for number in range(first, first + CHUNK):
        tensors, radius, options = draw_cost_volume(number)
        with reblur_ops.use_backend("reference"):
            expected = reblur_ops.cost_volume(*(tensor.double() for tensor in tensors), radius, **options)
        for backend in BACKENDS:
            with reblur_ops.use_backend(backend):
                found = reblur_ops.cost_volume(*tensors, radius, **options)
            assert_close(found, expected, tensors[0].dtype, f"call {number}, {options}, {backend}")


def spoil(call: Call, chance: random.Random) -> None:
    """Change one argument to something that does not fit, or that is not finite."""
    index = chance.randrange(len(call.tensors))
    tensor = call.tensors[index]
    kind = chance.randrange(9)
    if kind == 0:
        call.tensors[index] = tensor[..., :-1] if tensor.shape[-1] > 1 else tensor.squeeze(0)
    elif kind == 1:
        call.tensors[index] = tensor.to(chance.choice((torch.int32, torch.bool, torch.complex64)))
    elif kind == 2:
        call.tensors[index] = chance.choice((None, "image", 3, [1.0], object()))
    elif kind == 3:
        call.options["padding"] = chance.choice(("circular", None, 0, "Zeros"))
    elif kind == 4:
        call.options["direction"] = chance.choice(("sideways", None, 1))
    elif kind == 5:
        call.tensors[index] = tensor.to_sparse() if tensor.numel() else tensor[None]
    elif kind == 6:
        name = next((key for key in ("radii", "radius", "max_radius") if key in call.options), "padding")
        call.options[name] = chance.choice((0, -1, 10**9, 2.5, "7", None, (3, 2), True))
    elif kind == 7:
        call.tensors[index] = tensor.to("meta")
    else:
        values = tensor.contiguous().clone()
        if values.numel():
            values.view(-1)[chance.randrange(values.numel())] = chance.choice((torch.nan, torch.inf, -torch.inf))
        call.tensors[index] = values


@pytest.mark.filterwarnings("ignore")  # that a Gaussian is cut off, or that sparse tensors are in beta
@pytest.mark.parametrize("first", range(0, CALLS // 2, CHUNK))
def test_calls_that_do_not_fit_are_refused_or_answered(first):
    for number in range(first, first + CHUNK):
        call = draw(number)
        spoil(call, random.Random(-number - 1))
        for backend in BACKENDS:
            with reblur_ops.use_backend(backend):
                try:
                    call(call.tensors)
                except (TypeError, ValueError, RuntimeError):
                    continue
