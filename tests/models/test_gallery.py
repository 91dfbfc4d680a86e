"""The gallery: every family and direction on a page, and what it says about them."""

import re

import cv2
import numpy as np
import pytest

from models import gallery
from models.__main__ import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("gallery")
    assert main(["gallery", "--out", str(out), "--scale", "0.2", "--device", "cpu"]) == 0
    return out


def picture(folder, name):
    return cv2.imread(str(folder / f"{name}.png")).astype(np.float64)


def test_page_shows_every_family_and_direction(folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "$" not in page
    for family in gallery.FAMILIES:
        assert f"<h2>{family.name}</h2>" in page
    figures = 3 + len(gallery.FAMILIES) * len(gallery.VARIANTS)
    assert len(re.findall(r"data:image/jpeg;base64,", page)) == figures * (1 + len(gallery.DETAILS))
    assert len(list(folder.glob("*.png"))) == figures
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("family", [family.name for family in gallery.FAMILIES])
def test_a_normalised_scatter_is_nearest_to_the_rendered_lens(folder, family):
    """It has neither the halo of the gather nor the rims of the plain scatter."""
    lens = picture(folder, "lens")
    errors = {
        variant.name: np.square(picture(folder, f"{family}-{variant.name.replace(', ', '-')}") - lens).mean()
        for variant in gallery.VARIANTS
    }
    assert errors["scatter, normalised"] < min(errors["gather"], errors["scatter"])


def test_the_disk_is_nearest_of_all(folder):
    lens = picture(folder, "lens")
    errors = {
        family.name: np.square(picture(folder, f"{family.name}-scatter-normalised") - lens).mean()
        for family in gallery.FAMILIES
    }
    assert min(errors, key=errors.__getitem__) in ("disk_blur", "reblur")
