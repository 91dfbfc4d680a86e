"""The operators `torch.ops.reblur_ops.*`: schemas, shapes for tracing, first and second derivatives, vmap.

The compiled module registers their implementations; without it they have none and the other backends answer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from reblur_ops import checks, torch_backend
from reblur_ops.families import Kernel

_library = torch.library.Library("reblur_ops", "DEF")
_KERNEL = "str family, int[] radii, str support, str normalize"
_BLUR = f"Tensor parameters, Tensor? weights, {_KERNEL}, str padding"
_NEEDED = "bool need_image, bool need_parameters, bool need_weights"
for _schema in (
    f"gather(Tensor image, {_BLUR}) -> Tensor",
    f"scatter(Tensor image, {_BLUR}) -> Tensor",
    # Gradients that are not needed come as tensors without elements. The image is needed only for the parameters'.
    f"gather_backward(Tensor grad_output, Tensor? image, {_BLUR}, {_NEEDED}) -> (Tensor, Tensor, Tensor)",
    f"scatter_backward(Tensor grad_output, Tensor? image, {_BLUR}, {_NEEDED}) -> (Tensor, Tensor, Tensor)",
    f"class_weights(Tensor parameters, Tensor? weights, {_KERNEL}) -> Tensor",
    f"class_weights_backward(Tensor grad_output, Tensor parameters, Tensor? weights, {_KERNEL}, "
    "bool need_parameters, bool need_weights) -> (Tensor, Tensor)",
    # Without a gradient. On the CPU alone: elsewhere a convolution does as well.
    "cost_volume(Tensor image, Tensor target, Tensor bank, int radius, int slack, int cell, bool root, str padding) "
    "-> Tensor",
):
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


# ---- Shapes ----


def _empty(like: Tensor, wanted: bool = True) -> Tensor:
    return torch.empty(like.shape if wanted else (0,), dtype=like.dtype, device=like.device)


def _fake_blur(image, parameters, weights, family, radii, support, normalize, padding):  # type: ignore[no-untyped-def]
    return _empty(image)


def _fake_backward(  # type: ignore[no-untyped-def]
    grad_output, image, parameters, weights, family, radii, support, normalize, padding, *needed
):
    need_image, need_parameters, need_weights = needed
    grad_weights = _empty(parameters if weights is None else weights, need_weights)
    return _empty(grad_output, need_image), _empty(parameters, need_parameters), grad_weights


@torch.library.register_fake("reblur_ops::class_weights", lib=_library)
def _(parameters, weights, family, radii, support, normalize):  # type: ignore[no-untyped-def]
    n, _, h, w = parameters.shape
    classes = (radii[-1] + 1) * (radii[-1] + 2) // 2
    return torch.empty((n, classes, h, w), dtype=parameters.dtype, device=parameters.device)


@torch.library.register_fake("reblur_ops::class_weights_backward", lib=_library)
def _(grad_output, parameters, weights, family, radii, support, normalize, need_parameters, need_weights):  # type: ignore[no-untyped-def]
    return _empty(parameters, need_parameters), _empty(parameters if weights is None else weights, need_weights)


@torch.library.register_fake("reblur_ops::cost_volume", lib=_library)
def _(image, target, bank, radius, slack, cell, root, padding):  # type: ignore[no-untyped-def]
    n, _, h, w = image.shape
    shape = (n, bank.shape[0], (2 * slack + 1) ** 2, h // cell, w // cell)
    return torch.empty(shape, dtype=image.dtype, device=image.device)


# ---- Gradients ----


def _blur_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, parameters, weights, *ctx.options = inputs
    parameters_wanted = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    ctx.save_for_backward(image if parameters_wanted else None, parameters, weights)


def _blur_backward(name: str) -> Any:
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[:3]
        op = getattr(torch.ops.reblur_ops, f"{name}_backward")
        gradients = _with_tangent(lambda grad: op(grad, *ctx.saved_tensors, *ctx.options, *needed), grad_output)
        return (*_wanted(gradients, needed), *[None] * len(ctx.options))

    return backward


def _class_weights_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    parameters, weights, *ctx.options = inputs
    ctx.save_for_backward(parameters, weights)


def _class_weights_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    needed = ctx.needs_input_grad[:2]
    op = torch.ops.reblur_ops.class_weights_backward
    gradients = _with_tangent(lambda grad: op(grad, *ctx.saved_tensors, *ctx.options, *needed), grad_output)
    return (*_wanted(gradients, needed), *[None] * len(ctx.options))


def _with_tangent(op: Callable[[Tensor], tuple[Tensor, ...]], grad_output: Tensor) -> tuple[Tensor, ...]:
    """The gradients with the tangent that grad_output may have, in which they are linear.

    An operator of a library has no forward mode, and would drop it without a word.
    """
    if not checks.has_tangent(grad_output):
        return op(grad_output)
    if torch.is_grad_enabled() or checks.is_batched(grad_output):
        raise NotImplementedError(
            "the native kernels have no forward mode of gradients with create_graph or of a batch of them: compute "
            'under use_backend("torch")'
        )
    primal, tangent = forward_ad.unpack_dual(grad_output)
    assert tangent is not None
    return tuple(forward_ad.make_dual(*pair) for pair in zip(op(primal), op(tangent), strict=True))


def _wanted(gradients: tuple[Tensor, ...], needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    return tuple(gradient if need else None for gradient, need in zip(gradients, needed, strict=True))


# ---- Second derivatives: those of the pure PyTorch form ----


def _keep_inputs(tensors: int) -> Any:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.options = inputs[tensors:]
        ctx.save_for_backward(*inputs[:tensors])

    return setup


def _second_blur_backward(name: str) -> Any:
    def backward(ctx: Any, *grad_gradients: Tensor) -> tuple[Tensor | None, ...]:
        *kernel, padding, need_image, need_parameters, need_weights = ctx.options

        def blur(image: Tensor, *parameters: Tensor | None) -> Tensor:
            of_image = [None if tensor is None else tensor.to(image.dtype) for tensor in parameters]
            return getattr(torch_backend, name)(image, *of_image, _kernel(*kernel), padding)

        grad_output, image, parameters, weights = ctx.saved_tensors
        if image is None:  # not kept where the image alone has a gradient, on which its values have no influence
            image = torch.zeros_like(grad_output)
        return _second(
            ctx, blur, grad_output, (image, parameters, weights), (need_image, need_parameters, need_weights),
            grad_gradients,
        )  # fmt: skip

    return backward


def _second_class_weights_backward(ctx: Any, *grad_gradients: Tensor) -> tuple[Tensor | None, ...]:
    *kernel, need_parameters, need_weights = ctx.options

    def class_weights(parameters: Tensor, weights: Tensor) -> Tensor:
        return torch_backend.class_weights(parameters, weights, _kernel(*kernel))

    grad_output, *inputs = ctx.saved_tensors
    return _second(ctx, class_weights, grad_output, tuple(inputs), (need_parameters, need_weights), grad_gradients)


def _kernel(family: str, radii: list[int], support: str, normalize: str) -> Kernel:
    return Kernel(family, tuple(radii), support, normalize)


def _second(
    ctx: Any,
    function: Callable[..., Tensor],
    grad_output: Tensor,
    inputs: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
    grad_gradients: tuple[Tensor, ...],
) -> tuple[Tensor | None, ...]:
    """From the gradients to the first derivatives, those to grad_output and the inputs, by differentiating twice.

    The computation starts from copies: what the tensors themselves come from, perhaps one from the other, is not its
    business.
    """
    if checks.has_tangent(grad_output):  # the copies would lose it
        raise NotImplementedError(_ONLY_TWICE)
    # Autocast, which the caller of backward may have on, would take the digits of float32.
    with torch.enable_grad(), checks.without_autocast(grad_output.device):
        tensors = [None if t is None else t.detach().requires_grad_() for t in (grad_output, *inputs)]
        wanted = [t for t, need in zip(tensors[1:], needed, strict=True) if need and t is not None]
        first = torch.autograd.grad(function(*tensors[1:]), wanted, tensors[0], create_graph=True)
        incoming = [gradient for gradient, need in zip(grad_gradients, needed, strict=True) if need]
        of = [t for t, need in zip(tensors, ctx.needs_input_grad, strict=False) if need and t is not None]
        second = torch.autograd.grad(first, of, incoming, allow_unused=True)
    if torch.is_grad_enabled():
        second = _OnlyTwice.apply(second, *ctx.saved_tensors, *grad_gradients)  # type: ignore[no-untyped-call]
    results = iter(second)
    return tuple(next(results) if need else None for need in ctx.needs_input_grad)


_ONLY_TWICE = 'reblur_ops has no third derivatives natively; compute under use_backend("torch"), which has them'


class _OnlyTwice(torch.autograd.Function):
    """Passes second derivatives on, and refuses to be differentiated: without it, third ones would be zero."""

    @staticmethod
    def forward(ctx: Any, second: tuple[Tensor | None, ...], *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if t is None else t.clone() for t in second)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError(_ONLY_TWICE)


for _name in ("gather", "scatter"):
    torch.library.register_fake(f"reblur_ops::{_name}", _fake_blur, lib=_library)
    torch.library.register_fake(f"reblur_ops::{_name}_backward", _fake_backward, lib=_library)
    torch.library.register_autograd(
        f"reblur_ops::{_name}", _blur_backward(_name), setup_context=_blur_setup, lib=_library
    )
    torch.library.register_autograd(
        f"reblur_ops::{_name}_backward",
        _second_blur_backward(_name),
        setup_context=_keep_inputs(4),
        lib=_library,
    )
torch.library.register_autograd(
    "reblur_ops::class_weights", _class_weights_backward, setup_context=_class_weights_setup, lib=_library
)
torch.library.register_autograd(
    "reblur_ops::class_weights_backward",
    _second_class_weights_backward,
    setup_context=_keep_inputs(3),
    lib=_library,
)


# ---- vmap: the batch of a batch is a batch ----


def _vmap(op: Any, tensors: int) -> Any:
    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        b = info.batch_size

        def merge(tensor: Tensor, dim: int | None) -> Tensor:
            tensor = tensor.unsqueeze(0).expand(b, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            return tensor.flatten(0, 1)

        given = zip(args[:tensors], in_dims[:tensors], strict=True)
        merged = [None if tensor is None else merge(tensor, dim) for tensor, dim in given]
        n = args[0].shape[1 if in_dims[0] == 0 else 0]  # images; said, not left to be found, as b may be 0
        results = op(*merged, *args[tensors:])
        if isinstance(results, Tensor):
            return results.unflatten(0, (b, n)), 0
        # A gradient that is not needed has no elements, and no batch.
        split = [r.unflatten(0, (b, n)) if r.dim() == 4 else r.expand(b, 0) for r in results]
        return tuple(split), tuple(0 for _ in split)

    return rule


for _name, _tensors in {
    "gather": 3,
    "scatter": 3,
    "gather_backward": 4,
    "scatter_backward": 4,
    "class_weights": 2,
    "class_weights_backward": 3,
}.items():
    _op = getattr(torch.ops.reblur_ops, _name)
    torch.library.register_vmap(f"reblur_ops::{_name}", _vmap(_op, _tensors), lib=_library)
