"""Checks of images for networks and searches, padding, and cosines."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGE_CHANNELS = 3


def check_image(name: str, tensor: Tensor, channels: int) -> None:
    """Raise ValueError unless (N, channels, H, W) with N, H, W >= 1, or TypeError unless a floating-point tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dim() != 4 or tensor.shape[1] != channels or 0 in tensor.shape:
        raise ValueError(
            f"{name} must have shape (N, {channels}, H, W) with N, H and W at least 1, got {tuple(tensor.shape)}"
        )
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}")


def check_same_size(name: str, tensor: Tensor, like_name: str, like: Tensor) -> None:
    """Raise ValueError unless batch, height and width agree."""
    if tensor.shape[0] != like.shape[0] or tensor.shape[2:] != like.shape[2:]:
        raise ValueError(
            f"{name} must have the batch, height and width of {like_name}, "
            f"{(like.shape[0], *like.shape[2:])}, got {(tensor.shape[0], *tensor.shape[2:])}"
        )


def check_integer(name: str, value: object, least: int = 1) -> None:
    """Raise ValueError unless the value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """(N, C, H, W) enlarged to the right and below to multiples of `multiple`, by repeating the edge.

    Repeated, not mirrored or black: it fits an image of one pixel, and makes no edge that a network would see.
    """
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not torch.compiler.is_exporting() and not below and not right:  # an exported graph pads images of any size
        return image
    return F.pad(image, (0, right, 0, below), mode="replicate")


def cosine_basis(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(size, size), the orthonormal cosine transform (DCT-II): rows are frequencies, the constant one first."""
    place, frequency = torch.arange(size, dtype=dtype) + 0.5, torch.arange(size, dtype=dtype)[:, None]
    basis = torch.cos(math.pi / size * frequency * place) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis
