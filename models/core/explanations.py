"""Explain the fields of a configuration beside their values in YAML, in the words of its source."""

import ast
import dataclasses
import inspect
import re
import textwrap
from typing import Any

import yaml

BEHIND = re.compile(r".*\s#\s(?P<text>.+)$")
ABOVE = re.compile(r"\s*#\s(?P<text>.+)$")
WIDTH = 110


def explained_yaml(config: Any) -> str:
    """A configuration as YAML, where each field has its explanation, behind it or above it."""
    return "".join(f"{line}\n" for line in _lines(config))


def explanations(cls: type) -> dict[str, str]:
    """The fields of a dataclass that its source explains: in its docstring's Attributes, or in comments."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    body = ast.parse("\n".join(lines)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = comment(lines, node.lineno - 1, (node.end_lineno or node.lineno) - 1)
            if text:
                found[node.target.id] = text
    return found | _attributes(inspect.getdoc(cls) or "")


def comment(lines: list[str], first: int, last: int) -> str:
    """The comment above and behind the lines from `first` to `last`, counted from 0."""
    above: list[str] = []
    while first and (match := ABOVE.match(lines[first - 1])):
        first -= 1
        above.insert(0, match["text"])
    if behind := BEHIND.match(lines[last]):
        text = behind["text"]
        above.append(text[0].upper() + text[1:] if above else text)
    return " ".join(above)


def _attributes(docstring: str) -> dict[str, str]:
    """The entries of the section Attributes."""
    _, _, section = docstring.partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", section.split("\n\n")[0], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _lines(config: Any) -> list[str]:
    texts = explanations(type(config))
    lines: list[str] = []
    for field in dataclasses.fields(config):
        value, text = getattr(config, field.name), texts.get(field.name, "")
        if dataclasses.is_dataclass(value):
            nested = [f"  {line}" for line in _lines(value)]
            lines += [*_wrapped(text), f"{field.name}:", *nested]
            continue
        line = f"{field.name}: {_scalar(value)}"
        if len(line) + len(text) + 4 <= WIDTH:
            lines.append(f"{line}  # {text}" if text else line)
        else:
            lines += [*_wrapped(text), line]
    return lines


def _scalar(value: Any) -> str:
    """A value that is no dataclass, on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - 8, initial_indent="# ", subsequent_indent="# ")
