"""A hook of MkDocs: files of the repository that the pages link to become part of the site.

A page links to a file outside docs/ as it is found from the page, `../../examples/bokeh.py`, so the link also works
where the repository is browsed. The hook puts the file at `repository/examples/bokeh.py` and writes the link anew.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((?P<path>\.\./[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def outside(page: str, link: str) -> str | None:
    """The path within the repository of a file that a page of docs/ links to; None where it lies in docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") else path


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the files outside docs/ that pages link to."""
    for page in list(files.documentation_pages()):
        for match in LINK.finditer(page.content_string):
            path = outside(page.src_uri, match["path"])
            if path is not None and not (ROOT / path).is_file():
                raise PluginError(f"{page.src_uri} links to {path}, which does not exist")
            if path is not None and not files.get_file_from_path(f"repository/{path}"):
                files.append(File.generated(config, f"repository/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the links anew."""

    def anew(match: re.Match[str]) -> str:
        path = outside(page.file.src_uri, match["path"])
        if path is None:
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return f"]({posixpath.relpath(f'repository/{path}', here)}{match['anchor'] or ''})"

    return LINK.sub(anew, markdown)
