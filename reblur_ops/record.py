"""The record that a build leaves beside the package: what was decided, and from which sources.

The standard library alone: setup.py reads this file before anything else can be imported.
"""

import hashlib
import json
import os
from pathlib import Path

RECORD = "_build.json"


def digest(csrc: Path) -> str:
    """A hash of every source file under a folder, to tell whether two builds are of the same."""
    total = hashlib.sha256()
    for path in sorted(path for path in csrc.rglob("*") if path.is_file()):
        content = path.read_bytes()
        total.update(f"{path.relative_to(csrc).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()[:16]


def write_record(path: Path, decision: str, sources: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({"decision": decision, "sources": sources}) + "\n")
    unfinished.replace(path)


def read_record(path: Path) -> dict[str, str]:
    """The record's "decision" and "sources"; empty where there is none that can be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):  # an import does not fail for want of a note on the build
        return {}
    return record if isinstance(record, dict) else {}
