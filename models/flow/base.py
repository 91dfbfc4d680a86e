"""The interface that every method of optical flow has."""

import abc

import torch
from torch import Tensor, nn


class Flow(nn.Module, abc.ABC):
    """Optical flow between two images: `flow(first, second)`.

    A method defines `estimate`. What all have in common is here: arguments are checked, nothing is recorded for
    gradients, and autocast is off, as displacements of many pixels need more digits than its types have.
    """

    def __init__(self) -> None:  # nn.Module's own would take any argument
        super().__init__()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Find each pixel of `first` in `second`.

        Args:
            first, second: (N, 3, H, W), RGB from 0 to 1, floating point, on one device. Any size.

        Returns:
            (N, 2, H, W), pixels, on the images' device, float32, without gradients: channel 0 the displacement to the
            right, channel 1 down, so that `warp(second, flow)` matches `first`.

        Raises:
            TypeError: an argument that is no tensor, or is not floating point.
            ValueError: shapes or devices that do not fit.
        """
        check_pair(first, second)
        if first.numel() == 0:
            return first.new_zeros((first.shape[0], 2, *first.shape[2:]), dtype=torch.float32)
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            return self.estimate(first.float(), second.float())

    @abc.abstractmethod
    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow of images that have been checked, (N, 3, H, W), float32, not empty."""

    # What the checker of types makes of a call.
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        return super().__call__(first, second)


def check_pair(first: Tensor, second: Tensor) -> None:
    """Refuse what is not a pair of images."""
    for name, image in (("first", first), ("second", second)):
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(image).__name__}")
        if not image.is_floating_point():
            raise TypeError(f"{name} must be floating point, from 0 to 1, got {image.dtype}")
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"{name} must be (N, 3, H, W), got {tuple(image.shape)}")
    if first.shape != second.shape:
        raise ValueError(f"first and second must be of one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    if first.device != second.device:
        raise ValueError(f"first and second must be on one device, got {first.device} and {second.device}")


def check_flow(name: str, flow: Tensor) -> None:
    """Refuse what is not a flow."""
    if not isinstance(flow, Tensor) or not flow.is_floating_point():
        arrived = flow.dtype if isinstance(flow, Tensor) else type(flow).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {arrived}")
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f"{name} must be (N, 2, H, W), got {tuple(flow.shape)}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
