"""Which implementation answers: native kernels, pure PyTorch, or the naive reference."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import forward_ad

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


def select(*tensors: torch.Tensor) -> str:
    """The backend that answers for tensors on one device."""
    device = tensors[0].device
    # Tensors without data need only shapes, which the native operators give.
    runs_native = device.type in _NATIVE_DEVICES or device.type == "meta"
    if _forced is not None:
        if _forced == "native" and not runs_native:
            raise RuntimeError(f"backend 'native' runs on {', '.join(_NATIVE_DEVICES)}, got tensors on {device}")
        if _forced != "native":
            return _forced
    if torch.compiler.is_compiling():
        return "native" if runs_native else "torch"
    if not runs_native:
        _warn_once(device)
        return "torch"
    # An operator of a library has no forward-mode derivative, and would drop the tangent without a word.
    return "torch" if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors) else "native"


def _warn_once(device: torch.device) -> None:
    global _warned
    if not _warned:
        _warned = True
        reason = f"was not loaded ({_import_error})" if _C is None else f"has no kernels for {device.type}"
        warnings.warn(
            f"reblur_ops: the compiled module {reason}; pure PyTorch answers, slower and with more memory",
            RuntimeWarning,
            stacklevel=_frames_here(),
        )


def _frames_here() -> int:
    """How far up the stack, seen from this function's caller, the first frame outside this package is."""
    level, frame = 0, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("reblur_ops"):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level + 1
