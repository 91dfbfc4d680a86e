"""The framework of arXiv 2409.17792, and tasks that use it: `reblur --help`, or `python -m models --help`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints.load import load_framework
    from .framework import Framework

__all__ = ["Framework", "load_framework"]

# Imported when they are asked for: `reblur --help` has no use for torch.
_MODULES = {"Framework": "framework", "load_framework": "checkpoints.load"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
