"""The CUDA kernels, compiled for the CPU by tests/cuda_emulation, against the reference in float64."""

import itertools
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import reblur_ops
from reblur_ops import reference
from reblur_ops import testing as problems
from reblur_ops.families import Kernel
from tests.cuda_emulation import emulator

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulator.compiler() is None, reason="no g++ to compile CUDA kernels for the CPU with"),
]

DRIVER = Path(__file__).parent / "driver.cu"
KERNELS = sorted((emulator.ROOT / "csrc" / "cuda").glob("*.cu"))
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
PADDINGS = ["zeros", "replicate", "reflect"]
FAMILIES = ["seeds", "radial", "gaussian", "disk"]
NORMALIZATIONS = ["softmax", "sum", "none"]
PUBLISHED = reblur_ops.PUBLISHED_RADII
# Everything inlined and every reference checked for null, the unrolled kernels take many minutes to compile.
FLAGS = ["-g1", "-Og", "-DREBLUR_NO_FORCED_INLINE", "-fno-sanitize=null,alignment"]
FLAGS += ["-fno-sanitize-address-use-after-scope"]
FLOAT_ONLY = "-DREBLUR_FOR_EACH_SCALAR(f)=f(float)"
FAULTS = {"gather": "REBLUR_FAULT_TILE_COLUMN", "scatter": "REBLUR_FAULT_SCATTER_BARRIER"}


class Programs(NamedTuple):
    correct: Path
    faulty: dict[str, Path]  # by the kernel that has the fault


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Programs:
    folder = tmp_path_factory.mktemp("kernels")

    def compile(source: Path, name: str, *flags: str) -> Path:
        return emulator.build([source], folder / f"{name}.o", [*FLAGS, *flags, "-c"])

    def link(name: str, objects: list[Path]) -> Path:
        return emulator.build([], folder / name, [str(path) for path in objects])

    with ThreadPoolExecutor(2) as pool:
        correct = {path.stem: pool.submit(compile, path, path.stem) for path in [*KERNELS, DRIVER]}
        driver = pool.submit(compile, DRIVER, "driver_float", FLOAT_ONLY)
        faulty = {
            name: pool.submit(compile, source, f"{name}_fault", FLOAT_ONLY, f"-D{FAULTS[name]}")
            for name, source in ((path.stem, path) for path in KERNELS)
            if name in FAULTS
        }
    objects = {name: future.result() for name, future in correct.items()}
    with_fault = {name: {**objects, "driver": driver.result(), name: faulty[name].result()} for name in FAULTS}
    return Programs(
        link("correct", list(objects.values())),
        {name: link(f"with_{name}_fault", list(replaced.values())) for name, replaced in with_fault.items()},
    )


# ---- Problems and their layouts in memory ----


class Case(NamedTuple):
    """Tensors in the dtype of the kernels; those that a family has not have no channels."""

    image: Tensor
    parameters: Tensor
    weights: Tensor
    grad_output: Tensor
    grad_class_weights: Tensor
    kernel: Kernel
    padding: str
    layout: str

    def __str__(self) -> str:
        return f"{self.image.dtype} {tuple(self.image.shape)} {self.layout} {self.padding} {self.kernel}"


def strided(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    """An uninitialised tensor whose storage holds 0xFF."""
    n, c, h, w = shape
    storage_shape, view = {
        "contiguous": ((n, c, h, w), lambda t: t),
        "channels_last": ((n, h, w, c), lambda t: t.permute(0, 3, 1, 2)),
        "sliced": ((n, c + 1, h + 3, 2 * w + 1), lambda t: t[:, 1:, 2 : 2 + h, 1::2]),
        "transposed": ((n, c, w, h), lambda t: t.transpose(2, 3)),
    }[layout]
    storage = torch.full((torch.Size(storage_shape).numel() * dtype.itemsize,), 0xFF, dtype=torch.uint8).view(dtype)
    return view(storage.view(storage_shape))


def case(
    dtype: torch.dtype,
    height: int,
    width: int,
    *,
    family: str = "seeds",
    batch: int = 2,
    channels: int = 3,
    radii: tuple[int, ...] = PUBLISHED,
    support: str = "square",
    normalize: str = "softmax",
    padding: str = "zeros",
    layout: str = "contiguous",
) -> Case:
    kernel = Kernel(family, radii, support, normalize)
    generator = torch.Generator().manual_seed(height * 100 + width)

    def randn(planes: int) -> Tensor:
        return torch.randn(batch, planes, height, width, dtype=torch.float64, generator=generator)

    analytic = family in ("gaussian", "disk")
    parameters = 2 * randn(kernel.parameter_channels)
    if analytic:  # of either sign, and beyond the largest
        parameters = kernel.radius * (0.2 if family == "gaussian" else 0.5) * parameters
    elif normalize == "sum":
        parameters = parameters.abs() + 0.1
    tensors = (
        randn(channels),
        parameters,
        randn(len(radii) + 1 if family == "seeds" else 0),
        randn(channels),
        randn(0 if analytic else (radii[-1] + 1) * (radii[-1] + 2) // 2),
    )
    return Case(*(strided(t.shape, dtype, layout).copy_(t.to(dtype)) for t in tensors), kernel, padding, layout)


def result_tensors(case: Case) -> dict[str, Tensor]:
    """Empty results, in the order in which the driver writes them."""
    likes = {
        "output": case.image,
        "grad_image": case.image,
        "grad_parameters": case.parameters,
        "grad_weights": case.weights,
        "grad_image_alone": case.image,
        "grad_parameters_alone": case.parameters,
        "grad_weights_alone": case.weights,
        "class_weights": case.grad_class_weights,
        "class_weights_grad_parameters": case.parameters if case.grad_class_weights.shape[1] else case.weights,
        "class_weights_grad_weights": case.weights,
    }
    return {name: strided(like.shape, case.image.dtype, case.layout) for name, like in likes.items()}


def storage_bytes(tensor: Tensor) -> bytes:
    return bytes(torch.tensor([], dtype=torch.uint8).set_(tensor.untyped_storage()).numpy())


def header(tensor: Tensor) -> bytes:
    elements = tensor.untyped_storage().nbytes() // tensor.element_size() if tensor.shape[1] else 0
    return struct.pack("6q", *tensor.stride(), tensor.storage_offset(), elements)


def run(program: Path, cases: list[Case], **orders: str) -> list[dict[str, Tensor]]:
    data = bytearray()
    for c in cases:
        kernel = c.kernel
        numbers = [DTYPES.index(c.image.dtype), *c.image.shape, PADDINGS.index(c.padding)]
        numbers += [FAMILIES.index(kernel.family), kernel.support == "square", NORMALIZATIONS.index(kernel.normalize)]
        numbers += [len(kernel.radii), *kernel.radii]
        data += struct.pack(f"{len(numbers)}q", *numbers)
        for tensor in c[:5]:
            data += header(tensor) + (storage_bytes(tensor) if tensor.shape[1] else b"")
        for tensor in result_tensors(c).values():
            data += header(tensor)
    process = emulator.run(program, data=bytes(data), **orders)
    assert process.returncode == 0, process.stderr.decode()[-4000:]
    written, results = bytearray(process.stdout), []
    for c in cases:
        results.append(result_tensors(c))
        for name, tensor in results[-1].items():
            count = tensor.untyped_storage().nbytes() if tensor.shape[1] else 0
            taken, written = written[:count], written[count:]
            if count:
                flat = torch.frombuffer(taken, dtype=tensor.dtype)
                results[-1][name] = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    assert not written
    return results


# ---- What is expected ----


def reference_results(case: Case) -> dict[str, Tensor]:
    leaves = [t.double().contiguous().requires_grad_() for t in case[:3]]
    image, parameters, weights = leaves
    given = (parameters, weights if weights.shape[1] else None, case.kernel)
    output = reference.gather(image, *given, case.padding)
    gradients = torch.autograd.grad(output, leaves, case.grad_output.double(), allow_unused=True)
    of_class_weights: list[Tensor] = []
    if case.grad_class_weights.shape[1]:
        planes = reference.class_weights(*given)
        of_planes = torch.autograd.grad(planes, leaves[1:], case.grad_class_weights.double(), allow_unused=True)
        of_class_weights = [planes.detach(), *of_planes]
    results = [output.detach(), *gradients, *gradients, *of_class_weights]
    names = result_tensors(case)
    return {name: value for name, value in zip(names, results, strict=False) if value is not None}


def assert_untouched_between(tensor: Tensor, name: str) -> None:
    """No byte of the storage was written that is not the tensor's."""
    flat = torch.tensor([], dtype=tensor.dtype).set_(tensor.untyped_storage())
    touched = torch.zeros(flat.shape, dtype=torch.bool)
    touched.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(True)
    assert (flat.view(torch.uint8).view(len(flat), -1)[~touched] == 0xFF).all(), name


def assert_correct(case: Case, results: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in results.items():
        if tensor.numel():
            problems.assert_close(tensor, expected[name], case.image.dtype, f"{name} of {case}")
            assert_untouched_between(tensor, f"{name} of {case}")


def all_cases() -> list[Case]:
    """Every value of every option, with all others somewhere."""
    shapes = [(1, 1), (1, 37), (37, 1), (5, 3), (9, 40), (20, 67)]
    cases = []
    layouts = ["contiguous", "channels_last", "sliced", "transposed"]
    for i, (height, width) in enumerate(shapes):
        for j, dtype in enumerate(DTYPES):
            for k, padding in enumerate(PADDINGS):
                radii = [PUBLISHED, (2, 5)][(i + j + k) % 4 == 3]
                if padding == "reflect" and min(height, width) <= radii[-1]:
                    continue
                if padding == "replicate" and height * width == 1 and dtype != torch.float64:
                    continue  # every tap sees one value: the gradient to seeds is all rounding
                cases.append(
                    case(
                        dtype,
                        height,
                        width,
                        batch=1 + (i + k) % 2,
                        channels=[3, 1, 2, 5][(i + j + k) % 4],
                        radii=radii,
                        support=["square", "disk"][(i + j + k // 2) % 2],
                        padding=padding,
                        layout=layouts[(i + j + 2 * k) % 4],
                    )
                )
    for dtype, shape, padding, support in zip(
        DTYPES, [(4, 5), (1, 7), (16, 16), (17, 2)], ["zeros", "replicate", "reflect", "replicate"], "sdsd", strict=True
    ):
        name = {"s": "square", "d": "disk"}[support]
        cases.append(case(dtype, *shape, batch=1, channels=2, radii=(15,), support=name, padding=padding))
    cases.append(case(torch.float32, 6, 7, channels=3, radii=(3, 12), support="disk", layout="sliced"))
    return [*cases, *radial_cases(), *analytic_cases()]


def radial_cases() -> list[Case]:
    cases = []
    for i, (normalize, support) in enumerate(itertools.product(NORMALIZATIONS, ["square", "disk"])):
        for j, radius in enumerate([7, 4]):
            options = {"support": support, "normalize": normalize, "radii": (radius,)}
            layout, padding = ["contiguous", "sliced"][j], PADDINGS[(i + j) % 3]
            dtype = DTYPES[(i + j) % 4] if normalize != "none" else DTYPES[(i + j) % 2]
            cases.append(case(dtype, 9, 34, family="radial", padding=padding, layout=layout, **options))
    return cases


def analytic_cases() -> list[Case]:
    cases = []
    layouts = ["contiguous", "channels_last", "sliced", "transposed"]
    shapes = [(1, 1), (1, 37), (37, 1), (9, 40), (20, 67)]
    for i, (family, shape) in enumerate(itertools.product(["gaussian", "disk"], shapes)):
        for j, padding in enumerate(PADDINGS):
            radius = [3, 7][(i + j) % 2]
            if padding == "reflect" and min(shape) <= radius:
                continue
            if padding == "replicate" and shape == (1, 1):
                continue  # every tap sees one value: the gradient to the width is all rounding
            options = {"batch": 1 + i % 2, "channels": [3, 1, 2, 5][(i + j) % 4], "layout": layouts[(i + 2 * j) % 4]}
            dtype = DTYPES[(i + j) % 4]
            cases.append(case(dtype, *shape, family=family, radii=(radius,), padding=padding, **options))
    for family, radius in (("gaussian", 20), ("disk", 20), ("disk", 64)):
        for padding in ("zeros", "replicate"):
            options = {"family": family, "radii": (radius,), "padding": padding}
            # In float32 some tap of so many lies within a rounding of an edge, where the derivative has a step.
            dtype = torch.float32 if family == "gaussian" else torch.float64
            cases.append(case(dtype, 24, 45, batch=1, channels=1, **options))
    return cases


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return all_cases()


@pytest.fixture(scope="module")
def expected(cases) -> list[dict[str, Tensor]]:
    return [reference_results(c) for c in cases]


@pytest.fixture(scope="module")
def results(programs, cases) -> list[dict[str, Tensor]]:
    return run(programs.correct, cases)


def test_against_reference(cases, results, expected):
    for c, result, reference_result in zip(cases, results, expected, strict=True):
        assert_correct(c, result, reference_result)


@pytest.mark.parametrize(("threads", "blocks"), [("reversed", "reversed"), ("shuffled:1", "shuffled:2")])
def test_order_changes_no_bit(programs, cases, results, threads, blocks):
    some = slice(0, None, 3)
    for c, first, second in zip(
        cases[some], results[some], run(programs.correct, cases[some], threads=threads, blocks=blocks), strict=True
    ):
        for name in first:
            assert torch.equal(first[name], second[name]), f"{name} of {c}"


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty(programs, shape):
    batch, channels, height, width = shape
    c = case(torch.float32, height, width, batch=batch, channels=channels)
    (result,) = run(programs.correct, [c])
    for name in ("output", "grad_image"):
        assert result[name].numel() == 0
    if channels == 0 and height and width and batch:  # without an image, parameters still have gradients
        assert not result["grad_parameters"].any()
        assert not result["grad_weights"].any()


@pytest.mark.parametrize("radii", [PUBLISHED, (2, 5)])
@pytest.mark.parametrize("support", ["square", "disk"])
def test_nan_and_infinity_stay_within_reach(programs, radii, support):
    """What is not finite spreads to those taps that see it, and no farther."""
    clean = case(torch.float32, 21, 36, batch=1, channels=2, radii=radii, support=support)
    at = (10, 17)
    y, x = torch.arange(21)[:, None] - at[0], torch.arange(36)[None] - at[1]

    def within(radius: int) -> Tensor:
        if support == "square":
            return (y.abs() <= radius) & (x.abs() <= radius)
        return (y**2 + x**2 <= radius**2) & (radius >= 0)

    here, reach, nowhere = within(0), within(radii[-1]), within(-1)

    def poisoned(field: str, value: float) -> Case:
        tensor = getattr(clean, field).clone()
        tensor[0, 0, at[0], at[1]] = value
        return clean._replace(**{field: tensor})

    changes = [("image", float("nan")), ("grad_output", float("inf")), ("parameters", float("nan"))]
    finite, *results = run(programs.correct, [clean, *(poisoned(*change) for change in changes)])
    touched = {
        "image": {"output": reach, "grad_parameters": reach, "grad_weights": reach, "grad_image": nowhere},
        "grad_output": {"output": nowhere, "grad_parameters": here, "grad_weights": here, "grad_image": reach},
        "parameters": {"output": here, "grad_parameters": here, "grad_weights": here, "grad_image": within(radii[0])},
    }
    for (field, _), result in zip(changes, results, strict=True):
        for name, mask in touched[field].items():
            finite_elsewhere = result[name][..., ~mask]
            assert torch.equal(finite_elsewhere, finite[name][..., ~mask]), f"{name} with a bad {field}"
            assert (~result[name][..., mask].isfinite()).any(dim=1).all(), f"{name} with a bad {field}"


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_seen(programs, name):
    c = case(torch.float32, 9, 40, batch=1, padding="replicate")
    expected = reference_results(c)
    faults = 0
    for threads in ("forward", "reversed"):
        (result,) = run(programs.faulty[name], [c], threads=threads)
        try:
            assert_correct(c, result, expected)
        except AssertionError:
            faults += 1
    assert faults > 0
