"""Scores are what their definitions, scikit-image and torchmetrics say; protocols undo what they are made to undo."""

import sys
import types

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.metrics
import torch
import torchmetrics.functional.image
from scipy import ndimage

from models.core.errors import UserError
from models.evaluation import metrics
from models.evaluation.metrics import score, score_radius, shifted, warped
from models.flow import NoFlow


@pytest.fixture(scope="module")
def photograph():
    return (skimage.data.astronaut()[:120, 100:240] / np.float32(255)).astype(np.float32)


@pytest.fixture(scope="module")
def noisy(photograph):
    noise = np.random.default_rng(0).normal(0, 0.05, photograph.shape).astype(np.float32)
    return np.clip(photograph + noise, 0, 1)


def ssim_by_definition(one, other):
    """Equation 13 of Wang et al., window by window."""
    axis = np.arange(11) - 5
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for y in range(one.shape[0] - 10):
        for x in range(one.shape[1] - 10):
            for channel in range(3):
                a, b = (image[y : y + 11, x : x + 11, channel].astype(np.float64) for image in (one, other))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                variance_a, variance_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                covariance = (window * a * b).sum() - mean_a * mean_b
                values.append(
                    (2 * mean_a * mean_b + 0.01**2)
                    * (2 * covariance + 0.03**2)
                    / ((mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2))
                )
    return np.mean(values)


def test_scores_are_as_defined(photograph, noisy):
    one, other = noisy[:24, :31], photograph[:24, :31]
    found = score(one, other)
    difference = one.astype(np.float64) - other
    assert found.psnr == pytest.approx(-10 * np.log10(np.mean(difference**2)), abs=1e-9)
    assert found.mae == pytest.approx(np.mean(np.abs(difference)), abs=1e-9)
    assert found.ssim == pytest.approx(ssim_by_definition(one, other), abs=1e-9)
    assert found.lpips is None


def test_scores_are_those_of_torchmetrics(photograph, noisy):
    one, other = (torch.from_numpy(image).permute(2, 0, 1)[None].double().contiguous() for image in (noisy, photograph))
    found = score(noisy, photograph)
    functional = torchmetrics.functional.image
    assert found.psnr == pytest.approx(functional.peak_signal_noise_ratio(one, other, data_range=1.0).item(), abs=1e-4)
    _, ssim = functional.structural_similarity_index_measure(one, other, data_range=1.0, return_full_image=True)
    # Its mean is over all pixels, of mirrored pictures.
    assert found.ssim == pytest.approx(ssim[..., 5:-5, 5:-5].mean().item(), abs=1e-6)
    assert found.mae == pytest.approx(torchmetrics.functional.mean_absolute_error(one, other).item(), abs=1e-6)


def test_scores_are_those_of_scikit_image(photograph, noisy):
    found = score(noisy, photograph)
    assert found.psnr == pytest.approx(skimage.metrics.peak_signal_noise_ratio(photograph, noisy, data_range=1))
    # In float32, and with its truncation of the window.
    ssim = skimage.metrics.structural_similarity(
        photograph, noisy, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert found.ssim == pytest.approx(ssim, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("astronaut", "blur", 0.809223),
        ("astronaut", "noise", 0.867201),
        ("astronaut", "gain", 0.992534),
        ("coffee", "blur", 0.741233),
        ("coffee", "noise", 0.856020),
    ],
)
def test_haarpsi_is_that_of_piq(name, change, expected):
    """By piq 0.8.0, whose matrix of colours has one digit more; crops of 192 pixels in the upper left corner."""
    picture = getattr(skimage.data, name)()[:192, :192] / 255
    changed = {
        "blur": cv2.GaussianBlur(picture, (0, 0), 2),
        "noise": (picture + 0.05 * np.random.default_rng(0).standard_normal(picture.shape)).clip(0, 1),
        "gain": 0.9 * picture,
    }[change]
    assert metrics.haarpsi(changed, picture) == pytest.approx(expected, abs=1e-4)
    assert metrics.haarpsi(picture, changed) == pytest.approx(metrics.haarpsi(changed, picture))


def test_haarpsi_of_flat_pictures():
    black, white = np.zeros((20, 30, 3)), np.ones((20, 30, 3))
    assert metrics.haarpsi(white, white) == pytest.approx(1)
    assert metrics.haarpsi(black, white) < 0.5


@pytest.mark.parametrize(
    ("scale", "dtype", "error", "message"),
    [
        (255, np.uint8, TypeError, "picture must be floating point of 0 … 1, got uint8"),
        (255, np.float32, ValueError, "picture must be finite, and of 0 … 1 .* got 0 to 2"),
        (np.nan, np.float32, ValueError, "got NaN or infinity"),
    ],
)
def test_pictures_of_another_range_are_refused(photograph, scale, dtype, error, message):
    other = (scale * photograph).astype(dtype)
    with pytest.raises(error, match=message):
        score(other, other)


def test_equal_pictures_have_the_best_scores(photograph):
    assert score(photograph, photograph) == metrics.Score(np.inf, pytest.approx(1), 0, pytest.approx(1))
    with pytest.raises(ValueError, match=r"alike, of 11 pixels each way at least, got \(10, 20, 3\) and"):
        score(photograph[:10, :20], photograph[:10, :20])


@pytest.mark.parametrize(("x", "y", "gain"), [(0, 0, 1), (0.37, -1.62, 0.9), (-6.3, 4.8, 1.2), (2, 3, 1)])
def test_shift_finds_vector_and_gain(photograph, x, y, gain):
    smooth = ndimage.gaussian_filter(photograph, (1, 1, 0))
    # The sharp picture at p + (x, y) shows what the picture shows at p.
    moved = np.stack([ndimage.shift(smooth[..., c], (-y, -x), mode="mirror") for c in range(3)], axis=2) / gain
    picture, target, found = shifted(moved.astype(np.float32), smooth)
    assert (found.x, found.y, found.gain) == pytest.approx((x, y, gain), abs=2e-3)
    assert picture.shape == target.shape == (100, 120, 3)
    assert score(picture, target).psnr > 60


def test_shift_never_makes_it_worse(photograph, noisy):
    pictures = [noisy, photograph[::-1], np.zeros_like(photograph), np.random.default_rng(1).random(photograph.shape)]
    inside = (slice(metrics.SHIFT_MARGIN, -metrics.SHIFT_MARGIN),) * 2
    for picture in pictures:
        picture = picture.astype(np.float32)
        one, target, found = shifted(picture, photograph)
        assert max(abs(found.x), abs(found.y)) <= metrics.LARGEST_SHIFT
        assert score(one, target).psnr >= score(picture[inside], photograph[inside]).psnr - 1e-3


def published_warp(picture, right, down):
    """The published warp by a constant flow, bilinear and with its edge repeated, written out."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = ((where + shift) * size / (size - 1) - 0.5 for where, shift, size in ((x, right, width), (y, down, height)))
    x, y = (where.clip(0, size - 1).astype(np.float32) for where, size in ((x, width), (y, height)))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    bottom, after = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    above = picture[top, left] * (1 - dx) + picture[top, after] * dx
    below = picture[bottom, left] * (1 - dx) + picture[bottom, after] * dx
    return above * (1 - dy) + below * dy


def test_warped_crops_and_warps_the_target_to_the_picture(photograph):
    picture, target = warped(photograph, photograph, NoFlow())
    assert picture.shape == (112, 128, 3)
    assert np.array_equal(picture, photograph[:112, :128])
    # Without flow the published grid still magnifies about the middle, by up to half a pixel at the borders.
    assert np.allclose(target, published_warp(picture, 0, 0), atol=1e-5)
    assert not np.allclose(target, picture, atol=1e-2)

    class Known(NoFlow):
        def estimate(self, first, second):
            assert torch.equal(first[0, 0], torch.from_numpy(photograph[:112, :128, 0]))
            return torch.tensor([3.0, -2.0])[None, :, None, None].expand(1, 2, *first.shape[2:])

    _, target = warped(photograph, photograph[::-1].copy(), Known())
    assert np.allclose(target, published_warp(photograph[::-1][:112, :128], 3, -2), atol=1e-5)


def test_blur_radius_scores():
    truth = np.linspace(0, 5, 100, dtype=np.float32).reshape(10, 10)
    found = score_radius(2 * truth + 1, truth)
    assert found.correlation == pytest.approx(1)
    assert found.mae == pytest.approx(3.5)
    assert score_radius(np.ones_like(truth), truth).correlation is None
    assert score_radius(truth[::-1], truth).correlation < 0


def test_lpips_only_where_it_is_installed(photograph, noisy, monkeypatch):
    metrics.load_lpips.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert metrics.load_lpips() is None

    class Distance(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "alex"

        def forward(self, one, other):
            assert one.shape == (1, 3, 120, 140)
            assert one.min() < -0.9, "-1 … 1"
            return (one - other).abs().mean().reshape(1, 1, 1, 1)

    metrics.load_lpips.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Distance))
    found = score(noisy, photograph, metrics.load_lpips())
    assert found.lpips == pytest.approx(2 * found.mae, rel=1e-4)

    def offline(**_):
        raise OSError("no network")

    metrics.load_lpips.cache_clear()
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=offline))
    with pytest.raises(UserError, match="its weights cannot be loaded: no network"):
        metrics.load_lpips()
    metrics.load_lpips.cache_clear()


def test_the_gain_of_the_protocol_shift_is_limited():
    photograph = (skimage.data.astronaut()[:120, 100:240] / np.float32(255)).astype(np.float32)
    for factor, gain in ((0.5, metrics.GAINS[1]), (1.0, 1.0)):
        assert metrics.shifted(factor * photograph, photograph)[2].gain == pytest.approx(gain, abs=1e-3)
    assert metrics.shifted(photograph, 0.5 * photograph)[2].gain == pytest.approx(metrics.GAINS[0], abs=1e-3)
