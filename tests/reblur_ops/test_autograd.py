"""The demands of PyTorch on an operator: gradients, schemas, tracing, compilation, autocast, repeatability."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import reblur_ops
from reblur_ops import families
from reblur_ops.testing import BACKENDS, TOLERANCE, assert_close, problem, run


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
@pytest.mark.parametrize("support", ["square", "disk"])
@pytest.mark.parametrize(
    "backend", [name if name == "native" else pytest.param(name, marks=pytest.mark.slow) for name in BACKENDS]
)
def test_gradcheck(backend, support, padding):
    p = problem(5, 6, batch=1, channels=2, radii=(1, 3), support=support, padding=padding)
    leaves = [t.requires_grad_() for t in p.tensors]
    with reblur_ops.use_backend(backend):
        assert gradcheck(lambda *t: reblur_ops.reblur(*t, **p.options), leaves)
        options = {"radii": (1, 3), "support": support}
        assert gradcheck(lambda *t: reblur_ops.tap_weights(*t, **options), leaves[1:])


@pytest.mark.parametrize("needed", [(i, s, w) for i in (0, 1) for s in (0, 1) for w in (0, 1)][1:], ids=str)
def test_each_gradient_alone_is_that_of_all_together(needed):
    p = problem()
    together = run(p, BACKENDS[0])[1:]
    leaves = [t.detach().requires_grad_(bool(need)) for t, need in zip(p.tensors, needed, strict=True)]
    reblur_ops.reblur(*leaves, **p.options).backward(p.grad_output)
    for leaf, need, expected in zip(leaves, needed, together, strict=True):
        assert (leaf.grad is not None) == bool(need)
        if need:
            assert_close(leaf.grad, expected, torch.float64)


@pytest.mark.native
def test_the_image_is_kept_only_for_the_gradients_that_need_it():
    p = problem()
    kept = []
    for needs_maps in (False, True):
        leaves = [p.image.requires_grad_(), p.seeds.requires_grad_(needs_maps), p.weights]
        result = reblur_ops.reblur(*leaves, **p.options)  # PyTorch 2.11 frees what is saved with it
        saved = result.grad_fn.saved_tensors
        kept.append(any(t is not None and t.shape == p.image.shape for t in saved))
    assert kept == [False, True]


@pytest.mark.native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck(dtype):
    p = problem(6, 7, radii=(1, 3), padding="replicate").to(dtype)
    ops = torch.ops.reblur_ops
    kernel = families.seeds((1, 3), "square")
    leaves = [t.requires_grad_() for t in p.tensors]
    detached = [t.detach() for t in p.tensors]
    for name in ("gather", "scatter"):
        torch.library.opcheck(getattr(ops, name).default, (*leaves, *kernel, "replicate"))
        for needed in ((True, True, True), (False, True, False), (True, False, False)):
            image = detached[0] if any(needed[1:]) else None
            arguments = (p.grad_output, image, *detached[1:], *kernel, "replicate", *needed)
            torch.library.opcheck(getattr(ops, f"{name}_backward").default, arguments)
    torch.library.opcheck(ops.class_weights.default, (*leaves[1:], *kernel))
    planes = torch.rand(2, 10, 6, 7, dtype=dtype)
    torch.library.opcheck(ops.class_weights_backward.default, (planes, *detached[1:], *kernel, True, False))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_one_graph(backend):
    p = problem(9, 10, radii=(1, 2, 3))

    def loss(*tensors):
        return reblur_ops.reblur(torch.tanh(tensors[0]), *tensors[1:], **p.options).square().sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with reblur_ops.use_backend(backend):
        for _ in range(2):
            eager, traced = ([t.detach().clone().requires_grad_() for t in p.tensors] for _ in range(2))
            loss(*eager).backward()
            compiled(*traced).backward()
            for a, b in zip(traced, eager, strict=True):
                assert_close(a.grad, b.grad, torch.float64)


@pytest.mark.native
@pytest.mark.slow
def test_compiles_with_inductor():
    p = problem(9, 10).to(torch.float32)

    def function(*tensors):
        return torch.relu(reblur_ops.reblur(*tensors, **p.options)) * 2

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True)
    assert_close(compiled(*p.tensors), function(*p.tensors), torch.float32)


@pytest.mark.native
def test_one_compilation_serves_all_sizes():
    torch.compiler.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def function(image, seeds, weights):
        return reblur_ops.reblur(image, seeds, weights), reblur_ops.blur_radius(seeds, weights)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=count)
    for size in ((9, 10), (30, 20), (17, 64)):
        p = problem(*size)
        tensors = (p.image, p.seeds, p.weights.abs())
        for actual, expected in zip(compiled(*tensors), function(*tensors), strict=True):
            assert_close(actual, expected, torch.float64)
    assert len(graphs) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_computes_in_float32(backend):
    """As documented: whatever the inputs' precision, also where it is mixed."""
    p = problem().to(torch.float32)
    mixed = (p.image, p.seeds.bfloat16(), p.weights.bfloat16())
    with reblur_ops.use_backend(backend):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = reblur_ops.reblur(*mixed)
            weights = reblur_ops.tap_weights(*mixed[1:])
        expected = reblur_ops.reblur(*(t.float() for t in mixed))
        assert actual.dtype == weights.dtype == torch.float32
        assert_close(actual, expected, torch.float32)
        assert torch.equal(weights, reblur_ops.tap_weights(*(t.float() for t in mixed[1:])))
        with pytest.raises(TypeError, match="seeds must have the dtype of image"):
            reblur_ops.reblur(*mixed)
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"image, torch\.float64"):
            reblur_ops.reblur(p.image.double(), p.seeds, p.weights)


def test_autocast_leaves_the_radius_its_digits():
    p = problem()
    seeds, softmax = p.seeds.float(), p.weights.softmax(1).float()
    for weights in (softmax, softmax.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            radius = reblur_ops.blur_radius(seeds, weights)
        assert radius.dtype == torch.float32
        torch.testing.assert_close(radius, reblur_ops.blur_radius(seeds, weights.float()), rtol=1e-5, atol=0)


@pytest.mark.native
@pytest.mark.parametrize("direction", ["gather", "scatter"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_of_16_bits_beside_an_image_of_32(direction, dtype):
    """What networks under autocast give: read as they are, and the same as if they were copied to float32 first."""
    p = problem(9, 10, radii=(1, 3)).to(torch.float32)
    maps = [t.to(dtype) for t in (p.seeds, p.weights)]
    results = []
    for tensors in ((p.image, *maps), (p.image, *(t.float() for t in maps))):
        leaves = [t.clone().requires_grad_() for t in tensors]
        with reblur_ops.use_backend("native"), torch.autocast("cpu", dtype=torch.bfloat16):
            output = reblur_ops.reblur(*leaves, radii=(1, 3), padding="reflect", direction=direction)
        results.append((output, *torch.autograd.grad(output, leaves, p.grad_output)))
    for mixed, expected, like in zip(results[0], results[1], (p.image, p.image, *maps), strict=True):
        assert mixed.dtype == like.dtype
        assert torch.equal(mixed, expected.to(like.dtype))


@pytest.mark.native
def test_types_that_kernels_take_together():
    p = problem(6, 7, radii=(1, 3)).to(torch.float32)
    kernel = ("seeds", (1, 3), "square", "softmax", "zeros")
    maps = [t.bfloat16().requires_grad_() for t in (p.seeds, p.weights)]
    gather = torch.ops.reblur_ops.gather
    torch.library.opcheck(gather.default, (p.image.clone().requires_grad_(), *maps, *kernel))
    backward = (p.grad_output, p.image, *(t.detach() for t in maps), *kernel, True, True, True)
    torch.library.opcheck(torch.ops.reblur_ops.gather_backward.default, backward)
    output = gather(p.image, *maps, *kernel)
    (first,) = torch.autograd.grad(output, maps[0], p.grad_output, create_graph=True)
    (second,) = torch.autograd.grad(first.float().sum(), maps[1])
    assert second.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="image must be BFloat16 or Float, got Double"):
        gather(p.image.double(), *maps, *kernel)
    with pytest.raises(ValueError, match="image must be Float, got BFloat16"):
        gather(p.image.bfloat16(), p.seeds, p.weights, *kernel)
    with pytest.raises(ValueError, match="weights must be BFloat16, got Float"):
        gather(p.image, maps[0], p.weights, *kernel)


@pytest.mark.native
@pytest.mark.parametrize("size", [(1, 300), (70, 131), (200, 40)])
@pytest.mark.parametrize("direction", ["gather", "scatter"])
def test_repeats_bit_for_bit_whatever_the_threads(size, direction):
    p = problem(*size, padding="replicate").to(torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 5, 2):
            torch.set_num_threads(count)
            leaves = [tensor.detach().requires_grad_() for tensor in p.tensors]
            with reblur_ops.use_backend("native"):
                output = reblur_ops.reblur(*leaves, **p.options, direction=direction)
                results.append((output, *torch.autograd.grad(output, leaves, p.grad_output)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives(backend):
    p = problem(3, 4, batch=1, channels=1, radii=(2,), padding="replicate")
    leaves = [t.requires_grad_() for t in p.tensors]
    with reblur_ops.use_backend(backend):
        assert gradgradcheck(lambda *t: reblur_ops.reblur(*t, **p.options), leaves)
        assert gradgradcheck(lambda *t: reblur_ops.tap_weights(*t, radii=(2,)), leaves[1:])


@pytest.mark.native
@pytest.mark.parametrize("constant", range(3))
def test_second_derivatives_where_one_input_is_constant(constant):
    p = problem(3, 4, batch=1, channels=1, radii=(2,))
    leaves = [t.requires_grad_(i != constant) for i, t in enumerate(p.tensors)]
    with reblur_ops.use_backend("native"):
        assert gradgradcheck(lambda *t: reblur_ops.reblur(*t, radii=(2,)), leaves)


@pytest.mark.native
def test_second_derivatives_of_tensors_that_come_from_each_other():
    """The gradient of the output depends on the seeds here, and so does the image."""
    p = problem(4, 5, batch=1, radii=(1, 2))
    seconds = []
    for backend in ("native", "torch"):
        seeds = p.seeds.clone().requires_grad_()
        with reblur_ops.use_backend(backend):
            value = reblur_ops.reblur(p.image * seeds[:, :1].sin(), seeds, p.weights, radii=(1, 2)).pow(3).sum()
            (first,) = torch.autograd.grad(value, seeds, create_graph=True)
            seconds.append(torch.autograd.grad(first.sin().sum(), seeds)[0])
    assert seconds[0].abs().max() > 0.01
    assert_close(*seconds, torch.float64)


@pytest.mark.native
def test_a_third_derivative_is_refused_with_the_way_out():
    p = problem(5, 5, batch=1, radii=(2,))
    seeds = p.seeds.requires_grad_()
    with reblur_ops.use_backend("native"):
        output = reblur_ops.reblur(p.image, seeds, p.weights, radii=(2,))
    (first,) = torch.autograd.grad(output.square().sum(), seeds, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), seeds, create_graph=True)
    with pytest.raises(NotImplementedError, match='use_backend\\("torch"\\)'):
        second.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode(backend):
    p = problem(4, 5, radii=(2,))

    def function(image, seeds):
        return reblur_ops.reblur(image, seeds, p.weights, radii=(2,))

    tensors, tangents = (p.image, p.seeds), (torch.randn_like(p.image), torch.randn_like(p.seeds))
    with reblur_ops.use_backend(backend):
        _, derivative = torch.func.jvp(function, tensors, tangents)
        step = 1e-6
        ahead, behind = (
            function(*(t + sign * step * d for t, d in zip(tensors, tangents, strict=True))) for sign in (1, -1)
        )
    assert torch.allclose(derivative, (ahead - behind) / (2 * step), atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap(backend):
    p = problem(4, 5, batch=2, radii=(2,))
    image = torch.randn(3, *p.image.shape, dtype=torch.float64)
    weights = torch.randn(*p.weights.shape, 3, dtype=torch.float64)
    with reblur_ops.use_backend(backend):
        mapped = torch.func.vmap(lambda i, w: reblur_ops.reblur(i, p.seeds, w, radii=(2,)), in_dims=(0, -1))(
            image, weights
        )
        for k in range(3):
            assert_close(mapped[k], reblur_ops.reblur(image[k], p.seeds, weights[..., k], radii=(2,)), torch.float64)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0)], ids=str)
def test_vmap_of_nothing(shape):
    p = problem(4, 5, batch=1, radii=(2,))
    image, seeds, weights = (t.expand(*shape, *t.shape[1:]) for t in p.tensors)
    assert torch.func.vmap(lambda *t: reblur_ops.reblur(*t, radii=(2,)))(image, seeds, weights).shape == image.shape


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "native"])
def test_gradients_of_each_sample_by_vmap(backend):
    p = problem(4, 5, batch=3, radii=(2,))

    def loss(image, seeds, weights):
        return reblur_ops.reblur(image[None], seeds[None], weights[None], radii=(2,)).square().sum()

    with reblur_ops.use_backend(backend):
        per_sample = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2)))(*p.tensors)
        leaves = [t.requires_grad_() for t in p.tensors]
        reblur_ops.reblur(*leaves, radii=(2,)).square().sum().backward()
    for actual, leaf in zip(per_sample, leaves, strict=True):
        assert_close(actual, leaf.grad, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_in_the_weight_of_a_scatter(backend):
    p = problem(6, 7)
    weight = torch.rand(2, 1, 6, 7, dtype=torch.float64) + 0.1

    def blur(weight):
        return reblur_ops.gaussian_blur(p.image, 1.0, radius=2, direction="scatter", normalize_scatter=weight)

    with reblur_ops.use_backend(backend):
        _, derivative = torch.func.jvp(blur, (weight,), (torch.ones_like(weight),))
        expected = (blur(weight + 1e-6) - blur(weight - 1e-6)) / 2e-6
    torch.testing.assert_close(derivative, expected, rtol=0, atol=1e-8)


@pytest.mark.native
@pytest.mark.parametrize("how", ["compiled", "jvp of vmap", "vmap of jvp", "dual numbers in vmap"])
def test_forward_mode_together_with_other_transforms(how):
    p = problem(6, 7)
    sigma = torch.rand(3, 2, 1, 6, 7, dtype=torch.float64) + 0.5

    def blur(sigma):
        return reblur_ops.gaussian_blur(p.image, sigma, radius=2)

    def derivative(sigma):
        return torch.func.jvp(blur, (sigma,), (torch.ones_like(sigma),))[1]

    expected = torch.stack([derivative(each) for each in sigma])
    if how == "compiled":
        compiled = torch.compile(derivative, backend="aot_eager")
        found = torch.stack([compiled(each) for each in sigma])
    elif how == "jvp of vmap":
        found = torch.func.jvp(torch.func.vmap(blur), (sigma,), (torch.ones_like(sigma),))[1]
    elif how == "vmap of jvp":
        found = torch.func.vmap(derivative)(sigma)
    else:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(sigma, torch.ones_like(sigma))
            found = torch.autograd.forward_ad.unpack_dual(torch.func.vmap(blur)(dual)).tangent
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected)


@pytest.mark.native
@pytest.mark.parametrize("direction", ["gather", "scatter"])
def test_the_gradient_has_the_tangent_of_what_comes_after(direction):
    """Forward mode over reverse, where only what is downstream of the operator is followed: an operator of a library
    drops that tangent without a word.
    """
    p = problem(5, 6, batch=1, radii=(2,))
    tangents = []
    for backend in ("torch", BACKENDS[0]):
        image, seeds, weights = (t.detach().requires_grad_() for t in p.tensors)
        with reblur_ops.use_backend(backend), torch.autograd.forward_ad.dual_level():
            gain = torch.autograd.forward_ad.make_dual(torch.tensor(2.0).double(), torch.tensor(1.0).double())
            blurred = reblur_ops.reblur(image, seeds, weights, radii=(2,), direction=direction)
            taps = reblur_ops.tap_weights(seeds, weights, radii=(2,))
            loss = (blurred * gain).square().sum() + (taps * gain).square().sum()
            gradients = torch.autograd.grad(loss, (image, seeds, weights))
            tangents.append([torch.autograd.forward_ad.unpack_dual(gradient).tangent for gradient in gradients])
    for expected, actual in zip(*tangents, strict=True):
        assert expected.any()
        assert_close(actual, expected, torch.float64)


@pytest.mark.native
@pytest.mark.parametrize("how", ["create_graph", "is_grads_batched", "of the second"])
def test_forward_mode_refuses_what_it_would_compute_wrongly(how):
    p = problem(5, 6, batch=1, radii=(2,))
    seeds = p.seeds.detach().requires_grad_()
    with torch.autograd.forward_ad.dual_level():
        gain = torch.autograd.forward_ad.make_dual(torch.tensor(2.0).double(), torch.tensor(1.0).double())
        blurred = reblur_ops.reblur(p.image, seeds, p.weights, radii=(2,))
        if how == "create_graph":
            call = lambda: torch.autograd.grad((blurred * gain).sum(), seeds, create_graph=True)  # noqa: E731
        elif how == "is_grads_batched":
            several = torch.ones(2, *blurred.shape, dtype=torch.float64) * gain
            call = lambda: torch.autograd.grad(blurred, seeds, several, is_grads_batched=True)  # noqa: E731
        else:
            grad_output = torch.ones_like(blurred).requires_grad_()
            (gradient,) = torch.autograd.grad(blurred, seeds, grad_output, create_graph=True)
            call = lambda: torch.autograd.grad((gradient * gain).sum(), seeds, create_graph=True)  # noqa: E731
        with pytest.raises((NotImplementedError, RuntimeError), match=r"use_backend|jvp"):
            call()


@pytest.mark.parametrize("how", ["jvp", "dual numbers", "vmap"])
def test_large_radii_go_backward_after_a_transform_has_ended(how):
    """Beyond 15 pixels pure PyTorch computes rows again in the backward pass, when the transform is over."""
    image = torch.rand(1, 1, 6, 7, dtype=torch.float64)
    direction = torch.rand(1, 1, 6, 7, dtype=torch.float64)

    def derivative(radius):
        sigma = torch.linspace(0.5, 2, 42, dtype=torch.float64).view(1, 1, 6, 7).requires_grad_()

        def blur(s):
            return reblur_ops.gaussian_blur(image, s, radius=radius)

        with reblur_ops.use_backend("torch"):
            if how == "jvp":
                found = torch.func.jvp(blur, (sigma,), (direction,))[1]
            elif how == "vmap":
                found = torch.func.vmap(blur)(sigma[None]).square()
            else:
                with torch.autograd.forward_ad.dual_level():
                    dual = torch.autograd.forward_ad.make_dual(sigma, direction)
                    found = torch.autograd.forward_ad.unpack_dual(blur(dual)).tangent
            return torch.autograd.grad(found.sum(), sigma)[0]

    # A σ of 2 has nothing between 15 and 16.
    assert_close(derivative(16), derivative(15), torch.float64)


def test_second_derivatives_are_computed_in_float32_under_autocast():
    def second(autocast):
        leaves = [tensor.float().requires_grad_() for tensor in problem(6, 7).tensors]
        first = torch.autograd.grad(reblur_ops.reblur(*leaves).square().sum(), leaves, create_graph=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves)

    for found, expected in zip(second(True), second(False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("direction", ["gather", "scatter"])
def test_functional_gradients_of_large_radii_in_pure_pytorch(direction):
    image, sigma = torch.rand(1, 2, 8, 9, dtype=torch.float64), torch.rand(1, 1, 8, 9, dtype=torch.float64) + 0.5

    def total(sigma):
        return reblur_ops.gaussian_blur(image, sigma, radius=16, direction=direction).square().sum()

    with reblur_ops.use_backend("torch"):
        found = torch.func.grad(total)(sigma)
    total(sigma.requires_grad_()).backward()
    torch.testing.assert_close(found, sigma.grad)


@pytest.mark.native
def test_functional_gradients_of_something_else_pass_the_native_kernels():
    image, sigma = torch.rand(1, 2, 8, 9), torch.rand(1, 1, 8, 9)
    factor = torch.ones(1, 2, 8, 9)
    blurred = reblur_ops.gaussian_blur(image, sigma, radius=2)
    found = torch.func.grad(lambda f: (f * reblur_ops.gaussian_blur(image, sigma, radius=2)).sum())(factor)
    torch.testing.assert_close(found, blurred)
    with pytest.raises(RuntimeError, match=r"torch\.func\.grad"):
        torch.func.grad(lambda f: reblur_ops.gaussian_blur(f * image, sigma, radius=2).sum())(factor)


@pytest.mark.native
def test_functional_gradients_are_refused_natively():
    """PyTorch's registered operators have none; nothing is computed wrongly in silence."""
    p = problem(4, 5, batch=1, radii=(2,))
    with reblur_ops.use_backend("native"), pytest.raises(RuntimeError, match=r"use torch\.autograd, or call it within"):
        torch.func.grad(lambda image: reblur_ops.reblur(image, *p.tensors[1:], radii=(2,)).sum())(p.image)
    for function in (
        reblur_ops.tap_weights,
        reblur_ops.blur_radius,
        lambda seeds, weights, radii: reblur_ops.kernel_image(seeds, weights, [(0, 1, 2)], radii=radii),
    ):
        with reblur_ops.use_backend("native"), pytest.raises(RuntimeError, match=r"use torch\.autograd, or call it"):
            torch.func.grad(lambda seeds, f=function: f(seeds, p.weights, radii=(2,)).sum())(p.seeds)


@pytest.mark.native
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_operators_called_directly_refuse_what_does_not_fit(dtype):
    """torch.ops is public: nothing that reaches it may crash the process."""
    p = problem().to(dtype)
    ops = torch.ops.reblur_ops

    def gather(image, seeds, weights, radii=reblur_ops.PUBLISHED_RADII, support="square", padding="zeros"):
        ops.gather(image, seeds, weights, "seeds", radii, support, "softmax", padding)

    with pytest.raises(ValueError, match="parameters must have 35 channels, got shape"):
        gather(p.image, p.seeds[:, 1:], p.weights)
    with pytest.raises(ValueError, match="image must have the batch, height and width"):
        gather(p.image[:, :, 1:], *p.tensors[1:])
    with pytest.raises(ValueError, match="radii must increase"):
        gather(*p.tensors, radii=(1, 16))
    with pytest.raises(ValueError, match="support must be"):
        gather(*p.tensors, support="round")
    with pytest.raises(ValueError, match="reflect padding needs"):
        gather(*(t[:, :, :7] for t in p.tensors), padding="reflect")
    with pytest.raises(ValueError, match="weights must be given"):
        gather(p.image, p.seeds, None)
    with pytest.raises(ValueError, match="family must be"):
        ops.gather(*p.tensors, "box", (3,), "square", "softmax", "zeros")
    with pytest.raises(ValueError, match="normalize must be"):
        ops.gather(p.image, p.seeds[:, :4], None, "radial", (3,), "square", "max", "zeros")
    with pytest.raises(ValueError, match="must hold 1 to 1 values"):
        ops.gather(p.image, p.seeds[:, :1], None, "disk", (3, 4), "square", "softmax", "zeros")
    with pytest.raises(ValueError, match="between 1 and 64"):
        ops.scatter(p.image, p.seeds[:, :1], None, "disk", (65,), "square", "softmax", "zeros")
    with pytest.raises(ValueError, match="have no class weights"):
        ops.class_weights(p.seeds[:, :1], None, "gaussian", (3,), "square", "softmax")
    kernel = families.seeds(reblur_ops.PUBLISHED_RADII, "square")
    with pytest.raises(ValueError, match="image must be given"):
        ops.gather_backward(p.grad_output, None, *p.tensors[1:], *kernel, "zeros", False, True, False)
