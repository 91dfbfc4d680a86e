"""Pairs made while training: the same for any batch, and blurred, noisy and coded as lenses and cameras do it."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from models.blur import disk_rms, to_linear
from models.data.pairs import DataError
from models.synthesis.aperture import Apertures, draw_apertures, kernels, rms_radius
from models.synthesis.camera import Cameras, develop, draw_cameras, jpeg, photograph
from models.synthesis.generator import (
    GeneratorConfig,
    PairGenerator,
    _blurred,
    _foremost_radius,
    _highlights,
    _Kind,
    _over,
    _slices,
)
from models.synthesis.photographs import Original
from models.synthesis.textures import Textures, block_sharpness

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PLAIN = GeneratorConfig(blur=3.0, layers=1, slant=0.0, highlights=0.0, noise=0.0, quality=(95, 95), shift=4.0)


def apertures(**changes):
    zero = torch.zeros(1)
    values = dict.fromkeys(("blades", "turn", "ring", "cut", "softness", "dispersion"), zero)
    return Apertures(**values | {name: torch.tensor([value]) for name, value in changes.items()})


def cameras(**changes):
    names = [field.name for field in dataclasses.fields(Cameras)]
    return Cameras(**dict.fromkeys(names, torch.zeros(1)) | {k: torch.tensor([float(v)]) for k, v in changes.items()})


@pytest.fixture(scope="module")
def originals():
    return [Original("astronaut"), Original("coffee")]


@pytest.fixture(scope="module")
def generator(originals):
    return PairGenerator(originals, GeneratorConfig(blur=4.0), 48, 3, CPU)


def test_a_round_aperture_is_the_disk_of_the_operators():
    coc = torch.tensor([[0.0, 0.4, 1.0, 2.5, 6.0]])
    disks = kernels(coc, apertures(), 8)[0, :, 1]
    offset = torch.arange(-8.0, 9.0)
    expected = (coc[0, :, None, None].clamp_min(0.5) + 0.5 - torch.hypot(offset[:, None], offset)).clamp(0, 1)
    expected = expected / expected.sum((1, 2), keepdim=True)
    assert torch.allclose(disks, expected, atol=1e-6)
    assert torch.allclose(rms_radius(disks), disk_rms(coc[0]), atol=1e-4)


@pytest.mark.parametrize(
    "shape", [{"blades": 6.0}, {"blades": 5.0, "turn": 0.4}, {"ring": 0.7}, {"cut": 0.6}, {"softness": 0.8}]
)
def test_apertures_keep_the_light_and_differ_from_a_disk(shape):
    coc = torch.tensor([[5.0]])
    kernel, disk = kernels(coc, apertures(**shape), 9), kernels(coc, apertures(), 9)
    assert kernel.min() >= 0
    assert torch.allclose(kernel.sum((-2, -1)), torch.ones(1, 1, 3), atol=1e-5)
    assert (kernel - disk).abs().sum() > 0.05 * 3
    assert rms_radius(kernel)[0, 0, 1] == pytest.approx(5 / math.sqrt(2), rel=0.3)


def test_a_polygon_has_the_area_of_the_disk_and_blue_may_be_larger():
    hexagon = kernels(torch.tensor([[12.0]]), apertures(blades=6.0), 16)[0, 0, 1]
    assert (hexagon > hexagon.max() / 2).sum().item() == pytest.approx(math.pi * 12.25**2, rel=0.06)
    red, green, blue = rms_radius(kernels(torch.tensor([[6.0]]), apertures(dispersion=0.05), 9)[0, 0])
    assert red < green < blue
    assert blue / green == pytest.approx(1.05, abs=0.01)


@pytest.mark.parametrize("subsampled", [0, 1])
@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_is_that_of_libjpeg(quality, subsampled):
    picture = np.ascontiguousarray(skimage.data.astronaut()[96:240, 160:320])
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, coded = cv2.imencode(".jpg", picture[..., ::-1], options)
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    found = 255 * jpeg(image, torch.tensor([float(quality)]), torch.tensor([float(subsampled)])).clamp(0, 1)
    found = found[0].permute(1, 2, 0).numpy()
    loss, difference = (np.sqrt(np.mean((other - expected) ** 2)) for other in (picture, found))
    assert difference < 0.35 * loss + 0.7  # libjpeg rounds to integers in between, and interpolates chroma otherwise
    assert torch.equal(jpeg(image, torch.zeros(1), torch.zeros(1)), image)


def test_a_gpu_that_computes_all_images_makes_the_same(monkeypatch):
    """What few images need is computed for those alone, but on a GPU for all."""
    generators = [np.random.default_rng(number) for number in range(12)]
    cameras = draw_cameras(generators, noise=0.03, compressed=0.5, quality=(60, 95), tone=0.5, sharpening=0.6)
    for values in (cameras.clumping, cameras.sharpening, cameras.quality):
        assert 0 < (values > 0).sum() < 12
    light, noise = (torch.from_numpy(generators[0].random((12, 3, 32, 48), np.float32)) for _ in range(2))
    some = photograph(light, cameras, noise), develop(light, cameras)
    monkeypatch.setattr("models.synthesis.camera._members", lambda wanted: slice(None))
    for one, other in zip(some, (photograph(light, cameras, noise), develop(light, cameras)), strict=True):
        assert torch.equal(one, other)


def test_a_camera_adds_what_it_is_told():
    light = torch.full((1, 3, 64, 64), 0.2)
    noise = torch.randn(light.shape, generator=torch.Generator().manual_seed(0))
    clean = develop(light, cameras())
    assert (photograph(light, cameras(), noise) - clean).abs().max() <= 0.5 / 255 + 1e-6
    assert (photograph(light, cameras(grain=0.02), noise) - clean).std() == pytest.approx(0.02, rel=0.05)
    shot = to_linear(photograph(light, cameras(photons=1e-3), noise))
    assert shot.std() == pytest.approx(math.sqrt(1e-3 * 0.2), rel=0.1)
    assert (to_linear(photograph(light, cameras(reading=0.01), noise))).std() == pytest.approx(0.01, rel=0.1)
    clumped = photograph(light, cameras(grain=0.02, clumping=0.8), noise) - clean
    assert (clumped[..., 1:] * clumped[..., :-1]).mean() > 0.2 * clumped.square().mean()


def test_sharpness_tells_sharp_soft_and_flat():
    photograph = np.asarray(skimage.data.grass(), np.float32)[:256, :256, None].repeat(3, 2) / np.float32(255)
    assert np.nanmean(block_sharpness(photograph)) > 0.6
    assert np.nanmean(block_sharpness(cv2.GaussianBlur(photograph, (0, 0), 3))) < 0.1
    assert np.isnan(block_sharpness(np.full((64, 64, 3), 0.5, np.float32))).all()


def test_soft_photographs_are_left_out(originals):
    textures = Textures(originals, 64, CPU)
    soft = [texture._replace(sharpness=np.zeros_like(texture.sharpness)) for texture in textures.photographs[0]]
    dark = [texture._replace(pixels=torch.zeros_like(texture.pixels)) for texture in soft]
    textures.photographs[0] = dark
    drawn = [textures.draw(np.random.default_rng(number)) for number in range(20)]
    assert sum(float(crop.max()) > 0 for crop in drawn) >= 19  # of each, one in 2^8 finds nothing else
    textures.sharp = 0.0
    drawn = [textures.draw(np.random.default_rng(number)) for number in range(20)]
    assert sum(float(crop.max()) > 0 for crop in drawn) < 19


def test_a_sample_depends_on_its_number_alone(generator):
    whole = generator.batch(range(6))
    assert {name: tuple(values.shape) for name, values in whole.items()} == {
        "blurry": (6, 3, 48, 48),
        "sharp": (6, 3, 48, 48),
        "aligned": (6, 3, 48, 48),
        "blur_radius": (6, 1, 48, 48),
    }
    for name, values in generator.batch([4, 1]).items():
        assert torch.equal(values, whole[name][[4, 1]]), name
    assert not torch.equal(whole["blurry"][0], whole["blurry"][1])
    assert all(values.min() >= 0 and values.max() <= 1 for name, values in whole.items() if name != "blur_radius")
    steps = 255 * whole["blurry"]
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_natural_softness_is_drawn_in_focus_only(originals):
    sharp = dataclasses.replace(PLAIN, in_focus=1.0)
    made = [PairGenerator(originals, config, 48, 0, CPU) for config in (sharp, dataclasses.replace(sharp, natural=1.0))]
    softness = [[], []]
    for index, generator in enumerate(made):
        draw = generator.textures.draw
        generator.textures.draw = lambda random, soft=False, draw=draw, index=index: (
            softness[index].append(soft) or draw(random, soft)
        )
        generator.batch(range(6))
    assert softness == [[False] * 6, [True] * 6]
    blurred = PairGenerator(originals, dataclasses.replace(PLAIN, in_focus=0.0, natural=1.0), 48, 0, CPU)
    plain = PairGenerator(originals, dataclasses.replace(PLAIN, in_focus=0.0), 48, 0, CPU)
    torch.testing.assert_close(blurred.batch(range(4)), plain.batch(range(4)), rtol=0, atol=0)


def test_the_other_shot_is_exposed_differently(originals):
    config = dataclasses.replace(PLAIN, shift=0.0, exposure=0.1)
    made = PairGenerator(originals, config, 48, 0, CPU).batch(range(8))
    ratio = made["sharp"].mean((1, 2, 3)) / made["aligned"].mean((1, 2, 3))
    assert ratio.min() > 0.89
    assert ratio.max() < 1.11
    assert ratio.std() > 0.02


def test_the_other_shot_is_developed_differently(originals):
    settings = {"shift": 0.0, "in_focus": 1.0}
    plain, curved = (
        PairGenerator(originals, dataclasses.replace(PLAIN, **settings, development=development), 48, 0, CPU)
        for development in (0.0, 0.2)
    )
    same, other = (made.batch(range(6))["sharp"] for made in (plain, curved))
    middle = (same > 0.3) & (same < 0.7)
    changed = [(b[m] - a[m]).abs().mean() for a, b, m in zip(same, other, middle, strict=True) if m.any()]
    assert max(changed) > 0.02  # 0.5 ** 1.2 is 0.435
    assert max(changed) < 0.1


def test_the_other_shot_has_noise_of_its_own(originals):
    config = dataclasses.replace(PLAIN, shift=0.0, in_focus=1.0, noise=0.05)
    clean, noisy = (
        PairGenerator(originals, dataclasses.replace(config, own_noise=part), 64, 0, CPU).batch(range(16))
        for part in (0.0, 1.0)
    )
    noise = noisy["sharp"] - clean["sharp"]
    strength = noise.std(dim=(1, 2, 3))
    assert strength.max() > 0.01
    assert (noise.mean((1, 2, 3)).abs() < 0.01).all()
    loudest = int(strength.argmax())
    its_own = torch.corrcoef(
        torch.stack([noise[loudest].flatten(), (noisy["blurry"] - noisy["aligned"])[loudest].flatten()])
    )
    assert its_own[0, 1].abs() < 0.3
    steps = 255 * noisy["sharp"]
    assert (steps - steps.round()).abs().max() < 1e-3  # as files have them


def test_what_is_in_focus_stays(originals):
    made = PairGenerator(originals, dataclasses.replace(PLAIN, in_focus=1.0), 48, 0, CPU).batch(range(8))
    assert (made["blur_radius"] == 0).all()
    error = (made["blurry"] - made["aligned"]).square().mean((1, 2, 3)).sqrt()
    assert error.min() < 0.5 / 255  # without JPEG only rounding
    assert error.max() < 10 / 255  # JPEG with halved chroma, of saturated colours


def test_the_blur_is_the_one_that_it_says(originals):
    config = dataclasses.replace(PLAIN, in_focus=0.0, small=0.0)
    made = PairGenerator(originals, config, 64, 1, CPU).batch(range(24))
    radius = made["blur_radius"].mean((1, 2, 3))
    assert radius.max() < 3 / math.sqrt(2) * 1.5
    fine = [(made[name][..., 1:] - made[name][..., :-1]).abs().mean((1, 2, 3)) for name in ("blurry", "aligned")]
    kept = fine[0] / fine[1]
    assert kept[radius > 1.5].mean() < 0.7 < 0.9 < kept[radius < 0.4].mean()


def test_the_misaligned_sharp_picture_has_moved_no_farther_than_told(originals):
    made = PairGenerator(originals, PLAIN, 64, 2, CPU).batch(range(4))
    for sharp, aligned in zip(made["sharp"], made["aligned"], strict=True):
        one, other = (np.ascontiguousarray(image.mean(0).numpy() * 255).astype(np.uint8) for image in (aligned, sharp))
        flow = cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        assert 0.2 < np.median(np.hypot(*np.moveaxis(flow, 2, 0))) < 4 * math.sqrt(2) + 0.5
    aligned_only = PairGenerator(originals, PLAIN, 64, 2, CPU).batch(range(2), misaligned=False)
    assert torch.equal(aligned_only["sharp"], aligned_only["aligned"])
    assert torch.equal(aligned_only["aligned"], made["aligned"][:2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blur": 0.0}, "blur must be from 0.5 to 64, got 0.0"),
        ({"layers": 0}, "layers must be from 1 to 8"),
        ({"dispersion": 0.5}, "dispersion must be from 0 to 0.1, got 0.5"),
        ({"quality": (90, 60)}, r"quality must be two numbers, 1 to 100, rising, got \[90, 60\]"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**changes)


def test_small_photographs_are_named(originals):
    with pytest.raises(DataError, match="coffee must have 720 pixels each way"):
        PairGenerator(originals, GeneratorConfig(), 640, 0, CPU)


WHOLE = {"disks": 0.5, "polygons": 0.6, "rings": 0.3, "cut": 0.4, "softness": 1.0, "dispersion": 0.03}


def drawn_apertures(**changes):
    return draw_apertures([np.random.default_rng(number) for number in range(200)], **{**WHOLE, **changes})


@pytest.mark.parametrize(
    ("setting", "property"),
    [("polygons", "blades"), ("rings", "ring"), ("cut", "cut"), ("softness", "softness"), ("dispersion", "dispersion")],
)
def test_each_property_of_apertures_can_be_left_out(setting, property):
    most = 0.1 if setting == "softness" else 0.0  # plain disks have a trace of it
    assert getattr(drawn_apertures(), property).abs().max() > most
    assert getattr(drawn_apertures(**{setting: 0.0}), property).abs().max() <= most


@pytest.mark.parametrize(
    ("setting", "property"), [("compressed", "quality"), ("tone", "contrast"), ("sharpening", "sharpening")]
)
def test_each_property_of_cameras_can_be_left_out(setting, property):
    whole = {"noise": 0.03, "compressed": 0.5, "quality": (60, 95), "tone": 0.5, "sharpening": 0.6}
    generators = [np.random.default_rng(number) for number in range(50)]
    assert getattr(draw_cameras(generators, **whole), property).abs().max() > 0
    assert getattr(draw_cameras(generators, **{**whole, setting: 0}), property).abs().max() == 0


def test_part_of_the_apertures_is_plain():
    drawn = drawn_apertures()
    plain = (drawn.blades == 0) & (drawn.ring == 0) & (drawn.cut == 0) & (drawn.dispersion == 0)
    assert 0.4 < plain.float().mean() < 0.6


def layers(reach=6, levels=((0.0, 0.0, 0.0), (1.0, 2.0, 4.0))):
    """Two layers, light times coverage, of 32 pixels; slices from left to right, and their kernels."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.ones(1, 2, 1, 32, 32)
    masks[:, 1, ..., :12] = 0
    light = torch.rand(1, 2, 3, 32, 32, generator=generator) * masks
    place = torch.linspace(0, 2, 32).expand(32, 32)
    shares = (1 - (place - torch.arange(3)[:, None, None]).abs()).clamp_min(0).expand(1, 2, 3, 32, 32)
    kernel = kernels(torch.tensor(levels).reshape(1, 6), apertures(), reach).unflatten(1, (2, 3))
    return light, masks, shares, kernel, reach


def test_layers_without_blur_stay_where_they_are():
    light, masks, shares, kernel, reach = layers(levels=((0.0,) * 3,) * 2)
    blurred, coverage = _blurred(light, masks, shares, kernel, reach)
    torch.testing.assert_close(blurred, light, atol=1e-5, rtol=0)
    torch.testing.assert_close(coverage, masks, atol=1e-5, rtol=0)


def test_what_is_flat_stays_flat_where_the_blur_changes():
    light, masks, shares, kernel, reach = layers()
    blurred, coverage = _blurred(torch.full_like(light, 0.5), torch.ones_like(masks), shares, kernel, reach)
    torch.testing.assert_close(blurred, torch.full_like(light, 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(coverage, torch.ones_like(masks), atol=1e-4, rtol=0)


def test_the_later_layer_hides_the_earlier_and_has_the_radius():
    light, masks, shares, kernel, _ = layers()
    expected = torch.where(masks[:, 1] > 0, light[:, 1], light[:, 0])
    torch.testing.assert_close(_over(light, masks), expected)
    radius = _foremost_radius(masks, shares, kernel)
    assert radius[..., :12].max() == 0
    assert (radius[..., 12:].diff(dim=3) > 0).all()


def test_layers_are_as_a_lens_has_them():
    generators = [np.random.default_rng(number) for number in range(20)]
    levels, shares = _slices(generators, [_Kind(3, False, False)] * 20, 16, GeneratorConfig(blur=4.0), CPU)
    assert levels.abs().max() <= 4
    assert (levels.mean(2).diff(dim=1) >= 0).all(), "from the farthest to the nearest"
    torch.testing.assert_close(shares.sum(2), torch.ones(20, 3, 16, 16))


def test_only_what_is_nearly_white_becomes_a_highlight():
    light = torch.tensor([0.3, 0.8, 0.9, 1.0]).expand(4, 1, 3, 1, 4)
    generators = [np.random.default_rng(number) for number in range(4)]
    factors = _highlights(generators, light, 1.0)
    assert (factors[..., :2] == 1).all()
    torch.testing.assert_close(factors[..., 2] - 1, (factors[..., 3] - 1) / 4)
    assert 2 <= factors[..., 3].min() < factors[..., 3].max() <= 8
    assert (_highlights(generators, light, 0.0) == 1).all()
