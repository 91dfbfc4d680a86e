"""The mean over turned and mirrored copies of an image: geometric self-ensemble."""

import pytest
import torch

from models import __main__ as command
from models.core.positions import COPIES, POSITIONS, check_copies
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig
from models.inference.tiling import TiledFramework


@pytest.fixture
def image():
    return torch.rand(3, 48, 80, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def framework():
    torch.manual_seed(0)
    config = FrameworkConfig(
        blur_map=BlurMapConfig(width=4, blocks=0, form="radius"),
        deblur=DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 0, "decoder": [1]}, restrained=True),
        reblur=None,
    )
    made = Framework(config).eval()
    with torch.no_grad():
        made.deblur.last.weight.normal_(std=0.05)
    return made


@pytest.mark.parametrize("height", [24, 40])
def test_positions_are_all_that_an_image_has_and_each_is_turned_back(height):
    image = torch.rand(3, height, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(POSITIONS[0].turned(image), image)
    seen = [position.turned(image) for position in POSITIONS]
    for index, (position, one) in enumerate(zip(POSITIONS, seen, strict=True)):
        assert torch.equal(position.turned_back(one), image)
        assert not any(one.shape == other.shape and torch.equal(one, other) for other in seen[:index])
    assert len(POSITIONS) == max(COPIES) == 8
    assert torch.equal(seen[1], image.flip(-1))


def turned_alike(image, expected):
    """Both in each position."""
    return [(position.turned(image), position.turned(expected)) for position in POSITIONS]


def test_deblurring_and_the_radius_do_not_depend_on_how_the_camera_was_held(framework, image):
    alone, together = TiledFramework(framework, halvings=0), TiledFramework(framework, halvings=0, copies=8)
    for task in ("deblur", "map_radius"):
        expected = getattr(together, task)(image)
        assert not torch.allclose(getattr(alone, task)(image.flip(-1)), getattr(alone, task)(image).flip(-1), atol=1e-3)
        for one, other in turned_alike(image, expected):
            torch.testing.assert_close(getattr(together, task)(one), other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("copies", COPIES)
def test_copies_give_the_mean_of_what_each_gives(framework, image, copies):
    alone = TiledFramework(framework, halvings=0)
    each = [position.turned_back(alone.deblur(position.turned(image))) for position in POSITIONS[:copies]]
    together = TiledFramework(framework, halvings=0, copies=copies).deblur(image)
    torch.testing.assert_close(together, torch.stack(each).mean(0))


def test_other_numbers_of_copies_are_refused(framework, capsys):
    with pytest.raises(ValueError, match=r"copies must be one of 1, 2, 4, 8, got 3"):
        TiledFramework(framework, copies=3)
    with pytest.raises(ValueError, match="copies must be one of 1, 2, 4, 8, got True"):
        check_copies(True)
    with pytest.raises(SystemExit):
        command.main(["deblur", "x.png", "--out", "y", "--copies", "3"])
    assert "--copies: invalid choice: 3 (choose from 1, 2, 4, 8)" in capsys.readouterr().err.replace("'", "")
