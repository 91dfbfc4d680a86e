"""Light: the curves against their definition, inverses, finite gradients, errors."""

import numpy as np
import pytest
import torch

from models.blur import LIGHTS, decode, encode, to_linear, to_srgb
from models.synthesis import defocus


def test_curves_are_those_of_the_renderer():
    values = np.linspace(0, 1, 257, dtype=np.float32)
    np.testing.assert_allclose(to_linear(torch.from_numpy(values)).numpy(), defocus.to_linear(values), atol=1e-6)
    np.testing.assert_allclose(to_srgb(torch.from_numpy(values)).numpy(), defocus.to_srgb(values), atol=1e-6)


@pytest.mark.parametrize("light", LIGHTS)
def test_encode_undoes_decode_with_finite_gradients(light):
    values = torch.linspace(0, 1, 257, requires_grad=True)
    back = encode(decode(values, light), light)
    torch.testing.assert_close(back[8:], values[8:], atol=2e-5, rtol=0)  # a power of 2.2 is cut off near black
    back.sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()


def test_unknown_light_names_the_choices():
    with pytest.raises(ValueError, match="srgb, linear, gamma"):
        decode(torch.zeros(1), "raw")
