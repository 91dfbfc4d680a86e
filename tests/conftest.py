"""Fixtures and marks that tests of several folders share."""

import pytest

from reblur_ops.testing import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    """Each backend that is there."""
    return request.param


@pytest.fixture(params=[name for name in BACKENDS if name != "reference"])
def fast_backend(request) -> str:
    """Each backend but the definition, which the others are compared with."""
    return request.param


def pytest_collection_modifyitems(items) -> None:
    if "native" in BACKENDS:
        return
    skip = pytest.mark.skip(reason="native kernels are not built")
    for item in items:
        if item.get_closest_marker("native"):
            item.add_marker(skip)
