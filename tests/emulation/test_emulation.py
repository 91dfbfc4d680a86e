"""The stand-in for CUDA's execution model: it runs correct kernels and finds the faults planted in others."""

from pathlib import Path

import pytest
import torch

from emulation import emulator

FIXTURES = Path(__file__).parent / "fixtures"

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(emulator.compiler() is None, reason="no g++ to compile CUDA kernels for the CPU with"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Compiles a fixture when it is first asked for."""
    built = {}

    def program(name: str) -> Path:
        if name not in built:
            built[name] = emulator.build([FIXTURES / f"{name}.cu"], tmp_path_factory.mktemp("emulated") / name)
        return built[name]

    return program


@pytest.fixture
def box_blur(programs):
    return lambda *arguments, **orders: emulator.run(programs("box_blur"), *arguments, **orders)


@pytest.mark.parametrize("threads", emulator.ORDERS)
@pytest.mark.parametrize("blocks", emulator.ORDERS)
def test_correct_kernel_in_every_order(box_blur, threads, blocks):
    for width, height in ((67, 19), (1, 1), (32, 8)):
        result = box_blur("none", width, height, threads=threads, blocks=blocks)
        assert (result.returncode, result.stdout) == (0, b"equal\n"), result.stderr.decode()


@pytest.mark.parametrize("bug", ["shared", "global"])
def test_access_out_of_bounds(box_blur, bug):
    result = box_blur(bug, 67, 19)
    assert result.returncode != 0
    assert b"heap-buffer-overflow" in result.stderr
    assert b"cuda_emulation: in block (" in result.stderr


def test_missing_barrier(box_blur):
    results = [box_blur("no_barrier", 67, 19, threads=threads) for threads in emulator.ORDERS]
    assert [result.returncode for result in results] == [0] * len(results)
    assert b"differs\n" in [result.stdout for result in results]


@pytest.mark.parametrize(
    ("bug", "reports"),
    [
        ("skipped_barrier", [b"232 threads, first (3, 0, 0), ended", b"24 threads, first (0, 0, 0), wait at"]),
        ("two_barriers", [b"32 threads, first (0, 3, 0), wait at", b"224 threads, first (0, 0, 0), wait at"]),
    ],
)
def test_divergent_barrier(box_blur, bug, reports):
    result = box_blur(bug, 67, 19)
    assert result.returncode != 0
    for report in [b"divergent barrier in block (", *reports]:
        assert report in result.stderr


@pytest.mark.parametrize(
    ("bug", "report"),
    [
        ("throw", b"exception in a kernel: planted"),
        ("assert", b"Assertion"),
        ("overflow", b"signed integer overflow"),
        ("stack", b"stack-buffer-overflow"),
    ],
)
def test_error_names_block_and_thread(box_blur, bug, report):
    result = box_blur(bug, 67, 19)
    assert result.returncode != 0
    assert report in result.stderr
    assert b"cuda_emulation: in block (1, 1, 0), thread (1, 1, 0)" in result.stderr


def test_unknown_order(box_blur):
    result = box_blur("none", 3, 3, threads="random")
    assert result.returncode != 0
    assert b"REBLUR_EMULATION_THREADS is neither" in result.stderr


def test_launches_are_logged(tmp_path):
    program = emulator.build([FIXTURES / "box_blur.cu"], tmp_path / "box_blur", ["-no-pie"])
    for width, height in ((67, 19), (3, 3)):
        assert emulator.run(program, "none", width, height, launches=tmp_path / "launches").returncode == 0
    assert len((tmp_path / "launches").read_text().splitlines()) == 2
    (launch,) = emulator.read_launches(program, tmp_path / "launches")
    assert launch.kernel.startswith("_Z8box_blurILi0EE")
    assert (launch.threads, launch.shared_bytes) == (32 * 8, 4 * 34 * 10)


@pytest.mark.parametrize("threads", emulator.ORDERS)
def test_model(programs, threads):
    result = emulator.run(programs("model"), threads=threads)
    assert (result.returncode, result.stdout) == (0, b""), result.stdout + result.stderr


DTYPES = {"half": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture
def convert(programs):
    """A tensor converted by the stand-in: 16-bit to float, float to `name`."""

    def convert(name: str, tensor: torch.Tensor) -> torch.Tensor:
        decode = tensor.dtype != torch.float32
        data = bytes(tensor.view(torch.uint8).tolist())
        result = emulator.run(programs("conversions"), name, "decode" if decode else "encode", data=data)
        assert result.returncode == 0, result.stderr.decode()
        return torch.frombuffer(bytearray(result.stdout), dtype=torch.float32 if decode else DTYPES[name])

    return convert


def all_values(name: str) -> torch.Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(DTYPES[name])


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.equal(actual.isnan(), expected.isnan())
    bits = torch.int32 if actual.dtype == torch.float32 else torch.int16
    numbers = ~expected.isnan()
    assert torch.equal(actual[numbers].view(bits), expected[numbers].view(bits))


@pytest.mark.parametrize("name", DTYPES)
def test_all_values_to_float(convert, name):
    assert_same(convert(name, all_values(name)), all_values(name).float())


@pytest.mark.parametrize("name", DTYPES)
def test_floats_to_16_bits(convert, name):
    values = all_values(name).float()
    values = values[values.isfinite()].abs().unique()
    # Half way between neighbours; the last, between the largest number and what would follow it.
    ties = torch.cat([(values[1:].double() + values[:-1]) / 2, values[-1:].double() * 1.5 - values[-2:-1].double() / 2])
    ties = ties.float()
    near_ties = [torch.nextafter(ties, torch.tensor(end)) for end in (0.0, float("inf"))]
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (400_000,), generator=generator).to(torch.int32).view(torch.float32)
    special = torch.tensor([0.0, float("inf"), float("nan"), 1e-45, 1e-38, 3.4e38])
    floats = torch.cat([values, ties, *near_ties, special, bits])
    floats = torch.cat([floats, -floats])
    assert_same(convert(name, floats), floats.to(DTYPES[name]))
