"""The CUDA kernels, compiled for the CPU by `emulation`, against the reference in float64."""

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import reblur_ops
from emulation import emulator
from emulation.problems import DRIVER, KERNELS, Case, Tensors, all_cases, only, part, result_tensors, run, tensors
from reblur_ops import reference, testing
from tests.cuda.sizes import DTYPES

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulator.compiler() is None, reason="no g++ to compile CUDA kernels for the CPU with"),
]

PUBLISHED = reblur_ops.PUBLISHED_RADII
# Everything inlined and every reference checked for null, the unrolled kernels take many minutes to compile.
FLAGS = ["-g1", "-Og", "-DREBLUR_NO_FORCED_INLINE", "-fno-sanitize=null,alignment"]
FLAGS += ["-fno-sanitize-address-use-after-scope"]
FLOAT_ONLY = only([torch.float32])


class Fault(NamedTuple):
    """A fault that is planted in a copy of the sources.

    Attributes:
        file: where, below csrc/cuda.
        correct, faulty: what stands there, and what stands there then.
        height: of the image that shows it.
    """

    file: str
    correct: str
    faulty: str
    height: int = 9


# By the source that is compiled with the fault.
FAULTS = {
    "gather": Fault("image_tile.cuh", "const int x = left + column;", "const int x = left + column + 1;"),
    "scatter": Fault("scatter.cu", "    __syncthreads();\n    sum_rows(", "    sum_rows("),
    "driver": Fault("slabs.h", "(kept - first)", "(kept - first - 1)", height=100),
}


class Programs(NamedTuple):
    correct: Path
    faulty: dict[str, Path]  # by the source that has the fault


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Programs:
    folder = tmp_path_factory.mktemp("kernels")

    def compile(source: Path, name: str, *flags: str) -> Path:
        return emulator.build([source], folder / f"{name}.o", [*FLAGS, *flags, "-c"])

    def compile_faulty(name: str, fault: Fault) -> Path:
        csrc = Path(shutil.copytree(emulator.CSRC, folder / f"{name}_fault"))
        text = (csrc / "cuda" / fault.file).read_text()
        assert text.count(fault.correct) == 1
        (csrc / "cuda" / fault.file).write_text(text.replace(fault.correct, fault.faulty))
        source = DRIVER if name == "driver" else csrc / "cuda" / f"{name}.cu"
        target = folder / f"{name}_fault.o"
        return emulator.build([source], target, [*FLAGS, FLOAT_ONLY, "-c"], csrc)

    def link(name: str, objects: list[Path]) -> Path:
        return emulator.build([], folder / name, [str(path) for path in objects])

    with ThreadPoolExecutor(2) as pool:
        parts = {
            (path.stem, dtype): pool.submit(compile, path, f"{path.stem}_{dtype}", *part(DTYPES, dtype))
            for path, dtype in itertools.product(KERNELS, DTYPES)
        }
        driver = pool.submit(compile, DRIVER, "driver", only(DTYPES))
        driver_float = pool.submit(compile, DRIVER, "driver_float", FLOAT_ONLY)
        faulty = {name: pool.submit(compile_faulty, name, fault) for name, fault in FAULTS.items()}
    in_float = {path.stem: parts[path.stem, torch.float32].result() for path in KERNELS}
    in_float["driver"] = driver_float.result()
    with_fault = {name: {**in_float, name: faulty[name].result()} for name in FAULTS}
    return Programs(
        link("correct", [driver.result(), *(part.result() for part in parts.values())]),
        {name: link(f"with_{name}_fault", list(objects.values())) for name, objects in with_fault.items()},
    )


# ---- What is expected ----


def reference_results(case: Case, problem: Tensors) -> dict[str, Tensor]:
    leaves = [t.double().contiguous().requires_grad_() for t in problem[:3]]
    image, parameters, weights = leaves
    given = (parameters, weights if weights.shape[1] else None, case.kernel)
    output = reference.gather(image, *given, case.padding)
    gradients = torch.autograd.grad(output, leaves, problem.grad_output.double(), allow_unused=True)
    class_weights: list[Tensor] = []
    if problem.grad_class_weights.shape[1]:
        planes = reference.class_weights(*given)
        plane_gradients = torch.autograd.grad(
            planes, leaves[1:], problem.grad_class_weights.double(), allow_unused=True
        )
        class_weights = [planes.detach(), *plane_gradients]
    results = [output.detach(), *gradients, *gradients, *class_weights]
    names = result_tensors(case, problem)
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
            testing.assert_close(tensor, expected[name], tensor.dtype, f"{name} of {case}")
            assert_untouched_between(tensor, f"{name} of {case}")


CASES = all_cases(DTYPES)
REORDERED = CASES[::3]


@pytest.fixture(scope="module")
def problems() -> dict[Case, Tensors]:
    return {case: tensors(case) for case in CASES}


@pytest.fixture(scope="module")
def results(programs, problems) -> dict[Case, dict[str, Tensor]]:
    """All cases in one run of the program, which is slow to start."""
    return dict(zip(CASES, run(programs.correct, list(problems.items())), strict=True))


@pytest.fixture(scope="module", params=[("reversed", "reversed"), ("shuffled:1", "shuffled:2")], ids="-".join)
def reordered(request, programs, problems) -> dict[Case, dict[str, Tensor]]:
    """Some of the cases, with threads and blocks in another order."""
    threads, blocks = request.param
    some = [(case, problems[case]) for case in REORDERED]
    return dict(zip(REORDERED, run(programs.correct, some, threads=threads, blocks=blocks), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_reference(problems, results, case):
    assert_correct(case, results[case], reference_results(case, problems[case]))


@pytest.mark.parametrize("case", REORDERED, ids=str)
def test_order_changes_no_bit(results, reordered, case):
    for name, result in results[case].items():
        assert torch.equal(result, reordered[case][name]), name


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_empty(programs, shape):
    batch, channels, height, width = shape
    case = Case(torch.float32, height, width, batch=batch, channels=channels)
    (result,) = run(programs.correct, [(case, tensors(case))])
    for name in ("output", "grad_image"):
        assert result[name].numel() == 0
    if channels == 0 and height and width and batch:  # without an image, parameters still have gradients
        assert not result["grad_parameters"].any()
        assert not result["grad_weights"].any()


@pytest.mark.parametrize("radii", [PUBLISHED, (2, 5), (2, 9)])
@pytest.mark.parametrize("support", ["square", "disk"])
def test_nan_and_infinity_stay_within_reach(programs, radii, support):
    """NaN and infinity spread to those taps that see them, and no farther."""
    case = Case(torch.float32, 21, 36, batch=1, channels=2, radii=radii, support=support)
    clean = tensors(case)
    at = (10, 17)
    y, x = torch.arange(21)[:, None] - at[0], torch.arange(36)[None] - at[1]

    def within(radius: int) -> Tensor:
        if support == "square":
            return (y.abs() <= radius) & (x.abs() <= radius)
        return (y**2 + x**2 <= radius**2) & (radius >= 0)

    here, reach, nowhere = within(0), within(radii[-1]), within(-1)

    def poisoned(field: str, value: float) -> Tensors:
        tensor = getattr(clean, field).clone()
        tensor[0, 0, at[0], at[1]] = value
        return clean._replace(**{field: tensor})

    changes = [("image", float("nan")), ("grad_output", float("inf")), ("parameters", float("nan"))]
    given = [(case, problem) for problem in (clean, *(poisoned(*change) for change in changes))]
    finite, *results = run(programs.correct, given)
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
    case = Case(torch.float32, FAULTS[name].height, 40, batch=1, padding="replicate")
    problem = tensors(case)
    expected = reference_results(case, problem)
    faults = 0
    for threads in ("forward", "reversed"):
        (result,) = run(programs.faulty[name], [(case, problem)], threads=threads)
        try:
            assert_correct(case, result, expected)
        except AssertionError:
            faults += 1
    assert faults > 0
