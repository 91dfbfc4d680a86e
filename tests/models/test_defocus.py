"""Rendering defocus without the operator."""

import numpy as np
import pytest

from models.synthesis import defocus


@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0, 2.5, 6.5])
def test_disk_kernels_have_the_rms_radius_of_disks(radius):
    kernel = defocus.disk_kernel(radius)
    reach = kernel.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((kernel * (x**2 + y**2)).sum()) == pytest.approx(radius / np.sqrt(2), abs=2e-3)


def test_srgb_there_and_back():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    assert np.allclose(defocus.to_srgb(defocus.to_linear(values)), values, atol=1e-6)


def test_holes_are_filled_from_what_is_far():
    disparity = np.full((20, 30), 10, np.float32)
    disparity[:, 15:] = 50
    disparity[5:9, 13:17] = np.inf
    filled = defocus.fill_disparity(disparity)
    assert np.isfinite(filled).all()
    assert set(np.unique(filled)) == {10, 50}
    assert (filled[5:9, 13:16] == 10).all(), "the background goes on behind the edge"
    with pytest.raises(ValueError, match="finite somewhere"):
        defocus.fill_disparity(np.full((3, 3), np.nan, np.float32))


def test_between_near_and_far_there_is_nothing():
    """Where disparity is interpolated across an edge, what lies halfway would be in focus."""
    near = np.linspace(50, 54, 20, dtype=np.float32)[:, None]  # slanted
    slope = np.clip((np.arange(40) - 16) / 6, 0, 1, dtype=np.float32)
    filled = defocus.fill_disparity(10 + slope * (near - 10))
    assert ((filled < 11) | (filled > 49)).all()
    assert (filled[:, :15] < 11).all()
    assert (filled[:, 24:] > 49).all()
    assert np.unique(filled[:, 30]).size > 10, "the slant is still there"


def test_circles_of_confusion_are_linear_in_disparity():
    radius = defocus.coc(np.array([[10, 20, 50]], np.float32), focus=20, largest=6)
    assert radius.tolist() == [[-2, 0, 6]]


def test_what_is_in_focus_stays_and_flat_light_stays_flat():
    generator = np.random.default_rng(0)
    image = generator.random((40, 50, 3), np.float32)
    assert np.allclose(defocus.render_defocus(image, np.zeros((40, 50), np.float32)), image, atol=1e-6)
    radius = generator.uniform(-5, 5, (40, 50)).astype(np.float32)
    flat = np.full((40, 50, 3), 0.4, np.float32)
    assert np.allclose(defocus.render_defocus(flat, radius), flat, atol=1e-4)


def test_even_defocus_is_one_disk():
    """Away from depth edges the layers are a plain convolution with the disk."""
    image = np.zeros((31, 31, 3), np.float32)
    image[15, 15] = 1
    seen = defocus.render_defocus(image, np.full((31, 31), -3, np.float32))
    kernel = defocus.disk_kernel(3)
    assert np.allclose(seen[12:19, 12:19, 0], kernel, atol=1e-5)
