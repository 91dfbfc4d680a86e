"""The thin lens: circles of confusion by the textbook, and pictures of them."""

import math

import pytest
import torch

import reblur_ops
from reblur_ops.testing import BACKENDS

# A 50 mm lens at f/2 on a sensor of 6 µm pixels, focused at 2 m; in metres.
LENS = {"focus": 2.0, "aperture": 0.025, "focal_length": 0.05, "pixel_pitch": 6e-6}


def traced(depth: float, focus: float, aperture: float, focal_length: float, pixel_pitch: float) -> float:
    """By the lens equation: where the image of the point lies, and how wide the cone of light is on the sensor."""
    sensor = 1 / (1 / focal_length - 1 / focus)
    image = 1 / (1 / focal_length - 1 / depth)
    return aperture / 2 * abs(sensor - image) / image / pixel_pitch


def test_against_the_lens_equation():
    depths = [0.3, 1.0, 1.9, 2.0, 2.1, 5.0, 100.0]
    actual = reblur_ops.coc_radius(torch.tensor(depths, dtype=torch.float64), **LENS)
    assert actual.tolist() == pytest.approx([traced(depth, **LENS) for depth in depths], rel=1e-9, abs=1e-12)
    assert actual[3] == 0
    # 50 mm at f/2 focused at 2 m: the far limit is A f / (2 (s - f)), in pixels.
    infinite = reblur_ops.coc_radius(torch.tensor(math.inf), **LENS)
    assert infinite.item() == pytest.approx(0.025 * 0.05 / (2 * 1.95 * 6e-6))


def test_focused_at_infinity():
    lens = {**LENS, "focus": math.inf}
    depths = torch.tensor([1.0, 10.0, math.inf])
    expected = LENS["aperture"] * LENS["focal_length"] / 2 / depths / LENS["pixel_pitch"]
    torch.testing.assert_close(reblur_ops.coc_radius(depths, **lens), expected)
    torch.testing.assert_close(reblur_ops.coc_radius(depths, **{**LENS, "focus": torch.tensor(math.inf)}), expected)


def test_tensors_broadcast_and_have_gradients():
    depth = torch.rand(2, 1, 3, 4, dtype=torch.float64) + 0.5
    focus = torch.tensor([1.0, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    arguments = [depth.requires_grad_(), focus.requires_grad_()]
    assert reblur_ops.coc_radius(*arguments, 0.02, 0.05, 5e-6).shape == (2, 1, 3, 4)
    assert torch.autograd.gradcheck(lambda d, f: reblur_ops.coc_radius(d, f, 0.02, 0.05, 5e-6), arguments)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"aperture": -1.0}, ValueError, "aperture must be >= 0, got -1.0"),
        ({"focal_length": 0}, ValueError, "focal_length must be > 0, got 0"),
        ({"pixel_pitch": 0.0}, ValueError, "pixel_pitch must be > 0, got 0.0"),
        ({"focus": 0.04}, ValueError, "focus must be farther than the focal length, 0.05, got 0.04"),
        ({"focus": "far"}, TypeError, "focus must be a number or a torch.Tensor, got 'far'"),
        ({"focus": math.nan}, ValueError, "focus must be > 0, got nan"),
    ],
)
def test_bad_lenses(change, error, match):
    with pytest.raises(error, match=match):
        reblur_ops.coc_radius(torch.ones(2), **{**LENS, **change})


@pytest.mark.parametrize("depth", [2.0, torch.ones(2, dtype=torch.int64)])
def test_bad_depth(depth):
    with pytest.raises(TypeError, match="depth must be a floating point"):
        reblur_ops.coc_radius(depth, **LENS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_defocus_composes_them(backend):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 20, 24, generator=generator)
    depth = torch.rand(1, 1, 20, 24, generator=generator) * 0.3 + 1.8
    radius = reblur_ops.coc_radius(depth, **LENS)
    assert 3 < radius.max() < 30
    with reblur_ops.use_backend(backend):
        disk = reblur_ops.disk_blur(
            image, radius, max_radius=5, direction="scatter", padding="replicate", normalize_scatter=True
        )
        assert torch.equal(reblur_ops.defocus(image, depth, **LENS, max_radius=5), disk)
        gaussian = reblur_ops.gaussian_blur(image, radius.clamp(max=5) / 2, radius=8, padding="replicate")
        other = reblur_ops.defocus(image, depth, **LENS, max_radius=5, kernel="gaussian", direction="gather")
        assert torch.equal(other, gaussian)


def test_both_kernels_have_one_rms_radius():
    """What `defocus` says of its Gaussian: as wide, in the mean square, as the disk."""
    impulse = torch.zeros(1, 1, 81, 81, dtype=torch.float64)
    impulse[0, 0, 40, 40] = 1
    offset = torch.arange(-40, 41, dtype=torch.float64)
    squared = offset[:, None] ** 2 + offset**2
    depth = torch.full_like(impulse, 2.5)
    widths = [
        (reblur_ops.defocus(impulse, depth, **LENS, max_radius=20, kernel=kernel) * squared).sum().sqrt().item()
        for kernel in ("disk", "gaussian")
    ]
    radius = traced(2.5, **LENS)
    assert widths[0] == pytest.approx(radius / math.sqrt(2), rel=0.01)
    assert widths[1] == pytest.approx(radius / math.sqrt(2), rel=0.02)


def test_defocus_refuses_before_it_computes():
    image, depth = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    with pytest.raises(ValueError, match="kernel must be one of 'disk', 'gaussian', got 'box'"):
        reblur_ops.defocus(image, depth, **LENS, max_radius=3, kernel="box")
    for kernel in ("disk", "gaussian"):
        with pytest.raises(ValueError, match="max_radius must lie between 1 and 64, got 65"):
            reblur_ops.defocus(image, depth, **LENS, max_radius=65, kernel=kernel)
        with pytest.raises(TypeError, match="max_radius must be an integer"):
            reblur_ops.defocus(image, depth, **LENS, max_radius=2.5, kernel=kernel)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bits_are_computed_in_32(dtype):
    depth = torch.linspace(1.5, 3, 50).to(dtype)
    focal_length = torch.tensor(0.05, dtype=dtype)
    actual = reblur_ops.coc_radius(depth, **{**LENS, "focal_length": focal_length})
    assert actual.dtype == dtype
    expected = reblur_ops.coc_radius(depth.double(), **{**LENS, "focal_length": focal_length.double()})
    torch.testing.assert_close(actual, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    assert reblur_ops.coc_radius(depth, **{**LENS, "focus": torch.full((50,), 2.0)}).dtype == torch.float32


def test_a_focus_for_each_image():
    """Also where the picture is as wide as the batch is long, and (N,) could be read along its width."""
    depth = torch.rand(4, 1, 3, 4) + 1
    image, focus = torch.rand(4, 3, 3, 4), torch.tensor([1.0, 2.0, 3.0, 4.0])
    apart = torch.cat([reblur_ops.coc_radius(depth[[k]], **{**LENS, "focus": k + 1.0}) for k in range(4)])
    torch.testing.assert_close(reblur_ops.coc_radius(depth, **{**LENS, "focus": focus}), apart)
    lens = reblur_ops.nn.Defocus(torch.tensor([0.025]), 0.05, 6e-6, max_radius=5)
    assert dict(lens.named_buffers()).keys() == {"aperture"}
    assert "aperture=Tensor(1,), focal_length=0.05" in repr(lens)
    expected = reblur_ops.disk_blur(
        image, apart, max_radius=5, direction="scatter", padding="replicate", normalize_scatter=True
    )
    torch.testing.assert_close(lens(image, depth, focus), expected)


def test_a_focus_for_each_channel():
    image, depth = torch.rand(1, 3, 8, 9), torch.full((1, 1, 8, 9), 2.0)
    focus = torch.tensor([1.95, 2.0, 2.05])
    together = reblur_ops.defocus(image, depth, **{**LENS, "focus": focus.view(1, 3, 1, 1)}, max_radius=5)
    for c in range(3):
        alone = reblur_ops.defocus(image[:, c : c + 1], depth, **{**LENS, "focus": focus[c].item()}, max_radius=5)
        torch.testing.assert_close(together[:, c : c + 1], alone)
    assert torch.equal(together[:, 1], image[:, 1])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"depth": torch.ones(2, 1, 8, 7)}, "depth must be a number or have shape"),
        ({"depth": torch.ones(2, 1, 8, 8, dtype=torch.float64)}, "depth must have the dtype of image"),
        ({"focus": torch.ones(3)}, r"focus must be a number or a tensor that broadcasts .* or has shape \(N,\), got"),
        ({"aperture": torch.ones(5, 1, 1, 1, 1)}, r"to its shape, \(2, 1, 8, 8\), or that of image"),
    ],
)
def test_defocus_names_what_does_not_fit(change, match):
    arguments = {"image": torch.rand(2, 3, 8, 8), "depth": torch.ones(2, 1, 8, 8), **LENS, **change}
    with pytest.raises((TypeError, ValueError), match=match):
        reblur_ops.defocus(**arguments, max_radius=3)
