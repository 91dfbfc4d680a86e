"""Published checkpoints give networks that compute what the published ones do, and nothing else gets in."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from models.__main__ import main
from models.checkpoints import load as checkpoint_module
from models.checkpoints.load import import_official
from models.core.weights import WeightsError
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig
from tests import published

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # relative, in float32, through tens of layers


@pytest.fixture(scope="module")
def imported():
    """Either deblurring network, imported, by its published name."""
    return {network: import_official(published.checkpoint(network)) for network in ("VGG_Deblur", "Restormer")}


def test_the_published_blur_map_case(imported):
    case = published.case("blur_map_net")
    for framework in imported.values():
        with torch.no_grad():
            assert published.relative_error(framework.blur_map(case["blurry"]), case["map"]) < TOLERANCE


def test_the_published_reblurring_case(imported):
    case = published.case("reblurring_net")
    with torch.no_grad():
        found = imported["VGG_Deblur"].reblur(case["sharp"], case["blurry"])
    assert published.relative_error(found.image, case["reblurred"]) < TOLERANCE
    assert published.relative_error(found.seeds, case["seeds"]) < TOLERANCE
    assert published.relative_error(found.weights, case["weights"]) < TOLERANCE
    assert found.radius.shape == (1, 1, 32, 48)


@pytest.mark.parametrize(
    ("network", "definition"), [("VGG_Deblur", published.unet), ("Restormer", published.restormer)]
)
def test_the_deblurring_networks_are_as_described(imported, network, definition):
    framework = imported[network]
    blurry = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    state = published.weights(published.SHAPES[network])
    with torch.no_grad():
        blur_map = framework.blur_map(blurry)
        expected = definition(state, blurry, blur_map)
        assert published.relative_error(framework.deblur(blurry, blur_map), expected) < TOLERANCE
        assert published.relative_error(framework(blurry), expected.clamp(0, 1)) < TOLERANCE


def test_jdrl_has_no_blur_map():
    checkpoint = published.jdrl_checkpoint()
    framework = import_official(checkpoint)
    blurry = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    assert framework.blur_map is None
    with torch.no_grad():
        expected = published.unet(checkpoint["G_state_dict"], blurry.flip(1), None).flip(1)  # it sees BGR
        assert published.relative_error(framework(blurry), expected) < TOLERANCE
    assert sum(p.numel() for p in framework.deblur.parameters()) == pytest.approx(31.03e6, rel=1e-3)


def test_parameter_counts(imported):
    def millions(module):
        return round(sum(p.numel() for p in module.parameters()) / 1e6, 3)

    assert millions(imported["VGG_Deblur"].reblur) == 0.475
    assert millions(imported["VGG_Deblur"].blur_map) == 0.066
    assert round(millions(imported["VGG_Deblur"].deblur), 2) == 31.05
    assert round(millions(imported["Restormer"].deblur), 2) == 26.13


@pytest.mark.parametrize("name", ["VGG_Deblur", "Restormer"])
def test_networks_that_see_bgr_are_turned_round(imported, name):
    """All parts: the same results, of images and with results turned round."""
    rgb, bgr = imported[name], import_official(published.checkpoint(name), channels="bgr")
    blurry, sharp = torch.rand(2, 1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(bgr(blurry.flip(1)), rgb(blurry).flip(1), atol=1e-5)
        found, expected = bgr.reblur(sharp.flip(1), blurry.flip(1)), rgb.reblur(sharp, blurry)
        assert torch.allclose(found.seeds, expected.seeds, atol=1e-4)
        assert torch.allclose(found.image, expected.image.flip(1), atol=1e-5)
        assert not torch.allclose(bgr(blurry), rgb(blurry), atol=1e-3)


def test_prefixes_make_no_difference(imported):
    blurry = torch.rand(1, 3, 16, 16)
    plain = import_official(published.checkpoint("VGG_Deblur", prefix=""))
    with torch.no_grad():
        assert torch.equal(plain(blurry), imported["VGG_Deblur"](blurry))


def test_without_a_blur_map_network_a_map_is_asked_for():
    checkpoint = published.checkpoint()
    del checkpoint["Pred_state_dict"], checkpoint["Reblur_state_dict"]
    framework = import_official(checkpoint)
    assert framework.reblur is None
    with pytest.raises(ValueError, match="no blur map network"):
        framework(torch.rand(1, 3, 16, 16))
    with torch.no_grad():
        assert framework.deblur(torch.rand(1, 3, 16, 16), torch.randn(1, 35, 16, 16)).shape == (1, 3, 16, 16)


def test_sizes_follow_from_the_shapes():
    """Checkpoints of the published code with other widths and depths."""
    narrow = FrameworkConfig(
        blur_map=BlurMapConfig(width=8, blocks=2),
        deblur=DeblurConfig(
            "restormer",
            {"width": 8, "blocks": [1, 2, 1], "heads": [1, 2, 2], "refinement": 1, "expansion": 2.0},
        ),
        reblur=ReblurConfig(width=12, blocks=1, light="srgb"),
    )
    for config in (
        narrow,
        FrameworkConfig(deblur=DeblurConfig("unet", {"width": 4, "depth": 3}), reblur=ReblurConfig(light="srgb")),
    ):
        ours = Framework(config).eval()
        again = import_official(as_published(ours))
        blurry = torch.rand(1, 3, 24, 16)
        with torch.no_grad():
            assert torch.equal(again(blurry), ours(blurry))
            assert torch.equal(again.reblur(blurry, blurry).image, ours.reblur(blurry, blurry).image)
        assert again.config.blur_map == config.blur_map
        assert again.config.reblur == config.reblur


def as_published(framework):
    """A framework's weights under the published names."""
    unet = framework.config.deblur.network == "unet"
    name = checkpoint_module._unet_name(len(framework.deblur.encoder)) if unet else checkpoint_module._restormer_name
    return {
        "G_state_dict": {name(key): tensor for key, tensor in framework.deblur.state_dict().items()},
        "Pred_state_dict": {
            checkpoint_module._small_net_name(k): t for k, t in framework.blur_map.state_dict().items()
        },
        "Reblur_state_dict": {
            checkpoint_module._small_net_name(k): t for k, t in framework.reblur.state_dict().items()
        },
    }


def test_all_that_differs_is_named():
    checkpoint = published.checkpoint()
    weights = checkpoint["G_state_dict"]
    weights["module.block6.0.weight"] = torch.zeros(512, 1024, 1, 1)
    weights["module.something.weight"] = torch.zeros(5)
    del weights["module.up7.1.bias"]
    with pytest.raises(WeightsError) as caught:
        import_official(checkpoint)
    message = str(caught.value)
    assert "3 tensors differ" in message
    assert "shape of block6.0.weight: (512, 1024, 3, 3) needed, got (512, 1024, 1, 1)" in message
    assert "unknown: something.weight (5,)" in message
    assert "missing: up7.1.bias (256,)" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("G_state_dict"), "must be a dictionary with 'G_state_dict'"),
        (
            lambda c: c.update(G_state_dict=[1]),
            "G_state_dict of the checkpoint must be a dictionary of tensors, got list",
        ),
        (lambda c: c.update(G_state_dict={}), "neither the U-Net"),
        (lambda c: c.update(G_state_dict={"conv.weight": torch.zeros(1)}), "neither the U-Net"),
        (
            lambda c: c.update(G_state_dict={"encoder.block1.0.weight": torch.zeros(3)}),
            "missing: encoder.block1.0.bias",
        ),
        (
            lambda c: c.update(G_state_dict={"patch_embed.proj.weight": torch.zeros(7, 3, 3, 3)}),
            "missing: output.weight",
        ),
        (
            lambda c: c["G_state_dict"].update({"module.out.0.bias": "text"}),
            "must be a dense floating-point tensor, got str",
        ),
        (lambda c: c["G_state_dict"].update({"out.0.bias": torch.zeros(3)}), "out.0.bias twice"),
        (
            lambda c: c["Pred_state_dict"].popitem(),
            "Pred_state_dict of the checkpoint does not fit BlurMapNet, 1 tensor",
        ),
        (lambda c: c["Reblur_state_dict"].clear(), "Reblur_state_dict of the checkpoint does not fit ReblurringNet"),
    ],
)
def test_foreign_dictionaries_are_refused(change, message):
    checkpoint = published.checkpoint()
    change(checkpoint)
    with pytest.raises(WeightsError, match=message.replace("(", r"\(")):
        import_official(checkpoint)


class Malicious:
    """Pickled, it asks to make a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def malicious_files(folder, marker):
    checkpoint = {"G_state_dict": {"encoder.block1.0.weight": Malicious(str(marker))}}
    (folder / "plain.pkl").write_bytes(pickle.dumps(checkpoint))
    torch.save(checkpoint, folder / "zip.pth")
    torch.save(checkpoint, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return [folder / "plain.pkl", folder / "zip.pth", folder / "legacy.pth"]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / "it was run"
    for path in malicious_files(tmp_path, marker):
        with pytest.raises(WeightsError, match=r"must hold tensors.* which was not done"):
            import_official(path)
        assert not marker.exists(), path
    pickle.loads((tmp_path / "plain.pkl").read_bytes())
    assert marker.exists(), "the file is not malicious; this test would prove nothing"


def test_damaged_and_foreign_files_are_refused(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(published.jdrl_checkpoint(), whole)
    content = whole.read_bytes()
    for name, data in {
        "cut": content[: len(content) // 2],
        "cut at the end": content[:-30],
        "empty": b"",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "text": b"epoch: 200\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match=f"{name} must hold tensors, .*: it is truncated"):
            import_official(tmp_path / name)
    for path, message in ((tmp_path / "missing", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(WeightsError, match=f"cannot read .*{message}"):
            import_official(path)


def test_the_command_line(tmp_path, capsys):
    torch.save(published.checkpoint("VGG_Deblur"), tmp_path / "in.pth")
    assert main(["import-official", str(tmp_path / "in.pth"), str(tmp_path / "out")]) == 0
    assert "unet: 31.054 M parameters" in capsys.readouterr().out
    blurry = torch.rand(1, 3, 20, 30)
    framework = Framework.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(framework(blurry), import_official(tmp_path / "in.pth")(blurry))


def test_the_command_line_refuses_in_one_line(tmp_path):
    marker = tmp_path / "it was run"
    for path in malicious_files(tmp_path, marker)[:2]:
        command = [sys.executable, "-m", "models", "import-official", str(path), str(tmp_path / "out")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert result.stderr.startswith("python -m models import-official: error: ")
        assert len(result.stderr.splitlines()) == 1
        assert not marker.exists()
        assert not (tmp_path / "out" / "model.safetensors").exists()
    assert main(["import-official", str(tmp_path / "zip.pth"), "/dev/null/model"]) == 2
