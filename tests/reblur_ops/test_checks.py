"""Bad input gets one clear error: the argument, what is required, what arrived."""

import re

import pytest
import torch

import reblur_ops
from reblur_ops.testing import problem

R7 = "(1, 2, 3, 4, 5, 6, 7)"


def good():
    p = problem(12, 14).to(torch.float32)
    return {"image": p.image, "seeds": p.seeds, "weights": p.weights}


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("image", lambda t: t.numpy(), TypeError, "image must be a torch.Tensor, got ndarray"),
        ("seeds", lambda t: None, TypeError, "seeds must be a torch.Tensor, got NoneType"),
        ("image", lambda t: t[0], ValueError, "image must have shape (N, C, H, W), got (3, 12, 14)"),
        ("weights", lambda t: t[None], ValueError, "weights must have shape (N, C, H, W), got (1, 2, 8, 12, 14)"),
        ("image", lambda t: (t * 255).byte(), TypeError, "image must be floating point, got torch.uint8"),
        ("seeds", lambda t: t.long(), TypeError, "seeds must be floating point, got torch.int64"),
        (
            "image",
            lambda t: t.to(torch.float8_e5m2),
            TypeError,
            "image must be float32, float64, float16 or bfloat16, got torch.float8_e5m2",
        ),
        ("weights", lambda t: t + 0j, TypeError, "weights must be floating point, got torch.complex64"),
        ("seeds", lambda t: t[:, 1:], ValueError, f"seeds must have 35 channels for radii {R7}, got 34"),
        ("weights", lambda t: t[:, 1:], ValueError, f"weights must have 8 channels for radii {R7}, got 7"),
        ("image", lambda t: t[:1], ValueError, "batch, height and width of image, (1, 12, 14), got (2, 12, 14)"),
        ("weights", lambda t: t[:, :, 1:], ValueError, "weights must have the batch, height and width of seeds"),
        ("image", lambda t: t[..., 1:], ValueError, "seeds must have the batch, height and width of image"),
        ("image", lambda t: t.double(), TypeError, "the dtype of image, torch.float64, got torch.float32"),
        (
            "weights",
            lambda t: t.half(),
            TypeError,
            "weights must have the dtype of seeds, torch.float32, got torch.float16",
        ),
        ("image", lambda t: t.to("meta"), ValueError, "seeds must be on the device of image, meta, got cpu"),
    ],
)
def test_tensors(name, change, error, message):
    arguments = good()
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=re.escape(message)):
        reblur_ops.reblur(**arguments)


@pytest.mark.parametrize(
    ("radii", "error", "message"),
    [
        ((), ValueError, "radii must hold at least one radius, got none"),
        ((2, 1), ValueError, "radii must increase, got (2, 1)"),
        ((1, 1), ValueError, "radii must increase, got (1, 1)"),
        ((0, 1), ValueError, "radii must lie between 1 and 15, got (0, 1)"),
        ((-1, 1), ValueError, "radii must lie between 1 and 15, got (-1, 1)"),
        ((1, 16), ValueError, "radii must lie between 1 and 15, got (1, 16)"),
        ((1, 2.0), TypeError, "radii must be integers, got 2.0 in (1, 2.0)"),
        ((True, 2), TypeError, "radii must be integers, got True in (True, 2)"),
        (7, TypeError, "radii must be a sequence of integers, got 7"),
        ("12", TypeError, "radii must be a sequence of integers, got '12'"),
    ],
    ids=str,
)
def test_radii(radii, error, message):
    for call in (
        lambda: reblur_ops.reblur(**good(), radii=radii),
        lambda: reblur_ops.blur_radius(good()["seeds"], good()["weights"], radii=radii),
        lambda: reblur_ops.nn.Reblur(radii),
        lambda: reblur_ops.map_channels(radii),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()


def test_options():
    with pytest.raises(ValueError, match="support must be one of 'square', 'disk', got 'round'"):
        reblur_ops.reblur(**good(), support="round")
    with pytest.raises(ValueError, match="padding must be one of 'zeros', 'replicate', 'reflect', got 'circular'"):
        reblur_ops.reblur(**good(), padding="circular")
    with pytest.raises(ValueError, match="support must be one of"):
        reblur_ops.tap_weights(good()["seeds"], good()["weights"], support="Square")
    with pytest.raises(ValueError, match="support must be one of"):
        reblur_ops.kernel_image(good()["seeds"], good()["weights"], [(0, 0, 0)], support="Square")
    with pytest.raises(TypeError, match="normalize_scatter must be a bool or a tensor, got NoneType"):
        reblur_ops.reblur(**good(), normalize_scatter=None)


def test_layouts():
    arguments = good()
    with pytest.raises(TypeError, match=re.escape("image must be a dense tensor, got layout torch.sparse_coo")):
        reblur_ops.reblur(**{**arguments, "image": arguments["image"].to_sparse()})


@pytest.mark.parametrize("size", [(7, 20), (20, 7), (1, 1)])
def test_reflect_needs_an_image_larger_than_the_radius(size):
    p = problem(*size)
    with pytest.raises(
        ValueError, match=re.escape(f"larger than the largest radius, 7, in height and width, got {size}")
    ):
        reblur_ops.reblur(*p.tensors, padding="reflect")
    p = problem(8, 8)
    assert reblur_ops.reblur(*p.tensors, padding="reflect").isfinite().all()
    no_channels = torch.rand(2, 0, *size)
    for normalize in (False, True):
        with pytest.raises(ValueError, match=re.escape(f"got {size}")):
            reblur_ops.disk_blur(
                no_channels, 1.0, max_radius=20, padding="reflect", direction="scatter", normalize_scatter=normalize
            )


def test_radii_may_be_any_sequence_of_integers():
    import numpy as np

    p = problem(radii=(2, 5))
    expected = reblur_ops.reblur(*p.tensors, radii=(2, 5))
    for radii in ([2, 5], np.array([2, 5]), torch.Size([2, 5])):
        assert torch.equal(reblur_ops.reblur(*p.tensors, radii=radii), expected)
