"""Exposure: gain, haze and tone curve are found through blur, and only where they are."""

import numpy as np
import pytest
import skimage.data
import torch

from models.blur import blur_by, decode, encode, match_exposure


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(skimage.data.coffee()[60:316, 100:420].astype(np.float32) / 255).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def blurry(photograph):
    return blur_by(photograph, torch.full_like(photograph[:, :1], 5.0), max_radius=7)


def matched(values, target):
    """sRGB of sRGB."""
    return encode(match_exposure(decode(values), decode(target)))


def levels(one, other):
    return 255 * float((one - other).abs().mean())


def test_a_gain_of_each_channel_is_found(photograph, blurry):
    gains = torch.tensor([0.6, 1.0, 1.3])[:, None, None]
    dimmed = encode(decode(photograph) * gains).clamp(0, 1)
    unclipped = (dimmed < 1).all(1, keepdim=True).expand_as(dimmed)
    assert levels(matched(dimmed, blurry)[unclipped], photograph[unclipped]) < 1


def test_haze_and_tone_curve_are_undone(photograph, blurry):
    developed = 0.03 + 0.95 * photograph**1.15
    assert levels(developed, photograph) > 5
    assert levels(matched(developed, blurry), photograph) < 2


def test_images_that_are_exposed_alike_stay(photograph, blurry):
    assert levels(matched(photograph, photograph), photograph) < 0.01
    assert levels(matched(photograph, blurry), photograph) < 0.5


def test_other_content_does_not_count(photograph, blurry):
    dimmed, changed = 0.9 * photograph, blurry.clone()
    changed[..., :80] = 0.05
    assert levels(matched(dimmed, changed)[..., 80:], photograph[..., 80:]) < 1.5


def test_each_image_is_matched_by_itself(photograph, blurry):
    values, target = torch.cat([0.9 * photograph, photograph**1.2]), torch.cat([blurry, blurry])
    alone = torch.cat([matched(one[None], other[None]) for one, other in zip(values, target, strict=True)])
    torch.testing.assert_close(matched(values, target), alone, rtol=0, atol=1e-5)


def test_autocast_does_not_round_it(photograph, blurry):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = matched(photograph**1.15, blurry)
    torch.testing.assert_close(rounded, matched(photograph**1.15, blurry), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (7, 7)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_small_and_flat_images_are_finite(size, level):
    result = matched(torch.full((1, 3, *size), level), torch.full((1, 3, *size), 0.4))
    assert result.isfinite().all()
    assert result.min() >= 0


def test_one_tone_curve_of_both_is_taken_for_a_gain_alone(photograph):
    blurry = blur_by(photograph, torch.full_like(photograph[:, :1], 5.0), max_radius=7)
    values = decode(photograph**1.4).clamp_min(1e-3)
    gain = match_exposure(values, decode(blurry**1.4)) / values
    assert gain.std((2, 3)).max() < 1e-4
