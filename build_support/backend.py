"""The build backend: setuptools', which builds against the torch that is installed, or else asks for one.

In an isolated build, the installed torch is that of the environment which the package is built for, as long as the
builder's interpreter belongs to it (pip's does; `python -m build` and uv have an environment of their own, for which
torch is fetched).
"""

import importlib.util
import os
import sys
import sysconfig

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403


def flag(name: str) -> bool:
    """Whether an environment variable is set, to anything but 0."""
    return os.environ.get(name, "0") not in ("", "0")


def find_torch() -> bool:
    """Whether torch can be imported, if need be from behind the isolation, whose own packages go first."""
    if importlib.util.find_spec("torch") is None:
        hidden = [path for path in map(sysconfig.get_path, ("purelib", "platlib")) if path not in sys.path]
        sys.path += dict.fromkeys(hidden)
        importlib.invalidate_caches()
    return importlib.util.find_spec("torch") is not None


def _native_requirements() -> list[str]:
    if flag("REBLUR_OPS_NO_NATIVE"):
        return []
    return ["ninja"] if find_torch() else ["ninja", "torch>=2.10", "numpy"]


def get_requires_for_build_wheel(config_settings=None):
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_native_requirements()]


def get_requires_for_build_editable(config_settings=None):
    return [*build_meta.get_requires_for_build_editable(config_settings), *_native_requirements()]
