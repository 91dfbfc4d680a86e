"""The framework in ONNX gives, run by another program, what it gives here."""

import numpy as np
import pytest
import torch

from models.__main__ import main
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig

onnxruntime = pytest.importorskip("onnxruntime", reason="there is nothing to run ONNX with")
pytest.importorskip("onnxscript", reason="there is no exporter to ONNX")

pytestmark = pytest.mark.slow

TINY = {
    "compact": {"width": 8, "encoder": (1,), "middle": 1, "decoder": (1,)},
    "unet": {"width": 8},
}


@pytest.mark.parametrize("network", TINY)
def test_images_of_any_size(network, tmp_path, capsys):
    torch.manual_seed(0)
    restrained = network == "compact"  # as the checkpoint in the box: a map of the radius, and reblurring
    config = FrameworkConfig(
        radii=(1, 2),
        blur_map=BlurMapConfig(width=8, form="radius" if restrained else "seeds"),
        deblur=DeblurConfig(network=network, options=TINY[network], restrained=restrained),
        reblur=None,
    )
    framework = Framework(config).eval()
    framework.save_pretrained(tmp_path / "framework")
    file = tmp_path / "out" / "framework.onnx"
    assert main(["export", str(tmp_path / "framework"), "--onnx", str(file)]) == 0
    assert f"exported to {file}" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 32, 48), (3, 3, 37, 21), (1, 3, 1, 5)):
        image = torch.rand(shape)
        (deblurred,) = session.run(["deblurred"], {"image": image.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(deblurred, framework(image).numpy(), atol=2e-6)


def test_a_folder_is_no_file_to_write(tmp_path, capsys):
    assert main(["export", "--onnx", str(tmp_path)]) == 2
    assert "--onnx names the file to write" in capsys.readouterr().err


def test_a_framework_without_its_map_is_refused(tmp_path, capsys):
    framework = Framework(FrameworkConfig(radii=(1,), blur_map=None, deblur=DeblurConfig(options=TINY["compact"])))
    framework.save_pretrained(tmp_path / "framework")
    assert main(["export", str(tmp_path / "framework"), "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert "must have a blur map network" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()
