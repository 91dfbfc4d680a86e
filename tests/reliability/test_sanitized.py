"""The CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer, with the random calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.sizes import WHOLE

ROOT = Path(__file__).parents[2]
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
CALLS = "tests/reliability/test_random_calls.py"

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(not WHOLE, reason="compiles for minutes: make test-reliability"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="the runtime of the sanitizers is g++'s"),
]


def runtime(library: str) -> str:
    return subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True, text=True).stdout.strip()


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with the package, its kernels under the sanitizers."""
    folder = tmp_path_factory.mktemp("sanitized")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", f"{folder}/build"]
    flags = {"CFLAGS": SANITIZERS, "LDFLAGS": SANITIZERS, "FORCE_CPU": "1", "REBLUR_OPS_DEBUG": "1"}
    result = run(ROOT, *command, "--build-lib", f"{folder}/package", **flags)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "package"


def under_sanitizers(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Python leaks what lives as long as itself; Torch's own allocations fit what they are freed by.
    libraries = " ".join(map(runtime, ("libasan.so", "libubsan.so", "libstdc++.so.6")))
    options = "detect_leaks=0:alloc_dealloc_mismatch=0"
    return run(package, sys.executable, *arguments, LD_PRELOAD=libraries, ASAN_OPTIONS=options)


def test_the_kernels_are_those_under_sanitizers(package):
    result = under_sanitizers(package, "-m", "reblur_ops", "--check")
    assert result.returncode == 0, result.stderr
    assert str(package) in result.stdout
    symbols = subprocess.run(["nm", "-D", package / "reblur_ops" / "_C.abi3.so"], capture_output=True, text=True).stdout
    assert "__asan_report_load" in symbols
    assert "__ubsan_handle" in symbols


def test_random_calls(package):
    options = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    options += ["-o", f"pythonpath={package} {ROOT}", "-q", "-x", str(ROOT / CALLS)]
    result = under_sanitizers(package, "-m", "pytest", *options)
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
