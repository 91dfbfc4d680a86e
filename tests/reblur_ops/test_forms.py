"""The forms that a map may have, the modules, former names, and types."""

import subprocess
import sys

import pytest
import torch

import reblur_ops
from reblur_ops import nn

IMAGE = torch.rand(2, 3, 12, 14, generator=torch.Generator().manual_seed(0))
MAP = 2 * torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(1))
BLURS = {
    "gaussian": lambda values, **options: reblur_ops.gaussian_blur(IMAGE, values, radius=6, **options),
    "disk": lambda values, **options: reblur_ops.disk_blur(IMAGE, values, max_radius=4, **options),
}


@pytest.mark.parametrize("blur", BLURS.values(), ids=BLURS)
@pytest.mark.parametrize("backend", ["native", "torch", "reference"])
def test_a_value_for_all_pixels_may_have_any_form(blur, backend):
    if backend == "native" and "native" not in reblur_ops.backends():
        pytest.skip("nothing is compiled here")
    with reblur_ops.use_backend(backend):
        expected = blur(torch.full_like(MAP, 1.5))
        for value in (
            1.5,
            torch.tensor(1.5),
            torch.tensor([1.5]),
            torch.tensor([1.5, 1.5]),
            torch.full((1, 1, 12, 14), 1.5),
        ):
            assert torch.equal(blur(value), expected)
        assert torch.equal(blur(torch.full((2, 12, 14), 1.5, dtype=torch.bfloat16)), expected)
        one_each = torch.tensor([0.7, 2.0])
        assert torch.equal(blur(one_each), blur(one_each[:, None, None, None].expand_as(MAP)))
        assert torch.equal(blur(MAP[:, 0]), blur(MAP))
        assert torch.equal(blur(MAP[:1]), blur(MAP[:1].expand_as(MAP)))


@pytest.mark.parametrize("blur", BLURS.values(), ids=BLURS)
@pytest.mark.parametrize("direction", ["gather", "scatter"])
def test_each_channel_may_have_a_map_of_its_own(blur, direction):
    maps = 2 * torch.rand(IMAGE.shape, generator=torch.Generator().manual_seed(2))
    whole = blur(maps, direction=direction)
    assert whole.shape == IMAGE.shape
    for channel in range(3):
        apart = blur(maps[:, channel : channel + 1], direction=direction)
        assert torch.allclose(whole[:, channel], apart[:, channel], atol=1e-6)


def test_gradients_reach_every_form():
    for shape in ((), (2,), (1, 1, 12, 14), (2, 12, 14), (2, 3, 12, 14)):
        values = torch.full(shape, 1.5).requires_grad_()
        reblur_ops.gaussian_blur(IMAGE, values, radius=4).square().sum().backward()
        assert values.grad.shape == shape
        assert (values.grad != 0).any()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("2", TypeError, "sigma must be a number or a torch.Tensor, got str"),
        (None, TypeError, "sigma must be a number or a torch.Tensor, got NoneType"),
        (True, TypeError, "sigma must be a number or a torch.Tensor, got bool"),
        (torch.ones(2, 1, 12, 14, dtype=torch.int32), TypeError, "sigma must be floating point, got torch.int32"),
        (torch.ones(2, 1, 12, 14, dtype=torch.float64), TypeError, "sigma must have the dtype of image"),
        (torch.ones(3), ValueError, r"sigma must be a number or have shape .* image \(2, 3, 12, 14\), got \(3,\)"),
        (torch.ones(2, 2, 12, 14), ValueError, r"got \(2, 2, 12, 14\)"),
        (torch.ones(2, 1, 14, 12), ValueError, r"got \(2, 1, 14, 12\)"),
    ],
)
def test_other_forms_are_refused_by_the_shape_that_was_given(value, error, message):
    with pytest.raises(error, match=message):
        reblur_ops.gaussian_blur(IMAGE, value, radius=3)


def test_a_gaussian_that_the_largest_window_cuts_off_is_told():
    with pytest.warns(UserWarning, match=r"a sigma of 40 pixels is cut off at 64 pixels, 1\.60 sigma; radius=64 says"):
        reblur_ops.gaussian_blur(IMAGE, 40.0)
    with pytest.warns(UserWarning, match="cut off") as caught:
        reblur_ops.nn.GaussianBlur()(IMAGE, 40.0)
    assert caught[0].filename == __file__
    reblur_ops.gaussian_blur(IMAGE, 40.0, radius=64)
    reblur_ops.gaussian_blur(IMAGE, 21.0)


@pytest.mark.parametrize(
    ("seeds", "error", "message"),
    [
        (None, TypeError, "seeds must be a torch.Tensor, got NoneType"),
        ("x", TypeError, "seeds must be a torch.Tensor, got str"),
        (torch.ones(1, 2, 3, 3, dtype=torch.complex64), TypeError, "seeds must be floating point, got torch.complex64"),
        (torch.ones(1, 2, 3, 3, dtype=torch.float16), TypeError, "weights must have the dtype of seeds"),
    ],
)
def test_the_radius_checks_before_it_casts(seeds, error, message):
    with pytest.raises(error, match=message):
        reblur_ops.blur_radius(seeds, torch.ones(1, 2, 3, 3), radii=(1,))


def test_modules_are_the_functions_with_their_options_kept():
    seeds, weights = torch.rand(2, 5, 12, 14), torch.rand(2, 3, 12, 14)
    profile, depth = torch.rand(2, 4, 12, 14), 1 + torch.rand(2, 1, 12, 14)
    scatter = {"direction": "scatter", "normalize_scatter": True, "padding": "reflect"}
    cases = [
        (nn.Reblur((1, 2), **scatter), (seeds, weights), lambda *a: reblur_ops.reblur(*a, radii=(1, 2), **scatter)),
        (nn.GaussianBlur(5, **scatter), (MAP,), lambda *a: reblur_ops.gaussian_blur(*a, radius=5, **scatter)),
        (nn.GaussianBlur(), (1.2,), lambda *a: reblur_ops.gaussian_blur(*a)),
        (nn.DiskBlur(4, **scatter), (MAP,), lambda *a: reblur_ops.disk_blur(*a, max_radius=4, **scatter)),
        (
            nn.RadialBlur("sum", **scatter),
            (profile,),
            lambda *a: reblur_ops.radial_blur(*a, normalize="sum", **scatter),
        ),
        (
            nn.Defocus(0.02, 0.05, 1e-4, max_radius=6),
            (depth, 1.3),
            lambda image, z, s: reblur_ops.defocus(image, z, s, 0.02, 0.05, 1e-4, max_radius=6),
        ),
    ]
    for module, arguments, function in cases:
        assert torch.equal(module(IMAGE, *arguments), function(IMAGE, *arguments)), module
        assert type(module).__name__ in repr(module)
        assert not list(module.parameters())
    assert "direction='scatter'" in repr(cases[1][0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.GaussianBlur(0), "radius must lie between 1 and 64"),
        (lambda: nn.DiskBlur(65), "max_radius must lie between 1 and 64"),
        (lambda: nn.DiskBlur(3, padding="black"), "padding must be one of"),
        (lambda: nn.RadialBlur("median"), "normalize must be one of"),
        (lambda: nn.RadialBlur(normalize_scatter=True), "normalize_scatter needs direction 'scatter'"),
        (lambda: nn.Defocus(1, 1, 1, max_radius=3, kernel="star"), "kernel must be one of"),
        (lambda: nn.Defocus(-1, 1, 1, max_radius=3), "aperture must be >= 0, got -1"),
        (
            lambda: nn.Defocus(1, 1, 1, max_radius=3, direction="gather", normalize_scatter=True),
            "normalize_scatter needs direction 'scatter'",
        ),
    ],
)
def test_modules_refuse_options_when_they_are_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("weight", ["yes", torch.ones(1, 1, 3, 3)], ids=["text", "tensor"])
def test_modules_keep_no_weights_of_pixels(weight):
    with pytest.raises(TypeError, match="normalize_scatter must be a bool in a module"):
        nn.Reblur(direction="scatter", normalize_scatter=weight)


def test_the_former_name_still_answers():
    seeds, weights = torch.rand(1, 5, 4, 4), torch.rand(1, 3, 4, 4)
    with pytest.warns(DeprecationWarning, match="class_weights is now called tap_weights"):
        former = reblur_ops.class_weights(seeds, weights, radii=(1, 2))
    assert torch.equal(former, reblur_ops.tap_weights(seeds, weights, radii=(1, 2)))


@pytest.mark.slow
def test_a_type_checker_knows_the_options(tmp_path):
    file = tmp_path / "use.py"
    file.write_text(
        "import torch\nimport reblur_ops\n"
        'reblur_ops.gaussian_blur(torch.ones(1, 1, 2, 2), 1.0, direction="scatter")\n'
        'reblur_ops.gaussian_blur(torch.ones(1, 1, 2, 2), 1.0, direction="sideways")\n'
    )
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--no-incremental", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.count("error") == 2, result.stdout + result.stderr  # and the line that counts them
    assert "use.py:4" in result.stdout
    assert "sideways" in result.stdout
