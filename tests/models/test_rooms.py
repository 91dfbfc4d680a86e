"""Which room of the house may use which: read from the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# No tasks: what the command lines have in common.
SHARED = {"models.tasks.arguments", "models.tasks.framework_arguments"}


def imported(path):
    """The modules of this project that a file imports, by their full names; a name taken from a package counts, too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def importers(folder, prefix):
    """Which files of a folder import a module that begins so, and which."""
    return {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(path)
        if name == prefix or name.startswith(f"{prefix}.")
    }


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "models/tasks").mkdir(parents=True)
    (tmp_path / "models/tasks/a.py").write_text("import models.x\nfrom . import b\nfrom ..flow.dis import c\n")
    found = set(imported(tmp_path / "models/tasks/a.py"))
    assert found == {"models.x", "models.tasks", "models.tasks.b", "models.flow.dis", "models.flow.dis.c"}


def test_a_task_imports_no_task():
    tasks = {f"models.tasks.{path.stem}" for path in (ROOT / "models/tasks").glob("[!_]*.py")} - SHARED
    assert not [line for task in tasks for line in importers("models/tasks", task)]


def test_what_tasks_share_does_not_know_them():
    folders = [path.name for path in (ROOT / "models").iterdir() if path.is_dir() and path.name != "tasks"]
    assert not [line for folder in folders for line in importers(f"models/{folder}", "models.tasks")]


@pytest.mark.parametrize(
    ("folder", "other"),
    [("reblur_ops", "models"), ("models", "tests"), ("benchmarks", "tests"), ("emulation", "tests")],
)
def test_one_package_does_not_import_the_other(folder, other):
    assert not importers(folder, other)


def test_ground_floor_stands_on_nothing():
    floors = [path.name for path in (ROOT / "models").iterdir() if path.is_dir() and path.name not in ("core", "tasks")]
    assert not [line for room in floors for line in importers("models/core", f"models.{room}")]
