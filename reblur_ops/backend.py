"""The choice of the implementation that answers: native kernels, pure PyTorch, or the naive reference."""

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.autograd import forward_ad

from reblur_ops import checks, native

_BACKENDS = ("native", "torch", "reference")


def build_info() -> dict[str, str]:
    """The build of the compiled module; empty where there is none.

    Keys: "compiler", "torch" (the version compiled with; any from 2.10 on runs it), "cpu_capability" (the instruction
    set in use), "cuda_architectures" ("" where CUDA was not compiled), "decision" (what was compiled and why).
    """
    if native.MODULE is None:
        return {}
    decision = native.build_record().get("decision", "unknown")
    return {**native.MODULE.build_info(), "decision": decision}


class Architecture(NamedTuple):
    """One of a build.

    Attributes:
        version: the compute capability.
        specific: whether its code runs on that alone ("9.0a").
        has_ptx: whether there is PTX, too.
    """

    version: tuple[int, int]
    specific: bool
    has_ptx: bool


def parse_architectures(names: str) -> tuple[Architecture | None, ...]:
    """Architectures as in TORCH_CUDA_ARCH_LIST, such as "7.5;9.0a;12.0+PTX"; None for a name ("Ampere")."""
    parsed = (re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", name) for name in names.replace(" ", ";").split(";"))
    return tuple(
        None if found is None else Architecture((int(found[1]), int(found[2])), found[3] == "a", found[4] is not None)
        for found in parsed
    )


_ARCHITECTURES = build_info().get("cuda_architectures", "")
_PARSED = parse_architectures(_ARCHITECTURES)  # once, as torch.compile of Torch 2.11 cannot follow the parsing
_NATIVE_DEVICES: tuple[str, ...] = ()
if native.MODULE is not None:
    _NATIVE_DEVICES = ("cpu", "cuda") if _ARCHITECTURES else ("cpu",)

_forced: str | None = None
_entered: list[list[str]] = []  # the blocks of `use_backend`; lists, so that two of one name differ
_warned = False
_holds_code: dict[tuple[int, int], bool] = {}


def backends() -> dict[str, tuple[str, ...]]:
    """The backends that can answer here, each with the device types it runs on; "any" stands for all of Torch's.

    "native" is present only where it was compiled, and preferred where it runs. "torch" is the fallback, "reference"
    the naive definition.
    """
    compiled = {"native": _NATIVE_DEVICES} if _NATIVE_DEVICES else {}
    return {**compiled, "torch": ("any",), "reference": ("any",)}


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend within a `with` block, for the whole process.

    Of blocks that are open at one time, in one thread or several, the one entered last counts. A backward pass runs on
    the backend of its forward pass, wherever it is called.

    Args:
        name: "native", "torch" or "reference".

    Raises:
        ValueError: another name.
        RuntimeError: "native", where nothing was compiled.
    """
    global _forced
    checks.choice("backend", name, _BACKENDS)
    if name == "native" and not _NATIVE_DEVICES:
        raise RuntimeError(f"backend 'native' is not built here: {native.REASON}")
    block = [name]
    _entered.append(block)
    _forced = name
    try:
        yield
    finally:  # other threads may have entered or left since
        _entered[:] = [other for other in _entered if other is not block]
        _forced = _entered[-1][0] if _entered else None


def select(*tensors: torch.Tensor) -> str:
    """The backend that answers for tensors on one device."""
    device = tensors[0].device
    # Tensors without data need only shapes, which the native operators give.
    runs_native = device.type == "meta" or not _obstacle(device)
    if _forced is not None:
        if _forced == "native" and not runs_native:
            raise RuntimeError(f"backend 'native' cannot answer on {device}: {_obstacle(device)}")
        if _forced != "native":
            return _forced
    if torch.compiler.is_compiling():  # which cannot look at a tensor's tangent
        return "native" if runs_native and forward_ad._current_level < 0 else "torch"
    if not runs_native:
        _warn_once(device)
        return "torch"
    # An operator of a library has no forward-mode derivative, and would drop the tangent without a word.
    return "torch" if any(checks.has_tangent(tensor) for tensor in tensors) else "native"


def explain_backend(device: torch.device | str = "cpu") -> str:
    """The backend that answers for tensors on a device, and why, in one line."""
    device = torch.device(device)
    if _forced is not None:
        return f"{_forced} (chosen by use_backend)"
    if device.type == "meta":
        return "native (shapes alone)"
    obstacle = _obstacle(device)
    if obstacle:
        return f"torch, slower and with more memory ({obstacle})"
    built = f"CUDA {_ARCHITECTURES}" if device.type == "cuda" else build_info()["cpu_capability"]
    return f"native ({built})"


def _obstacle(device: torch.device) -> str:
    """Why the native backend cannot answer on a device; "" where it can."""
    if native.MODULE is None:
        return f"the compiled module was not loaded: {native.REASON}"
    if device.type not in _NATIVE_DEVICES:
        return f"the compiled module has no kernels for {device.type}"
    return _cuda_obstacle(device) if device.type == "cuda" else ""


def _cuda_obstacle(device: torch.device) -> str:
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    if capability not in _holds_code:
        _holds_code[capability] = holds_code_for(capability, _PARSED)
    if _holds_code[capability]:
        return ""
    return f"the compiled module has no code for {properties.name}, sm_{properties.major}{properties.minor}"


def holds_code_for(capability: tuple[int, int], architectures: Sequence[Architecture | None]) -> bool:
    """Whether a build runs on a GPU of a compute capability.

    Machine code runs on its major version from its minor on, or on its own version alone; PTX is compiled for every GPU
    that is as new. One that is not known is taken to fit.
    """
    for architecture in architectures:
        if architecture is None:
            return True
        version, specific, has_ptx = architecture
        if version == capability or (has_ptx and not specific and version < capability):
            return True
        if not specific and version[0] == capability[0] and version[1] < capability[1]:
            return True
    return False


def _warn_once(device: torch.device) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"reblur_ops: {_obstacle(device)}; pure PyTorch answers, slower and with more memory",
            RuntimeWarning,
            stacklevel=frames_here(),
        )


def frames_here() -> int:
    """The distance up the stack from this function's caller to the first frame outside this package.

    The frames by which PyTorch calls a module belong to the module.
    """
    level, frame = 0, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("reblur_ops", "torch.nn.modules")):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    return level + 1
