"""The operator against its definition: values and gradients, every backend, option, dtype and layout."""

from pathlib import Path

import numpy as np
import pytest
import torch

import reblur_ops
from reblur_ops.testing import RADII, SHAPES, TOLERANCE, assert_all_close, assert_close, problem, run

PUBLISHED = Path(__file__).parents[1] / "data" / "published_reblur.npz"


def test_published_case(backend):
    """Values and gradients that the published implementation gives."""
    case = {name: torch.from_numpy(array) for name, array in np.load(PUBLISHED).items()}
    leaves = [case[name].clone().requires_grad_() for name in "xsw"]
    with reblur_ops.use_backend(backend):
        output = reblur_ops.reblur(*leaves)
    output.backward(case["go"])
    for name, actual in zip(("out", "gx", "gs", "gw"), (output, *(leaf.grad for leaf in leaves)), strict=True):
        assert_close(actual.detach(), case[name], torch.float64, name)


def test_published_kernels_one_by_one(backend):
    """One-hot weights give the image after each of the eight kernels."""
    case = {name: torch.from_numpy(array) for name, array in np.load(PUBLISHED).items()}
    for n in range(8):
        weights = torch.zeros_like(case["w"])
        weights[:, n] = 1
        with reblur_ops.use_backend(backend):
            assert_close(reblur_ops.reblur(case["x"], case["s"], weights), case[f"p{n}"], torch.float64, f"p{n}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
@pytest.mark.parametrize("support", ["square", "disk"])
@pytest.mark.parametrize("radii", RADII, ids=str)
def test_against_reference(fast_backend, radii, support, padding, shape):
    if padding == "reflect":
        shape = tuple(max(side, radii[-1] + 1) for side in shape)
    p = problem(*shape, batch=1, radii=radii, support=support, padding=padding)
    assert_all_close(run(p, fast_backend), run(p, "reference"), torch.float64)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
def test_the_largest_radius(fast_backend, padding):
    p = problem(17, 20, batch=1, radii=(15,), padding=padding)
    assert_all_close(run(p, fast_backend), run(p, "reference"), torch.float64)


@pytest.mark.parametrize("width", [128, 255, 257, 400])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
def test_rows_of_several_tiles(fast_backend, padding, width):
    p = problem(6, width, batch=1, radii=(2, 5), padding=padding)
    assert_all_close(run(p, fast_backend), run(p, "reference"), torch.float64)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels(fast_backend, channels):
    p = problem(channels=channels)
    assert_all_close(run(p, fast_backend), run(p, "reference"), torch.float64)


@pytest.mark.parametrize(("batch", "height"), [(7, 3), (2, 40)])
def test_images_share_or_split_the_passes_of_the_backward(fast_backend, batch, height):
    p = problem(height, 20, batch=batch, radii=(1, 4), padding="replicate")
    assert_all_close(run(p, fast_backend), run(p, "reference"), torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes(fast_backend, dtype):
    """Inputs exact in the dtype, so that only the computation's own error is seen."""
    p = problem(20, 70).to(dtype)
    actual = run(p, fast_backend)
    assert all(tensor.dtype == dtype for tensor in actual)
    assert_all_close(actual, run(p.to(torch.float64), "reference"), dtype)


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_seeds_of_any_size(fast_backend, scale):
    """Neither overflow nor cancellation: large logits are a sharp softmax."""
    p = problem()
    p = p._replace(seeds=(p.seeds * scale).float().double())
    assert_all_close(run(p.to(torch.float32), fast_backend), run(p, "reference"), torch.float32)


def layouts(tensor):
    """The same values under other strides."""
    yield "channels_last", tensor.contiguous(memory_format=torch.channels_last)
    yield "sliced columns", torch.stack((tensor, tensor + 1), dim=-1).flatten(-2)[..., ::2]
    yield "window", torch.nn.functional.pad(tensor, (3, 2, 1, 4))[:, :, 1:-4, 3:-2]
    yield "transposed", tensor.transpose(2, 3).contiguous().transpose(2, 3)
    yield "channels from the middle", torch.cat((tensor, tensor, tensor), dim=1)[:, tensor.shape[1] : -tensor.shape[1]]
    yield "batch innermost", tensor.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


@pytest.mark.parametrize("argument", range(4), ids=["image", "seeds", "weights", "grad_output"])
def test_layouts(fast_backend, argument):
    p = problem()
    expected = run(p, fast_backend)
    for name, view in layouts(p[argument]):
        assert torch.equal(view, p[argument]), name
        arguments = list(p)
        arguments[argument] = view
        assert_all_close(run(type(p)(*arguments), fast_backend), expected, torch.float64)


def test_expanded_maps(fast_backend):
    """One kernel for the whole image, expanded with strides of 0."""
    p = problem()
    p = p._replace(seeds=p.seeds[:, :, :1, :1].expand_as(p.seeds), weights=p.weights[:, :, :1, :1].expand_as(p.weights))
    assert_all_close(run(p, fast_backend), run(p, "reference"), torch.float64)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (2, 3, 8, 0)], ids=str)
def test_empty(backend, shape):
    n, _, h, w = shape
    image = torch.rand(shape, requires_grad=True)
    seeds, weights = (torch.rand(n, k, h, w, requires_grad=True) for k in (35, 8))
    with reblur_ops.use_backend(backend):
        output = reblur_ops.reblur(image, seeds, weights)
    assert output.shape == shape
    output.sum().backward()
    for leaf in (image, seeds, weights):  # seeds and weights of an image without channels are not empty
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any()


def test_results_are_contiguous_and_of_the_dtype_of_the_image(backend):
    p = problem(9, 10).to(torch.float32)
    image = p.image.transpose(2, 3).contiguous().transpose(2, 3)
    torch.set_default_dtype(torch.float64)
    try:
        with reblur_ops.use_backend(backend):
            results = [
                reblur_ops.reblur(image, p.seeds, p.weights, direction=direction) for direction in ("gather", "scatter")
            ]
            results += [reblur_ops.disk_blur(image, 1.5, max_radius=size, direction="scatter") for size in (3, 17)]
    finally:
        torch.set_default_dtype(torch.float32)
    for result in results:
        assert result.is_contiguous()
        assert result.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("support", ["square", "disk"])
def test_what_is_not_finite_in_a_map_spoils_its_pixel_alone(fast_backend, value, support):
    p = problem(20, 40, support=support)
    clean = run(p, fast_backend)
    for name in ("seeds", "weights"):
        spoilt_map = getattr(p, name).clone()
        spoilt_map[1, 2, 9, 18] = value
        spoilt = run(p._replace(**{name: spoilt_map}), fast_backend)
        for which, before, after in zip(("output", "image", "seeds", "weights"), clean, spoilt, strict=True):
            differs = ~torch.isclose(before, after, rtol=1e-9, atol=1e-12).all(dim=1)
            if which == "image":  # what the pixel's kernel spreads
                differs[1, 2:17, 11:26] = False
            else:
                differs[1, 9, 18] = False
            assert not differs.any(), (name, which)


def test_what_is_not_finite_in_the_image_spoils_what_is_within_reach(fast_backend):
    p = problem(20, 40, support="square")
    clean = run(p, fast_backend)
    image = p.image.clone()
    image[0, 1, 9, 18] = float("nan")
    for before, after in zip(clean, run(p._replace(image=image), fast_backend), strict=True):
        differs = ~torch.isclose(before, after, rtol=1e-9, atol=1e-12).all(dim=1)
        differs[0, 2:17, 11:26] = False
        assert not differs.any()


@pytest.mark.native
def test_disk_does_not_read_the_corners_of_its_window():
    p = problem(20, 40, support="disk")
    image = p.image.clone()
    image[0, 1, 9, 18] = float("nan")
    with reblur_ops.use_backend("native"):
        nan = reblur_ops.reblur(image, p.seeds, p.weights, **p.options).isnan()[0, 1]
    dy, dx = torch.meshgrid(torch.arange(20) - 9, torch.arange(40) - 18, indexing="ij")
    assert torch.equal(nan, dy**2 + dx**2 <= 49)


def test_gradient_of_zero_seeds_is_zero(fast_backend):
    """|s| has no derivative at 0; the definition takes torch.abs's, 0."""
    p = problem()
    p = p._replace(seeds=torch.zeros_like(p.seeds))
    assert not run(p, fast_backend)[2].any()


def test_module_is_the_function():
    p = problem(radii=(2, 5), support="disk", padding="reflect")
    module = reblur_ops.nn.Reblur((2, 5), support="disk", padding="reflect")
    assert (module.seed_channels, module.weight_channels) == (9, 3)
    assert torch.equal(module(*p.tensors), reblur_ops.reblur(*p.tensors, **p.options))
    assert repr(module) == "Reblur(radii=(2, 5), support='disk', padding='reflect')"
    assert not module.state_dict()
