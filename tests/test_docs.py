"""The README and docs/: snippets run, commands are understood, links lead somewhere, numbers are the measured ones."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import tables
from models.__main__ import parse
from models.synthesis.settings import Settings
from models.training.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"^(<!-- not run: .+ -->\n)?```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
TASK = re.compile(r"^(?:reblur|python -m models|torchrun .* -m reblur_models) (.*)")


def name(page):
    return str(page.relative_to(ROOT))


def snippets(page):
    """The snippets that run, with the name of the package in a checkout."""
    found = SNIPPET.findall(page.read_text())
    return [code.replace("reblur_models", "models") for not_run, code in found if not not_run]


def commands(page):
    return [line for block in SHELL.findall(page.read_text()) for line in block.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=name)
def test_snippets_run(page):
    names = {"__name__": "snippets"}
    for snippet in snippets(page):  # one after another, as a reader would
        exec(compile(snippet, name(page), "exec"), names)


def test_the_pages_have_snippets():
    assert {name(page) for page in PAGES if snippets(page)} >= {"README.md", "docs/guides/operators.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_commands_are_understood(page):
    """Tasks accept their arguments, configurations their values, and make has the targets."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands(page):
        words = shlex.split(command, comments=True)
        if task := TASK.match(command):
            arguments = parse(shlex.split(task[1], comments=True))
            if arguments.task == "train" and not arguments.config.endswith(".yaml"):
                config = load_config(arguments.config, arguments.overrides)
                if "sdd:data/synthetic" in config.data.train:
                    assert config.data.crop <= Settings().patch, "what synthesize writes is smaller"
        elif words and words[0] == "make":
            assert words[1] in targets, command


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_those_of_the_results(page):
    text = (ROOT / page).read_text()
    assert tables.updated(page, text) == text, "run `make tables`"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: make docs")
def test_the_site_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    reference = (tmp_path / "reference" / "operators.html").read_text()
    assert 'id="reblur_ops.gaussian_blur"' in reference
    assert "standard deviation in pixels" in reference
    assert (tmp_path / "repository" / "examples" / "bokeh.py").exists()
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert not [page for page in pages if re.search(r"""<(script|link)[^>]*(src|href)=["']?https?:""", page)]
