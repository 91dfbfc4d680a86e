"""Which implementation answers: native kernels, pure PyTorch, or the naive reference."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from reblur_ops import checks, library  # noqa: F401  (the schemas must exist before their implementations load)

_C: Any = None
_import_error: ImportError | None = None
try:
    from reblur_ops import _C  # type: ignore[attr-defined, no-redef]
except ImportError as error:
    _import_error = error

_BACKENDS = ("native", "torch", "reference")
_NATIVE_DEVICES: tuple[str, ...] = ()
if _C is not None:
    _NATIVE_DEVICES = ("cpu", "cuda") if "cuda_architectures" in _C.build_info() else ("cpu",)

_forced: str | None = None
_warned = False


def build_info() -> dict[str, Any]:
    """What was compiled: compiler, Torch version, CPU instruction set in use, CUDA architectures. Empty for nothing."""
    return {} if _C is None else dict(_C.build_info())


def backends() -> dict[str, tuple[str, ...]]:
    """The backends that can answer here, each with the device types it runs on; "any" stands for all of Torch's.

    "native" is present only where it was compiled, and preferred where it runs. "torch" is the fallback, "reference"
    the naive definition.
    """
    native = {"native": _NATIVE_DEVICES} if _NATIVE_DEVICES else {}
    return {**native, "torch": ("any",), "reference": ("any",)}


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend within a `with` block, for the whole process.

    A backward pass runs on the backend of its forward pass, wherever it is called.

    Args:
        name: "native", "torch" or "reference".

    Raises:
        ValueError: another name.
        RuntimeError: "native", where nothing was compiled.
    """
    global _forced
    checks.choice("backend", name, _BACKENDS)
    if name == "native" and not _NATIVE_DEVICES:
        raise RuntimeError(f"backend 'native' is not built here: {_import_error}")
    previous, _forced = _forced, name
    try:
        yield
    finally:
        _forced = previous


def select(device: torch.device) -> str:
    """The backend that answers for tensors on a device."""
    # Tensors without data need only shapes, which the native operators give.
    runs_native = device.type in _NATIVE_DEVICES or device.type == "meta"
    if _forced is not None:
        if _forced == "native" and not runs_native:
            raise RuntimeError(f"backend 'native' runs on {', '.join(_NATIVE_DEVICES)}, got tensors on {device}")
        return _forced
    if runs_native:
        return "native"
    if not torch.compiler.is_compiling():
        _warn_once(device)
    return "torch"


def _warn_once(device: torch.device) -> None:
    global _warned
    if not _warned:
        _warned = True
        reason = f"was not loaded ({_import_error})" if _C is None else f"has no kernels for {device.type}"
        warnings.warn(
            f"reblur_ops: the compiled module {reason}; pure PyTorch answers, slower and with more memory",
            RuntimeWarning,
            stacklevel=4,
        )
