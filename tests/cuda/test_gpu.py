"""The operator on a GPU: what the stand-in cannot show, and everything once more on the real machine."""

import pytest
import torch

import reblur_ops
from reblur_ops import families
from reblur_ops.testing import RADII, SHAPES, TOLERANCE, Problem, assert_all_close, assert_close, problem, run
from tests import blurs

CUDA = torch.cuda.is_available() and "cuda" in reblur_ops.backends().get("native", ())
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA, reason="there is no GPU, or reblur_ops was built without CUDA"),
]


def to_gpu(p):
    return Problem(*(tensor.cuda() for tensor in p[:4]), p.options)


def on_gpu(p):
    """The output and the gradients of a problem solved natively on the GPU, back on the CPU."""
    return [tensor.cpu() for tensor in run(to_gpu(p), "native")]


@pytest.mark.parametrize("shape", [*SHAPES, (40, 131)])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
@pytest.mark.parametrize("support", ["square", "disk"])
@pytest.mark.parametrize("radii", [*RADII, (15,)], ids=str)
def test_against_reference(radii, support, padding, shape):
    if padding == "reflect":
        shape = tuple(max(side, radii[-1] + 1) for side in shape)
    p = problem(*shape, batch=1, radii=radii, support=support, padding=padding)
    assert_all_close(on_gpu(p), run(p, "reference"), torch.float64)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes_and_channels(dtype, channels):
    p = problem(50, 70, channels=channels).to(dtype)
    actual = on_gpu(p)
    assert all(tensor.dtype == dtype for tensor in actual)
    assert_all_close(actual, run(p.to(torch.float64), "reference"), dtype)


@pytest.mark.parametrize("argument", range(4), ids=["image", "seeds", "weights", "grad_output"])
def test_layouts(argument):
    p = to_gpu(problem())
    expected = run(p, "native")
    views = {
        "channels_last": p[argument].contiguous(memory_format=torch.channels_last),
        "sliced columns": torch.stack((p[argument], p[argument] + 1), dim=-1).flatten(-2)[..., ::2],
        "transposed": p[argument].transpose(2, 3).contiguous().transpose(2, 3),
        "expanded": p[argument][:, :, :1, :1].expand_as(p[argument]),
    }
    for name, view in views.items():
        arguments = list(p)
        arguments[argument] = view
        if name == "expanded":
            arguments[argument] = view.contiguous()
            expected_here = run(Problem(*arguments), "native")
            arguments[argument] = view
        else:
            expected_here = expected
        assert_all_close(run(Problem(*arguments), "native"), expected_here, torch.float64)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (2, 3, 8, 0)], ids=str)
def test_empty(shape):
    n, _, h, w = shape
    image = torch.rand(shape, device="cuda", requires_grad=True)
    seeds, weights = (torch.rand(n, k, h, w, device="cuda", requires_grad=True) for k in (35, 8))
    reblur_ops.reblur(image, seeds, weights).sum().backward()
    assert image.grad.shape == shape
    assert not seeds.grad.any()
    assert not weights.grad.any()


def test_class_weights():
    p = problem(30, 40)
    expected = reblur_ops.tap_weights(p.seeds, p.weights)
    assert torch.allclose(reblur_ops.tap_weights(p.seeds.cuda(), p.weights.cuda()).cpu(), expected, atol=1e-13)
    leaves = [t.cuda().requires_grad_() for t in problem(4, 5, batch=1, radii=(1, 3)).tensors[1:]]
    assert torch.autograd.gradcheck(lambda *t: reblur_ops.tap_weights(*t, radii=(1, 3)), leaves)


def test_opcheck():
    p = to_gpu(problem(6, 7, radii=(1, 3)))
    leaves = [t.requires_grad_() for t in p.tensors]
    kernel = families.seeds((1, 3), "square")
    for op in (torch.ops.reblur_ops.gather, torch.ops.reblur_ops.scatter):
        torch.library.opcheck(op.default, (*leaves, *kernel, "zeros"))


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
@pytest.mark.parametrize("direction", ["gather", "scatter"])
@pytest.mark.parametrize("blur", [*blurs.BLURS, *blurs.WIDE], ids=str)
def test_families_against_reference(blur, direction, padding):
    side = 70 if padding == "reflect" and blur.radius == 64 else 37
    image, grad_output = blurs.images(side, 45 if side == 37 else 70, 1, 2)
    parameter = blur.parameter(*image.shape[2:], batch=1)
    options = {"direction": direction, "padding": padding}
    expected = blurs.run(blur, image, parameter, grad_output, "reference", **options)
    on_device = (tensor.cuda() for tensor in (image, parameter, grad_output))
    actual = [tensor.cpu() for tensor in blurs.run(blur, *on_device, "native", **options)]
    blurs.compare(actual, expected, torch.float64)


@pytest.mark.parametrize("direction", ["gather", "scatter"])
@pytest.mark.parametrize("name", ["gaussian", "disk", "radial"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_dtypes_of_families(dtype, name, direction):
    blur = blurs.Blur(name, 7)
    image, grad_output = (tensor.to(dtype) for tensor in blurs.images(50, 70))
    parameter = blur.parameter(50, 70).to(dtype)
    expected = blurs.run(blur, *(t.double() for t in (image, parameter, grad_output)), "reference", direction=direction)
    on_device = (tensor.cuda() for tensor in (image, parameter, grad_output))
    actual = [tensor.cpu() for tensor in blurs.run(blur, *on_device, "native", direction=direction)]
    blurs.compare(actual, expected, dtype)


@pytest.mark.parametrize("name", ["gaussian", "disk", "radial"])
def test_families_repeat_bit_for_bit(name):
    blur = blurs.Blur(name, 9)
    tensors = [t.float().cuda() for t in (*blurs.images(100, 150), blur.parameter(100, 150))]
    results = [
        blurs.run(blur, tensors[0], tensors[2], tensors[1], "native", direction="scatter", padding="replicate")
        for _ in range(4)
    ]
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_repeats_bit_for_bit():
    p = to_gpu(problem(200, 300, padding="replicate").to(torch.float32))
    first = run(p, "native")
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(run(p, "native"), first, strict=True))


def test_other_streams():
    p = to_gpu(problem(100, 120).to(torch.float32))
    expected = run(p, "native")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # Work before it on the same stream: on another one the operator would read too early.
        late = torch.zeros_like(p.image)
        torch.cuda._sleep(50_000_000)
        late.copy_(p.image)
        actual = run(p._replace(image=late), "native")
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_graph_capture():
    p = to_gpu(problem(64, 80).to(torch.float32))
    leaves = [t.clone().requires_grad_() for t in p.tensors]

    def step():
        output = reblur_ops.reblur(*leaves)
        return output, *torch.autograd.grad(output, leaves, p.grad_output)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    fresh = to_gpu(problem(64, 80, seed=1).to(torch.float32))
    with torch.no_grad():
        for leaf, tensor in zip(leaves, fresh.tensors, strict=True):
            leaf.copy_(tensor)
    graph.replay()
    expected = run(fresh._replace(grad_output=p.grad_output), "native")
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


def test_compile_and_autocast():
    p = to_gpu(problem(30, 40).to(torch.float32))
    compiled = torch.compile(lambda *t: torch.relu(reblur_ops.reblur(*t)), fullgraph=True)
    assert torch.allclose(compiled(*p.tensors), torch.relu(reblur_ops.reblur(*p.tensors)), atol=1e-5)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert reblur_ops.reblur(p.image.bfloat16(), *p.tensors[1:]).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_reads_16_bits_as_they_are(dtype):
    p = to_gpu(problem(70, 90, padding="replicate").to(torch.float32))
    maps = [t.to(dtype) for t in (p.seeds, p.weights)]
    results = []
    for tensors in ((p.image, *maps), (p.image, *(t.float() for t in maps))):
        leaves = [t.clone().requires_grad_() for t in tensors]
        with torch.autocast("cuda", dtype=torch.bfloat16):
            output = reblur_ops.reblur(*leaves, padding="replicate")
        results.append((output, *torch.autograd.grad(output, leaves, p.grad_output)))
    for mixed, expected, like in zip(results[0], results[1], (p.image, p.image, *maps), strict=True):
        assert mixed.dtype == like.dtype
        assert_close(mixed.cpu(), expected.cpu().to(like.dtype), like.dtype)


def test_memory_beyond_inputs_outputs_and_gradients():
    n, h, w = 1, 512, 512
    leaves = [torch.rand(n, c, h, w, device="cuda", requires_grad=True) for c in (3, 35, 8)]
    grad_output = torch.rand(n, 3, h, w, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(reblur_ops.reblur(*leaves), leaves, grad_output)
    results = (3 + 3 + 35 + 8) * 4 * n * h * w
    assert torch.cuda.max_memory_allocated() - before - results <= 160 * n * h * w


def test_more_than_two_to_the_31_elements():
    side = 7840  # 35 planes of it are 2^31 and a little more
    assert 35 * side * side > 2**31
    # Inputs and gradients of 35 + 8 + 3 planes in two bytes, and 160 bytes a pixel for the backward, as above; twice:
    # the allocator rounds up, and the test keeps some of it.
    needed = 2 * (2 * 2 * 46 + 160) * side * side
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        pytest.skip(f"{free >> 30} GiB of the GPU's memory are free, and {needed >> 30} may be needed")
    generator = torch.Generator("cuda").manual_seed(0)
    image, seeds, weights, grad_output = (
        torch.randn(1, c, side, side, device="cuda", dtype=torch.bfloat16, generator=generator) for c in (1, 35, 8, 1)
    )
    whole = run(Problem(image, seeds, weights, grad_output, {}), "native")
    # The last corner alone: 14 pixels in from its edge nothing depends on what was cut off.
    corner = Problem(*(t[:, :, -96:, -96:].contiguous() for t in (image, seeds, weights, grad_output)), {})
    for actual, expected in zip(whole, run(corner, "native"), strict=True):
        assert torch.equal(actual[:, :, -82:, -82:], expected[:, :, -82:, -82:])
