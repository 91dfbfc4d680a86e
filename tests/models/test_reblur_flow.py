"""Alignment by reblurring: global motion stays global, parallax is found, and what blurs the pair is no motion."""

import numpy as np
import pytest
import skimage.data
import torch

from models.blur import blur_by
from models.flow import load_flow, reblur, warp
from models.flow.global_motion import fit_homographies
from models.synthesis.scene import SceneSettings, make_scene


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


@pytest.fixture(scope="module")
def photograph():
    return tensor(skimage.data.coffee()[100:292, 150:374].astype(np.float32) / 255)


def zoomed(image, zoom, shift):
    """The image as a camera sees it that has zoomed and moved, and the flow to it."""
    height, width = image.shape[2:]
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    from_middle = torch.stack([x - (width - 1) / 2, y - (height - 1) / 2])
    offset = torch.tensor(shift)[:, None, None]
    back = (from_middle - offset) / zoom - from_middle
    moved = warp(image, back[None], padding="border", interpolation="bicubic").clamp(0, 1)
    return moved, ((zoom - 1) * from_middle + offset)[None]


def error(flow, truth, rim=16):
    return (flow - truth)[..., rim:-rim, rim:-rim].norm(dim=1)


def test_a_homography_is_fitted_through_wrong_flow(photograph):
    _, truth = zoomed(photograph, 1.03, (4.0, -2.0))
    wrong = truth.clone()
    wrong[..., :60] += 5
    assert error(fit_homographies(wrong, photograph), truth).max() < 0.05


def test_a_homography_is_fitted_to_flow_that_no_pixel_has_right(photograph):
    _, truth = zoomed(photograph, 1.03, (4.0, -2.0))
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    found = fit_homographies(truth + 2 * noise, photograph)
    assert error(found, truth).max() < 0.7
    assert not torch.equal(found, truth + 2 * noise)


def test_without_a_homography_the_flow_stays(photograph):
    wild = 10 * torch.randn(1, 2, *photograph.shape[2:], generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_homographies(wild, photograph), wild)


def test_breathing_through_blur_is_found_better_than_by_dis(photograph):
    blurry = blur_by(photograph, torch.full_like(photograph[:, :1], 4.0), max_radius=7)
    sharp, truth = zoomed(photograph, 1.02, (5.0, 3.0))
    dis, found = (error(load_flow(name)(blurry, sharp), truth).mean() for name in ("dis", "reblur"))
    assert found < 0.15
    assert found < dis / 2


def test_motion_is_found_through_blur_that_is_stronger_than_dis_knows():
    photograph = tensor(skimage.data.coffee()[60:380, 100:500].astype(np.float32) / 255)
    blurry = blur_by(photograph, torch.full_like(photograph[:, :1], 12.0), max_radius=16)
    sharp, truth = zoomed(photograph, 1.02, (9.0, -6.0))
    dis, found = (error(load_flow(name)(blurry, sharp), truth).mean() for name in ("dis", "reblur"))
    assert dis > 2
    assert found < 0.5


def test_it_starts_at_the_size_that_explains_each_image_best(monkeypatch):
    found, size = load_flow("reblur", rounds=1, max_radius=4), 4 * reblur.SMALLEST

    def told(first, second):
        """16 pixels at the whole size; 4 at half of it, which are 8, and 1 at a quarter, which are 4."""
        return torch.full_like(first[:, :2], float(first.shape[2] / reblur.SMALLEST) ** 2)

    monkeypatch.setattr(found.first, "estimate", told)
    monkeypatch.setattr(found, "_error", lambda first, second, flow: (flow[:, :1] - first[:, :1]).abs())
    explained = torch.tensor([16.0, 8.0, 4.0])
    images = explained.reshape(3, 1, 1, 1).expand(3, 3, size, size)
    torch.testing.assert_close(found._start(images, images)[:, 0].mean((1, 2)), explained)


def test_parallax_and_blur_are_told_apart():
    photographs = [skimage.data.coffee().astype(np.float32) / 255]
    settings = SceneSettings(size=128, parallax=6, gain=0, tone=0, slant=0)
    scene = make_scene(photographs, settings, np.random.default_rng(5))
    blurry, sharp, truth = tensor(scene.blurry), tensor(scene.sharp), tensor(scene.flow)
    visible = torch.from_numpy(scene.visible)[None]
    errors = {name: (load_flow(name)(blurry, sharp) - truth).norm(dim=1)[visible].mean() for name in ("dis", "reblur")}
    assert errors["reblur"] < 0.8 * errors["dis"]


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (40, 7)])
def test_any_size(size):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    flow = load_flow("reblur", rounds=1, max_radius=2)(image, image)
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()


@pytest.mark.parametrize(("options", "message"), [({"rounds": -1}, "rounds"), ({"max_radius": 0.1}, "max_radius")])
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        load_flow("reblur", **options)


def test_a_correction_is_composed_with_the_flow():
    """To p + c(p), and from there by the flow of that place."""
    x = torch.arange(20.0).expand(1, 1, 20, 20)
    flow = torch.cat([0.1 * x, torch.zeros_like(x)], dim=1)
    correction = torch.tensor([2.0, 1.0])[None, :, None, None].expand(1, 2, 20, 20)
    composed = reblur._composed(flow, correction)
    torch.testing.assert_close(composed[:, 0, :, :17], (2 + 0.1 * (x + 2))[:, 0, :, :17])
    torch.testing.assert_close(composed[:, 1], torch.ones(1, 20, 20))


def test_a_flow_is_as_smooth_as_strong_blur_and_follows_gradients():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 96, 96, generator=generator)
    flow = torch.randn(1, 2, 96, 96, generator=generator)
    coc = torch.full((1, 1, 96, 96), reblur.FINEST)
    torch.testing.assert_close(reblur.as_smooth_as_blur(flow, coc, image), flow)
    smooth = reblur.as_smooth_as_blur(flow, 2 * coc, image)
    assert smooth.diff(dim=3).abs().mean() < 0.1 * flow.diff(dim=3).abs().mean()
    image[..., 48:], flow[...] = 0.5, 0.0  # nothing to see on the right, where the flow is wrong
    flow[..., 48:] = 5.0
    assert reblur.as_smooth_as_blur(flow, 2 * coc, image)[..., 48:52].max() < 0.5
