"""The compiled module: where it is, and why it is not there."""

import importlib
import importlib.util
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import torch

from reblur_ops import library  # noqa: F401  (the schemas must exist before their implementations load)
from reblur_ops.record import RECORD, digest, read_record

_PACKAGE = Path(__file__).parent
_SOURCES = _PACKAGE.parent / "csrc"  # in a source checkout


def load() -> tuple[ModuleType | None, str]:
    """The compiled module, or None; and why there is none, else "".

    A source checkout in which nothing was compiled takes the module of an installation of the same sources.
    """
    # Of this package alone: a finder of an editable installation would lend the module of another checkout.
    if PathFinder.find_spec("reblur_ops._C", [str(_PACKAGE)]) is not None:
        try:
            return importlib.import_module("reblur_ops._C"), ""
        except ImportError as error:
            needs = f"; it needs torch >= 2.10, this is {torch.__version__}" if "undefined symbol" in str(error) else ""
            return None, f"{error}{needs}"
    if not _SOURCES.is_dir():
        decision = read_record(_PACKAGE / RECORD).get("decision", "")
        return None, decision if decision.startswith("nothing") else "it is missing from the installation"
    return _load_installed()


def build_record() -> dict[str, str]:
    """The decisions of the build of the module in use, and a hash of its sources; empty where none is known."""
    module, _ = _loaded
    return read_record((Path(str(module.__file__)).parent if module else _PACKAGE) / RECORD)


def is_stale() -> bool:
    """Whether the module in use was compiled from other sources than those of this checkout."""
    compiled_from = build_record().get("sources")
    return compiled_from is not None and _SOURCES.is_dir() and compiled_from != digest(_SOURCES)


def _load_installed() -> tuple[ModuleType | None, str]:
    reason = "nothing was compiled in this source checkout; run `make build`"
    for distribution in metadata.distributions(name="reblur-ops"):
        package = Path(str(distribution.locate_file("reblur_ops")))
        compiled = next(iter(package.glob("_C.*")), None) if package.resolve() != _PACKAGE.resolve() else None
        if compiled is None:
            continue
        if read_record(package / RECORD).get("sources") != digest(_SOURCES):
            reason += f", as the module in {package} is of other sources"
            continue
        return _load_from(compiled), ""
    return None, reason


def _load_from(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("reblur_ops._C", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_loaded = load()
MODULE, REASON = _loaded
