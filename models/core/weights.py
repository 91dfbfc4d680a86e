"""Weights in files: read without running anything, and put into a module only if all of them fit."""

import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .errors import UserError
from .files import replacing


class WeightsError(UserError):
    """A file or a state that does not hold the weights that it should. The message says what is wrong."""


def read_torch(path: str | os.PathLike[str]) -> Any:
    """Read a file of `torch.save`, on the CPU: tensors, numbers, texts and containers of them alone.

    Raises:
        WeightsError: the file is missing, truncated, of another kind, or would run code; none of it has run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what matters is whether it can be read
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        # Torch's own message advises to load it all the same.
        asked_for = re.search(r"GLOBAL (\S+)", str(error))
        if asked_for:
            reason = f"it asks to run {asked_for[1]}, which was not done"
        else:
            reason = "it is truncated, of another kind, or would run code, which was not done"
        raise WeightsError(f"{path} must hold tensors, numbers, texts and containers of them: {reason}") from error


def read_state(source: str | os.PathLike[str] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name, from a file of `torch.save`, or as they are.

    Raises:
        WeightsError: as `read_torch`; or it holds anything else.
    """
    if isinstance(source, Mapping):
        name, state = "the state", source
    else:
        name, state = str(source), read_torch(source)
    if not isinstance(state, Mapping):
        raise WeightsError(f"{name} must hold a dict of tensors, got {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{name} must hold a dict of names and tensors, got {type(value).__name__} for {key!r}")
    return dict(state)


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        WeightsError: the file is missing, truncated or of another kind.
    """
    try:
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is not a complete safetensors file: {error}") from error


def write_safetensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors, in whatever memory format they are. The file appears whole or not at all."""
    # Cloned, as safetensors refuses tensors that share memory.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    with replacing(path) as file:
        file.write(safetensors.torch.save(tensors))


def load_exactly(
    module: nn.Module, state: Mapping[str, Tensor], source: str, name_in_state: Callable[[str], str] | None = None
) -> None:
    """Copy a state into a module if names and shapes agree, all of them; else change nothing.

    Args:
        module: changed in place.
        state: tensors by name.
        source: what the state is called in the error.
        name_in_state: what the state calls a tensor, from its name in the module; the same if None.

    Raises:
        WeightsError: names every tensor that is missing, not known, or of another shape, as the state calls it.
    """
    names = check_exactly(module, state, source, name_in_state)
    module.load_state_dict({names[name]: tensor for name, tensor in state.items()})


def check_exactly(
    module: nn.Module, state: Mapping[str, Tensor], source: str, name_in_state: Callable[[str], str] | None = None
) -> dict[str, str]:
    """Check that the names and shapes of a state are those of a module, which may be on the device "meta".

    Args: as for `load_exactly`.

    Returns:
        The module's name of each tensor of the state.

    Raises:
        WeightsError: as `load_exactly`.
    """
    own = module.state_dict()
    names = {name_in_state(name) if name_in_state else name: name for name in own}
    shapes = {name: (tuple(own[names[name]].shape), tuple(state[name].shape)) for name in names if name in state}
    differences = [
        *(f"missing: {name} {tuple(own[names[name]].shape)}" for name in names if name not in state),
        *(f"unknown: {name} {tuple(state[name].shape)}" for name in state if name not in names),
        *(f"shape of {name}: {needed} needed, got {got}" for name, (needed, got) in shapes.items() if needed != got),
    ]
    if differences:
        count = "1 tensor differs" if len(differences) == 1 else f"{len(differences)} tensors differ"
        raise WeightsError(f"{source} does not fit {type(module).__name__}, {count}:\n  " + "\n  ".join(differences))
    return names
