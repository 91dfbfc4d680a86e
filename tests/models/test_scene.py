"""Layered scenes: the truth that comes with them is true."""

import dataclasses

import numpy as np
import pytest
import torch

from models.blur import blur_by
from models.flow import warp
from models.synthesis import scene as scenes
from models.synthesis.scene import Scene, SceneSettings, ToneCurve, make_scene

pytestmark = pytest.mark.slow

PLAIN = SceneSettings(size=96, blur=5, parallax=6, gain=0, tone=0, noise=0)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 1, (60, 60, 3)).astype(np.float32)
    return [np.kron(coarse, np.ones((4, 4, 1), np.float32))]


def make(photographs: list[np.ndarray], settings: SceneSettings, seed: int = 3) -> Scene:
    return make_scene(photographs, settings, np.random.default_rng(seed))


def warped(scene: Scene) -> np.ndarray:
    sharp, flow = (torch.from_numpy(a.transpose(2, 0, 1).copy())[None] for a in (scene.sharp, scene.flow))
    return warp(sharp, flow, padding="border", interpolation="bicubic")[0].permute(1, 2, 0).numpy()


def test_sharp_warped_by_flow_is_aligned_where_visible(photographs: list[np.ndarray]) -> None:
    scene = make(photographs, PLAIN)
    error = np.square(warped(scene) - scene.aligned).mean(axis=2)
    unwarped = np.square(scene.sharp - scene.aligned).mean(axis=2)
    assert np.median(error[scene.visible]) < 0.05 * np.median(unwarped[scene.visible])
    assert error[~scene.visible].mean() > 3 * error[scene.visible].mean()


def test_displacement_and_radius_within_their_ranges(photographs: list[np.ndarray]) -> None:
    settings = dataclasses.replace(PLAIN, zoom=0.03, shift=5, turn=1)
    for seed in range(3):
        scene = make(photographs, settings, seed)
        assert np.hypot(*np.moveaxis(scene.flow, 2, 0)).max() <= settings.displacement
        assert 0 < scene.blur_radius.max() <= settings.blur / 2**0.5 + 1e-5
        assert scene.blurry.shape == scene.aligned.shape == (96, 96, 3)


def test_without_blur_and_motion_both_shots_are_the_truth(photographs: list[np.ndarray]) -> None:
    scene = make(photographs, dataclasses.replace(PLAIN, blur=1e-6, parallax=0))
    assert np.abs(scene.blurry - scene.aligned).max() <= 1 / 255
    assert np.abs(scene.sharp - scene.aligned).max() <= 2 / 255
    assert scene.visible.all()


def test_same_seed_same_scene(photographs: list[np.ndarray]) -> None:
    for one, other in zip(make(photographs, PLAIN), make(photographs, PLAIN), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gain_tells_the_shots_apart_and_not_the_truth(photographs: list[np.ndarray]) -> None:
    plain, brighter = make(photographs, PLAIN), make(photographs, dataclasses.replace(PLAIN, gain=0.3))
    np.testing.assert_allclose(plain.blurry, brighter.blurry, atol=1e-6)
    assert np.abs(plain.sharp - brighter.sharp).mean() > 0.01


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_tone_curve_rises_from_black_to_white(strength: float) -> None:
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    for seed in range(8):
        curved = ToneCurve.random(strength, np.random.default_rng(seed))(values)
        assert curved[0] == 0
        assert curved[-1] == pytest.approx(1, abs=1e-6)
        assert (np.diff(curved) >= 0).all()


def test_photographs_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 116 pixels each way"):
        make([np.zeros((50, 50, 3), np.float32)], PLAIN)


def test_what_another_layer_hides_in_the_sharp_picture_is_not_visible():
    flow, foremost = np.zeros((12, 12, 2), np.float32), np.zeros((12, 12), np.intp)
    flow[..., 0] = 1
    moved = foremost.copy()
    moved[5, 6] = 1
    visible = scenes._visible(flow, foremost, moved, (slice(2, -2),) * 2)
    expected = np.ones((8, 8), bool)
    expected[:, -1], expected[3, 3] = False, False  # beyond the frame, and hidden
    np.testing.assert_array_equal(visible, expected)


def test_a_layer_of_one_colour_keeps_it_where_its_blur_changes():
    coc = np.linspace(-3, 4, 40, dtype=np.float32) * np.ones((40, 1), np.float32)
    flat = np.full((40, 40, 4), 0.4, np.float32)
    np.testing.assert_allclose(scenes._scattered(flat, coc), flat, atol=1e-5)


def test_the_radius_of_a_scene_is_the_one_that_explains_it():
    generator = np.random.default_rng(0)
    photograph = np.kron(generator.uniform(0, 1, (60, 60, 3)), np.ones((4, 4, 1))).astype(np.float32)
    settings = scenes.SceneSettings(size=96, blur=5, parallax=6, gain=0, tone=0, noise=0, slant=0)
    scene = scenes.make_scene([photograph], settings, np.random.default_rng(3))
    aligned, blurry, radius = (
        torch.from_numpy(np.atleast_3d(a).transpose(2, 0, 1).copy())[None]
        for a in (scene.aligned, scene.blurry, scene.blur_radius)
    )
    errors = {
        scale: float((blur_by(aligned, scale * 2**0.5 * radius, max_radius=8) - blurry).abs().median())
        for scale in (0.7, 0.85, 1.0, 1.2, 1.4)
    }
    assert min(errors, key=errors.get) == 1
