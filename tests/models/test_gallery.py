"""The gallery: every family and direction on a page, and what it says about them."""

import re

import cv2
import numpy as np
import pytest

from models.__main__ import main
from models.reporting import gallery

pytestmark = pytest.mark.slow


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
def test_normalising_takes_the_rims_from_a_scatter(folder, family):
    lens = picture(folder, "lens")
    normalised, plain = (
        np.square(picture(folder, f"{family}-{name}") - lens).mean() for name in ("scatter-normalised", "scatter")
    )
    assert normalised < 0.6 * plain


def test_the_disk_is_nearer_to_the_lens_than_the_mirror_lens(folder):
    lens = picture(folder, "lens")
    disk, mirror = (
        np.square(picture(folder, f"{family}-scatter-normalised") - lens).mean()
        for family in ("disk_blur", "radial_blur")
    )
    assert disk < 0.8 * mirror
