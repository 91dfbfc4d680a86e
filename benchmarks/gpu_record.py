"""The measurements of one GPU: rows that are kept as they come, and the page that shows them."""

import datetime
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import counts, harness

ROOT = Path(__file__).parents[1]


class Planned(NamedTuple):
    """A row before it is measured."""

    op: str
    impl: str
    pass_: str
    dtype: torch.dtype
    shape: counts.Shape

    @property
    def checked(self) -> str:
        """The name of the check of its results, which passes and sizes share."""
        return f"{self.op} {self.impl} {str(self.dtype).removeprefix('torch.')}"


class Record:
    """The record of one device, written after each addition: <folder>/<device>.json and .md.

    A record of the same sources, device and versions is continued; any other is begun anew. Rows that failed are kept
    as well, so that one that takes the device down does so once.
    """

    def __init__(self, fingerprint: dict[str, Any], folder: Path):
        self.path = folder / re.sub(r"[^a-z0-9]+", "-", fingerprint["device"].lower()).strip("-")
        self.content: dict[str, Any] = {**fingerprint, "errors": {}, "rows": []}
        found = self.path.with_suffix(".json")
        if found.exists():
            earlier = json.loads(found.read_text())
            if all(earlier.get(key) == value for key, value in fingerprint.items()):
                self.content = earlier

    @classmethod
    def this_device(cls, folder: Path) -> "Record":
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            {
                "device": torch.cuda.get_device_name(),
                "driver": driver(),
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "csrc_sha256": sources_sha256(),
            },
            folder,
        )

    @property
    def errors(self) -> dict[str, float | str]:
        """By check: the error, or why there is none."""
        errors: dict[str, float | str] = self.content["errors"]
        return errors

    def has(self, planned: Planned) -> bool:
        dtype, shape = str(planned.dtype).removeprefix("torch."), list(planned.shape)
        wanted = (planned.op, planned.impl, planned.pass_, dtype, shape)
        return any(wanted == tuple(row[k] for k in ("op", "impl", "pass", "dtype", "shape")) for row in self.rows)

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.content["rows"]
        return rows

    def bandwidth(self, measure: Callable[[], float]) -> float:
        """GB/s of a copy, measured once a record, so that all its rows have the same floor."""
        if "copy_bandwidth_gbps" not in self.content:
            self.content["copy_bandwidth_gbps"] = measure()
        return float(self.content["copy_bandwidth_gbps"])

    def add_error(self, check: str, error: float | str) -> None:
        self.errors[check] = error
        self.write()

    def add_row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Write both files, each at once, so that an interruption leaves the earlier one."""
        self.content["date"] = datetime.date.today().isoformat()
        for suffix, text in ((".json", json.dumps(self.content, indent=1) + "\n"), (".md", page(self.content))):
            partial = self.path.with_suffix(f"{suffix}.partial")
            partial.write_text(text)
            partial.replace(self.path.with_suffix(suffix))


def sources_sha256() -> str:
    """SHA-256 of the bytes of all files tracked under csrc/, one after another, by path in the C locale.

    Where there is no git, of all files there, which is the same in a clean checkout.
    """
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "csrc"], cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / path.decode() for path in sorted(listed.split(b"\0")[:-1])]
    except (OSError, subprocess.CalledProcessError):
        paths = sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def page(record: dict[str, Any]) -> str:
    """The page of a device."""
    heads = ("operator", "size", "dtype", "pass", "implementation", "ms (20 / 50 / 80 %):", "× floor:")
    cells = []
    for row in record["rows"]:
        head = [row["op"], harness.size(row["shape"]), row["dtype"], row["pass"], row["impl"]]
        if "error" in row:
            cells.append([*head, row["error"]])
            continue
        times = harness.spread(row[key] for key in ("ms_p20", "ms_p50", "ms_p80"))
        cells.append([*head, times, f"{row['ms_p50'] / row['floor_ms']:.2f}", f"{row['peak_extra_mb']:.0f}"])
    return (
        f"# reblur_ops on {record['device']}\n\n"
        f"Driver {record['driver']}, torch {record['torch']}, CUDA {record['cuda']}, {record['date']}. Radii 1 … 7. "
        f"A copy moves {record['copy_bandwidth_gbps']:.0f} GB/s. The floor is the time to move inputs and results at "
        f"that rate. The torch backend copies small tables to the device in each call: its times "
        f"include that wait.\n\n{harness.markdown((*heads, 'extra memory, MB:'), cells)}\n"
    )
