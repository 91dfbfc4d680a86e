"""The objective: what each loss compares, what is trusted, and which networks a loss may not teach."""

import pytest
import torch

from models.flow import NoFlow, inside_mask
from models.framework import BlurMapConfig, DeblurConfig, Framework, FrameworkConfig, ReblurConfig
from models.training import losses
from models.training.config import AlignmentConfig
from models.training.losses import LossConfig
from models.training.objective import Aligner, Objective

CONFIG = LossConfig()
DEBLUR = DeblurConfig("compact", {"width": 4, "encoder": [1], "middle": 1, "decoder": [1]})
RADIUS = FrameworkConfig(
    blur_map=BlurMapConfig(8, 1, "radius"), deblur=DEBLUR, reblur=ReblurConfig(8, 1, form="radius", max_radius=3)
)
SEEDS = FrameworkConfig((1, 2), BlurMapConfig(4, 1), DEBLUR, ReblurConfig(4, 1))


class ToTheBrighter(NoFlow):
    """Three pixels to the right towards a brighter image, to the left towards a darker one."""

    def estimate(self, first, second):
        flow = torch.zeros_like(first[:, :2])
        flow[:, 0] = 3.0 if first.mean() < second.mean() else -3.0
        return flow


@pytest.fixture(scope="module", params=[RADIUS, SEEDS], ids=["radius", "seeds"])
def made(request):
    """An objective, and a batch whose sharp images are brighter than the blurry ones."""
    torch.manual_seed(0)
    aligner = Aligner(AlignmentConfig(flow="none", mask="inside", first_mask="inside"))
    aligner.flow = ToTheBrighter()
    objective = Objective(Framework(request.param), aligner, CONFIG, "float32")
    generator = torch.Generator().manual_seed(1)
    blurry, sharp = torch.rand(2, 2, 3, 24, 32, generator=generator) * 0.4
    confidence, radius = torch.rand(2, 2, 1, 24, 32, generator=generator)
    return objective, blurry, sharp + 0.5, confidence, radius


def seen(objective, blurry, sharp, confidence):
    """The parts by their definition: map, deblurred, warped sharp image, its mask, what reblurring found."""
    framework = objective.framework
    blur_map = framework.blur_map(blurry)
    right = torch.tensor([3.0, 0.0])[None, :, None, None].expand(2, 2, 24, 32)
    warped, mask = objective.aligner.warp(sharp, right), inside_mask(right) * confidence
    return blur_map, framework.deblur(blurry, blur_map), right, warped, mask, framework.reblur(warped, blurry)


def of_blur(found, blurry, mask, blur_map):
    explained = losses.reblurred_sharp(found.image, blurry, mask, CONFIG)
    if found.confidence is None:
        return explained + losses.blur_of_seeds(blur_map, found.seeds, CONFIG)
    return explained + losses.blur_radius(blur_map, found.radius, CONFIG, mask * found.confidence)


def assert_same(found, expected):
    torch.testing.assert_close(found.parts, expected.parts)
    torch.testing.assert_close(found.total, expected.total)


@torch.no_grad()
def test_an_aligned_target_is_taken_as_it_is():
    aligner = Aligner(AlignmentConfig(flow="dis", first_mask="inside"), "aligned")
    assert aligner.name == "none"
    sharp = torch.rand(1, 3, 16, 20)
    objective = Objective(Framework(RADIUS), aligner, LossConfig(blur_from="deblurred"), "float32")
    objective.prepare("deblur")
    outcome = objective(torch.rand(1, 3, 16, 20), sharp, "deblur")
    assert outcome.warped_sharp is sharp
    assert outcome.mask.all()


def test_the_first_stage_and_the_warm_up_align_the_sharp_image(made):
    objective, blurry, sharp, confidence, _ = made
    blur_map, deblurred, right, warped, mask, found = seen(objective, blurry, sharp, confidence)
    outcome = objective(blurry, sharp, "deblur", confidence=confidence)
    blur = of_blur(found, blurry, mask, blur_map)
    assert_same(outcome.losses, losses.first_stage(deblurred, warped, CONFIG, mask) + blur)
    for name, value in {"deblurred": deblurred, "warped_sharp": warped, "mask": mask, "flow": right}.items():
        torch.testing.assert_close(getattr(outcome, name), value)
    assert_same(objective(blurry, sharp, "reblur", confidence=confidence).losses, blur)


@torch.no_grad()
def test_the_second_stage_aligns_both_ways_and_blurs_the_deblurred_image_again(made):
    objective, blurry, sharp, confidence, _ = made
    blur_map, deblurred, right, warped, mask, found = seen(objective, blurry, sharp, confidence)
    expected = losses.second_stage(
        deblurred=deblurred,
        sharp=sharp,
        warped_sharp=warped,
        warped_deblurred=objective.aligner.warp(deblurred, -right),
        mask=mask,
        sharp_mask=inside_mask(-right) * confidence,
        blurry=blurry,
        reblurred=found.again(deblurred),
        reblurred_mask=mask if found.confidence is None else mask * found.confidence,
        config=CONFIG,
    )
    outcome = objective(blurry, sharp, "joint", confidence=confidence)
    assert_same(outcome.losses, expected + of_blur(found, blurry, mask, blur_map))


@torch.no_grad()
def test_the_deblurring_network_sees_the_scaled_map_unless_that_is_a_radius(made):
    objective, blurry, sharp, _, _ = made
    blur_map = objective.framework.blur_map(blurry)
    scale = 1 if objective.predicts_radius else 0.25
    expected = objective.framework.deblur(blurry, scale * blur_map)
    torch.testing.assert_close(objective(blurry, sharp, "deblur", map_scale=0.25).deblurred, expected)


@torch.no_grad()
def test_a_true_radius_teaches_the_map_and_without_confidence_the_reblurring_too(made):
    objective, blurry, sharp, confidence, radius = made
    if not objective.predicts_radius:
        pytest.skip("seeds are no radius")
    blur_map, *_ = seen(objective, blurry, sharp, confidence)
    for trusted in (None, confidence):
        plain = objective(blurry, sharp, "deblur", confidence=trusted)
        told = objective(blurry, sharp, "deblur", blur_radius=radius, confidence=trusted)
        expected = plain.losses + losses.blur_radius(blur_map, radius, CONFIG, trusted)
        if trusted is None:
            expected += losses.found_radius(plain.reblurred.radius, radius, CONFIG)
        assert_same(told.losses, expected)


def test_what_each_loss_may_teach(made):
    objective, blurry, sharp, confidence, _ = made
    objective.prepare("joint")
    parts = objective(blurry, sharp, "joint", confidence=confidence).losses.parts
    taught = {}
    for name, loss in parts.items():
        objective.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        taught[name] = {
            part
            for part, network in objective.framework.named_children()
            if any(p.grad is not None for p in network.parameters())
        }
    prior = set() if objective.predicts_radius else {"blur_map"}
    expected = {name: {"deblur"} | prior for name in ("deblurred", "sharp", "reblurred")}
    expected |= {"reblurred_sharp": {"reblur"}, "blur_map": {"blur_map"}}
    assert taught == expected if objective.predicts_radius else taught == expected | {"seeds": {"reblur"}}
