"""The cost volume of a bank of isotropic kernels, on every backend."""

import pytest
import torch
from torch.nn import functional as F

import reblur_ops
from reblur_ops.testing import BACKENDS


def _planes(radius: int) -> int:
    return (radius + 1) * (radius + 2) // 2


def _bank(kernels: int, radius: int, dtype=torch.float64) -> torch.Tensor:
    """Random kernels, of which the second is flat, and the third reaches one pixel less far."""
    bank = torch.rand(kernels, _planes(radius), dtype=torch.float64)
    if kernels > 1:
        bank[1] = 0.02
    if kernels > 2:
        bank[2, _planes(radius - 1) :] = 0
    return (bank / bank.sum(1, keepdim=True) / 4).to(dtype)


def _expected(image, target, bank, radius, **options):
    with reblur_ops.use_backend("reference"):
        return reblur_ops.cost_volume(image.double(), target.double(), bank.double(), radius, **options)


@pytest.mark.parametrize(
    ("shape", "radius", "options"),
    [
        ((1, 3, 12, 20), 3, {}),
        ((2, 3, 18, 134), 7, {"cell": 2, "slack": 1, "root": True, "padding": "replicate"}),
        ((1, 1, 7, 129), 5, {"slack": 2, "padding": "reflect"}),
        ((1, 2, 26, 62), 17, {"cell": 2, "root": True}),
        ((1, 3, 2, 2), 2, {"cell": 2, "slack": 8, "padding": "replicate"}),
        ((1, 1, 1, 1), 1, {"slack": 1}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_definition(fast_backend, shape, radius, options, dtype):
    torch.manual_seed(0)
    image, target = (torch.rand(shape, dtype=torch.float64).to(dtype) - 0.1 for _ in range(2))
    bank = _bank(4, radius, dtype)
    with reblur_ops.use_backend(fast_backend):
        costs = reblur_ops.cost_volume(image, target, bank, radius, **options)
    expected = _expected(image, target, bank, radius, **options)
    assert costs.dtype == dtype
    torch.testing.assert_close(costs.double(), expected, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-13)


def test_definition_is_a_blur_and_an_error():
    torch.manual_seed(0)
    image, target = torch.rand(1, 3, 10, 12), torch.rand(1, 3, 10, 12)
    disk = reblur_ops.disk_blur(image, 2.3, max_radius=3, padding="replicate")
    taps = torch.tensor([(a * a + b * b) ** 0.5 for b in range(4) for a in range(b + 1)])
    counts = torch.tensor([1.0 if b == 0 else 4.0 if a in (0, b) else 8.0 for b in range(4) for a in range(b + 1)])
    weights = (2.8 - taps).clamp(0, 1)
    bank = (weights / (weights * counts).sum())[None]
    costs = reblur_ops.cost_volume(image, target, bank, 3, slack=1, cell=2, padding="replicate")
    assert costs.shape == (1, 1, 9, 5, 6)
    centre = F.avg_pool2d((disk - target).square().mean(1, keepdim=True), 2)
    torch.testing.assert_close(costs[:, :, 4], centre)
    right = F.pad(disk, (0, 1, 0, 0), mode="replicate")[..., 1:]
    torch.testing.assert_close(costs[:, :, 5], F.avg_pool2d((right - target).square().mean(1, keepdim=True), 2))


def test_strides_and_half_precision(fast_backend):
    torch.manual_seed(0)
    image = torch.rand(1, 24, 20, 3).permute(0, 3, 1, 2)
    target = torch.rand(1, 3, 20, 24).mT
    bank = _bank(3, 4, torch.float32)
    with reblur_ops.use_backend(fast_backend):
        strided = reblur_ops.cost_volume(image, target, bank, 4)
        assert torch.equal(strided, reblur_ops.cost_volume(image.contiguous(), target.contiguous(), bank, 4))
        half = reblur_ops.cost_volume(image.bfloat16(), target.bfloat16(), bank.bfloat16(), 4)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), strided, rtol=0.1, atol=0.02)


def test_a_value_that_is_not_finite_stays_within_the_kernels_reach(fast_backend):
    image, target = torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 20)
    image[0, 0, 10, 10] = torch.nan
    bank = torch.zeros(2, _planes(5))
    bank[0, : _planes(1)] = 1 / 9
    bank[1] = 1 / 121
    with reblur_ops.use_backend(fast_backend):
        spoiled = reblur_ops.cost_volume(image, target, bank, 5).isnan()
    assert spoiled[0].sum(dim=(1, 2, 3)).tolist() == [9, 121]


def test_empty(backend):
    with reblur_ops.use_backend(backend):
        assert reblur_ops.cost_volume(torch.rand(0, 3, 4, 4), torch.rand(0, 3, 4, 4), _bank(2, 1).float(), 1).shape == (
            0, 2, 1, 4, 4,
        )  # fmt: skip
        none = reblur_ops.cost_volume(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), torch.zeros(0, 3), 1, cell=2)
        assert none.shape == (1, 0, 1, 2, 2)


def test_has_no_gradient():
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert not reblur_ops.cost_volume(image, image, _bank(1, 2).float(), 2).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.rand(3, 8, 8)}, r"image must have shape \(N, C, H, W\)"),
        ({"target": torch.rand(1, 3, 8, 9)}, "target must have the shape of image"),
        ({"target": torch.rand(1, 3, 8, 8).double()}, "target must have the dtype of image"),
        ({"bank": torch.rand(2, 5)}, r"bank must have shape \(K, 6\) for radius 2, got \(2, 5\)"),
        ({"radius": 65}, "radius must lie between 1 and 64, got 65"),
        ({"slack": 9}, "slack must be an integer from 0 to 8, got 9"),
        ({"cell": 3}, "cell must be 1 or 2, got 3"),
        ({"cell": 1.0}, "cell must be 1 or 2, got 1.0"),
        ({"root": 2}, "root must be a bool, got 2"),
        ({"padding": "wrap"}, "padding must be one of"),
    ],
)
def test_refuses(change, message):
    arguments = {"image": torch.rand(1, 3, 8, 8), "target": torch.rand(1, 3, 8, 8), "bank": torch.rand(2, 6)}
    arguments |= {"radius": 2, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        reblur_ops.cost_volume(**arguments)


@pytest.mark.skipif("native" not in BACKENDS, reason="native kernels are not built")
def test_direct_calls_are_checked_too():
    image, bank = torch.rand(1, 3, 8, 8), torch.rand(2, 6)
    for arguments, message in (
        ((image, image[:, :2], bank, 2, 0, 1, False, "zeros"), "target must have 3 channels, got shape"),
        ((image, image, bank, 3, 0, 1, False, "zeros"), "bank must have shape"),
        ((image, image, bank, 2, 9, 1, False, "zeros"), "slack must be 0 to 8"),
        ((image, image, bank.double(), 2, 0, 1, False, "zeros"), "bank must be like image"),
        ((image[..., :7], image[..., :7], bank, 2, 0, 2, False, "zeros"), "multiples of cell"),
    ):
        with pytest.raises(ValueError, match=message):
            torch.ops.reblur_ops.cost_volume(*arguments)
