"""Networks whose blur is a radius: what they say before training, that it cannot collapse, and that tiles agree."""

import pytest
import torch

from models.blur import blur_by, search_radius
from models.blur.disks import disk_tap_weights
from models.blur.search import SPREAD
from models.core.positions import POSITIONS
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig
from models.inference.tiling import TiledFramework
from models.networks import BlurRadiusNet, RadiusReblurringNet
from models.networks.blur_radius import band_energies, decode_radius, encode_radius

SMALL = FrameworkConfig(blur_map=BlurMapConfig(8, 1, "radius"), reblur=ReblurConfig(8, 1, form="radius", max_radius=5))


def texture(height=48, width=64, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3))


def half_and_half(like, left=1.2, right=3.6):
    coc = torch.full_like(like[:, :1], left)
    coc[..., like.shape[-1] // 2 :] = right
    return coc


@pytest.mark.parametrize("size", [(1, 1), (1, 19), (33, 2), (21, 34), (101, 147)])
@torch.no_grad()
def test_any_size(size):
    blurry = texture(*size, count=2)
    blur_map = BlurRadiusNet(width=8, blocks=1)(blurry)
    assert blur_map.shape == (2, 2, *size)
    for halvings in (0, 1):
        found = RadiusReblurringNet(3, halvings=halvings, width=8, blocks=1)(blurry, blurry)
        assert found.image.shape == blurry.shape
        assert found.radius.shape == found.coc.shape == found.confidence.shape == (2, 1, *size)


def test_the_logarithm_of_the_radius_and_back():
    radius = torch.tensor([0.0, 0.3, 7.0]).reshape(1, 1, 1, 3)
    blur_map = torch.cat([encode_radius(radius), torch.zeros_like(radius)], dim=1)
    assert torch.allclose(decode_radius(blur_map), radius, atol=1e-6)
    assert (decode_radius(blur_map - 5) == 0).all()


def test_blur_takes_energy_from_the_high_bands():
    sharp = texture(64, 64)
    energies = [
        band_energies(blur_by(sharp, torch.full_like(sharp[:, :1], coc), max_radius=4)) for coc in (0.0, 1.5, 4.0)
    ]
    high = [float(energy[:, 0].mean()) for energy in energies]
    assert high[0] > high[1] + 0.3 > high[2] + 0.3
    slopes = [float((energy[:, 0] - energy[:, 2]).mean()) for energy in energies]
    assert slopes[0] > slopes[1] > slopes[2]


@torch.no_grad()
def test_before_training_it_is_the_search():
    sharp = texture(count=2)
    coc = half_and_half(sharp)
    blurry = blur_by(sharp, coc, max_radius=5)
    found = RadiusReblurringNet(5, width=8, blocks=1)(sharp, blurry)
    inner = torch.ones_like(coc, dtype=torch.bool)
    inner[..., 24:40] = False
    assert (found.coc - coc)[inner].abs().mean() < 0.2
    assert (found.coc - search_radius(sharp, blurry, max_radius=5, slack=0, window=5).coc)[inner].abs().mean() < 0.2
    error = (found.image - blurry).square().mean()
    assert error < 0.1 * (sharp - blurry).square().mean()
    assert found.confidence[inner].mean() > 0.5


@torch.no_grad()
def test_blur_larger_than_any_candidate_is_found_in_halved_images():
    coarse = torch.nn.functional.interpolate(texture(32, 32), scale_factor=8, mode="bicubic").clamp(0, 1)
    coc = half_and_half(coarse, 2.0, 13.0)
    blurry = blur_by(coarse, coc, max_radius=16)
    without, with_halves = (RadiusReblurringNet(5, halvings=halvings, width=8, blocks=1) for halvings in (0, 2))
    left, right = slice(16, 100), slice(156, 240)  # away from the step, and from the borders
    found = with_halves(coarse, blurry)
    assert without(coarse, blurry).coc.max() <= 5 < 20 == with_halves.largest_radius
    assert (found.coc - coc)[..., 16:-16, right].abs().mean() < 1.5
    assert (found.coc - coc)[..., 16:-16, left].abs().mean() < 0.5
    assert (found.radius[..., 16:-16, right] - 13 / 2**0.5).abs().mean() < 1.2
    assert found.max_radius == 20
    assert found.tap_weights(torch.arange(2), torch.arange(3)).shape == (1, 231, 2, 3)


def test_halvings_within_the_disks_of_the_operator():
    with pytest.raises(ValueError, match="at most 64 pixels, got 10 and 3"):
        RadiusReblurringNet(10, halvings=3)
    with pytest.raises(ValueError, match="halvings must be an integer of at least 0, got -1"):
        RadiusReblurringNet(10, halvings=-1)


@torch.no_grad()
def test_copies_are_averaged_and_their_disagreement_costs_confidence():
    torch.manual_seed(0)
    alone = RadiusReblurringNet(5, width=8, blocks=1)
    for parameter in alone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = alone.state_dict()
    sharp, blurry = texture(64, 80), texture(64, 80).flip(3).roll(3, -1)
    with_copies = {copies: RadiusReblurringNet(5, copies=copies, width=8, blocks=1) for copies in (4, 8)}
    for network in with_copies.values():
        network.load_state_dict(weights)
    each = [alone(position.turned(sharp), position.turned(blurry)) for position in POSITIONS[:4]]
    radii = torch.stack([one.turned_back(found.coc) for one, found in zip(POSITIONS[:4], each, strict=True)])
    found = with_copies[4](sharp, blurry)
    torch.testing.assert_close(found.coc, radii.mean(0), atol=1e-4, rtol=0)
    assert radii.std(0).max() > 0.2  # or there would be nothing to average
    confidence = torch.stack([one.turned_back(f.confidence) for one, f in zip(POSITIONS[:4], each, strict=True)])
    # Confidence is 1 / (1 + variance / c): the variance of a mixture is its mean, and that of the means.
    mixture = (1 / confidence - 1).mean(0) * SPREAD**2 + radii.var(0, correction=0)
    torch.testing.assert_close(found.confidence, 1 / (1 + mixture / SPREAD**2), atol=1e-3, rtol=0)
    expected = with_copies[8](sharp, blurry)
    for position in POSITIONS:
        turned = with_copies[8](position.turned(sharp), position.turned(blurry))
        torch.testing.assert_close(position.turned_back(turned.coc), expected.coc, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="copies must be one of 1, 2, 4, 8, got 3"):
        RadiusReblurringNet(5, copies=3)


def test_it_cannot_name_a_blur_that_is_none_of_the_candidates():
    torch.manual_seed(0)
    network = RadiusReblurringNet(5, width=8, blocks=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    sharp = texture()
    found = network(sharp, sharp.flip(3))
    assert 0 <= found.coc.min() <= found.coc.max() <= 5
    assert found.image.isfinite().all()


def test_all_of_it_learns():
    torch.manual_seed(0)
    network = RadiusReblurringNet(4, width=8, blocks=1)
    torch.nn.init.normal_(network.last.weight, std=0.1)  # behind zeros nothing would get a gradient in the first step
    sharp = texture()
    found = network(sharp, blur_by(sharp, half_and_half(sharp), max_radius=4))
    (found.image.square().mean() + found.radius.mean()).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_another_image_is_blurred_by_what_was_found_and_the_blur_gets_no_gradient():
    sharp = texture()
    blurry = blur_by(sharp, half_and_half(sharp), max_radius=4)
    network = RadiusReblurringNet(4, width=8, blocks=1)
    found = network(sharp, blurry)
    assert torch.allclose(found.again(sharp), found.image)
    other = sharp.flip(2).requires_grad_()
    found.again(other).square().mean().backward()
    assert other.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_taps_of_disks():
    coc = torch.tensor([0.2, 1.0, 4.4]).reshape(1, 1, 1, 3)
    weights = disk_tap_weights(coc, 5)
    assert weights.shape == (1, 21, 1, 3)
    assert weights[0, :, 0, 0].tolist() == [1] + 20 * [0]
    impulse = torch.zeros(1, 3, 11, 11)
    impulse[..., 5, 5] = 1
    # Of an impulse, a blur that is the same everywhere makes the kernel: class (a, b) lies a and b beside the middle.
    kernel = blur_by(impulse, torch.full((1, 1, 11, 11), 4.4), max_radius=5, light="srgb")[0, 0]
    taps = [(a, b) for b in range(6) for a in range(b + 1)]
    assert weights[0, :, 0, 2].tolist() == pytest.approx([float(kernel[5 + a, 5 + b]) for a, b in taps], abs=1e-6)


@torch.no_grad()
def test_tiles_agree_with_the_whole():
    torch.manual_seed(1)
    framework = Framework(SMALL).eval()
    image, sharp = texture(40, 520)[0], texture(40, 520).flip(3)[0]
    whole, tiled = TiledFramework(framework, tile=1000), TiledFramework(framework, tile=364)
    assert torch.allclose(tiled.map_radius(image), whole.map_radius(image), atol=1e-4)
    for one, other in zip(tiled.reblur(sharp, image), whole.reblur(sharp, image), strict=True):
        # The gain between the two is fitted to the whole picture, so that tiles differ a little.
        assert (one - other).abs().mean() < 0.02 * max(float(other.std()), 0.1)
    assert torch.equal(whole.blur_radius(image, image), whole.map_radius(image))


def test_the_framework_tells_the_blur_of_an_image():
    framework = Framework(SMALL)
    radius = framework.blur_radius(texture())
    assert radius.shape == (1, 1, 48, 64)
    assert radius.min() >= 0
    with pytest.raises(ValueError, match=r'blur_radius needs a blur map network of the form "radius"'):
        Framework(FrameworkConfig(blur_map=BlurMapConfig(4, 1))).blur_radius(texture())
    with pytest.raises(ValueError, match=r'blur_map\.form must be "radius" where reblur\.form is, got "seeds"'):
        Framework(FrameworkConfig(reblur=ReblurConfig(8, 1, form="radius")))


@pytest.mark.parametrize("config", [ReblurConfig, BlurMapConfig])
def test_unknown_forms_are_refused(config):
    with pytest.raises(ValueError, match="form must be one of"):
        config(form="magic")


def test_what_the_map_doubts_counts_as_sharp():
    network = BlurRadiusNet(width=4, blocks=1, doubt=0.4)
    cases = ((2.0, 0.1, 2.0), (2.0, 0.2, 2.0), (2.0, 0.3, 1.0), (2.0, 0.4, 0.0), (2.0, 2.0, 0.0), (1.0, 0.675, 0.5))
    for true, spread, expected in (*cases, (6.0, 0.4, 6.0), (6.0, 2.7, 3.0)):
        radius = torch.full((1, 1, 40, 40), true)
        blur_map = torch.cat([encode_radius(radius), torch.full_like(radius, spread).log()], dim=1)
        prior = network.prior(blur_map)
        torch.testing.assert_close(decode_radius(prior), torch.full_like(radius, expected), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prior[:, 1:], blur_map[:, 1:])
    certain = BlurRadiusNet(width=4, blocks=1)
    assert certain.prior(blur_map) is blur_map
    assert network.reach == certain.reach + 31


def test_a_framework_leaves_alone_what_its_map_doubts():
    torch.manual_seed(0)
    blurry = torch.rand(1, 3, 32, 32)
    networks = {
        doubt: Framework(
            FrameworkConfig(
                blur_map=BlurMapConfig(width=4, blocks=1, form="radius", doubt=doubt),
                deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]}),
                reblur=None,
            )
        )
        for doubt in (None, 1e-3)
    }
    networks[1e-3].load_state_dict(networks[None].state_dict())
    blur_map = networks[None].blur_map(blurry)
    sharp = torch.cat([encode_radius(torch.zeros(1, 1, 32, 32)), blur_map[:, 1:]], dim=1)
    found = networks[1e-3](blurry)
    torch.testing.assert_close(found, networks[None].deblur(blurry, sharp).clamp(0, 1))
    assert not torch.equal(found, networks[None](blurry))
    with pytest.raises(ValueError, match="doubt must be null"):
        BlurMapConfig(doubt=0.3)
    with pytest.raises(ValueError, match="doubt must be above 0"):
        BlurRadiusNet(doubt=-1.0)
