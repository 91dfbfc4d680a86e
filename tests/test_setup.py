"""setup.py says what it decided, obeys the environment, and refuses what it cannot do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import reblur_ops

ROOT = Path(__file__).parents[1]
SWITCHES = ("REBLUR_OPS_NO_NATIVE", "FORCE_CPU", "FORCE_CUDA")


def setup(*arguments, **environment):
    inherited = {key: value for key, value in os.environ.items() if key not in SWITCHES}
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_says_what_it_decided():
    assert "reblur_ops: compiled for CPU" in setup("build", "--help").stdout
    assert "compiled for CPU alone, because FORCE_CPU is set" in setup("build", "--help", FORCE_CPU="1").stdout
    assert (
        "reblur_ops: nothing was compiled, because REBLUR_OPS_NO_NATIVE was set"
        in setup("build", "--help", REBLUR_OPS_NO_NATIVE="1").stdout
    )


def test_without_a_compiler_it_names_the_way_out():
    result = setup("build_clib", FORCE_CPU="1", CXX="no-such-compiler")
    assert result.returncode != 0
    assert "there is no C++ compiler (no-such-compiler)" in result.stderr
    assert "REBLUR_OPS_NO_NATIVE=1" in result.stderr


def test_without_torch_it_names_the_ways_out(tmp_path):
    """An isolated build gets torch; this is for those who switch the isolation off."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)"
    )
    result = setup("build_clib", PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert "there is no torch to build with" in result.stderr
    assert "REBLUR_OPS_NO_NATIVE=1" in result.stderr
    assert setup("--version", PYTHONPATH=str(tmp_path)).stdout.strip() == reblur_ops.__version__


def test_metadata_and_source_distributions_need_no_torch():
    """Nor anything else that only compiling needs, such as settings that fit together."""
    result = setup("--version", FORCE_CPU="1", FORCE_CUDA="1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == reblur_ops.__version__


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FORCE_CPU": "1", "FORCE_CUDA": "1"}, "FORCE_CPU and FORCE_CUDA are both set"),
        pytest.param(
            {"FORCE_CUDA": "1"},
            "FORCE_CUDA is set, but this torch was built without CUDA",
            marks=pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA"),
        ),
    ],
)
def test_it_refuses_what_it_cannot_do(environment, message):
    result = setup("build", "--help", **environment)
    assert result.returncode != 0
    assert message in result.stderr


def test_a_toolkit_without_headers_is_told_before_anything_is_compiled(tmp_path):
    """Behind an nvcc on the PATH there may be a script, whose place tells nothing of the toolkit's."""
    (tmp_path / "sitecustomize.py").write_text(
        "import torch; torch.version.cuda = '13.0'\n"
        f"from torch.utils import cpp_extension; cpp_extension.CUDA_HOME = {str(tmp_path)!r}\n"
    )
    obstacle = f"{tmp_path} has nvcc, but no headers (cuda_runtime.h); set CUDA_HOME to the toolkit"
    result = setup("build", "--help", PYTHONPATH=str(tmp_path))
    assert f"compiled for CPU alone, because {obstacle}" in result.stdout
    result = setup("build_ext", PYTHONPATH=str(tmp_path), FORCE_CUDA="1")
    assert result.returncode != 0
    assert f"FORCE_CUDA is set, but {obstacle}" in result.stderr
