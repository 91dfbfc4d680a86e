"""Warping, and the masks of what can be trusted, on flows made by hand."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.flow import calibration_mask, consistency_mask, flow_colours, inside_mask, warp


def uniform(right, down, height=20, width=30):
    return torch.tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1).repeat(1, 1, height, width)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 1, 7), (1, 3, 33, 1), (2, 5, 37, 41), (1, 3, 3, 4099)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zero_flow_is_the_identity(shape, padding, interpolation, dtype):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    warped = warp(image, torch.zeros(shape[0], 2, *shape[2:]), padding=padding, interpolation=interpolation)
    assert warped.dtype == dtype
    if dtype == torch.float64:
        assert torch.allclose(warped, image, rtol=0, atol=1e-11)
    else:
        assert torch.equal(warped, image)


def test_it_looks_up_to_the_right_and_down():
    image = torch.rand(1, 2, 20, 30)
    warped = warp(image, uniform(3, -2))
    assert torch.allclose(warped[:, :, 2:, :-3], image[:, :, :-2, 3:], atol=1e-6)
    assert (warped[:, :, :2] == 0).all()
    assert (warped[:, :, :, -3:] == 0).all()
    bordered = warp(image, uniform(3, -2), padding="border")
    assert torch.allclose(bordered[:, :, :2, :-3], image[:, :, :1, 3:].expand(-1, -1, 2, -1), atol=1e-6)


def test_bicubic_keeps_detail_that_bilinear_blurs():
    """A wave of 5 pixels, half a pixel further on."""

    def wave(x):
        return torch.sin(2 * torch.pi * x / 5).view(1, 1, 1, -1).expand(1, 1, 8, -1)

    x = torch.arange(60, dtype=torch.float64)
    flow = uniform(0.5, 0, 8, 60)
    errors = [
        (warp(wave(x), flow, interpolation=interpolation) - wave(x + 0.5))[..., 3:-3].abs().max()
        for interpolation in ("bilinear", "bicubic")
    ]
    # Bilinear leaves cos(π/5) of it.
    assert errors[0] == pytest.approx(1 - np.cos(np.pi / 5), rel=0.1)
    assert errors[1] < 0.4 * errors[0]


def test_between_pixels_it_is_bilinear():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    plane = (2 * x - 3 * y + x * y)[None, None]
    right, down = 0.3, 0.6
    expected = 2 * (x + right) - 3 * (y + down) + (x + right) * (y + down)
    warped = warp(plane, uniform(right, down))[0, 0]
    assert torch.allclose(warped[:-1, :-1], expected[:-1, :-1], atol=1e-4)


def test_gradients_of_image_and_flow():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 2, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    # Between pixels, as the derivative in the flow jumps at them.
    flow = torch.randint(-2, 2, (2, 2, 5, 6), generator=generator) + 0.5
    flow = (flow + 0.3 * torch.rand(2, 2, 5, 6, generator=generator)).double().requires_grad_()
    for padding in ("zeros", "border"):
        assert torch.autograd.gradcheck(lambda i, f, padding=padding: warp(i, f, padding=padding), (image, flow))


def test_the_published_grid_moves_pixels_with_zero_flow():
    """By half a pixel at the rim: position p is looked up at p·size/(size-1) - 1/2."""
    image = torch.arange(11.0).expand(1, 1, 9, 11)
    warped = warp(image, torch.zeros(1, 2, 9, 11), grid="published", padding="border")
    expected = (torch.arange(11.0) * 11 / 10 - 0.5).clamp(0, 10)
    assert torch.allclose(warped[0, 0, 4], expected, atol=1e-6)

    generator = torch.Generator().manual_seed(0)
    image, flow = torch.rand(2, 3, 24, 32, generator=generator), 3 * torch.randn(2, 2, 24, 32, generator=generator)
    base = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 24), indexing="xy"), dim=-1)
    where = base + flow.permute(0, 2, 3, 1) * 2 / torch.tensor([31.0, 23.0])
    expected = F.grid_sample(image, where, align_corners=False)
    assert torch.allclose(warp(image, flow, grid="published"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "flow", "options", "error", "message"),
    [
        (torch.rand(1, 3, 4, 5), torch.zeros(1, 2, 5, 4), {}, ValueError, r"\(1, 2, 5, 4\), got \(1, 3, 4, 5\)"),
        (torch.rand(1, 3, 4, 5), torch.zeros(1, 3, 4, 5), {}, ValueError, r"\(N, 2, H, W\), got \(1, 3, 4, 5\)"),
        (torch.rand(1, 3, 4, 5).byte(), torch.zeros(1, 2, 4, 5), {}, TypeError, "image must be.*uint8"),
        (torch.rand(1, 3, 4, 5), torch.zeros(1, 2, 4, 5).int(), {}, TypeError, "flow must be.*int32"),
        (torch.rand(1, 3, 4, 5), torch.zeros(1, 2, 4, 5), {"padding": "reflect"}, ValueError, "zeros, border"),
        (torch.rand(1, 3, 4, 5), torch.zeros(1, 2, 4, 5), {"grid": "odd"}, ValueError, "exact, published"),
    ],
)
def test_what_does_not_fit_is_refused(image, flow, options, error, message):
    with pytest.raises(error, match=message):
        warp(image, flow, **options)


def test_empty_batches():
    assert warp(torch.rand(0, 3, 4, 5), torch.zeros(0, 2, 4, 5)).shape == (0, 3, 4, 5)
    assert calibration_mask(torch.zeros(0, 2, 4, 5)).shape == (0, 1, 4, 5)
    assert consistency_mask(torch.zeros(0, 2, 4, 5), torch.zeros(0, 2, 4, 5)).shape == (0, 1, 4, 5)


def middlebury_colours(flow):
    """(H, W, 3), uint8, of (2, H, W): the drawing once more, as sums of ramps over the wheel."""
    ends = np.cumsum([0, 15, 6, 4, 11, 13, 6])
    at = np.arange(55)
    rise = [np.clip((at - a) / (b - a), 0, 1) for a, b in itertools.pairwise(ends)]
    quantised = [np.floor(255 * ramp + 1e-9) for ramp in rise]
    yellow, green, cyan, blue, magenta, red = quantised
    wheel = np.stack([255 - green + magenta, yellow - blue, cyan - red], axis=1) / 255
    speed = np.hypot(*flow)
    u, v = flow / (speed.max() + 1e-5)
    place = (np.arctan2(-v, -u) / np.pi + 1) / 2 * 54
    before = np.floor(place).astype(int)
    part = (place - before)[..., None]
    hue = (1 - part) * wheel[before] + part * wheel[(before + 1) % 55]
    return np.floor(255 * (1 - np.hypot(u, v)[..., None] * (1 - hue))).astype(np.uint8)


def random_flow(n, height=60, width=80, scale=5.0):
    return scale * torch.randn(n, 2, height, width, generator=torch.Generator().manual_seed(1))


def test_flows_are_drawn_as_the_middlebury_pages_do():
    flow = random_flow(1)
    drawn = flow_colours(flow)[0].permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(drawn - middlebury_colours(flow[0].double().numpy()))
    assert difference.max() <= 1, "rounding"
    assert (difference > 0).mean() < 1e-3
    # Right, where the wheel begins, is red; left, at its middle, cyan.
    primary = flow_colours(torch.tensor([[1.0, 0], [-1, 0], [0, 0]]).t().reshape(1, 2, 1, 3))[0, :, 0].t().int()
    assert primary[0, 0] > 250 > 30 > primary[0, 1:].max()
    assert primary[1, 0] < 30 < 200 < primary[1, 1:].min()
    assert primary[2].tolist() == [255, 255, 255]


def test_unknown_flow_is_black_and_left_out():
    flow = torch.zeros(1, 2, 5, 6)
    flow[0, 0, 1, 2] = torch.nan
    flow[0, 1, 3, 4] = torch.inf
    assert flow_colours(flow)[0, :, 1, 2].tolist() == [0, 0, 0]
    mask = calibration_mask(flow)
    assert mask[0, 0, 1, 2] == mask[0, 0, 3, 4] == 0
    assert mask.sum() == 28


def test_the_calibration_mask_is_that_of_the_grey_drawing():
    flow = random_flow(3)
    for tolerance in (0.1, 0.35):
        mask = calibration_mask(flow, tolerance)
        assert mask.shape == (3, 1, 60, 80)
        assert mask.dtype == torch.float32
        for colours, one in zip(flow_colours(flow), mask, strict=True):
            grey = cv2.cvtColor(colours.permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY).astype(float)
            low, high = (1 - tolerance) * grey.mean(), (1 + tolerance) * grey.mean()
            assert np.array_equal(one[0].numpy(), (grey >= low) & (grey <= high))
        assert 0.2 < mask.mean() < 0.99


@pytest.mark.parametrize("flow", [uniform(0, 0), uniform(4, -3), uniform(1e-9, 0), uniform(300, 200)])
def test_calibration_keeps_what_moves_alike(flow):
    assert (calibration_mask(flow) == 1).all()


def test_calibration_leaves_out_what_moves_unlike_the_rest():
    flow = uniform(0.2, 0)
    flow[:, :, 5:9, 10:15] = torch.tensor([-2.0, -6]).view(1, 2, 1, 1)  # drawn blue, which is dark
    mask = calibration_mask(flow)
    expected = torch.ones_like(mask)
    expected[:, :, 5:9, 10:15] = 0
    assert torch.equal(mask, expected)
    # Each image is judged by itself.
    both = calibration_mask(torch.cat([flow, uniform(0.2, 0)]))
    assert torch.equal(both[:1], expected)
    assert (both[1] == 1).all()
    assert (calibration_mask(flow, tolerance=1.0) == 1).all()
    with pytest.raises(ValueError, match="at least 0, got -1"):
        calibration_mask(flow, -1)


def test_consistency_is_going_there_and_coming_back():
    mask = consistency_mask(uniform(3, -2), uniform(-3, 2))
    assert torch.equal(mask, inside_mask(uniform(3, -2)))
    assert mask.sum() == 18 * 27
    # |w + w'|² = 1, the bound is 0.01·(13 + 8) + 0.5
    assert consistency_mask(uniform(3, -2), uniform(-2, 2)).sum() == 0
    assert consistency_mask(uniform(3, -2), uniform(-2, 2), absolute=0.8).sum() == 18 * 27

    back = uniform(-3, 2)
    back[:, :, 10, 15] = 5  # is looked up from (12, 12)
    mask = consistency_mask(uniform(3, -2), back)
    assert mask[0, 0, 12, 12] == 0
    assert mask.sum() == 18 * 27 - 1
    with pytest.raises(ValueError, match="one shape"):
        consistency_mask(uniform(0, 0), uniform(0, 0, 5, 5))


def test_the_inside_reaches_to_the_outermost_centres():
    assert (inside_mask(uniform(0, 0)) == 1).all()
    assert inside_mask(uniform(-0.01, 0))[0, 0, :, 0].sum() == 0
    assert inside_mask(uniform(-0.01, 0)).sum() == 20 * 29
