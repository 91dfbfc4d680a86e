"""Properties that hold for every input, on inputs that hypothesis chooses."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reblur_ops
from reblur_ops.testing import BACKENDS, problem

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("repeatable")

radii = st.sets(st.integers(1, 15), min_size=1, max_size=5).map(lambda chosen: tuple(sorted(chosen)))


paddings = st.sampled_from(["zeros", "replicate", "reflect"])


@st.composite
def problems(draw, padding=paddings):
    chosen = draw(radii)
    mode = draw(padding)
    smallest = chosen[-1] + 1 if mode == "reflect" else 1
    return problem(
        draw(st.integers(smallest, smallest + 20)),
        draw(st.integers(smallest, smallest + 40)),
        batch=draw(st.integers(1, 2)),
        channels=draw(st.integers(1, 4)),
        radii=chosen,
        support=draw(st.sampled_from(["square", "disk"])),
        padding=mode,
        seed=draw(st.integers(0, 2**31)),
    )


def largest(tensor):
    return tensor.abs().max().item()


@given(problems(), st.sampled_from(BACKENDS), st.floats(-3, 3), st.floats(-3, 3))
def test_linear_in_the_image(p, backend, a, b):
    with reblur_ops.use_backend(backend):

        def blur(image):
            return reblur_ops.reblur(image, p.seeds, p.weights, **p.options)

        other = p.grad_output
        together, apart = blur(a * p.image + b * other), a * blur(p.image) + b * blur(other)
    assert largest(together - apart) <= 1e-12 * (1 + largest(apart))


@given(problems(padding=st.just("zeros")), st.sampled_from(BACKENDS), st.floats(-5, 5))
def test_constant_images_stay_constant_inside_the_border(p, backend, value):
    reach = p.options["radii"][-1]
    constant = torch.full_like(p.image, value)
    weights = p.weights.softmax(dim=1)
    with reblur_ops.use_backend(backend):
        zeros = reblur_ops.reblur(constant, p.seeds, weights, **p.options)
        replicated = reblur_ops.reblur(constant, p.seeds, weights, **{**p.options, "padding": "replicate"})
    inside = zeros[:, :, reach:-reach, reach:-reach] - value
    assert inside.numel() == 0 or largest(inside) <= 1e-12 * (1 + abs(value))
    assert largest(replicated - value) <= 1e-12 * (1 + abs(value))


@given(problems(), st.sampled_from(BACKENDS))
def test_the_image_gradient_is_the_adjoint(p, backend):
    """<K x, y> = <x, Kᵀ y>."""
    image = p.image.requires_grad_()
    with reblur_ops.use_backend(backend):
        output = reblur_ops.reblur(image, p.seeds, p.weights, **p.options)
    (adjoint,) = torch.autograd.grad(output, image, p.grad_output)
    left, right = (output * p.grad_output).sum(), (image * adjoint).sum()
    scale = output.norm() * p.grad_output.norm() + image.norm() * adjoint.norm()
    assert abs(left - right) <= 1e-13 * scale


@given(problems(padding=st.just("zeros")), st.sampled_from(BACKENDS))
def test_the_kernel_is_isotropic(p, backend):
    """Mirroring and transposing everything mirrors and transposes the result."""
    with reblur_ops.use_backend(backend):
        output = reblur_ops.reblur(*p.tensors, **p.options)
        for change in (lambda t: t.flip(2), lambda t: t.flip(3), lambda t: t.transpose(2, 3)):
            changed = reblur_ops.reblur(*(change(t) for t in p.tensors), **p.options)
            assert largest(changed - change(output)) <= 1e-12 * (1 + largest(output))
