"""Checks of arguments, in the user's terms, before any work is done."""

import itertools
import numbers
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.autograd import forward_ad

from reblur_ops.geometry import MAX_ANALYTIC_RADIUS, MAX_RADIUS
from reblur_ops.options import DIRECTIONS, PADDINGS

MAX_SLACK = 8  # pixels
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def radii_tuple(radii: Sequence[int]) -> tuple[int, ...]:
    """The radii as a tuple of int.

    Raises:
        TypeError: radii is no sequence of integers.
        ValueError: it is empty, does not increase, or leaves 1 … MAX_RADIUS.
    """
    if isinstance(radii, (str, bytes)) or not hasattr(radii, "__iter__"):
        raise TypeError(f"radii must be a sequence of integers, got {radii!r}")
    values = tuple(radii)
    for radius in values:
        if isinstance(radius, bool) or not isinstance(radius, numbers.Integral):
            raise TypeError(f"radii must be integers, got {radius!r} in {values}")
    if not values:
        raise ValueError("radii must hold at least one radius, got none")
    if min(values) < 1 or max(values) > MAX_RADIUS:
        raise ValueError(f"radii must lie between 1 and {MAX_RADIUS}, got {values}")
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise ValueError(f"radii must increase, got {values}")
    return tuple(int(radius) for radius in values)


def _tensor(name: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dim() != 4:
        raise ValueError(f"{name} must have shape (N, C, H, W), got {tuple(value.shape)}")
    _floating_point(name, value)
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")


def _floating_point(name: str, value: torch.Tensor) -> None:
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {value.dtype}")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {value.dtype}")


# Asked once, here: torch.compile of Torch 2.10 cannot trace the question.
_AUTOCAST_DEVICES = tuple(
    name for name in ("cpu", "cuda", "hpu", "mps", "mtia", "xla", "xpu") if torch.amp.is_autocast_available(name)
)


def autocasting(device: torch.device) -> bool:
    """Whether autocast is on for a device, of whatever type."""
    return device.type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which autocast is off for a device."""
    return torch.autocast(device.type, enabled=False) if autocasting(device) else nullcontext()


def _same(name: str, tensor: torch.Tensor, like_name: str, like: torch.Tensor) -> None:
    if tensor.shape[0] != like.shape[0] or tensor.shape[2:] != like.shape[2:]:
        raise ValueError(
            f"{name} must have the batch, height and width of {like_name}, "
            f"{(like.shape[0], *like.shape[2:])}, got {(tensor.shape[0], *tensor.shape[2:])}"
        )
    if tensor.device != like.device:
        raise ValueError(f"{name} must be on the device of {like_name}, {like.device}, got {tensor.device}")
    # Autocast makes all of them float32, but leaves float64 as it is.
    if tensor.dtype != like.dtype and (torch.float64 in (tensor.dtype, like.dtype) or not autocasting(like.device)):
        raise TypeError(f"{name} must have the dtype of {like_name}, {like.dtype}, got {tensor.dtype}")


def radius(name: str, value: object, largest: int) -> int:
    """A radius as an int.

    Raises:
        TypeError: it is no integer.
        ValueError: it leaves 1 … largest.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if not 1 <= number <= largest:
        raise ValueError(f"{name} must lie between 1 and {largest}, got {number}")
    return number


def maps(seeds: torch.Tensor, weights: torch.Tensor, radii: tuple[int, ...]) -> None:
    """Check the parameters of the seeds family against the radii and each other."""
    expected = {"seeds": sum(radii) + len(radii), "weights": len(radii) + 1}
    for name, tensor in (("seeds", seeds), ("weights", weights)):
        _tensor(name, tensor)
        if tensor.shape[1] != expected[name]:
            raise ValueError(f"{name} must have {expected[name]} channels for radii {radii}, got {tensor.shape[1]}")
    _same("weights", weights, "seeds", seeds)


def cost_volume(
    image: torch.Tensor,
    target: torch.Tensor,
    bank: torch.Tensor,
    reach: object,
    slack: object,
    cell: object,
    root: object,
    padding: str,
) -> int:
    """Check the arguments of a cost volume; returns the radius."""
    _tensor("image", image)
    _tensor("target", target)
    if target.shape != image.shape:
        raise ValueError(f"target must have the shape of image, {tuple(image.shape)}, got {tuple(target.shape)}")
    number = radius("radius", reach, MAX_ANALYTIC_RADIUS)
    planes = (number + 1) * (number + 2) // 2
    if not isinstance(bank, torch.Tensor):
        raise TypeError(f"bank must be a torch.Tensor, got {type(bank).__name__}")
    if bank.dim() != 2 or bank.shape[1] != planes:
        raise ValueError(f"bank must have shape (K, {planes}) for radius {number}, got {tuple(bank.shape)}")
    for name, tensor in (("target", target), ("bank", bank)):
        if tensor.device != image.device:
            raise ValueError(f"{name} must be on the device of image, {image.device}, got {tensor.device}")
        if tensor.dtype != image.dtype:
            raise TypeError(f"{name} must have the dtype of image, {image.dtype}, got {tensor.dtype}")
    if isinstance(slack, bool) or not isinstance(slack, numbers.Integral) or not 0 <= int(slack) <= MAX_SLACK:
        raise ValueError(f"slack must be an integer from 0 to {MAX_SLACK}, got {slack!r}")
    if isinstance(cell, bool) or not isinstance(cell, numbers.Integral) or int(cell) not in (1, 2):
        raise ValueError(f"cell must be 1 or 2, got {cell!r}")
    if image.shape[2] % cell or image.shape[3] % cell:
        raise ValueError(f"height and width must be multiples of cell, {cell}, got {tuple(image.shape[2:])}")
    if not isinstance(root, bool):
        raise TypeError(f"root must be a bool, got {root!r}")
    _padding(padding, image, number)
    return number


def scalar_map(name: str, value: object, image: torch.Tensor) -> torch.Tensor:
    """One value a pixel, (N, 1, H, W), or one a pixel and channel, (N, C, H, W), from all forms that it may have.

    Args:
        value: a number, (), (N,), (1, 1, H, W), (N, H, W), (N, 1, H, W) or (N, C, H, W). Of a lower floating type than
            the image, it is cast up.

    Raises:
        TypeError, ValueError: it has none of these forms.
    """
    _tensor("image", image)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return (
            torch.full((), float(value), dtype=image.dtype, device=image.device).expand(_map_shape(image)).contiguous()
        )
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a number or a torch.Tensor, got {type(value).__name__}")
    _floating_point(name, value)
    count, channels, height, width = image.shape
    shape = tuple(value.shape)
    if shape in ((), (1,), (count,)):
        value = value.reshape(-1, 1, 1, 1).expand(_map_shape(image))
    elif value.dim() == 3 and shape in ((count, height, width), (1, height, width)):
        value = value[:, None].expand(_map_shape(image))
    elif value.dim() == 4 and shape[1:] == (1, height, width) and shape[0] == 1:
        value = value.expand(_map_shape(image))
    elif value.dim() != 4 or shape[0] != count or shape[1] not in (1, channels) or shape[2:] != (height, width):
        raise ValueError(
            f"{name} must be a number or have shape (N,), (1, 1, H, W), (N, H, W), (N, 1, H, W) or (N, C, H, W) for an "
            f"image {tuple(image.shape)}, got {shape}"
        )
    if value.dtype != image.dtype and torch.promote_types(value.dtype, image.dtype) == image.dtype:
        value = value.to(image.dtype)
    return value.contiguous()


def _map_shape(image: torch.Tensor) -> tuple[int, int, int, int]:
    return (image.shape[0], 1, image.shape[2], image.shape[3])


def in_transform() -> bool:
    """Whether this is called within a transform of `torch.func` or a level of forward mode, as far as a compiler does
    not ask.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether forward mode follows a tensor, or may follow one of `is_grads_batched`; never where a compiler asks."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    while torch._C._functorch.is_batchedtensor(tensor):  # of which `unpack_dual` knows nothing
        tensor = torch._C._functorch.get_unwrapped(tensor)
    if torch._C._functorch.is_legacy_batchedtensor(tensor):  # which cannot be asked
        return True
    return forward_ad.unpack_dual(tensor).tangent is not None


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of those that stand for a batch, in `torch.func.vmap` and in `is_grads_batched`."""
    return torch._C._functorch.is_batchedtensor(tensor) or torch._C._functorch.is_legacy_batchedtensor(tensor)


def in_functional_gradient() -> bool:
    """Whether this is called within `torch.func.grad`, `vjp` or `jacrev`, as far as a compiler does not ask."""
    if torch.compiler.is_compiling() or not torch._C._functorch.maybe_current_level():
        return False
    stack = torch._C._functorch.get_interpreter_stack() or []
    return any(level.key() == torch._C._functorch.TransformType.Grad for level in stack)


def no_functional_gradient(*tensors: torch.Tensor) -> None:
    """Raise RuntimeError under `torch.func.grad`, `vjp` and `jacrev` of any of these tensors, of which the native
    kernels know nothing.
    """
    if in_functional_gradient() and any(_has_functional_gradient(tensor) for tensor in tensors):
        raise RuntimeError(
            "the native kernels have no torch.func.grad, vjp or jacrev: use torch.autograd, or call it within "
            'reblur_ops.use_backend("torch")'
        )


def _has_functional_gradient(tensor: torch.Tensor) -> bool:
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_gradtrackingtensor(tensor) and tensor.requires_grad:
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def parameter_map(name: str, parameter: torch.Tensor, channels: tuple[int, int]) -> None:
    """Check the parameter of another family: a map with that many channels, at least and at most."""
    _tensor(name, parameter)
    least, most = channels
    if not least <= parameter.shape[1] <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        wanted = f"{count} channel" if most == 1 else f"{count} channels"
        raise ValueError(f"{name} must have {wanted}, got {tuple(parameter.shape)}")


def vectors(name: str, values: object, channels: tuple[int, int] | None) -> None:
    """Check the parameters of P pixels: (P,), or (P, C) with that many channels, at least and at most."""
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    _floating_point(name, values)
    if channels is None:
        if values.dim() != 1:
            raise ValueError(f"{name} must have shape (P,), got {tuple(values.shape)}")
    elif values.dim() != 2 or not channels[0] <= values.shape[1] <= channels[1]:
        count = f"{channels[0]}" if channels[0] == channels[1] else f"{channels[0]} to {channels[1]}"
        raise ValueError(f"{name} must have shape (P, C) with C {count}, got {tuple(values.shape)}")


def blur(
    image: torch.Tensor,
    name: str,
    parameters: torch.Tensor,
    radius: int,
    padding: str,
    direction: str,
    normalize_scatter: bool | torch.Tensor,
) -> None:
    """Check the image against the parameters, called `name`, which have been checked, and the common options."""
    _tensor("image", image)
    _same(name, parameters, "image", image)
    choice("direction", direction, DIRECTIONS)
    if not isinstance(normalize_scatter, (bool, torch.Tensor)):
        raise TypeError(f"normalize_scatter must be a bool or a tensor, got {type(normalize_scatter).__name__}")
    normalization(normalize_scatter, direction)
    if isinstance(normalize_scatter, torch.Tensor):
        source_weight(normalize_scatter, image)
    _padding(padding, image, radius)


def normalization(normalize_scatter: object, direction: str) -> None:
    """Check that a gather is not to be normalised, whose kernels are."""
    if normalize_scatter is not False and direction != "scatter":
        raise ValueError(f"normalize_scatter needs direction 'scatter', got {direction!r}")


def source_weight(weight: torch.Tensor, image: torch.Tensor) -> None:
    """Check the weights of the pixels of an image that spread their values."""
    _floating_point("normalize_scatter", weight)
    wanted = (image.shape[0], 1, *image.shape[2:])
    if weight.shape != wanted:
        raise ValueError(f"normalize_scatter must be (N, 1, H, W) like image, {wanted}, got {tuple(weight.shape)}")
    if weight.device != image.device:
        raise ValueError(f"normalize_scatter must be on the device of image, {image.device}, got {weight.device}")


def _padding(padding: str, image: torch.Tensor, radius: int) -> None:
    choice("padding", padding, PADDINGS)
    empty = 0 in (image.shape[0], *image.shape[2:])
    if padding == "reflect" and not empty and min(image.shape[2:]) <= radius:
        raise ValueError(
            f"padding 'reflect' needs an image larger than the largest radius, {radius}, "
            f"in height and width, got {tuple(image.shape[2:])}"
        )
