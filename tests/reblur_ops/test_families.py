"""Every family of kernels in both directions: values and gradients against the definition, and what they promise."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import reblur_ops
from reblur_ops.geometry import distance_classes
from reblur_ops.testing import BACKENDS, assert_close
from tests.blurs import BLURS, WIDE, Blur, compare, images, run

DIRECTIONS = ("gather", "scatter")
PADDINGS = ("zeros", "replicate", "reflect")
fast = [name for name in BACKENDS if name != "reference"]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", BLURS, ids=str)
@pytest.mark.parametrize("backend", fast)
def test_values_and_gradients(backend, blur, direction, padding):
    image, grad_output = images(11, 22)
    parameter = blur.parameter(11, 22)
    options = {"direction": direction, "padding": padding}
    expected = run(blur, image, parameter, grad_output, "reference", **options)
    for dtype in (torch.float64, torch.float32):
        # Rounding moves what lies on a disk's edge to its other side: the parameter is rounded first.
        rounded = parameter.to(dtype)
        if dtype == torch.float32:
            expected = run(blur, image, rounded.double(), grad_output, "reference", **options)
        compare(run(blur, image.to(dtype), rounded, grad_output.to(dtype), backend, **options), expected, dtype)


@pytest.mark.parametrize("normalize_scatter", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("backend", fast)
def test_reblur_in_both_directions(backend, direction, normalize_scatter):
    if normalize_scatter and direction == "gather":
        pytest.skip("there is none")
    generator = torch.Generator().manual_seed(2)
    image, seeds, weights, grad_output = (
        torch.randn(2, channels, 9, 13, generator=generator, dtype=torch.float64) for channels in (3, 35, 8, 3)
    )
    results = []
    for name in (backend, "reference"):
        leaves = [t.clone().requires_grad_() for t in (image, seeds, weights.softmax(1))]
        with reblur_ops.use_backend(name):
            output = reblur_ops.reblur(
                *leaves, padding="replicate", direction=direction, normalize_scatter=normalize_scatter
            )
        output.backward(grad_output)
        results.append([output, *(leaf.grad for leaf in leaves)])
    for a, e in zip(*results, strict=True):
        assert_close(a, e, torch.float64)


@pytest.mark.native
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (5, 3), (9, 70), (3, 300)], ids=str)
@pytest.mark.parametrize("blur", [Blur("gaussian", 5), Blur("disk", 6), Blur("radial", 4), Blur("taps", 4)], ids=str)
def test_odd_sizes(blur, shape, direction):
    image, grad_output = images(*shape, batch=1, channels=2)
    parameter = blur.parameter(*shape, batch=1)
    options = {"direction": direction, "padding": "replicate"}
    expected = run(blur, image, parameter, grad_output, "reference", **options)
    compare(run(blur, image, parameter, grad_output, "native", **options), expected, torch.float64)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", WIDE, ids=str)
@pytest.mark.parametrize("backend", fast)
def test_large_radii(backend, blur, direction, padding):
    if blur.radius == 64 and padding != "zeros" and (padding == "reflect" or backend == "torch"):
        pytest.skip("slow, and the padding is that of smaller radii")
    height, width = (24, 35)
    image, grad_output = images(height, width, batch=1, channels=1)
    parameter = blur.parameter(height, width, batch=1)
    options = {"direction": direction, "padding": padding}
    expected = run(blur, image, parameter, grad_output, "reference", **options)
    compare(run(blur, image, parameter, grad_output, backend, **options), expected, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", [Blur("gaussian", 5), Blur("disk", 6), Blur("radial", 4), Blur("taps", 4)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_is_computed_in_float32(backend, blur, direction, dtype):
    image, grad_output = (t.to(dtype) for t in images(9, 20))
    parameter = blur.parameter(9, 20).to(dtype)
    options = {"direction": direction, "normalize_scatter": direction == "scatter"}
    expected = run(blur, *(t.double() for t in (image, parameter, grad_output)), "reference", **options)
    compare(run(blur, image, parameter, grad_output, backend, **options), expected, dtype)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("blur", [*BLURS, *WIDE[:2]], ids=str)
@pytest.mark.parametrize("backend", fast)
def test_scatter_is_the_adjoint_of_gather(backend, blur, padding):
    size = (23, 25)
    x, z = images(*size)
    parameter = blur.parameter(*size)
    with reblur_ops.use_backend(backend):
        gathered = blur(x, parameter, direction="gather", padding=padding)
        scattered = blur(z, parameter, direction="scatter", padding=padding)
    left, right = (gathered * z).sum(), (x * scattered).sum()
    assert abs(left - right) <= 1e-12 * max((gathered * z).abs().sum(), 1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", [Blur("gaussian", 3), Blur("disk", 3), Blur("taps", 2), *BLURS[6:12]], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend, blur, direction):
    image, _ = images(4, 5, batch=1, channels=2)
    leaves = [image.requires_grad_(), blur.parameter(4, 5, batch=1).requires_grad_()]
    with reblur_ops.use_backend(backend):
        assert gradcheck(lambda *t: blur(*t, direction=direction, padding="replicate"), leaves)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", [Blur("gaussian", 2), Blur("disk", 2), Blur("radial", 2), Blur("taps", 2)], ids=str)
@pytest.mark.parametrize("backend", fast)
def test_second_derivatives(backend, blur, direction):
    image, _ = images(3, 3, batch=1, channels=1)
    leaves = [image.requires_grad_(), blur.parameter(3, 3, batch=1).requires_grad_()]
    with reblur_ops.use_backend(backend):
        assert gradgradcheck(lambda *t: blur(*t, direction=direction), leaves)


@pytest.mark.native
def test_second_derivatives_of_large_radii():
    """The pure PyTorch form computes these row by row of classes, and each row again on the way back."""
    image, _ = images(2, 3, batch=1, channels=1)
    leaves = [image.requires_grad_(), Blur("disk", 16).parameter(2, 3, batch=1).requires_grad_()]
    with reblur_ops.use_backend("native"):
        assert gradgradcheck(lambda *t: Blur("disk", 16)(*t), leaves)


@pytest.mark.native
@pytest.mark.parametrize("name", ["gather", "scatter"])
@pytest.mark.parametrize("blur", [Blur("gaussian", 3), Blur("disk", 3), Blur("radial", 3), Blur("taps", 3)], ids=str)
def test_opcheck(blur, name):
    image, grad_output = images(5, 6)
    parameter = blur.parameter(5, 6)
    support = "square" if blur.name == "taps" else "disk"
    kernel = (blur.name, (blur.radius,), support, "softmax", "replicate")
    op, backward = (getattr(torch.ops.reblur_ops, n).default for n in (name, f"{name}_backward"))
    torch.library.opcheck(op, (image.requires_grad_(), parameter.requires_grad_(), None, *kernel))
    tensors = (grad_output, image.detach(), parameter.detach(), None)
    torch.library.opcheck(backward, (*tensors, *kernel, True, True, False))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", [Blur("gaussian", 9), Blur("disk", 9)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_blur_is_the_identity_and_its_gradient_finite(backend, blur, direction):
    image, grad_output = images(7, 20)
    image[:, :, 3] = 0
    for dtype in (torch.float32, torch.float64):
        x, nothing = image.to(dtype), torch.zeros(2, 1, 7, 20, dtype=dtype)
        output, grad_image, grad_parameter = run(blur, x, nothing, grad_output.to(dtype), backend, direction=direction)
        assert torch.equal(output, x)
        assert torch.equal(grad_image, grad_output.to(dtype))
        assert torch.equal(grad_parameter, torch.zeros_like(nothing))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sign_of_a_width_is_ignored(backend):
    image, grad_output = images(8, 9)
    for blur in (Blur("gaussian", 4), Blur("disk", 4)):
        parameter = blur.parameter(8, 9)
        plus = run(blur, image, parameter.abs(), grad_output, backend)
        either = run(blur, image, parameter, grad_output, backend)
        assert torch.equal(either[0], plus[0])
        assert torch.equal(either[2], plus[2] * parameter.sign())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_larger_than_the_largest_counts_as_that(backend):
    image, grad_output = images(8, 9)
    larger, largest = torch.full((2, 1, 8, 9), 5.7).double(), torch.full((2, 1, 8, 9), 4.0).double()
    output, _, grad = run(Blur("disk", 4), image, larger, grad_output, backend)
    assert torch.equal(output, run(Blur("disk", 4), image, largest, grad_output, backend)[0])
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_kernels_are_those_of_the_formulas(backend):
    """An impulse at the centre, blurred everywhere alike, shows the kernel."""
    impulse = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    impulse[0, 0, 7, 7] = 1
    offsets = torch.arange(-7, 8, dtype=torch.float64)
    distance = (offsets[:, None] ** 2 + offsets**2).sqrt()
    full = torch.full((1, 1, 15, 15), 2.3, dtype=torch.float64)
    profile = torch.arange(8, 0, -1, dtype=torch.float64)[None, :, None, None].expand(1, 8, 15, 15)
    with reblur_ops.use_backend(backend):
        shown = {
            "gaussian": reblur_ops.gaussian_blur(impulse, full, radius=7),
            "disk": reblur_ops.disk_blur(impulse, full, max_radius=7),
            "none": reblur_ops.radial_blur(impulse, profile, normalize="none"),
            "softmax": reblur_ops.radial_blur(impulse, profile, support="square"),
        }
    line = (8 - distance).where(distance <= 7, torch.zeros(()).double())
    expected = {
        "gaussian": torch.exp(-(distance**2) / (2 * 2.3**2)),
        "disk": (2.8 - distance).clamp(0, 1),
        "none": line,
        "softmax": line.exp(),
    }
    for name, kernel in expected.items():
        kernel = kernel if name == "none" else kernel / kernel.sum()
        assert torch.allclose(shown[name][0, 0], kernel, rtol=1e-12, atol=1e-15), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_radial_with_one_radius_is_reblur_with_one(backend):
    image, _ = images(9, 10)
    profile = Blur("radial", 5).parameter(9, 10).abs()
    weights = torch.tensor([0.0, 1.0]).double()[None, :, None, None].expand(2, 2, 9, 10)
    with reblur_ops.use_backend(backend):
        for support in ("square", "disk"):
            options = {"support": support, "padding": "replicate", "direction": "scatter"}
            expected = reblur_ops.reblur(image, profile, weights, radii=(5,), **options)
            assert_close(reblur_ops.radial_blur(image, profile, **options), expected, torch.float64)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_normalised_scatter_keeps_what_is_uniform(backend, padding):
    image = torch.full((2, 3, 12, 14), 0.7, dtype=torch.float64)
    for blur in (Blur("gaussian", 5), Blur("disk", 5), Blur("radial", 5)):
        with reblur_ops.use_backend(backend):
            options = {"direction": "scatter", "padding": padding}
            parameter = blur.parameter(12, 14)
            assert torch.allclose(blur(image, parameter, normalize_scatter=True, **options), image)
            assert not torch.allclose(blur(image, parameter, **options), image, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scatter_weighs_the_pixels_it_comes_from(backend, dtype):
    image, grad_output = (tensor.to(dtype) for tensor in images(12, 14))
    opacity = torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(6)).to(dtype)
    opacity[:, :, :, 9:] = 0  # farther than the kernels reach, nothing arrives
    for blur in (Blur("gaussian", 3), Blur("disk", 3), Blur("radial", 3)):
        parameter = blur.parameter(12, 14).to(dtype)
        leaves = [tensor.clone().requires_grad_() for tensor in (image, parameter, opacity)]
        exact = [tensor.detach().double().requires_grad_() for tensor in leaves]
        with reblur_ops.use_backend(backend):
            found = blur(*leaves[:2], direction="scatter", normalize_scatter=leaves[2])
        with reblur_ops.use_backend("reference"):
            numerator, total = (
                blur(values, exact[1], direction="scatter") for values in (exact[0] * exact[2], exact[2])
            )
        expected = torch.where(total == 0, 0, numerator / total.where(total != 0, 1))
        assert found.dtype == dtype
        assert (found[..., 13] == 0).all()
        sound = (total == 0) | (total > 0.05)  # a quotient of two small numbers is not exact
        assert_close(found * sound, expected * sound, dtype)
        found.backward(grad_output * sound)
        expected.backward(grad_output.double() * sound)
        for leaf, leaf_exact in zip(leaves, exact, strict=True):
            assert_close(leaf.grad, leaf_exact.grad, dtype)


def test_a_weight_for_each_source_pixel_serves_maps_for_each_channel():
    image = images(9, 10)[0]
    sigma = torch.rand(2, 3, 9, 10, dtype=torch.float64)
    opacity = torch.rand(2, 1, 9, 10, dtype=torch.float64)
    options = {"radius": 3, "direction": "scatter", "normalize_scatter": opacity}
    together = reblur_ops.gaussian_blur(image, sigma, **options)
    apart = [reblur_ops.gaussian_blur(image[:, [c]], sigma[:, [c]], **options) for c in range(3)]
    assert_close(together, torch.cat(apart, dim=1), torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_normalised_scatter_is_0_where_nothing_arrives(backend):
    image, profile = torch.rand(1, 2, 5, 6), torch.zeros(1, 2, 5, 6)
    profile[..., 3:] = 1
    profile.requires_grad_()
    options = {"normalize": "none", "direction": "scatter"}
    with reblur_ops.use_backend(backend):
        for normalize in (True, torch.ones(1, 1, 5, 6)):
            found = reblur_ops.radial_blur(image, profile, **options, normalize_scatter=normalize)
            assert not found[..., :2].any()
            assert found[..., 2:].all()
            assert found.isfinite().all()
            assert torch.autograd.grad(found.sum(), profile)[0].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_light_spreads_from_the_blurred_and_not_into_it(backend):
    """A bright line out of focus beside a dark plane in focus: scatter crosses the edge, gather does not."""
    image = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    image[:, :, :, 9] = 1
    radius = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    radius[:, :, :, :10] = 4
    with reblur_ops.use_backend(backend):
        gathered, scattered = (
            reblur_ops.disk_blur(image, radius, max_radius=4, direction=direction) for direction in DIRECTIONS
        )
    assert gathered[..., 10:].abs().max() == 0
    assert scattered[0, 0, 10, 10] > 0.05
    assert scattered[0, 0, 10, 14:].abs().max() == 0


def test_a_ring_of_minus_infinity_is_left_out(backend):
    profile = torch.randn(1, 4, 9, 10, dtype=torch.float64)
    image = torch.rand(1, 2, 9, 10, dtype=torch.float64)
    with reblur_ops.use_backend(backend):
        expected = reblur_ops.radial_blur(image, torch.cat([profile[:, :3], profile[:, 3:] - 1e4], 1))
        profile[:, 3] = -torch.inf
        found = reblur_ops.radial_blur(image, profile.requires_grad_())
        found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    assert profile.grad.isfinite().all()


def test_the_default_gaussian_radius_is_three_sigma():
    image, _ = images(30, 30, batch=1)
    for largest, radius in ((0.0, 1), (1.1, 4), (2.0, 6), (21.0, 63)):
        sigma = torch.linspace(0, largest, 900).double().view(1, 1, 30, 30)
        expected = reblur_ops.gaussian_blur(image, sigma, radius=radius)
        assert torch.equal(reblur_ops.gaussian_blur(image, sigma), expected)
    with pytest.raises(ValueError, match="sigma must be finite"):
        reblur_ops.gaussian_blur(image, sigma / 0)
    assert reblur_ops.gaussian_blur(image[:0], sigma[:0]).shape == (0, 3, 30, 30)


@pytest.mark.native
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_nan_stays_where_it_is(direction):
    """A pixel without a sound width makes no neighbour unsound that its kernel cannot reach."""
    image, _ = images(20, 40)
    for blur in (Blur("gaussian", 3), Blur("disk", 3)):
        for value in (math.nan, math.inf):
            parameter = blur.parameter(20, 40)
            sound = blur(image, parameter, direction=direction)
            parameter[0, 0, 10, 20] = value
            broken = blur(image, parameter, direction=direction)
            far = torch.ones_like(broken, dtype=torch.bool)
            far[0, :, 7:14, 17:24] = False
            assert torch.equal(broken[far], sound[far])


@pytest.mark.native
def test_disk_memory_does_not_grow_with_the_window():
    """A radius of 64 has 16641 taps: none of them in memory. The output, a few rows of states, no more."""
    image = torch.rand(1, 3, 256, 256)
    radius = torch.full((1, 1, 256, 256), 2.0)
    with torch.profiler.profile(profile_memory=True) as profiler:
        reblur_ops.disk_blur(image, radius, max_radius=64, direction="scatter")
    allocated = sum(event.self_cpu_memory_usage for event in profiler.key_averages() if event.self_cpu_memory_usage > 0)
    assert allocated < 12 * 1024 * 1024


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["gaussian", "disk", "radial"])
@pytest.mark.parametrize("backend", fast)
def test_compiles_to_one_graph(backend, name, direction):
    calls = {
        "gaussian": functools.partial(reblur_ops.gaussian_blur, radius=4),
        "disk": functools.partial(reblur_ops.disk_blur, max_radius=4),
        "radial": reblur_ops.radial_blur,
    }
    call = calls[name]  # itself: torch.compile of Torch 2.10 cannot trace a call of Blur
    image, _ = images(9, 10)
    parameter = Blur(name, 4).parameter(9, 10)

    def loss(image, parameter):
        return call(torch.tanh(image), parameter, direction=direction).square().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    eager, traced = ([t.clone().requires_grad_() for t in (image, parameter)] for _ in range(2))
    with reblur_ops.use_backend(backend):
        loss(*eager).backward()
        compiled(*traced).backward()
    for a, b in zip(traced, eager, strict=True):
        assert_close(a.grad, b.grad, torch.float64)


def test_bad_input_gets_one_clear_error():
    image, _ = images(8, 9)
    sigma, profile = torch.ones(2, 1, 8, 9).double(), torch.ones(2, 4, 8, 9).double()
    gaussian, disk, radial = reblur_ops.gaussian_blur, reblur_ops.disk_blur, reblur_ops.radial_blur
    scatter = {"max_radius": 3, "direction": "scatter"}
    for error, match, function, parameter, options in (
        (ValueError, "radius must lie between 1 and 64", gaussian, sigma, {"radius": 65}),
        (TypeError, "radius must be an integer", gaussian, sigma, {"radius": 2.5}),
        (ValueError, "larger than the largest radius", gaussian, sigma, {"radius": 8, "padding": "reflect"}),
        (ValueError, "max_radius must lie between", disk, sigma, {"max_radius": 0}),
        (ValueError, "direction must be one of", disk, sigma, {"max_radius": 3, "direction": "both"}),
        (ValueError, "normalize_scatter needs", disk, sigma, {"max_radius": 3, "normalize_scatter": True}),
        (ValueError, "normalize_scatter needs", disk, sigma, {"max_radius": 3, "normalize_scatter": sigma}),
        (
            ValueError,
            r"like image, \(2, 1, 8, 9\), got \(2, 4, 8, 9\)",
            disk,
            sigma,
            scatter | {"normalize_scatter": profile},
        ),
        (TypeError, "normalize_scatter must be floating", disk, sigma, scatter | {"normalize_scatter": sigma > 0}),
        (
            TypeError,
            "normalize_scatter must be a bool or a tensor, got str",
            disk,
            sigma,
            scatter | {"normalize_scatter": "ones"},
        ),
        (ValueError, "profile must have 2 to 16 channels", radial, sigma, {}),
        (ValueError, "normalize must be one of", radial, profile, {"normalize": "max"}),
        (ValueError, "support must be one of", radial, profile, {"support": "round"}),
        (ValueError, "padding must be one of", radial, profile, {"padding": "wrap"}),
    ):
        with pytest.raises(error, match=match):
            function(image, parameter, **options)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_tap_weights_of_seeds_blur_as_the_seeds_do(backend, direction):
    generator = torch.Generator().manual_seed(4)
    image, seeds, weights = (torch.randn(1, channels, 9, 12, generator=generator) for channels in (3, 35, 8))
    with reblur_ops.use_backend(backend):
        expected = reblur_ops.reblur(image, seeds, weights, direction=direction)
        taps = reblur_ops.tap_weights(seeds, weights)
        found = reblur_ops.isotropic_blur(image, taps, 7, direction=direction)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bank_of_kernels_mixed_at_each_pixel(backend):
    """As many fixed Gaussians, of which each pixel takes its share: one call in the place of one a Gaussian."""
    bank = torch.stack([sum_of_one(sigma, 4) for sigma in (0.5, 1.0, 1.5)])
    shares = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(5)).softmax(1)
    image = images(9, 12, batch=1)[0].float()
    with reblur_ops.use_backend(backend):
        found = reblur_ops.isotropic_blur(image, torch.einsum("nkhw,kt->nthw", shares, bank), 4, padding="replicate")
        each = [
            reblur_ops.gaussian_blur(image, sigma, radius=4, padding="replicate") * shares[:, index, None]
            for index, sigma in enumerate((0.5, 1.0, 1.5))
        ]
    torch.testing.assert_close(found, sum(each), rtol=1e-4, atol=1e-5)


def sum_of_one(sigma, radius):
    classes = distance_classes(radius)
    values = torch.tensor([math.exp(-k.squared_distance / (2 * sigma**2)) for k in classes])
    return values / (values * torch.tensor([k.multiplicity for k in classes])).sum()


@pytest.mark.parametrize(
    ("weights", "radius", "message"),
    [
        ((1, 9, 4, 4), 3, "tap_weights must have 10 channel"),
        ((1, 10, 4, 5), 3, "must"),
        ((1, 10, 4, 4), 16, "radius must lie between 1 and 15"),
        ((1, 10, 4, 4), 0, "radius must lie between 1 and 15"),
    ],
)
def test_tap_weights_that_do_not_fit_are_refused(weights, radius, message):
    with pytest.raises(ValueError, match=message):
        reblur_ops.isotropic_blur(torch.rand(1, 3, 4, 4), torch.rand(weights), radius)


# The rule for what is not finite: a parameter that is NaN spoils what its own kernel can reach, and nothing else.


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("blur", [Blur("gaussian", 2), Blur("disk", 2), Blur("radial", 2), Blur("taps", 2)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_that_is_nan_spoils_its_window(backend, blur, direction, padding):
    image, _ = images(12, 40, batch=1, channels=2)
    parameter = blur.parameter(12, 40, batch=1)
    parameter[:, :, 6, 19] = torch.nan
    with reblur_ops.use_backend(backend):
        found = blur(image, parameter, direction=direction, padding=padding)
    expected = torch.zeros(12, 40, dtype=torch.bool)
    if direction == "gather":
        expected[6, 19] = True
    else:
        expected[4:9, 17:22] = True
        if blur.name == "radial":  # of disk support: its window has no corners
            y, x = torch.meshgrid(torch.arange(12) - 6, torch.arange(40) - 19, indexing="ij")
            expected &= y**2 + x**2 <= 4
    assert torch.equal(found[0, 0].isnan(), expected)
    assert torch.equal(found[0, 1].isnan(), expected)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("argument", ["seeds", "weights"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_or_weight_that_is_nan_spoils_the_window_of_its_radius(backend, argument, direction, padding):
    """Radii 1 and 3: the seeds and the weight of radius 1 reach one pixel."""
    generator = torch.Generator().manual_seed(6)
    image, seeds, weights = (torch.randn(1, channels, 12, 40, generator=generator) for channels in (2, 6, 3))
    {"seeds": seeds[:, 0], "weights": weights[:, 1]}[argument][0, 6, 19] = torch.nan
    with reblur_ops.use_backend(backend):
        found = reblur_ops.reblur(image, seeds, weights, radii=(1, 3), direction=direction, padding=padding)
    expected = torch.zeros(12, 40, dtype=torch.bool)
    reach = 0 if direction == "gather" else 1
    expected[6 - reach : 7 + reach, 19 - reach : 20 + reach] = True
    assert torch.equal(found[0, 0].isnan(), expected)


def calls_of_every_family() -> dict[str, tuple[dict[str, int], Callable[..., Tensor]]]:
    """By family, its arguments with their channels, and the call; the largest radius is 3."""
    return {
        "seeds": (
            {"seeds": 6, "weights": 3},
            lambda *args, **options: reblur_ops.reblur(*args, radii=(1, 3), **options),
        ),
        "gaussian": ({"sigma": 1}, lambda *args, **options: reblur_ops.gaussian_blur(*args, radius=3, **options)),
        "disk": ({"radius": 1}, lambda *args, **options: reblur_ops.disk_blur(*args, max_radius=3, **options)),
        "radial": ({"profile": 4}, reblur_ops.radial_blur),
        "taps": ({"tap_weights": 10}, lambda *args, **options: reblur_ops.isotropic_blur(*args, 3, **options)),
    }


ARGUMENTS = [(f, a) for f, (given, _) in calls_of_every_family().items() for a in ("image", "grad_output", *given)]


@pytest.mark.parametrize(("value", "padding"), [(math.nan, "zeros"), (math.inf, "replicate"), (math.nan, "reflect")])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("family", "argument"), ARGUMENTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_spoilt_within_the_window_alone(backend, family, argument, direction, padding, value):
    """Nothing beyond it changes, and what a parameter spoils of its own gradient is its pixel."""
    channels, call = calls_of_every_family()[family]
    generator = torch.Generator().manual_seed(6)
    given = {
        name: torch.randn(1, count, 12, 40, generator=generator, dtype=torch.float64)
        for name, count in {"image": 2, "grad_output": 2, **channels}.items()
    }

    def results(given: dict[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in given.items() if name != "grad_output"}
        with reblur_ops.use_backend(backend):
            output = call(*leaves.values(), direction=direction, padding=padding)
            gradients = torch.autograd.grad(output, list(leaves.values()), given["grad_output"])
        return {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}

    clean = results(given)
    given[argument] = given[argument].clone()
    given[argument][0, 0, 6, 19] = value
    spoilt = results(given)
    is_parameter = argument in channels
    for name, before in clean.items():
        after = spoilt[name]
        reach = 0 if is_parameter and name in channels else 3
        beyond = torch.ones(12, 40, dtype=torch.bool)
        beyond[6 - reach : 7 + reach, 19 - reach : 20 + reach] = False
        torch.testing.assert_close(after[..., beyond], before[..., beyond], rtol=1e-9, atol=1e-12, msg=name)
    if is_parameter and math.isnan(value) and family in ("gaussian", "disk"):
        assert spoilt[argument][0, 0, 6, 19].isnan()  # a width that is NaN gets no gradient that looks sound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_are_rounded_once(dtype):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 12, 14, generator=generator).to(dtype)
    radius = (3 * torch.rand(1, 1, 12, 14, generator=generator)).to(dtype)
    options = {"max_radius": 4, "direction": "scatter", "normalize_scatter": True}
    found = reblur_ops.disk_blur(image, radius, **options)
    assert torch.equal(found, reblur_ops.disk_blur(image.float(), radius.float(), **options).to(dtype))
    maps = torch.randn(1, 5, 12, 14, generator=generator), torch.rand(1, 3, 12, 14, generator=generator).softmax(1)
    maps = [each.to(dtype) for each in maps]
    expected = reblur_ops.blur_radius(*(each.float() for each in maps), radii=(1, 2)).to(dtype)
    assert torch.equal(reblur_ops.blur_radius(*maps, radii=(1, 2)), expected)
