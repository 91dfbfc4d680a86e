"""Input that is meant to harm, or that no program expects: one line, no code run, nothing outside of the results."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from models.__main__ import main
from models.framework import Framework
from tests.reliability.runs import (
    children,
    make_checkpoint,
    make_pairs,
    make_photographs,
    needs_proc,
    training,
    wait_for_steps,
)

pytestmark = pytest.mark.slow

TAG = "<img src=x onerror=alert(1)>"  # a name that files may have


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("made") / "data")


def plain_pairs(folder: Path, data: Path, names: list[str | bytes]) -> Path:
    """Pairs of the test of a data set, under other names."""
    for part in ("blur", "gt"):
        (folder / part).mkdir(parents=True)
        for path, name in zip(sorted((data / "test" / part).iterdir()), names, strict=False):
            (folder / part / os.fsdecode(name)).write_bytes(path.read_bytes())
    return folder


def spoilt(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint all of whose weights are NaN."""
    framework = Framework.from_pretrained(checkpoint)
    for parameter in framework.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    framework.save_pretrained(folder)
    return folder


def test_a_checkpoint_that_is_nan_is_one_line_with_picture_and_checkpoint(checkpoint, data, tmp_path, capsys):
    run = tmp_path / "run"
    broken = spoilt(checkpoint, run / "checkpoints" / "step-0000001")
    for arguments in (
        ["evaluate", "--data", f"sdd:{data}", "--checkpoint", str(broken), "--out", str(tmp_path / "out")],
        ["report", str(run), "--data", f"sdd:{data}"],
        ["deblur", str(next((data / "test" / "blur").iterdir())), "--checkpoint", str(broken), "--out", str(tmp_path)],
    ):
        capsys.readouterr()
        assert main(arguments) != 0
        error = capsys.readouterr().err
        assert "Traceback" not in error
        line = r"error: .*_0000\d(\.png)?, deblurred, is not finite: the weights of .*run.* have diverged"
        assert re.search(line, error), error


def test_tags_in_yaml_run_nothing(tmp_path, capsys):
    sign = tmp_path / "sign"
    config = tmp_path / "evil.yaml"
    config.write_text(f"out: !!python/object/apply:os.system ['touch {sign}']\n")
    assert main(["train", "--config", str(config)]) == 2
    error = capsys.readouterr().err
    assert "evil.yaml" in error
    assert "Traceback" not in error
    assert not sign.exists()


def test_names_are_text_in_pages(checkpoint, data, tmp_path):
    pairs = plain_pairs(tmp_path / "pairs", data, [f"{TAG}.png"])
    run = tmp_path / TAG
    Framework.from_pretrained(checkpoint).save_pretrained(run / "checkpoints" / "step-0000001")
    (run / "config.yaml").write_text(f"out: '{TAG}'\n")
    assert main(["report", str(run), "--data", f"folders:{pairs / 'blur'},{pairs / 'gt'}"]) == 0
    page = (run / "report.html").read_text()
    assert TAG not in page
    assert TAG.replace("<", "&lt;").replace(">", "&gt;") in page


def test_names_that_are_not_utf_8_are_scored(checkpoint, data, tmp_path):
    pairs = plain_pairs(tmp_path / "pairs", data, [b"caf\xe9.png", b"plain.png"])
    out = tmp_path / "out"
    source = f"folders:{pairs / 'blur'},{pairs / 'gt'}"
    assert main(["evaluate", "--data", source, "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    assert len(json.loads((out / "scores.json").read_text())["pictures"]) == 2
    assert (out / "scores.csv").stat().st_size > 0


def test_links_and_paths_write_nothing_elsewhere(checkpoint, tmp_path, monkeypatch, capsys):
    photographs = make_photographs(tmp_path / "photographs", 2)
    (photographs / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (photographs / "loop").symlink_to(photographs)
    (photographs / "round.png").symlink_to(photographs / "round.png")
    (photographs / "linked.png").symlink_to(photographs / "0.png")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    before = {path: path.read_bytes() for path in photographs.glob("[01].png")}
    status = main(["deblur", "../photographs", "../photographs/0.png", "--checkpoint", str(checkpoint), "--out", "out"])
    error = capsys.readouterr().err
    assert status == 1
    assert "Traceback" not in error
    for name in ("dangling.png", "round.png"):
        assert name in error
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in tmp_path.iterdir()} == {"photographs", "work"}
    assert sorted(path.name for path in (work / "out").iterdir()) == ["0.png", "1.png"]


def test_a_picture_that_is_nan_is_named(checkpoint, tmp_path, capsys):
    picture = np.full((40, 50, 3), np.nan, np.float32)
    tifffile.imwrite(tmp_path / "nan.tif", picture, photometric="rgb")
    out = tmp_path / "out"
    assert main(["deblur", str(tmp_path / "nan.tif"), "--checkpoint", str(checkpoint), "--out", str(out)]) != 0
    error = capsys.readouterr().err
    assert "nan.tif" in error
    assert "Traceback" not in error


@needs_proc
def test_loader_processes_end_with_a_training_that_is_killed(data, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "models", *training(data, 100_000, workers=1), f"out={run}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_steps(run, 1, process)
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
