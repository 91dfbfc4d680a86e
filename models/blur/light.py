"""sRGB values and linear light. A lens adds light, so blur is computed there."""

from typing import Literal, get_args

import torch
from torch import Tensor

Light = Literal["srgb", "linear", "gamma"]
LIGHTS: tuple[Light, ...] = get_args(Light)
GAMMA = 2.2


def to_linear(image: Tensor) -> Tensor:
    """Linear light of sRGB values, both 0 … 1 (IEC 61966-2-1), any shape. Values below 0 are on the linear part."""
    curved = ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4
    return torch.where(image <= 0.04045, image / 12.92, curved)


def to_srgb(light: Tensor) -> Tensor:
    """sRGB values of linear light, the inverse of `to_linear`. Not clipped; gradients are finite everywhere."""
    # The clamp keeps the unused branch's gradient finite at 0.
    curved = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, curved)


def decode(image: Tensor, light: Light = "linear") -> Tensor:
    """The values that are blurred, from sRGB values.

    Args:
        image: any shape, 0 … 1.
        light: "srgb" leaves the values as they are (as published), "linear" is the standard's curve, "gamma" a power
            of 2.2.

    Raises:
        ValueError: an unknown light.
    """
    check_light(light)
    if light == "gamma":
        return image.clamp_min(0) ** GAMMA
    return to_linear(image) if light == "linear" else image


def encode(values: Tensor, light: Light = "linear") -> Tensor:
    """sRGB values of what `decode` gave, blurred. Raises ValueError as `decode`."""
    check_light(light)
    if light == "gamma":
        return values.clamp_min(1e-4) ** (1 / GAMMA)  # at 0 the gradient would be infinite
    return to_srgb(values) if light == "linear" else values


def check_light(light: str) -> None:
    """Raise ValueError unless it is one of LIGHTS."""
    if light not in LIGHTS:
        raise ValueError(f"light must be one of {', '.join(LIGHTS)}, got {light!r}")
