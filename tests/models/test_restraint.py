"""What deblurring must not change, whatever its network says."""

from dataclasses import replace

import pytest
import skimage.data
import torch
from torch.nn import functional as F

from models.blur import blur_by, disk_rms
from models.checkpoints.load import load_framework
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig
from models.inference.tiling import TiledFramework
from models.networks import restraint
from models.networks.restraint import REACH, restrain


@pytest.fixture(scope="module")
def sharp():
    """A photograph, (1, 3, 120, 160)."""
    crop = skimage.data.astronaut()[100:220, 150:310]
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255


def error(image, target):
    return float((image - target).square().mean())


def test_a_flat_photograph_stays():
    blurry = torch.tensor([0.1, 0.9, 1.0])[None, :, None, None].expand(1, 3, 40, 56)
    noise = 0.02 * torch.rand(1, 3, 40, 56)
    assert torch.equal(restrain(blurry + noise, blurry), blurry)


def test_where_there_is_contrast_the_change_is_kept():
    blurry = torch.rand(1, 1, 12, 12).repeat_interleave(4, 2).repeat_interleave(4, 3).expand(1, 3, 48, 48)
    grey = 0.1 * torch.randn(1, 1, 48, 48).expand(1, 3, 48, 48)
    torch.testing.assert_close(restrain(blurry + grey, blurry), blurry + grey)


def test_a_neighbourhood_keeps_its_colour(sharp):
    change = torch.tensor([0.05, -0.02, 0.0])[None, :, None, None]
    restrained = restrain(sharp + change, sharp) - sharp
    colour = restrained - restrained.mean(1, keepdim=True)
    assert colour.abs().max() < 1e-3
    assert restrained.mean() == pytest.approx(0.01, abs=0.003), "its luminance may change"


def test_what_gives_the_photograph_back_is_kept_and_the_contrary_is_not(sharp):
    coc = torch.tensor(4.0)
    blurry = blur_by(sharp, coc.expand(1, 1, *sharp.shape[2:]), max_radius=5)
    radius = disk_rms(coc[None]).reshape(1, 1, 1, 1).expand(1, 1, *sharp.shape[2:])
    true = restrain(sharp, blurry, radius)
    without_colour = restrain(sharp, blurry)
    inside = (..., slice(16, -16), slice(16, -16))
    assert error(true[inside], blurry[inside]) > 0.8 * error(without_colour[inside], blurry[inside])
    worse = blurry - (sharp - blurry)  # blurred more in the place of less
    assert error(restrain(worse, blurry, radius), blurry) < 0.3 * error(restrain(worse, blurry), blurry)


@pytest.mark.parametrize("size", [(1, 1), (3, 37), (41, 6)])
def test_odd_sizes(size):
    blurry = torch.rand(2, 3, *size)
    radius = torch.full((2, 1, *size), 3.0)
    assert restrain(torch.rand(2, 3, *size), blurry, radius).shape == blurry.shape


def test_values_beyond_a_photographs_are_no_nan():
    blurry = torch.rand(1, 3, 16, 16) * 3 - 1
    radius = torch.rand(1, 1, 16, 16) * 20
    assert restrain(torch.randn(1, 3, 16, 16), blurry, radius).isfinite().all()


def test_shapes_that_do_not_fit_are_named():
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="deblurred must have the batch, height and width of blurry"):
        restrain(image[..., :4], image)


# ---- In a framework ----


def small(restrained):
    torch.manual_seed(0)
    options = {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}
    config = FrameworkConfig(
        blur_map=BlurMapConfig(width=8, blocks=1, form="radius"),
        deblur=DeblurConfig("compact", options, restrained=restrained),
        reblur=None,
    )
    framework = Framework(config).eval()
    for parameter in framework.deblur.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return framework


def test_only_a_framework_that_says_so_is_restrained(sharp):
    free, restrained = (small(value) for value in (False, True))
    radius = free.blur_radius(sharp)
    network = free.deblur(sharp, free.blur_map.prior(free.blur_map(sharp)))
    torch.testing.assert_close(free(sharp), network.clamp(0, 1))
    torch.testing.assert_close(restrained(sharp), restrain(network, sharp, radius).clamp(0, 1))
    assert restrained.deblurring_reach == free.deblurring_reach + REACH


def test_tiles_join_to_the_whole(sharp):
    image = F.interpolate(sharp, (700, 730), mode="bicubic").clamp(0, 1)[0]
    framework = small(True)
    whole = TiledFramework(framework, tile=1024).deblur(image)
    torch.testing.assert_close(TiledFramework(framework, tile=560).deblur(image), whole, atol=2e-4, rtol=0)


def test_the_checkpoint_in_the_box_leaves_a_sky_alone():
    """Of a colour that it has not seen, it used to tint it by up to 20 levels beside what is blurred."""
    framework = load_framework(None).eval()
    assert framework.config.deblur.restrained
    free = load_framework(None).eval()
    free.config = replace(free.config, deblur=replace(free.config.deblur, restrained=False))
    image = torch.tensor([0.13, 0.92, 1.0])[None, :, None, None].repeat(1, 1, 128, 128)
    image[..., 48:80, 48:80] = torch.tensor([0.3, 0.5, 0.5])[None, :, None, None]
    blurry = blur_by(image, torch.full((1, 1, 128, 128), 4.0), max_radius=5)
    far = (..., slice(0, 24), slice(None))
    with torch.inference_mode():
        changes = [float((each(blurry) - blurry)[far].abs().max()) * 255 for each in (free, framework)]
    assert changes[1] < 0.01
    assert changes[0] > 1


def test_it_is_blurred_again_by_the_radius_that_was_seen(sharp):
    blurry = blur_by(sharp, torch.full_like(sharp[:, :1], 4.0), max_radius=5)
    radius = disk_rms(torch.tensor([4.0])).reshape(1, 1, 1, 1).expand(1, 1, *sharp.shape[2:])
    free = restrain(sharp, blurry)
    assert (restrain(sharp, blurry, radius) - blurry).square().mean() > 0.998 * (free - blurry).square().mean()


def test_errors_are_told_with_their_neighbours():
    """So that the share of a change does not jump from cell to cell, which cuts lines into dashes."""
    errors = torch.zeros(1, 1, 5, 6)
    errors[..., 2, 3], errors[..., 0, 0] = 16.0, 16.0
    found = restraint._with_neighbours(errors)[0, 0]
    torch.testing.assert_close(found[1:4, 2:5], torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))
    torch.testing.assert_close(found[:2, :2], torch.tensor([[9.0, 3], [3, 1]]))  # the edge repeated
