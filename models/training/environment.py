"""The environment in which a run was started."""

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import reblur_ops

from .processes import Processes


def environment(step: int, processes: Processes, notices: Sequence[str]) -> dict[str, Any]:
    """A line of environment.jsonl, for a start after so many steps."""
    device = processes.device
    return {
        "step": step,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [Path(sys.executable).name, *sys.argv],
        "git_commit": git_commit(Path(__file__).parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "reblur_ops": reblur_ops.__version__,
        "backends": {name: list(devices) for name, devices in reblur_ops.backends().items()},
        "backend": reblur_ops.explain_backend(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes.count,
        "notices": list(notices),
    }


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out, with + if files differ from it; None outside of a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
