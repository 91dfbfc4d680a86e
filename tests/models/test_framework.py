"""The framework as a whole: configured, saved, loaded, refused."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from models.__main__ import main
from models.core.config import from_dict, to_dict
from models.core.weights import WeightsError
from models.framework import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    BlurMapConfig,
    DeblurConfig,
    Framework,
    FrameworkConfig,
    ReblurConfig,
)

SMALL = FrameworkConfig(
    radii=(2, 5),
    blur_map=BlurMapConfig(width=4, blocks=1),
    deblur=DeblurConfig("compact", {"width": 4, "encoder": (1,), "middle": 1, "decoder": (1,)}),
    reblur=ReblurConfig(width=4, blocks=1, support="disk", padding="replicate"),
)


def with_network(network, **options):
    return dataclasses.replace(SMALL, deblur=DeblurConfig(network, options))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return Framework(SMALL).eval()


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (32, 32)])
@torch.no_grad()
def test_it_deblurs_any_size_within_range(small, size):
    blurry = 1.5 * torch.rand(2, 3, *size) - 0.2
    output = small(blurry)
    assert torch.equal(output, small.deblur(blurry, small.blur_map(blurry)).clamp(0, 1))
    assert output.amin() >= 0
    assert output.amax() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "blurry must be a tensor, got ndarray"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "blurry must be floating point, got torch.uint8"),
        (torch.zeros(1, 3, 8, 8).half(), "blurry must be torch.float32, as the weights .* got torch.float16"),
        (torch.zeros(1, 3, 8, 8).double(), "blurry must be torch.float32, as the weights .* got torch.float64"),
    ],
)
def test_what_is_no_image_of_its_type_is_refused(small, image, message):
    with pytest.raises(TypeError, match=message):
        small(image)


@torch.no_grad()
def test_under_autocast_it_takes_16_bits(small):
    blurry = torch.rand(1, 3, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert small(blurry).shape == (1, 3, 16, 16)


@torch.no_grad()
def test_defaults_are_the_compact_network_for_the_published_radii():
    framework = Framework()
    assert framework.config.deblur.network == "compact"
    assert framework.blur_map(torch.rand(1, 3, 4, 4)).shape[1] == 35
    assert framework.reblur(*torch.rand(2, 1, 3, 4, 4)).weights.shape[1] == 8


@torch.no_grad()
def test_parts_can_be_left_out():
    alone = Framework(FrameworkConfig(blur_map=None, reblur=None, deblur=DeblurConfig(prior=False)))
    assert alone.blur_map is None
    assert alone.reblur is None
    assert alone(torch.rand(1, 3, 9, 9)).shape == (1, 3, 9, 9)


def test_the_configuration_goes_through_json(small):
    text = json.dumps(to_dict(small.config))
    assert from_dict(FrameworkConfig, json.loads(text)) == small.config
    assert small.config.deblur.options["prior_width"] == 16, "defaults are written out, as they may change"
    assert from_dict(FrameworkConfig, {"blur_map": None}).blur_map is None
    assert from_dict(FrameworkConfig, {}) == FrameworkConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"raddi": [1]}, "unknown in the configuration: raddi; it has radii, blur_map, deblur, reblur"),
        ({"deblur": {"netwrok": "unet"}}, "unknown in the configuration: deblur.netwrok; deblur has network, options"),
        ({"blur_map": {"width": "32"}}, "blur_map.width must be an integer, got '32'"),
        ({"blur_map": {"width": True}}, "blur_map.width must be an integer, got True"),
        ({"radii": 3}, "radii must be a list, got 3"),
        ({"radii": [1, 2.5]}, r"radii\[1\] must be an integer, got 2.5"),
        ({"reblur": "yes"}, "reblur must be a mapping of names to values, got 'yes'"),
        ({"deblur": {"options": 3}}, "deblur.options must be a mapping of names to values, got 3"),
        ([], "the configuration must be a mapping"),
    ],
)
def test_configurations_that_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(FrameworkConfig, values)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_network("vgg"), "deblur.network must be one of compact, unet, restormer, own, got 'vgg'"),
        (
            with_network("unet", widht=3, width=3),
            "unknown options: deblur.options.widht; unet has width, depth, dropout",
        ),
        (with_network("unet", map_channels=3), "unknown options: deblur.options.map_channels"),
        (with_network("own"), "own needs deblur.options.class_path"),
        (with_network("unet", width=torch.ones(1)), "must be what JSON can hold"),
        (dataclasses.replace(SMALL, radii=(3, 2)), "radii must increase"),
        (dataclasses.replace(SMALL, reblur=ReblurConfig(support="round")), "support must be one of"),
    ],
)
def test_frameworks_that_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        Framework(config)


# Prints the hash of what the model in a folder makes of an image that it makes itself.
HASH = """
import hashlib, sys, torch
from models.framework import Framework
blurry = torch.rand(1, 3, 21, 34, generator=torch.Generator().manual_seed(5))
framework = Framework.from_pretrained(sys.argv[1])
with torch.no_grad():
    outputs = [framework(blurry), framework.reblur(blurry, blurry).image]
print(hashlib.sha256(b"".join(output.contiguous().numpy().tobytes() for output in outputs)).hexdigest())
"""


def test_a_fresh_process_gives_the_same_bits(small, tmp_path):
    small.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    blurry = torch.rand(1, 3, 21, 34, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        outputs = [small(blurry), small.reblur(blurry, blurry).image]
    expected = hashlib.sha256(b"".join(output.contiguous().numpy().tobytes() for output in outputs)).hexdigest()
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", HASH, str(tmp_path / "model")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert printed.strip() == expected


def test_a_network_of_yours_is_saved_and_loaded(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "import torch\nclass Mine(torch.nn.Conv2d):\n"
        "    def __init__(self, size):\n        super().__init__(3, 3, size, padding='same')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    framework = Framework(
        with_network("own", class_path="my_networks.Mine", arguments={"size": 5}, residual=True)
    ).eval()
    framework.to(memory_format=torch.channels_last).save_pretrained(tmp_path / "model")
    again = Framework.from_pretrained(tmp_path / "model", trust=["my_networks.Mine"])
    assert again.config == framework.config
    assert not again.training
    blurry = torch.rand(1, 3, 11, 12)
    with torch.no_grad():
        assert torch.allclose(again(blurry), framework(blurry), atol=1e-6)
    sys.modules.pop("my_networks")


def test_a_checkpoint_runs_no_code_of_its_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "evilmod.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "model"
    Framework(SMALL).save_pretrained(folder)
    config = to_dict(dataclasses.replace(SMALL, deblur=DeblurConfig("own", {"class_path": "evilmod.Net"})))
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"needs the class evilmod\.Net.*--trust evilmod\.Net"):
        Framework.from_pretrained(folder)
    with pytest.raises(SystemExit, match="it ran"):
        Framework.from_pretrained(folder, trust=["evilmod.Net"])
    assert main(["deblur", str(tmp_path / "a.png"), "--checkpoint", str(folder), "--out", str(tmp_path / "o")]) == 2
    assert "it ran" not in capsys.readouterr().err


@pytest.mark.parametrize("width", [10**6, 10**12, 5000])
def test_a_hostile_size_is_refused_before_it_takes_memory(small, tmp_path, width):
    small.save_pretrained(tmp_path)
    values = to_dict(small.config)
    values["reblur"]["width"] = width
    (tmp_path / CONFIG_FILE).write_text(json.dumps(values))
    with pytest.raises(WeightsError, match="sizes must be at most 16384" if width > 16384 else "does not fit"):
        Framework.from_pretrained(tmp_path)


def test_all_that_differs_is_named(small, tmp_path):
    small.save_pretrained(tmp_path)
    config = dataclasses.replace(SMALL, blur_map=BlurMapConfig(width=5, blocks=1), reblur=None)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(to_dict(config)))
    with pytest.raises(WeightsError) as caught:
        Framework.from_pretrained(tmp_path)
    message = str(caught.value)
    assert "shape of blur_map.net.first.weight: (5, 3, 3, 3) needed, got (4, 3, 3, 3)" in message
    unknown = {name for name in small.state_dict() if name.startswith("reblur.")}
    assert all(f"unknown: {name} " in message for name in unknown)
    changed = [name for name in small.state_dict() if name.startswith("blur_map.") and name != "blur_map.net.last.bias"]
    assert len(message.splitlines()) == 1 + len(unknown) + len(changed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (CONFIG_FILE, None, "cannot read .*config.json: No such file"),
        (WEIGHTS_FILE, None, "cannot read .*model.safetensors: No such file"),
        (CONFIG_FILE, b"{", "config.json: Expecting"),
        (CONFIG_FILE, b"\xff\xfe", "config.json: .* can't decode"),
        (CONFIG_FILE, b'{"model_type": "bert"}', "config.json: unknown in the configuration: model_type"),
        (CONFIG_FILE, b'{"deblur": {"options": {"width": "many"}}}', "config.json: width must be an integer"),
        (CONFIG_FILE, b'{"deblur": {"options": {"encoder": 2}}}', "config.json: "),
        (WEIGHTS_FILE, b"", "is not a complete safetensors file"),
        (WEIGHTS_FILE, b"\x80\x04.", "is not a complete safetensors file"),
    ],
)
def test_damaged_folders_are_refused(small, tmp_path, name, content, message):
    small.save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        Framework.from_pretrained(tmp_path)


def test_truncated_weights_are_refused(small, tmp_path):
    small.save_pretrained(tmp_path)
    content = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(content[:-4])
    with pytest.raises(WeightsError, match="is not a complete safetensors file"):
        Framework.from_pretrained(tmp_path)


def test_weights_saved_at_half_the_size(tmp_path):
    framework = Framework(SMALL)
    framework.save_pretrained(tmp_path / "full")
    framework.save_pretrained(tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.8 * sizes[0]
    read = Framework.from_pretrained(tmp_path / "half").state_dict()
    for name, value in framework.state_dict().items():
        assert read[name].dtype == torch.float32
        torch.testing.assert_close(read[name], value, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_from_before_there_was_a_choice_of_light_blurs_srgb(tmp_path):
    Framework(SMALL).save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert config["reblur"].pop("light") == "linear"
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    assert Framework.from_pretrained(tmp_path).reblur.light == "srgb"


def test_tiles_of_a_restrained_framework_start_where_those_of_both_do():
    options = {"class_path": "torch.nn.Conv2d", "arguments": {"in_channels": 3, "out_channels": 3, "kernel_size": 1}}
    config = DeblurConfig("own", {**options, "multiple": 6}, restrained=True)
    assert Framework(dataclasses.replace(SMALL, deblur=config)).multiple == 12
