"""Noise of photographs: how strong it is told, and what is left without it."""

from functools import lru_cache

import numpy as np
import pytest
import skimage.data
import skimage.io
import torch

from models.__main__ import main
from models.checkpoints.load import load_framework
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig
from models.inference import noise
from models.inference.tiling import TiledFramework

SIGMA = 5 / 255


@lru_cache
def photograph(name="astronaut"):
    """(1, 3, 208, 304), sRGB, 0 … 1."""
    pixels = getattr(skimage.data, name)()
    pixels = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
    return torch.from_numpy(pixels[:208, :304].copy()).permute(2, 0, 1)[None].float() / 255


def noisy(image, sigma=SIGMA):
    white = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + sigma * white).clamp(0, 1)


def psnr(image, target):
    return float(-10 * (image - target).square().mean().log10())


@pytest.mark.parametrize("sigma", [2, 5, 12])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_the_noise_level_of_photographs_is_told(name, sigma):
    level = noise.noise_level(noisy(photograph(name), sigma / 255))
    assert 255 * float(level) == pytest.approx(sigma, rel=0.25)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "grass", "gravel", "brick", "camera"])
def test_texture_is_no_noise(name):
    assert noise.noise_to_remove(noise.noise_level(photograph(name))) == 0


def test_each_image_of_a_batch_has_its_own_level():
    both = torch.cat([photograph(), noisy(photograph())])
    levels = noise.noise_level(both)
    torch.testing.assert_close(levels, torch.cat([noise.noise_level(image) for image in both.split(1)]))
    clean = noise.without_noise(both, noise.noise_to_remove(levels))
    torch.testing.assert_close(clean[:1], both[:1], atol=1e-5, rtol=0)  # nothing to take: as it was
    torch.testing.assert_close(clean[1:], noise.without_noise(both[1:], levels[1:]))


@pytest.mark.parametrize("size", [(1, 1), (9, 40), (10, 10)])
def test_small_images_have_a_level(size):
    level = noise.noise_level(torch.rand(2, 3, *size))
    assert level.shape == (2,)
    assert bool(level.isfinite().all())
    assert bool((level > 0).any()) == (min(size) >= noise.CELL + 2)
    assert noise.without_noise(torch.rand(2, 3, *size), level).shape == (2, 3, *size)


def test_black_and_white_cells_do_not_hide_noise():
    image = noisy(torch.full((1, 3, 80, 400), 0.5))
    image[..., :200] = 0
    assert 255 * float(noise.noise_level(image)) == pytest.approx(5, rel=0.2)
    assert noise.noise_level(torch.ones(1, 3, 80, 80)) == 0


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_a_photograph_without_its_noise_is_nearer_to_the_truth(name):
    seen = noisy(photograph(name))
    clean = noise.without_noise(seen, noise.noise_level(seen))
    assert psnr(clean, photograph(name)) > psnr(seen, photograph(name)) + 3


def test_transforms_are_orthonormal():
    blocks = noise._cosines(torch.zeros(1, dtype=torch.float64)).reshape(16, 16)
    torch.testing.assert_close(blocks @ blocks.T, torch.eye(16, dtype=torch.float64))
    colours = noise._colours(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(colours @ colours.T, torch.eye(3, dtype=torch.float64))


def test_autocast_changes_nothing():
    seen = noisy(photograph())
    with torch.autocast("cpu", torch.bfloat16):
        clean = noise.without_noise(seen, torch.tensor([SIGMA]))
    assert torch.equal(clean, noise.without_noise(seen, torch.tensor([SIGMA])))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="image must"):
        noise.noise_level(torch.rand(1, 1, 16, 16))
    with pytest.raises(ValueError, match="image must"):
        noise.without_noise(torch.rand(3, 16, 16), torch.zeros(1))


def framework(denoised):
    torch.manual_seed(0)
    config = FrameworkConfig(
        blur_map=BlurMapConfig(width=4, blocks=0, form="radius"),
        deblur=DeblurConfig("compact", {"width": 4, "encoder": [1, 1], "middle": 1, "decoder": [1, 1]}),
        reblur=None,
        denoised=denoised,
    )
    return Framework(config).eval()


def test_noise_is_taken_away_before_deblurring_where_the_framework_says_so():
    seen = noisy(photograph())[0]
    made = framework(denoised=True)
    clean = noise.without_noise(seen[None], noise.noise_to_remove(noise.noise_level(seen[None]))).clamp(0, 1)
    with torch.inference_mode():
        prior, _ = made.see(seen[None])  # of the photograph as it is
        expected = made.deblur(clean, prior).clamp(0, 1)[0]
    torch.testing.assert_close(TiledFramework(made).deblur(seen), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(TiledFramework(made, tile=96).deblur(seen), expected, atol=1e-3, rtol=0)
    plain = made(seen[None])[0]
    torch.testing.assert_close(TiledFramework(made, keep_noise=True).deblur(seen), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(TiledFramework(framework(denoised=False)).deblur(seen), plain, atol=1e-5, rtol=0)


def test_a_photograph_without_noise_is_not_touched():
    image = photograph()[0]
    assert TiledFramework(framework(denoised=True)).without_noise(image) is image


def test_compiled_once_for_all_levels(monkeypatch):
    """The level is an argument, so that what is compiled for one photograph is right for the next."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    tiled = TiledFramework(framework(denoised=True), compiled=True)
    for sigma in (5 / 255, 12 / 255):
        seen = noisy(photograph(), sigma)[0]
        level = noise.noise_level(seen[None])
        expected = noise.without_noise(seen[None], level)[0].clamp(0, 1)
        torch.testing.assert_close(tiled.without_noise(seen), expected)


def test_the_checkpoint_in_the_box_takes_noise_away():
    made = load_framework()
    assert made.config.denoised
    seen = noisy(photograph())[0]
    gains = [
        psnr(TiledFramework(made, keep_noise=keep).deblur(seen), photograph()[0]) - psnr(seen, photograph()[0])
        for keep in (False, True)
    ]
    assert gains[0] > 2.5
    assert gains[1] < 0.5


def test_the_command_takes_noise_away_unless_it_is_told_to_keep_it(tmp_path):
    pixels = (noisy(photograph())[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    skimage.io.imsave(tmp_path / "noisy.png", pixels, check_contrast=False)
    levels = []
    for options in ([], ["--keep-noise"]):
        out = tmp_path / str(len(options))
        assert main(["deblur", str(tmp_path / "noisy.png"), "--out", str(out), *options]) == 0
        found = torch.from_numpy(skimage.io.imread(out / "noisy.png").copy()).permute(2, 0, 1)[None].float() / 255
        levels.append(255 * float(noise.noise_level(found)))
    assert levels[0] < 1
    assert levels[1] > 4
