"""Deblurring in one call."""

import numpy as np
import pytest
import torch

import models
from models.data import images
from models.framework import DeblurConfig, Framework, FrameworkConfig
from models.inference import deblur

SMALL = FrameworkConfig(
    radii=(1, 2), deblur=DeblurConfig(options={"width": 8, "encoder": (1,), "middle": 1, "decoder": (1,)})
)


@pytest.fixture(scope="module")
def framework():
    torch.manual_seed(0)
    return Framework(SMALL).eval()


def test_arrays_and_files_give_what_the_framework_gives(framework, tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    image = torch.from_numpy(photograph).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = framework(image)[0].permute(1, 2, 0).numpy()
    from_floats = deblur(photograph / 255, framework)
    assert from_floats.dtype == np.float32
    np.testing.assert_allclose(from_floats, expected, atol=1e-6)
    from_bytes = deblur(photograph, framework)
    assert from_bytes.dtype == np.uint8
    np.testing.assert_array_equal(from_bytes, np.rint(from_floats * 255))
    images.write(tmp_path / "photograph.png", photograph / np.float32(255))
    np.testing.assert_allclose(deblur(tmp_path / "photograph.png", framework), from_floats, atol=1e-6)
    np.testing.assert_allclose(deblur(str(tmp_path / "photograph.png"), framework), from_floats, atol=1e-6)


def test_the_framework_that_comes_along_is_the_default():
    photograph = np.random.default_rng(0).random((24, 32, 3), np.float32)
    np.testing.assert_array_equal(deblur(photograph), deblur(photograph, models.load_framework()))
    assert isinstance(models.load_framework(), models.Framework)
    with pytest.raises(AttributeError, match="'models' has no attribute 'load_frame'"):
        _ = models.load_frame


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((8, 8), np.uint8), ValueError, r"image must have shape \(H, W, 3\), got \(8, 8\)"),
        (np.zeros((3, 8, 8), np.float32), ValueError, r"image must have shape \(H, W, 3\), got \(3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.int64), TypeError, "image must be uint8 or floating point of 0 … 1, got int64"),
        (np.full((8, 8, 3), 200.0), ValueError, "image must be finite, and of 0 … 1 where .* got 200 to 200"),
        (np.full((8, 8, 3), np.nan), ValueError, "image must be finite, .* got NaN or infinity"),
        (torch.zeros(8, 8, 3), TypeError, "image must be a file or a NumPy array, got Tensor"),
    ],
)
def test_what_is_refused(image, error, message):
    with pytest.raises(error, match=message):
        deblur(image)
