"""Photographs go in, and come out as they were but for the blur; what cannot be done is told in one line."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from models.__main__ import main
from models.data import images
from models.data.images import Encoding
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig
from models.inference import files

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SMALL = FrameworkConfig(
    radii=(1, 3),
    blur_map=BlurMapConfig(4, 1),
    deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}),
    reblur=ReblurConfig(4, 1),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    Framework(SMALL).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def photograph(size=(33, 41), seed=0):
    return np.random.default_rng(seed).random((*size, 3), np.float32)


def expected(checkpoint, pixels):
    with torch.no_grad():
        return Framework.from_pretrained(checkpoint)(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]


@pytest.mark.parametrize(
    ("name", "depth", "grey", "alpha"),
    [
        ("a.png", 8, False, False),
        ("a.png", 8, True, True),
        ("a.png", 16, False, True),
        ("a.tif", 16, True, False),
        ("a.tiff", 32, False, False),
        ("a.jpg", 8, False, False),
        ("a.webp", 8, False, True),
    ],
)
def test_the_format_is_kept(checkpoint, photos, tmp_path, name, depth, grey, alpha):
    opacity = np.tile(np.linspace(0, 1, 41, dtype=np.float32), (33, 1)) if alpha else None
    tags = Image.Exif()
    tags[0x010F] = "A maker"
    images.write(photos / name, photograph(), Encoding(depth, grey, opacity, tags.tobytes()[6:], ICC))
    before = images.read(photos / name)
    out = tmp_path / "out"
    assert main(["deblur", str(photos / name), "--out", str(out), "--checkpoint", checkpoint]) == 0
    assert [path.name for path in out.iterdir()] == [name]
    after = images.read(out / name)
    assert (after.encoding.depth, after.encoding.grey) == (depth, grey)
    assert after.encoding.exif == before.encoding.exif
    assert after.encoding.icc == before.encoding.icc
    if alpha:
        assert np.array_equal(after.encoding.alpha, before.encoding.alpha)
    else:
        assert after.encoding.alpha is None
    wanted = expected(checkpoint, before.pixels).permute(1, 2, 0).numpy()
    if grey:
        wanted = np.repeat((wanted @ images.LUMA)[..., None], 3, axis=2)
    assert np.abs(wanted - before.pixels).max() > 0.01, "it does something"
    tolerance = 0.2 if name in ("a.jpg", "a.webp") else 0.51 / (2 ** min(depth, 16) - 1)
    assert np.abs(after.pixels - wanted).max() < tolerance + 1e-6


def test_pictures_come_out_upright(checkpoint, photos, tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # a quarter turn
    Image.fromarray((photograph() * 255).astype(np.uint8)).save(photos / "turned.png", exif=tags)
    assert main(["deblur", str(photos), "--out", str(tmp_path / "out"), "--checkpoint", checkpoint]) == 0
    with Image.open(tmp_path / "out/turned.png") as picture:
        assert picture.size == (33, 41)
        assert picture.getexif()[0x0112] == 1


def test_floating_point_is_clipped(checkpoint, photos, tmp_path):
    tifffile.imwrite(photos / "bright.tif", 4 * photograph(), photometric="rgb")
    assert main(["deblur", str(photos), "--out", str(tmp_path / "out"), "--checkpoint", checkpoint]) == 0
    pixels = images.read(tmp_path / "out/bright.tif").pixels
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    wanted = expected(checkpoint, np.clip(4 * photograph(), 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(pixels - wanted).max() < 1e-5


def test_blur_maps_and_pictures_beside_each_other(checkpoint, photos, tmp_path):
    images.write(photos / "a.png", photograph())
    out = tmp_path / "out"
    options = ["--out", str(out), "--checkpoint", checkpoint]
    assert main(["deblur", str(photos), *options]) == 0
    first = (out / "a.png").read_bytes()
    # Asked for later, they are made, and what is there stays.
    assert main(["deblur", str(photos), *options, "--blur-map", "--side-by-side"]) == 0
    names = ["a.blur-radius-colours.png", "a.blur-radius.png", "a.png", "a.side-by-side.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "a.png").read_bytes() == first

    framework = Framework.from_pretrained(checkpoint)
    blurry = torch.from_numpy(images.read(photos / "a.png").pixels).permute(2, 0, 1)[None]
    with torch.no_grad():
        radius = framework.reblur(framework(blurry), blurry).radius[0, 0].numpy()
    stored = cv2.imread(str(out / "a.blur-radius.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.shape == (33, 41)
    assert np.abs(stored / 256 - radius).max() < 0.51 / 256
    assert radius.std() > 0.01
    colours = images.read(out / "a.blur-radius-colours.png").pixels
    assert colours.shape[0] % 33 == 0
    assert colours.std() > 0.1
    beside = images.read(out / "a.side-by-side.png").pixels
    assert beside.shape[1] > 2 * 41


def test_folders_paths_and_patterns(photos, tmp_path):
    for name in ("b.png", "a.jpg", ".hidden.png", "notes.txt"):
        (photos / name).touch()
    (photos / "below").mkdir()
    (photos / "below/c.tif").touch()
    found = files.find_photographs([str(photos / "b.png"), str(photos), str(photos / "**/*.tif")])
    assert [path.name for path in found] == ["b.png", "a.jpg", "c.tif"]


def test_existing_results_stay_unless_asked(checkpoint, photos, tmp_path, capsys):
    images.write(photos / "a.png", photograph())
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"precious")
    options = ["deblur", str(photos), "--out", str(out), "--checkpoint", checkpoint]
    assert main(options) == 0
    assert (out / "a.png").read_bytes() == b"precious"
    assert "1 were there already: --overwrite writes them again" in capsys.readouterr().out
    assert main([*options, "--overwrite"]) == 0
    assert images.read(out / "a.png").pixels.shape == (33, 41, 3)


def test_what_does_not_decode_is_named_and_the_rest_go_on(checkpoint, photos, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        images.write(photos / name, photograph())
    (photos / "b.png").write_bytes((photos / "a.png").read_bytes()[:-60])
    (photos / "d.bmp").write_bytes(b"BM")
    inputs = [str(photos), str(photos / "d.bmp")]
    assert main(["deblur", *inputs, "--out", str(tmp_path / "out"), "--checkpoint", checkpoint]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    captured = capsys.readouterr()
    assert "b.png does not decode" in captured.err
    assert "d.bmp: the suffix must be one of .png" in captured.err
    assert "2 deblurred into" in captured.out
    assert "2 failed" in captured.out


def test_a_line_of_json_about_each_photograph(checkpoint, photos, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        images.write(photos / name, photograph())
    (photos / "c.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"precious")
    assert main(["deblur", str(photos), "--out", str(out), "--checkpoint", checkpoint, "--json"]) == 1
    captured = capsys.readouterr()
    lines = {Path(line["photograph"]).name: line for line in map(json.loads, captured.out.splitlines())}
    assert {name: line["status"] for name, line in lines.items()} == {
        "a.png": "deblurred",
        "b.png": "there already",
        "c.png": "failed",
    }
    assert lines["a.png"]["outputs"] == {"deblurred": str(out / "a.png")}
    assert "does not decode" in lines["c.png"]["error"]
    assert lines["a.png"]["error"] is None


def test_a_disk_that_is_full_leaves_nothing_half_written(checkpoint, photos, tmp_path, capsys, monkeypatch):
    images.write(photos / "a.png", photograph())

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.core.files.os.fsync", full)
    assert main(["deblur", str(photos), "--out", str(tmp_path / "out"), "--checkpoint", checkpoint]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def damaged(folder):
    torch.manual_seed(0)
    Framework(SMALL).save_pretrained(folder)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"middle": 1', '"middle": 2'))
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.png"], "absent.png does not exist"),
        (["PHOTOS/*.webp"], "*.webp"),
        (["EMPTY"], "holds no pictures"),
        (["PHOTOS", "--out", "PHOTOS"], "is an input and would be overwritten: --out must be another folder"),
        (["PHOTOS/a.png", "PHOTOS/a.jpg", "--blur-map"], "would both be written to"),
        (["PHOTOS", "--out", "/dev/null/out"], "cannot write to /dev/null/out: Not a directory"),
        (["PHOTOS", "--checkpoint", "EMPTY"], "config.json: No such file"),
        (["PHOTOS", "--checkpoint", "DAMAGED"], "does not fit Framework"),
        (["PHOTOS", "--checkpoint", "PHOTOS/a.png"], "must hold tensors"),
        (["PHOTOS", "--checkpoint", "RUN"], "must hold a folder step-"),
        (["PHOTOS/a.png", "--checkpoint", "NO_REBLUR", "--blur-map"], "--blur-map needs a checkpoint"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_error_before_any_work(checkpoint, photos, tmp_path, capsys, arguments, message):
    names = ("EMPTY", "OTHER", "DAMAGED", "RUN", "NO_REBLUR")
    folders = {"PHOTOS": photos} | {name: tmp_path / name for name in names}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    (tmp_path / "RUN/checkpoints/step-0000001").mkdir(parents=True)
    damaged(tmp_path / "DAMAGED")
    Framework(
        FrameworkConfig(radii=(1,), blur_map=None, deblur=DeblurConfig(prior=False), reblur=None)
    ).save_pretrained(tmp_path / "NO_REBLUR")
    for path in (photos / "a.png", photos / "a.jpg", tmp_path / "OTHER/a.png"):
        images.write(path, photograph())
    for name, folder in folders.items():
        arguments = [argument.replace(name, str(folder)) for argument in arguments]
    before = sorted(tmp_path.rglob("*"))
    defaults = ["--out", str(tmp_path / "out"), "--checkpoint", checkpoint]
    assert main(["deblur", *defaults, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m models deblur: error: ")
    assert message in error
    assert len(error.splitlines()) == 1 or "does not fit" in error
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "out"] == before


def test_without_a_trained_framework_it_says_so(photos, tmp_path, capsys, monkeypatch):
    images.write(photos / "a.png", photograph())
    monkeypatch.setattr("models.checkpoints.load.DEFAULT_CHECKPOINT", tmp_path / "absent")
    assert main(["deblur", str(photos), "--out", str(tmp_path / "out")]) == 2
    assert "absent: give one with --checkpoint" in capsys.readouterr().err


def test_runs_and_published_checkpoints_are_checkpoints_too(checkpoint, photos, tmp_path):
    images.write(photos / "a.png", photograph())
    torch.manual_seed(1)
    other = Framework(SMALL)
    other.save_pretrained(tmp_path / "run/checkpoints/step-0000020")
    other.save_pretrained(tmp_path / "run/checkpoints/step-0000100")
    (tmp_path / "run/checkpoints/step-0000100/model.safetensors").unlink()
    Framework.from_pretrained(checkpoint).save_pretrained(tmp_path / "run/checkpoints/step-0000009")
    out = tmp_path / "out"
    assert main(["deblur", str(photos), "--out", str(out), "--checkpoint", str(tmp_path / "run")]) == 0
    with torch.no_grad():
        wanted = other.eval()(torch.from_numpy(images.read(photos / "a.png").pixels).permute(2, 0, 1)[None])[0]
    assert np.abs(images.read(out / "a.png").pixels - wanted.permute(1, 2, 0).numpy()).max() < 0.51 / 255


def test_a_device_that_is_not_there_is_refused_and_debug_shows_where():
    command = [sys.executable, "-m", "models", "deblur", "absent.png", "--out", "absent"]
    result = subprocess.run([*command, "--device", "abacus"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "argument --device: 'abacus' cannot be used" in result.stderr
    result = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "models.core.errors.UserError: absent.png does not exist"
