"""Reading weights from files that may come from anyone."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def read_state(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict from a file of `torch.save`, or as it is. Nothing in the file is ever executed.

    Raises:
        FileNotFoundError, PermissionError, …: the file cannot be opened.
        ValueError: it is not a file of tensors that can be read without running code, or not a dict of tensors.
    """
    name = "the state" if isinstance(source, Mapping) else str(source)
    state: object = source
    if not isinstance(source, Mapping):
        with open(source, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the reader doubts about a file; it is read or it is refused
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # bytes that are no checkpoint fail in any way
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                raise ValueError(f"{name} is no checkpoint that can be read without running code: {reason}") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{name} must hold a dict of tensors, got {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{name} must hold a dict of names and tensors, got {type(value).__name__} for {key!r}")
    return dict(state)
