"""Blur that is too large for the networks, deblurred in the image made smaller."""

import pytest
import skimage.data
import torch

from models.blur import blur_by
from models.checkpoints.load import load_framework
from models.inference.scales import HALVINGS, LARGE, SMALLEST, at_scales, doubled, halved
from models.inference.tiling import TiledFramework


def _brightened(image):
    return image + 0.1 * image.shape[2] / 256  # changes a narrower image by less


def _told(radius):
    """A radius that at 256 pixels of width is this one, and falls with the size."""
    return lambda image: torch.full((1, *image.shape[1:]), radius * image.shape[2] / 256)


def _deblurred(radius, halvings=2):
    image = torch.full((3, 200, 256), 0.5)
    return at_scales(image, _brightened, _told(radius), halvings) - image


def test_small_blur_is_deblurred_at_the_size_of_the_image():
    torch.testing.assert_close(_deblurred(LARGE[0]), torch.full((3, 200, 256), 0.1))
    torch.testing.assert_close(_deblurred(100.0, halvings=0), torch.full((3, 200, 256), 0.1))


def test_large_blur_takes_the_change_of_the_halved_image():
    torch.testing.assert_close(_deblurred(LARGE[1]), torch.full((3, 200, 256), 0.05))
    between = _deblurred((LARGE[0] + LARGE[1]) / 2)
    torch.testing.assert_close(between, torch.full((3, 200, 256), 0.075))


def test_it_stops_where_the_image_is_small():
    shapes = []

    def seen(image):
        shapes.append(tuple(image.shape[1:]))
        return image

    image = torch.rand(3, 4 * SMALLEST + 1, 8 * SMALLEST)
    at_scales(image, seen, lambda part: torch.full((1, *part.shape[1:]), 99.0), 5)
    assert shapes == [(385, 768), (193, 384), (97, 192)]


def test_lengths_double():
    image = torch.rand(3, 256, 256)
    radius = at_scales(image, _told(20.0), _told(20.0), 1, lengths=True)
    torch.testing.assert_close(radius, torch.full((1, 256, 256), 20.0))
    saturated = at_scales(
        image, lambda part: _told(20.0)(part).clamp(max=11), lambda part: _told(20.0)(part), 1, lengths=True
    )
    torch.testing.assert_close(saturated, torch.full((1, 256, 256), 20.0))  # 10 at half the size


@pytest.mark.parametrize("size", [(200, 300), (201, 333)])
def test_halving_and_doubling_keep_a_smooth_image(size):
    y, x = torch.meshgrid(*(torch.linspace(0, 1, extent) for extent in size), indexing="ij")
    image = torch.stack([y, x, y * x])
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert (doubled(halved(image), image) - image)[inner].abs().max() < 0.01


def test_blur_beyond_the_networks_is_deblurred_at_half_of_the_size():
    photograph = torch.from_numpy(skimage.data.astronaut()[:384, :384].copy()).permute(2, 0, 1).float() / 255
    blurry = blur_by(photograph[None], torch.full((1, 1, 384, 384), 16.0), max_radius=16)[0]

    def gain(halvings):
        deblurred = TiledFramework(load_framework(), halvings=halvings).deblur(blurry)
        return float(10 * ((blurry - photograph).square().mean() / (deblurred - photograph).square().mean()).log10())

    assert gain(0) < 0.5
    assert gain(HALVINGS) > 2


def test_images_stay_within_their_range():
    image = torch.full((3, 200, 256), 0.98)
    large = at_scales(image, lambda part: part + 0.1, lambda part: torch.full((1, *part.shape[1:]), LARGE[1]), 1)
    assert large.max() <= 1
