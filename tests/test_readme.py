"""The README's snippets run, and its numbers are the measured ones."""

import re
from pathlib import Path

from benchmarks import readme

ROOT = Path(__file__).parents[1]


def test_snippets_run():
    snippets = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 3
    names = {}
    for snippet in snippets:  # one after another, as a reader would
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["blurred"].shape == (1, 3, 256, 256)


def test_table_is_that_of_the_results():
    text = (ROOT / "README.md").read_text()
    assert readme.updated(text) == text, "run `make readme-table`"


def test_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (ROOT / link).exists(), link
