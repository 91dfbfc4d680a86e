"""Source distribution and wheel: what they hold, and that they run from a folder that is not the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import reblur_ops

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DISTRIBUTION = f"reblur_ops-{reblur_ops.__version__}"


def run(*command, folder=ROOT, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def files(folder, *patterns):
    """Paths from the checkout of all files in a folder that fit, apart from what Python and builds leave there."""
    left = ("__pycache__", ".so", "_build.json")
    found = (path for pattern in patterns for path in (ROOT / folder).rglob(pattern) if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if not any(name in str(path) for name in left)}


PACKAGE_FILES = files("reblur_ops", "*.py", "py.typed") | files("models", "*.py", "*.html", "*.yaml", "pretrained/*/*")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    run("-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ".")
    return folder / f"{DISTRIBUTION}.tar.gz"


def wheel_of(sdist, folder, **environment):
    pip = ("-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--disable-pip-version-check")
    run(*pip, "--wheel-dir", folder, sdist, folder=folder, **environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel):
    """The files of a wheel but for those about it, as they are named in the checkout."""
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    return {name.replace("reblur_models/", "models/", 1) for name in names}


def installed(wheel, folder):
    target = folder / "installed"
    run("-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", "--target", target, wheel)
    return {"PYTHONPATH": str(target)}


def deblur(folder, **environment):
    """Run the installed command on a photograph, from another folder."""
    code = "from skimage import data, io; io.imsave('photo.png', data.astronaut()[:96, :128])"
    run("-c", code, folder=folder, **environment)
    reblur = Path(environment["PYTHONPATH"]) / "bin" / "reblur"
    told = run(reblur, "--version", folder=folder, **environment)
    assert told.startswith(f"reblur-ops {reblur_ops.__version__}, ")
    run(reblur, "deblur", "photo.png", "--out", "deblurred", folder=folder, **environment)
    assert (folder / "deblurred" / "photo.png").stat().st_size > 1000
    return told


def test_the_source_distribution_holds_what_a_wheel_is_built_from(sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.removeprefix(f"{DISTRIBUTION}/") for member in archive if member.isfile()}
    told = {"PKG-INFO", "setup.cfg"} | {name for name in names if name.startswith("reblur_ops.egg-info/")}
    build = {"setup.py", "pyproject.toml", "MANIFEST.in", "build_support/backend.py", "README.md", "LICENSE"}
    assert names - told == PACKAGE_FILES | files("csrc", "*") | build


def test_a_pure_wheel_runs(sdist, tmp_path):
    wheel = wheel_of(sdist, tmp_path, REBLUR_OPS_NO_NATIVE="1")
    assert wheel.name == f"{DISTRIBUTION}-py3-none-any.whl"
    assert contents(wheel) == PACKAGE_FILES | {"reblur_ops/_build.json"}
    told = deblur(tmp_path, **installed(wheel, tmp_path))
    assert "nothing was compiled, because REBLUR_OPS_NO_NATIVE was set" in told


@pytest.mark.slow
def test_a_native_wheel_runs(sdist, tmp_path):
    wheel = wheel_of(sdist, tmp_path, FORCE_CPU="1", REBLUR_OPS_DEBUG="1")
    assert wheel.name.startswith(f"{DISTRIBUTION}-cp310-abi3-")
    assert contents(wheel) == PACKAGE_FILES | {"reblur_ops/_build.json", "reblur_ops/_C.abi3.so"}
    environment = installed(wheel, tmp_path)
    checked = run("-m", "reblur_ops", "--check", folder=tmp_path, **environment)
    assert str(tmp_path / "installed" / "reblur_ops" / "_C.abi3.so") in checked
    assert "check:              passed" in checked
    assert "native" in deblur(tmp_path, **environment)


def test_models_import_each_other_relatively():
    """The folder `models` is installed as reblur_models."""
    absolute = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "models").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.lstrip().startswith(("from models", "import models"))
    ]
    assert absolute == []
