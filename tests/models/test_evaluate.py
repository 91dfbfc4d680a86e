"""A checkpoint and other people's pictures are scored, and what is written says how."""

import csv
import json

import numpy as np
import pytest
import torch

from models.__main__ import main
from models.data import images
from models.evaluation.metrics import score, shifted
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig

pytestmark = pytest.mark.slow

SMALL = FrameworkConfig(
    radii=(1, 3),
    blur_map=BlurMapConfig(4, 1),
    deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}),
    reblur=ReblurConfig(4, 1),
)
COUNT = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    Framework(SMALL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs with truth, from the task that makes them."""
    out = tmp_path_factory.mktemp("data")
    options = ["--patch", "64", "--patches", str(COUNT), "--misalignment", "1", "--test-fraction", "0.1"]
    assert main(["synthesize", "--out", str(out), *options, "--workers", "1"]) == 0
    return out


def results(folder):
    with (folder / "scores.csv").open() as file:
        return json.loads((folder / "scores.json").read_text()), list(csv.DictReader(file))


def test_a_checkpoint_is_scored(checkpoint, data, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--checkpoint", str(checkpoint), "--out", str(out), "--pictures", "2"]
    assert main(["evaluate", "--data", f"sdd:{data}", *options]) == 0
    document, rows = results(out)
    assert set(document["protocols"]) == {"raw", "aligned", "warped", "shift"}
    assert document["flow"] == "dis"
    assert len(document["pictures"]) == len(rows) == COUNT

    framework = Framework.from_pretrained(checkpoint)
    first = document["pictures"][0]
    blurry, sharp, aligned = (
        images.read(data / "test" / part / f"{first['name']}.png").pixels for part in ("blur", "gt", "aligned")
    )
    image = torch.from_numpy(blurry).permute(2, 0, 1)[None]
    with torch.no_grad():
        deblurred = framework(image)
        radius = framework.reblur(deblurred, image).radius[0, 0].numpy()
    picture = deblurred[0].permute(1, 2, 0).numpy()
    truth = images.read_map(data / "test/blur_radius" / f"{first['name']}.tif")
    assert first["scores"]["raw"]["psnr"] == pytest.approx(score(picture, sharp).psnr, abs=1e-3)
    assert first["scores"]["aligned"]["ssim"] == pytest.approx(score(picture, aligned).ssim, abs=1e-4)
    assert first["scores"]["shift"]["psnr"] == pytest.approx(score(*shifted(picture, sharp)[:2]).psnr, abs=1e-2)
    assert first["radius"]["mae"] == pytest.approx(np.abs(radius - truth).mean(), abs=1e-4)
    assert first["radius"]["correlation"] == pytest.approx(np.corrcoef(radius.ravel(), truth.ravel())[0, 1], abs=1e-3)

    for protocol in document["protocols"]:
        for metric in ("psnr", "ssim", "mae"):
            values = [entry["scores"][protocol][metric] for entry in document["pictures"]]
            assert document["mean"][protocol][metric] == pytest.approx(np.mean(values))
            assert [float(row[f"{protocol}_{metric}"]) for row in rows] == values
    printed = capsys.readouterr().out
    before, after = (document[name]["warped"]["psnr"] for name in ("mean_blurry", "mean"))
    assert f"| warped | {before:.2f} | {after:.2f} |" in printed
    assert document["mean_blurry"]["aligned"]["ssim"] == pytest.approx(
        np.mean([entry["blurry"]["aligned"]["ssim"] for entry in document["pictures"]])
    )
    assert rows[0]["blurry_raw_psnr"] == str(first["blurry"]["raw"]["psnr"])
    capsys.readouterr()
    assert main(["evaluate", "--data", f"sdd:{data}", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == document["mean"]
    assert "flow of the protocol warped: dis" in printed
    assert f"MAE {document['mean']['blur_radius']['mae']:.3f} px" in printed

    ranked = sorted(document["pictures"], key=lambda entry: entry["scores"]["aligned"]["psnr"])
    names = [entry["name"] for entry in ranked]
    assert (out / f"worst-1-{names[0]}.png").exists()
    assert (out / f"best-1-{names[-1]}.png").exists()
    assert len(list(out.glob("best-*.png"))) == len(list(out.glob("worst-*.png"))) == 2


def test_outputs_of_others_are_scored(data, tmp_path):
    """The aligned truth as output is perfect by one protocol, and the blurry picture is not."""
    for part, out in (("aligned", tmp_path / "best"), ("blur", tmp_path / "blurry")):
        options = ["--outputs", str(data / "test" / part), "--out", str(out), "--pictures", "0"]
        assert main(["evaluate", "--data", f"sdd:{data}", *options, "--protocols", "raw", "aligned"]) == 0
    best, _ = results(tmp_path / "best")
    blurry, rows = results(tmp_path / "blurry")
    assert best["mean"]["aligned"] == {"psnr": "inf", "ssim": 1, "mae": 0, "haarpsi": pytest.approx(1), "lpips": None}
    assert 15 < blurry["mean"]["aligned"]["psnr"] < 40
    assert best["mean"]["raw"]["psnr"] > blurry["mean"]["raw"]["psnr"]
    assert "blur_radius" not in best["mean"]
    assert rows[0]["radius_mae"] == rows[0]["shift_x"] == ""


def test_rounding_is_asked_for(checkpoint, data, tmp_path):
    values = []
    for name, options in (("float", []), ("rounded", ["--round"])):
        out = ["--out", str(tmp_path / name), "--protocols", "raw", "--pictures", "0"]
        assert main(["evaluate", "--data", f"sdd:{data}", "--checkpoint", str(checkpoint), *out, *options]) == 0
        document, _ = results(tmp_path / name)
        assert document["rounded"] == (name == "rounded")
        values.append(document["mean"]["raw"]["psnr"])
    assert 0 < abs(values[0] - values[1]) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "DATA"], "a source of pairs is LAYOUT:DIR"),
        (["--data", "sdd:ABSENT"], "is not a folder"),
        (["--outputs", "EMPTY"], "has no"),
        (["--outputs", "EMPTY", "--checkpoint", "EMPTY"], "--checkpoint and --outputs cannot be given together"),
        (["--checkpoint", "EMPTY"], "config.json: No such file"),
        (["--data", "folders:DATA/test/blur,DATA/test/gt", "--protocols", "aligned"], "needs the aligned truth"),
        (["--outputs", "DATA/test/blur", "--flow", "pwc"], "--flow pwc needs --flow-weights"),
        (["--outputs", "DATA/test/blur", "--out", "/dev/null/out"], "cannot write to /dev/null/out"),
    ],
)
def test_bad_input_gets_one_error_before_any_work(data, tmp_path, capsys, arguments, message):
    (tmp_path / "EMPTY").mkdir()
    names = {"DATA": data, "EMPTY": tmp_path / "EMPTY", "ABSENT": tmp_path / "ABSENT"}
    for name, folder in names.items():
        arguments = [argument.replace(name, str(folder)) for argument in arguments]
    assert main(["evaluate", "--data", f"sdd:{data}", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m models evaluate: error: ")
    assert message in error
    assert not (tmp_path / "out/scores.json").exists()
