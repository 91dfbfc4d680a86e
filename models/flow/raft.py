"""RAFT, as torchvision has it. torchvision is no dependency: it is imported when this flow is asked for."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.weights import load_exactly, read_state
from .base import Flow, check_choice

MODELS = ("large", "small")
MULTIPLE = 8  # sizes that the network takes
SMALLEST = 128


class RaftFlow(Flow):
    """RAFT (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020).

    Images are enlarged to multiples of 8, at least 128, by repeating their edge, and the flow is cropped.

    Args:
        model: "large" or "small".
        weights: a file with a state dict of torchvision's model. None takes torchvision's default weights, which it
            downloads when they are not in its cache yet.
        updates: recurrent refinements.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
        ValueError: an unknown model, or weights that cannot be read or do not fit.
    """

    def __init__(self, model: str = "large", weights: str | Path | None = None, updates: int = 12) -> None:
        super().__init__()
        check_choice("model", model, MODELS)
        if updates < 1:
            raise ValueError(f"updates must be at least 1, got {updates}")
        try:
            library: Any = importlib.import_module("torchvision.models.optical_flow")
        except ImportError as error:
            raise ModuleNotFoundError(
                f'flow "raft" needs a torchvision that fits torch {torch.__version__}: {error}'
            ) from error
        self.network = getattr(library, f"raft_{model}")(weights="DEFAULT" if weights is None else None, progress=True)
        if weights is not None:
            load_exactly(self.network, read_state(weights), str(weights))
        self.updates = updates
        self.eval().requires_grad_(False)

    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[2:]
        bottom, right = (max(SMALLEST, -(-size // MULTIPLE) * MULTIPLE) - size for size in (height, width))
        pair = [F.pad(2 * image - 1, (0, right, 0, bottom), mode="replicate") for image in (first, second)]
        flows: list[Tensor] = self.network(*pair, num_flow_updates=self.updates)
        return flows[-1][:, :, :height, :width]
