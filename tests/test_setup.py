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


def test_a_pure_python_installation_works(tmp_path):
    """`pip install` with REBLUR_OPS_NO_NATIVE=1: what is installed has no compiled module, and answers."""
    environment = {**os.environ, "REBLUR_OPS_NO_NATIVE": "1"}
    source = tmp_path / "source"
    for name in ("reblur_ops", "build_support", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        copy = source / name
        copy.parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            copy.mkdir()
            for file in (ROOT / name).glob("*.py"):
                (copy / file.name).write_bytes(file.read_bytes())
        else:
            copy.write_bytes((ROOT / name).read_bytes())
    pip = ["-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    target = tmp_path / "installed"
    subprocess.run([sys.executable, *pip, "--target", str(target), str(source)], env=environment, check=True)
    # The editable installation of the checkout would lend its compiled module.
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in f.__module__];"
        "import torch, reblur_ops; print(reblur_ops.__file__, reblur_ops.native.REASON, list(reblur_ops.backends()),"
        " reblur_ops.reblur(torch.rand(1, 3, 9, 9), torch.rand(1, 35, 9, 9), torch.rand(1, 8, 9, 9)).shape)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(target) in result.stdout
    assert "nothing was compiled, because REBLUR_OPS_NO_NATIVE was set ['torch', 'reference'] " in result.stdout
    assert "torch.Size([1, 3, 9, 9])" in result.stdout
    assert sorted(path.name for path in target.iterdir() if path.suffix != ".dist-info") == ["reblur_ops"]
