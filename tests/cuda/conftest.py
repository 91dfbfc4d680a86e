"""The CUDA sources as nvcc compiles them, once for all tests."""

from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import cuda_resources
from tests.cuda.sizes import DTYPES


class Compiled(NamedTuple):
    kernels: list[cuda_resources.Kernel]
    cubins: list[Path]  # of the sources, for sm_90


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Compiled:
    folder = tmp_path_factory.mktemp("cubins")
    kernels = cuda_resources.compile_all(folder, [90], DTYPES)  # the other architectures: make cuda-check
    return Compiled(kernels, sorted(folder.iterdir()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever compiles the kernels takes long."""
    for item in items:
        if {"compiled", "launches"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
