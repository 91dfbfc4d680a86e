"""Flows by name, as configurations have them."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Flow, check_choice
from .dis import DisFlow
from .pwc import PWCNet, load_pwcnet
from .raft import RaftFlow
from .reblur import ReblurFlow
from .variational import VariationalFlow


class NoFlow(Flow):
    """No alignment: zero flow, for images that are aligned."""

    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.zeros_like(first[:, :2])


def pwc(weights: Any, channel_order: str = "bgr") -> PWCNet:
    """`load_pwcnet`, with the order of channels that the public weights were trained on."""
    return load_pwcnet(weights, channel_order=channel_order)


FLOWS: dict[str, Callable[..., Flow]] = {
    "dis": DisFlow,
    "variational": VariationalFlow,
    "pwc": pwc,
    "raft": RaftFlow,
    "reblur": ReblurFlow,
    "none": NoFlow,
}


def load_flow(name: str = "dis", **options: Any) -> Flow:
    """A method of optical flow by its name.

    Args:
        name: "dis": OpenCV's DIS, on the CPU, without weights (`DisFlow`). "variational": on any
            device, in batches, without weights (`VariationalFlow`). "pwc": PWC-Net (`PWCNet`), with the option
            `weights`. "raft": torchvision's RAFT, where that is installed (`RaftFlow`). "reblur": DIS refined by
            reblurring, from a blurry to a sharp image (`ReblurFlow`). "none": zero flow.
        options: the arguments of the method.

    Returns:
        `flow(first, second) -> (N, 2, H, W)`, see `Flow`; a module, so `.to(device)` moves what weights it has.

    Raises:
        ValueError: a name or an option that does not exist, or weights that do not fit.
        ModuleNotFoundError: "raft" without torchvision.
    """
    check_choice("flow", name, tuple(FLOWS))
    try:
        inspect.signature(FLOWS[name]).bind(**options)
    except TypeError as error:
        raise ValueError(f'flow "{name}": {error}') from None
    return FLOWS[name](**options)
