"""The operators `torch.ops.reblur_ops.*`: schemas, shapes for tracing, gradients.

The compiled module registers their implementations; without it they have none and the other backends answer.
"""

from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("reblur_ops", "DEF")
_OPTIONS = "int[] radii, str support"
for _schema in (
    f"reblur(Tensor image, Tensor seeds, Tensor weights, {_OPTIONS}, str padding) -> Tensor",
    # Gradients that are not needed come as tensors without elements. The image is needed only for the parameters'.
    f"reblur_backward(Tensor grad_output, Tensor? image, Tensor seeds, Tensor weights, {_OPTIONS}, str padding, "
    "bool need_image, bool need_seeds, bool need_weights) -> (Tensor, Tensor, Tensor)",
    f"class_weights(Tensor seeds, Tensor weights, {_OPTIONS}) -> Tensor",
    f"class_weights_backward(Tensor grad_output, Tensor seeds, Tensor weights, {_OPTIONS}, "
    "bool need_seeds, bool need_weights) -> (Tensor, Tensor)",
):
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def _empty(like: Tensor, wanted: bool = True) -> Tensor:
    return torch.empty(like.shape if wanted else (0,), dtype=like.dtype, device=like.device)


@torch.library.register_fake("reblur_ops::reblur", lib=_library)
def _(image, seeds, weights, radii, support, padding):  # type: ignore[no-untyped-def]
    return _empty(image)


@torch.library.register_fake("reblur_ops::reblur_backward", lib=_library)
def _(grad_output, image, seeds, weights, radii, support, padding, need_image, need_seeds, need_weights):  # type: ignore[no-untyped-def]
    return _empty(grad_output, need_image), _empty(seeds, need_seeds), _empty(weights, need_weights)


@torch.library.register_fake("reblur_ops::class_weights", lib=_library)
def _(seeds, weights, radii, support):  # type: ignore[no-untyped-def]
    n, _, h, w = seeds.shape
    classes = (radii[-1] + 1) * (radii[-1] + 2) // 2
    return torch.empty((n, classes, h, w), dtype=seeds.dtype, device=seeds.device)


@torch.library.register_fake("reblur_ops::class_weights_backward", lib=_library)
def _(grad_output, seeds, weights, radii, support, need_seeds, need_weights):  # type: ignore[no-untyped-def]
    return _empty(seeds, need_seeds), _empty(weights, need_weights)


def _reblur_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, seeds, weights, *ctx.options = inputs
    parameters_wanted = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    ctx.save_for_backward(image if parameters_wanted else None, seeds, weights)


def _reblur_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:3]
    gradients = torch.ops.reblur_ops.reblur_backward(grad_output, *ctx.saved_tensors, *ctx.options, *needed)
    return (*_wanted(gradients, needed), None, None, None)


def _class_weights_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    seeds, weights, *ctx.options = inputs
    ctx.save_for_backward(seeds, weights)


def _class_weights_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:2]
    gradients = torch.ops.reblur_ops.class_weights_backward(grad_output, *ctx.saved_tensors, *ctx.options, *needed)
    return (*_wanted(gradients, needed), None, None)


def _wanted(gradients: tuple[Tensor, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


def _no_second_derivative(ctx: Any, *gradients: Tensor) -> None:
    raise NotImplementedError(
        'reblur_ops has no second derivatives natively; compute under reblur_ops.use_backend("torch"), which has them'
    )


torch.library.register_autograd("reblur_ops::reblur", _reblur_backward, setup_context=_reblur_setup, lib=_library)
torch.library.register_autograd(
    "reblur_ops::class_weights", _class_weights_backward, setup_context=_class_weights_setup, lib=_library
)
for _name in ("reblur_backward", "class_weights_backward"):
    torch.library.register_autograd(f"reblur_ops::{_name}", _no_second_derivative, lib=_library)
