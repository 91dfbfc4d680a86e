"""Search of the radius: finds known disks through noise, gain and a pixel of misalignment, and fills flat places."""

import pytest
import torch

import reblur_ops
from models.blur import blur_by, decode, disk_rms, encode, search_radius
from models.blur.search import NOISE


def _texture(height=64, width=72, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def _disks(like, left, right):
    coc = torch.full_like(like[:, :1], left)
    coc[..., like.shape[-1] // 2 :] = right
    return coc


def _inner(found, true, rim=12):
    """Both away from the borders and from the step in the middle."""
    keep = torch.ones_like(true, dtype=torch.bool)
    middle = true.shape[-1] // 2
    keep[..., middle - rim : middle + rim] = False
    keep[..., :4], keep[..., -4:] = False, False
    return (found - true)[keep].abs()


def test_finds_known_disks_between_candidates():
    sharp = _texture(count=2)
    coc = _disks(sharp, 1.4, 4.1)
    found = search_radius(sharp, blur_by(sharp, coc, max_radius=7))
    assert _inner(found.coc, coc).mean() < 0.12
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1
    assert found.radius.shape == found.coc.shape == found.confidence.shape == found.error.shape == coc.shape


def test_forgives_a_pixel_a_gain_an_offset_and_noise():
    sharp = _texture()
    coc = _disks(sharp, 1.0, 3.5)
    blurry = blur_by(sharp, coc, max_radius=7).roll((1, -1), (2, 3)) * 0.96 + 0.01
    blurry = blurry + 0.006 * torch.randn(blurry.shape, generator=torch.Generator().manual_seed(5))
    assert _inner(search_radius(sharp, blurry).coc, coc).mean() < 0.3


def test_finds_large_disks():
    sharp = _texture(96, 96)
    coc = torch.full_like(sharp[:, :1], 11.3)
    found = search_radius(sharp, blur_by(sharp, coc, max_radius=16), max_radius=16, window=15)
    assert (found.coc - coc).abs().median() < 0.5


def test_what_is_flat_is_filled_from_around_without_confidence():
    sharp = _texture(64, 64)
    sharp[..., 24:40, 24:40] = 0.5
    coc = torch.full_like(sharp[:, :1], 2.0)
    blurry = sharp.clone()
    outside = torch.ones_like(coc, dtype=torch.bool)
    outside[..., 24:40, 24:40] = False
    blurry = torch.where(outside, blur_by(sharp, coc, max_radius=7), blurry)
    found = search_radius(sharp, blurry, window=5)
    assert found.confidence[..., 31:33, 31:33].max() < 0.2
    assert (found.coc[..., 31:33, 31:33] - 2).abs().max() < 0.5
    assert found.confidence[..., :16].mean() > 0.7


def test_identical_images_have_no_blur():
    sharp = _texture()
    found = search_radius(sharp, sharp)
    assert found.radius.max() < 0.2


def test_rms_is_that_of_the_operator():
    impulse = torch.zeros(1, 1, 21, 21)
    impulse[..., 10, 10] = 1
    y, x = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(21.0) - 10, indexing="ij")
    for coc in (0.25, 0.5, 1.3, 4.0, 6.75):
        kernel = reblur_ops.disk_blur(impulse, torch.full_like(impulse, coc), max_radius=8)[0, 0]
        expected = (kernel * (x.square() + y.square())).sum().sqrt()
        torch.testing.assert_close(disk_rms(torch.tensor([coc]))[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_radius": 65}, "max_radius"), ({"window": 4}, "window"), ({"slack": -1}, "slack")],
)
def test_refuses_options_that_do_not_fit(options, message):
    image = _texture(8, 8)
    with pytest.raises(ValueError, match=message):
        search_radius(image, image, **options)


def test_refuses_images_of_two_sizes_and_takes_one_pixel():
    with pytest.raises(ValueError, match="blurry must have"):
        search_radius(_texture(8, 8), _texture(8, 9))
    assert search_radius(_texture(1, 1), _texture(1, 1)).radius.isfinite().all()


def test_the_error_of_identical_images_is_what_noise_explains():
    sharp = _texture()
    assert search_radius(sharp, sharp).error.numpy() == pytest.approx(NOISE**2, rel=0.01)


def test_a_difference_of_exposure_is_no_blur():
    sharp = _texture()
    coc = torch.full_like(sharp[:, :1], 2.5)
    dimmed = encode(0.6 * decode(sharp))
    found = search_radius(dimmed, blur_by(sharp, coc, max_radius=7))
    assert (found.coc - coc)[..., 8:-8, 8:-8].abs().mean() < 0.1


def test_blur_is_found_up_to_the_border():
    sharp = _texture()
    coc = torch.full_like(sharp[:, :1], 4.0)
    found = search_radius(sharp, blur_by(sharp, coc, max_radius=7))
    assert (found.coc - coc).abs().max() < 0.3


def test_blur_of_dark_pictures_is_told_with_confidence():
    sharp = 0.2 * _texture()
    coc = torch.full_like(sharp[:, :1], 3.0)
    assert search_radius(sharp, blur_by(sharp, coc, max_radius=7)).confidence.mean() > 0.6
