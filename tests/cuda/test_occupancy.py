"""How many blocks fit on a multiprocessor: by hand, and as the toolkit's own calculator counts."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import cuda_resources
from benchmarks.occupancy import MULTIPROCESSORS, occupancy

KIB = 1024
# The order in which the toolkit's calculator is made to tell them.
LIMITS = ("registers", "shared memory", "threads", "blocks")


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        # 64 Ki registers are 2048 threads' of 32: on sm_80, which holds 2048, both are used up at once.
        ((80, 32, 256, 0), (8, 1.0, ("registers", "threads"))),
        ((80, 24, 256, 0), (8, 1.0, ("threads",))),
        # 128 registers: 512 threads.
        ((90, 128, 256, 0), (2, 0.25, ("registers",))),
        # One register more takes 8: 136, of which a quarter of the registers holds 3 warps of 4352, all four 12.
        ((90, 129, 256, 0), (1, 8 / 64, ("registers",))),
        ((90, 129, 128, 0), (3, 12 / 64, ("registers",))),
        # 80 registers: 25 warps of 2560 would fit into all registers, but 6 into each quarter.
        ((80, 80, 32, 0), (24, 24 / 64, ("registers",))),
        # 1536 threads are no multiple of 1024.
        ((86, 32, 1024, 0), (1, 32 / 48, ("threads",))),
        ((75, 32, 1024, 0), (1, 1.0, ("threads",))),
        # Small blocks: their number counts.
        ((86, 16, 32, 0), (16, 16 / 48, ("blocks",))),
        ((89, 16, 32, 0), (24, 24 / 48, ("blocks",))),
        ((90, 16, 32, 0), (32, 32 / 64, ("blocks",))),
        # A KiB more for each block: of 228, four times 56, not of 57.
        ((90, 32, 128, 56 * KIB), (4, 16 / 64, ("shared memory",))),
        ((90, 32, 128, 57 * KIB), (3, 12 / 64, ("shared memory",))),
        # None on sm_75, where two of 32 KiB fill the 64.
        ((75, 32, 128, 32 * KIB), (2, 8 / 32, ("shared memory",))),
        # The most that a block may have, and more.
        ((80, 32, 128, 163 * KIB), (1, 4 / 64, ("shared memory",))),
        ((86, 32, 128, 99 * KIB), (1, 4 / 48, ("shared memory",))),
        ((86, 32, 128, 99 * KIB + 1), (0, 0.0, ("shared memory",))),
        ((75, 32, 128, 64 * KIB + 1), (0, 0.0, ("shared memory",))),
        ((90, 128, 1024, 0), (0, 0.0, ("registers",))),
    ],
)
def test_by_hand(launch, expected):
    assert occupancy(*launch) == expected


def test_unknown_architecture():
    with pytest.raises(ValueError, match=r"must be one of 75, .* got 70"):
        occupancy(70, 32, 128, 0)


def toolkit_include() -> Path | None:
    """The folder of the toolkit's headers."""
    candidates = [Path("/usr/local/cuda/include")]
    if nvcc := cuda_resources.nvcc():
        candidates.insert(0, Path(nvcc).resolve().parents[1] / "include")
    return next((path for path in candidates if (path / "cuda_occupancy.h").exists()), None)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_as_the_toolkit_counts(tmp_path):
    include = toolkit_include()
    if include is None:
        pytest.skip("there is no cuda_occupancy.h of the CUDA toolkit")
    program = tmp_path / "occupancy"
    source = Path(__file__).parent / "occupancy.cpp"
    subprocess.run(["g++", "-std=c++17", f"-isystem{include}", source, "-o", program], check=True)
    generator = random.Random(0)
    launches = []
    for architecture, multiprocessor in MULTIPROCESSORS.items():
        for _ in range(2000):
            threads = generator.choice([1, 32, 64, 100, 128, 192, 256, 384, 512, 1024, generator.randint(1, 1024)])
            most = multiprocessor.shared_bytes - multiprocessor.reserved_bytes
            shared_bytes = generator.choice([0, generator.randint(0, 16 * KIB), generator.randint(0, most), most])
            launches.append((architecture, generator.randint(1, 255), threads, shared_bytes))
    lines = []
    for architecture, registers, threads, shared_bytes in launches:
        limits = MULTIPROCESSORS[architecture]
        numbers = [architecture, limits.warps, limits.shared_bytes, limits.reserved_bytes]
        lines.append(" ".join(map(str, [*numbers, registers, threads, shared_bytes])))
    result = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    answers = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    for launch, (blocks, *limiting) in zip(launches, answers, strict=True):
        found = occupancy(*launch)
        expected = tuple(name for name, is_limit in zip(LIMITS, limiting, strict=True) if is_limit)
        assert (found.blocks, found.limits) == (blocks, expected), launch
