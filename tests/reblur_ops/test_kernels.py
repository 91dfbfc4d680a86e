"""Looking at the blur: class weights, blur radius, kernel pictures."""

import math

import pytest
import torch

import reblur_ops
from reblur_ops.geometry import class_map, distance_classes
from reblur_ops.testing import BACKENDS, TOLERANCE, assert_close, problem


@pytest.fixture(params=BACKENDS)
def backend(request):
    with reblur_ops.use_backend(request.param):
        yield request.param


def test_distance_classes_partition_the_window():
    for radius in range(1, 16):
        classes = distance_classes(radius)
        assert sum(cls.multiplicity for cls in classes) == (2 * radius + 1) ** 2
        counts = torch.bincount(class_map(radius, torch.device("cpu")).flatten())
        assert counts.tolist() == [cls.multiplicity for cls in classes]


@pytest.mark.parametrize("support", ["square", "disk"])
@pytest.mark.parametrize("radii", [(1, 2, 3, 4, 5, 6, 7), (4, 9)], ids=str)
def test_class_weights_against_reference(backend, radii, support):
    p = problem(radii=radii)
    actual = reblur_ops.tap_weights(p.seeds, p.weights, radii=radii, support=support)
    with reblur_ops.use_backend("reference"):
        assert_close(actual, reblur_ops.tap_weights(p.seeds, p.weights, radii=radii, support=support), torch.float64)


def test_class_weights_are_the_kernel_that_reblur_applies(backend):
    """An impulse shows, read as a gather, each pixel's weight for the impulse's place."""
    p = problem(15, 15, batch=1)
    impulse = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    impulse[0, 0, 7, 7] = 1
    seen = reblur_ops.reblur(impulse, p.seeds, p.weights)[0, 0]
    pixels = torch.cartesian_prod(torch.tensor([0]), torch.arange(15), torch.arange(15))
    kernels = reblur_ops.kernel_image(p.seeds, p.weights, pixels).view(15, 15, 15, 15)
    for y in range(15):
        for x in range(15):
            assert kernels[y, x, 7 + 7 - y, 7 + 7 - x].item() == pytest.approx(seen[y, x].item(), abs=1e-13)


def test_kernel_image_sums_to_the_weights(backend):
    p = problem()
    pixels = [(0, 0, 0), (1, 11, 20), (1, 3, 4)]
    kernels = reblur_ops.kernel_image(p.seeds, p.weights, pixels)
    assert kernels.shape == (3, 15, 15)
    for kernel, (n, y, x) in zip(kernels, pixels, strict=True):
        assert kernel.sum().item() == pytest.approx(p.weights[n, :, y, x].sum().item(), abs=1e-12)
        for same in (kernel.flip(0), kernel.flip(1), kernel.T):
            assert torch.allclose(kernel, same, rtol=0, atol=1e-15)


def uniform(radius, support, dtype=torch.float64):
    """Maps of one uniform kernel: seeds of 0."""
    weights = torch.zeros(1, 2, 2, 3, dtype=dtype)
    weights[:, 1] = 1
    return torch.zeros(1, radius + 1, 2, 3, dtype=dtype), weights, {"radii": (radius,), "support": support}


@pytest.mark.parametrize("radius", [1, 4, 15])
def test_blur_radius_of_uniform_kernels(backend, radius):
    """Square: both coordinates uniform on -r … r, so the mean squared distance is 2·r(r+1)/3."""
    seeds, weights, options = uniform(radius, "square")
    expected = math.sqrt(2 * radius * (radius + 1) / 3)
    assert torch.allclose(
        reblur_ops.blur_radius(seeds, weights, **options), torch.full((1, 1, 2, 3), expected).double()
    )
    seeds, weights, options = uniform(radius, "disk")
    taps = [dy**2 + dx**2 for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]
    inside = [squared for squared in taps if squared <= radius**2]
    expected = math.sqrt(sum(inside) / len(inside))
    assert torch.allclose(
        reblur_ops.blur_radius(seeds, weights, **options), torch.full((1, 1, 2, 3), expected).double()
    )


def test_blur_radius_does_not_depend_on_the_brightness(backend):
    p = problem()
    weights = p.weights.abs()
    assert torch.allclose(reblur_ops.blur_radius(p.seeds, weights), reblur_ops.blur_radius(p.seeds, 3 * weights))


def test_blur_radius_is_differentiable_also_where_nothing_is_blurred(backend):
    p = problem(3, 4, batch=1, radii=(2, 3))
    weights = p.weights.abs()
    leaves = (p.seeds.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda *t: reblur_ops.blur_radius(*t, radii=(2, 3)), leaves)
    identity = torch.zeros(1, 8, 2, 2)
    identity[:, 0] = 1
    seeds = torch.rand(1, 35, 2, 2, requires_grad=True)
    radius = reblur_ops.blur_radius(seeds, identity.requires_grad_())
    assert not radius.any()
    radius.sum().backward()
    assert seeds.grad.isfinite().all()
    assert identity.grad.isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes(backend, dtype):
    p = problem()
    seeds, weights = p.seeds.to(dtype), p.weights.abs().to(dtype)
    planes = reblur_ops.tap_weights(seeds, weights)
    radius = reblur_ops.blur_radius(seeds, weights)
    assert planes.dtype == radius.dtype == dtype
    with reblur_ops.use_backend("reference"):
        assert_close(planes, reblur_ops.tap_weights(seeds.double(), weights.double()), dtype)
        assert_close(radius, reblur_ops.blur_radius(seeds.double(), weights.double()), dtype)


def test_empty(backend):
    seeds, weights = torch.rand(0, 35, 4, 5), torch.rand(0, 8, 4, 5)
    assert reblur_ops.tap_weights(seeds, weights).shape == (0, 36, 4, 5)
    assert reblur_ops.blur_radius(seeds, weights).shape == (0, 1, 4, 5)
    assert reblur_ops.kernel_image(seeds, weights, torch.zeros(0, 3, dtype=torch.long)).shape == (0, 15, 15)


def test_kernel_image_refuses_pixels_that_are_not_there():
    p = problem()
    with pytest.raises(IndexError, match=r"pixels must lie within \(n, y, x\) < \(2, 12, 21\), got \[0, 12, 3\]"):
        reblur_ops.kernel_image(p.seeds, p.weights, [(0, 1, 1), (0, 12, 3)])
    with pytest.raises(ValueError, match=r"pixels must have shape \(P, 3\)"):
        reblur_ops.kernel_image(p.seeds, p.weights, [(0, 1)])
    with pytest.raises(TypeError, match="pixels must be integers"):
        reblur_ops.kernel_image(p.seeds, p.weights, torch.rand(2, 3))
