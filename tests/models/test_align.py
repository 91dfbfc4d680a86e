"""Pairs aligned once: what is found, what is written, that it is made once, and that training takes it without flow."""

import json

import numpy as np
import pytest
import torch

from models.__main__ import main
from models.alignment import AlignmentSettings, align_pair
from models.blur import blur_by, disk_rms
from models.data import images
from models.data.layouts import load_pairs
from models.framework import Framework

pytestmark = pytest.mark.slow

SIZE = 72


def scene(seed):
    """Blurry and sharp, (1, 3, H, W), the second moved by 2 pixels to the right, and the first."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.rand(1, 3, SIZE, SIZE + 8, generator=generator)
    wide = torch.nn.functional.avg_pool2d(wide, 3, 1, 1)
    still, moved = wide[..., 4 : 4 + SIZE].contiguous(), wide[..., 2 : 2 + SIZE].contiguous()
    coc = torch.full((1, 1, SIZE, SIZE), 2.0)
    return blur_by(still, coc, max_radius=4).clamp(0, 1), moved, still


@pytest.fixture
def data(tmp_path):
    for split in ("blur", "gt"):
        (tmp_path / "data/train_patches" / split).mkdir(parents=True)
    for seed in range(3):
        blurry, sharp, _ = scene(seed)
        for folder, image in (("blur", blurry), ("gt", sharp)):
            path = tmp_path / "data/train_patches" / folder / f"p{seed}.png"
            images.write(path, image[0].permute(1, 2, 0).numpy())
    return tmp_path / "data"


@pytest.mark.parametrize("flow", ["dis", "reblur"])
def test_a_pair_is_aligned_and_its_blur_found(flow):
    blurry, sharp, still = scene(0)
    found = align_pair(blurry, sharp, AlignmentSettings(flow, max_radius=4))
    inner = (..., slice(12, -12), slice(12, -12))
    assert (found.aligned - still)[inner].abs().mean() < 0.25 * (sharp - still)[inner].abs().mean()
    assert (found.flow[:, 0][inner] - 2).abs().mean() < 0.3
    assert found.flow[:, 1][inner].abs().mean() < 0.3
    assert (found.blur_radius[inner] - disk_rms(torch.tensor([2.0]))).abs().mean() < 0.4
    assert found.confidence[inner].mean() > 0.5
    wrong = align_pair(blurry, sharp.flip(2), AlignmentSettings("none", max_radius=4))
    assert wrong.confidence.mean() < 0.5 * found.confidence.mean()


def test_settings_that_are_impossible_are_refused():
    with pytest.raises(ValueError, match="flow must be one of 'reblur', 'dis', 'variational', 'none', got 'raft'"):
        AlignmentSettings("raft")
    with pytest.raises(ValueError, match="max_radius must be from 1 to 64 pixels, got 65"):
        AlignmentSettings(max_radius=65)


def align(data, out, *options):
    arguments = ["align", "--data", f"sdd:{data}", "--out", str(out), "--flow", "dis", "--max-radius", "4", *options]
    return main(arguments)


@pytest.mark.parametrize("workers", [1, 2])
def test_pairs_are_aligned_once(data, tmp_path, capsys, workers):
    out = tmp_path / "aligned"
    assert align(data, out, "--workers", str(workers)) == 0
    assert "aligned 3 pairs, 0 were there already" in capsys.readouterr().out
    (pair, *_) = load_pairs([f"sdd:{out}"], "train", truth=True, decode=True)
    assert set(pair.truth) == {"aligned", "blur_radius", "flow", "confidence"}
    assert images.read(pair.aligned).encoding.depth == 16
    assert images.read_map(pair.flow).shape == (SIZE, SIZE, 2)
    confidence = images.read_map(pair.confidence)
    assert 0 <= confidence.min() < confidence.max() <= 1
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert align(data, out) == 0
    assert "aligned 0 pairs, 3 were there already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_what_has_changed_is_aligned_again(data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "aligned"
    assert align(data, out) == 0
    images.write(data / "train_patches/gt/p1.png", np.full((SIZE, SIZE, 3), 0.5, np.float32))
    (out / "train_patches/flow/p2.tif").unlink()
    (out / "train_patches/flow/.p2.tif.0a.part").write_bytes(b"left by a process that was killed")
    capsys.readouterr()
    assert align(data, out) == 0
    assert "aligned 2 pairs, 1 were there already" in capsys.readouterr().out
    assert not list(out.rglob("*.part"))
    assert align(data, out, "--max-radius", "3") == 0
    assert "aligned 3 pairs" in capsys.readouterr().out
    record = json.loads((out / "train_patches/alignment/p0.json").read_text())
    assert record["settings"] == {"flow": "dis", "max_radius": 3}
    monkeypatch.setattr("models.alignment.dataset.REVISION", -1)
    assert align(data, out, "--max-radius", "3", "--workers", "1") == 0
    assert "aligned 3 pairs" in capsys.readouterr().out


def test_training_takes_it_without_any_flow(data, tmp_path, monkeypatch):
    out, run = tmp_path / "aligned", tmp_path / "run"
    assert align(data, out) == 0
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{train: ['sdd:{out}'], target: aligned, held_out: 0.3}}\n")
    options = [
        "device=cpu",
        "framework.blur_map={form: radius, width: 8, blocks: 1}",
        "framework.deblur={network: compact, options: {width: 4, encoder: [1], middle: 1, decoder: [1]}}",
        "framework.reblur={form: radius, max_radius: 3, width: 8, blocks: 1}",
        "data.batch=2",
        "data.crop=32",
        "data.workers=0",
        "schedule.steps=4",
        "schedule.boundary=2",
        "output={metrics: 1, validation: 4, checkpoints: 4, pictures: 4}",
        f"out={run}",
    ]

    def no_flow(*_):
        raise AssertionError("no flow is needed")

    monkeypatch.setattr("models.flow.dis.DisFlow.estimate", no_flow)
    assert main(["train", "--config", str(config), *options]) == 0
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert set(metrics[0]["parts"]) == {"deblurred", "reblurred_sharp", "blur_map"}
    assert set(metrics[-1]["parts"]) == {"deblurred", "sharp", "reblurred", "reblurred_sharp", "blur_map"}
    (validation,) = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert validation["effective_blurs"] >= 1
    assert "map_radius_correlation" in validation
    assert Framework.from_pretrained(run / "latest").blur_radius(torch.rand(1, 3, 20, 20)).shape == (1, 1, 20, 20)


def test_pairs_of_earlier_calls_are_told(data, tmp_path, capsys):
    out = tmp_path / "aligned"
    assert align(data, out) == 0
    assert "other pairs" not in capsys.readouterr().out
    for folder in ("blur", "gt"):
        (data / "train_patches" / folder / "p1.png").unlink()
    assert align(data, out) == 0
    assert "holds 1 other pairs, which training takes, too: p1" in capsys.readouterr().out
