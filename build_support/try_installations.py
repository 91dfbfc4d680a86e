"""Install in clean environments, in every way that is promised, and run what was installed from another folder.

    python build_support/try_installations.py                                                 all of ROWS, slow
    python build_support/try_installations.py --way wheel --python python3.12 --torch torch   one

Each gets a virtual environment of its own, in which torch is installed first. What passed is written into
docs/installations.md, row by row.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "installations.md"
HEAD = """# Tried installations

`make installations` makes a clean environment for each row, installs that torch and then the package with `pip`,
isolated builds included, and runs from another folder: `python -m reblur_ops --check` (native forward and backward,
both directions, against the definition) and, where the row says so, `reblur deblur` on a photograph. The wheel is the
same file in all rows, built from the source distribution. "CUDA" compiles for one architecture, links and imports; no
GPU was there to run it.

For aarch64, `make try-aarch64` cross-compiles with GCC 12 and runs the same check under qemu-user: passed on
2026-11-25, Python 3.11, torch 2.10.0. `make wheels` on Debian 12 gives `manylinux_2_34_x86_64`; the workflow builds
where glibc is older, as torch itself is built, for `manylinux_2_28`.

The tests of the operators (`tests/reblur_ops`) run with warnings as errors, and with the same compiled module for
every torch. All pass under torch 2.13.0 on Python 3.11. Under torch 2.10.0 on Python 3.10, 2 of 1108 fail: the
profiler warns of itself, and a test looks at saved tensors, which that version frees. Under torch 2.14.1 on Python
3.11, 15 fail: 11 because torch warns of its own code where it checks operators and forward mode, and 4 in half
precision. Those 4 probably come from `clamp`, which the reference uses and whose derivative exactly at its bounds
seems to have changed; this was not tested.

| way | Python | torch | outcome | date |
|---|---|---|---|---|
"""


class Row(NamedTuple):
    """One environment: how the package gets into it, and the versions there."""

    way: str  # of WAYS
    python: str
    torch: str  # a requirement


class Environment:
    """A virtual environment and an empty folder to run in."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        self.bin = folder / "venv" / "bin"
        self.torch = row.torch
        interpreter = shutil.which(row.python)
        if interpreter is None:
            raise FileNotFoundError(f"there is no {row.python} on the PATH")
        run([interpreter, "-m", "venv", str(folder / "venv")])
        if row.torch:
            self.pip("install", row.torch, "numpy")

    def pip(self, *arguments: str, **environment: str) -> None:
        run([str(self.bin / "python"), "-m", "pip", *arguments[:1], "-q", *arguments[1:]], self.folder, **environment)

    def output(self, *command: str) -> str:
        return run([str(self.bin / command[0]), *command[1:]], self.folder)


def run(command: list[str], folder: Path = ROOT, **environment: str) -> str:
    print("$", *command, flush=True)
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout[-3000:]}{result.stderr[-3000:]}")
    return result.stdout


def built(pattern: str) -> str:
    """The one distribution in dist/ that fits; `make packages` makes them."""
    found = sorted((ROOT / "dist").glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"dist/ holds {len(found)} of {pattern}, not one; run `make packages`")
    return str(found[0])


def from_checkout(environment: Environment) -> None:
    environment.pip("install", str(ROOT), FORCE_CPU="1")


def from_git(environment: Environment) -> None:
    environment.pip("install", f"git+file://{ROOT}", FORCE_CPU="1")


def by_uv(environment: Environment) -> None:
    """An environment of uv's own builds, with the torch that is here."""
    environment.pip("install", "uv")
    constraints = environment.folder / "constraints.txt"
    constraints.write_text(environment.torch + "\n")
    python = environment.bin / "python"
    options = ["--python", str(python), "--build-constraints", str(constraints)]
    run([str(environment.bin / "uv"), "pip", "install", "-q", *options, str(ROOT)], environment.folder, FORCE_CPU="1")


def from_sdist(environment: Environment) -> None:
    environment.pip("install", built("*.tar.gz"), FORCE_CPU="1")


def with_cuda(environment: Environment) -> None:
    environment.pip("install", str(ROOT), FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="9.0")
    found = environment.output("python", "-c", "import reblur_ops; print(reblur_ops.backends()['native'])")
    if "cuda" not in found:
        raise RuntimeError(f"native runs on {found}")


def from_wheel(environment: Environment) -> None:
    environment.pip("install", built("*abi3*.whl"))


def with_models(environment: Environment) -> None:
    environment.pip("install", f"{built('*abi3*.whl')}[models]")


WAYS: dict[str, Callable[[Environment], None]] = {
    "checkout": from_checkout,
    "checkout, by uv": by_uv,
    "checkout, CUDA": with_cuda,
    "git": from_git,
    "sdist": from_sdist,
    "wheel": from_wheel,
    "wheel[models]": with_models,
}
ROWS = [
    Row("checkout", "python3.11", "torch==2.13.0"),
    Row("checkout, by uv", "python3.11", "torch==2.13.0"),
    Row("git", "python3.11", "torch==2.13.0"),
    Row("checkout, CUDA", "python3.11", "torch==2.14.1"),
    Row("sdist", "python3.11", "torch==2.13.0"),
    Row("sdist", "python3.10", "torch==2.10.0"),
    Row("wheel", "python3.10", "torch==2.10.0"),
    Row("wheel", "python3.13", "torch==2.10.0"),
    Row("wheel", "python3.11", "torch==2.14.1"),
    Row("wheel[models]", "python3.11", "torch==2.13.0"),
]


def try_row(row: Row) -> tuple[str, str]:
    """The torch that ran, and the outcome."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(row, Path(folder))
        WAYS[row.way](environment)
        print(environment.output("python", "-m", "reblur_ops", "--check"))
        version = environment.output("python", "-c", "import torch; print(torch.__version__)").strip()
        if row.way != "wheel[models]":
            return version, "native"
        deblur(environment)
        return version, "native, `reblur deblur`"


def deblur(environment: Environment) -> None:
    environment.output("python", "-c", PHOTOGRAPH)
    print(environment.output("reblur", "--version"))
    environment.output("reblur", "deblur", "photo.png", "--out", "deblurred")
    if not (environment.folder / "deblurred" / "photo.png").exists():
        raise RuntimeError("reblur deblur wrote no photograph")


PHOTOGRAPH = "from skimage import data, io; io.imsave('photo.png', data.astronaut()[:96, :128])"


def write_page(lines: dict[str, str]) -> None:
    PAGE.write_text(HEAD + "".join(f"{key} {line}\n" for key, line in sorted(lines.items())))


def read_page() -> dict[str, str]:
    """The rows that are there, by way and versions."""
    if not PAGE.exists():
        return {}
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    return {" | ".join(row.split(" | ")[:3]) + " |": "|".join(row.split("|")[4:]).strip() for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="the only way to try; default: all of ROWS")
    parser.add_argument("--python", default="python3", help="interpreter for --way")
    parser.add_argument("--torch", default="torch", help="requirement for --way, such as torch==2.10.0")
    arguments = parser.parse_args()
    rows = [Row(arguments.way, arguments.python, arguments.torch)] if arguments.way else ROWS
    lines, failed = read_page(), False
    for row in rows:
        try:
            version, outcome = try_row(row)
        except (RuntimeError, OSError) as error:
            print(f"{row.way}, {row.python}, {row.torch} failed: {error}", file=sys.stderr)
            failed = True
            continue
        lines[f"| {row.way} | {row.python.removeprefix('python')} | {version} |"] = (
            f"{outcome} | {datetime.date.today()} |"
        )
        write_page(lines)
    sys.exit(failed)


if __name__ == "__main__":
    main()
