"""The losses against their formulas."""

import math

import pytest
import torch

from models.training.losses import (
    PUBLISHED_LOSSES,
    LossConfig,
    blur_map_ramp,
    blur_of_seeds,
    blur_radius,
    brightness_loss,
    charbonnier,
    first_stage,
    found_radius,
    negative_psnr,
    reblurred_sharp,
    second_stage,
    unclipped,
    warm_up,
)


def pictures(count, channels=3):
    return torch.randn(count, 2, channels, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_charbonnier():
    a, b = pictures(2)
    assert charbonnier(a, b) == pytest.approx(((a - b) ** 2 + 1e-6).sqrt().mean().item())
    assert charbonnier(a, a) == pytest.approx(1e-3)
    assert charbonnier(a, b, eps=0.5) == pytest.approx(((a - b) ** 2 + 0.25).sqrt().mean().item())
    with pytest.raises(ValueError, match="same shape"):
        charbonnier(a, b[:1])


def test_charbonnier_with_a_mask():
    a, b = (picture.requires_grad_() for picture in pictures(2))
    mask = torch.zeros(2, 1, 5, 7)
    mask[:, :, 2:, 1:] = 1
    loss = charbonnier(a, b, mask=mask)
    kept = ((a - b)[:, :, 2:, 1:] ** 2 + 1e-6).sqrt().sum()
    assert loss.item() == pytest.approx((kept.item() + 1e-3 * (a.numel() - 2 * 3 * 3 * 6)) / a.numel())
    loss.backward()
    assert (a.grad[:, :, :2] == 0).all()
    assert (a.grad[:, :, 2:, 1:] != 0).all()
    assert torch.equal(a.grad, -b.grad)
    # At 0 too the gradient is a number.
    a.grad = None
    charbonnier(a, a.detach(), mask=mask).backward()
    assert (a.grad == 0).all()


def stage(**changes):
    names = ("deblurred", "sharp", "warped_sharp", "warped_deblurred", "reblurred", "blurry")
    tensors = dict(zip(names, pictures(len(names)), strict=True))
    tensors["blurry"] = 0.9 * tensors["blurry"].sigmoid()  # nothing is clipped
    tensors.update(zip(("blur_map", "seeds"), pictures(2, channels=35), strict=True))
    generator = torch.Generator().manual_seed(3)
    for name in ("mask", "sharp_mask"):
        tensors[name] = torch.randint(0, 2, (2, 1, 5, 7), generator=generator).double()
    return {**tensors, **changes}


def test_decibels_of_each_image_count_alike():
    a, b = pictures(2)
    errors = (a - b).square().mean((1, 2, 3)).tolist()
    assert negative_psnr(a, b).item() == pytest.approx(sum(10 * math.log10(e + 1e-6) for e in errors) / len(errors))
    assert negative_psnr(a, a, eps=0.01).item() == pytest.approx(-40)
    # Halving the error of one image gains as much as halving that of another, a hundred times worse.
    shifts = torch.tensor([0.1, 1.0], dtype=a.dtype).reshape(2, 1, 1, 1)
    for half in ([0.5, 1.0], [1.0, 0.5]):
        less = shifts * torch.tensor(half, dtype=a.dtype).reshape(2, 1, 1, 1)
        gained = negative_psnr(a, a + shifts, eps=0) - negative_psnr(a, a + less, eps=0)
        assert gained.item() == pytest.approx(10 * math.log10(4) / 2)
    mask = stage()["mask"]
    assert negative_psnr(a, b, mask=mask) == negative_psnr(a * mask, b * mask)
    with pytest.raises(ValueError, match="a and b must have the same shape"):
        negative_psnr(a, b[:1])
    config = LossConfig(deblurred="psnr", eps=0.01)
    assert first_stage(a, b, config).total == negative_psnr(a, b, 0.01)
    with pytest.raises(ValueError, match="deblurred must be one of 'charbonnier', 'psnr', got 'l1'"):
        LossConfig(deblurred="l1")


def test_the_first_stage():
    deblurred, sharp = pictures(2)
    losses = first_stage(deblurred, sharp)
    assert losses.total == losses.parts["deblurred"] == charbonnier(deblurred, sharp)
    mask = stage()["mask"]
    assert first_stage(deblurred, sharp, mask=mask).total == charbonnier(deblurred, sharp, mask=mask)


def test_without_reblurring_or_masks_the_rest_is_as_it_was():
    t = stage()
    whole = second_stage(**t).parts
    without_map = second_stage(**stage(blur_map=None)).parts
    assert without_map == {name: whole[name] for name in ("deblurred", "sharp", "reblurred", "seeds")}
    losses = second_stage(**stage(blur_map=None, reblurred=None, seeds=None, mask=None, sharp_mask=None))
    assert losses.parts == {
        "deblurred": charbonnier(t["deblurred"], t["warped_sharp"]),
        "sharp": charbonnier(t["sharp"], t["warped_deblurred"]),
    }
    assert losses.total == sum(losses.parts.values())


def test_the_warm_up_is_what_the_second_stage_asks_of_the_reblurring():
    t = {name: tensor for name, tensor in stage().items() if name in ("reblurred", "blurry", "blur_map", "seeds")}
    whole = second_stage(**stage()).parts
    assert warm_up(**t).parts == {name: whole[name] for name in ("reblurred", "blur_map", "seeds")}
    assert warm_up(**{**t, "blur_map": None}).parts == {name: whole[name] for name in ("reblurred", "seeds")}


def test_the_blur_found_from_the_sharp_image():
    t = stage()
    whole = second_stage(**t).parts
    losses = reblurred_sharp(t["reblurred"], t["blurry"], t["mask"]) + blur_of_seeds(t["blur_map"], t["seeds"])
    assert losses.parts == {
        "reblurred_sharp": 0.5 * charbonnier(t["reblurred"], t["blurry"], mask=t["mask"]),
        **{name: whole[name] for name in ("blur_map", "seeds")},
    }
    assert losses.parts["seeds"] == 1e-3 * t["seeds"].square().mean()
    assert reblurred_sharp(t["reblurred"], t["blurry"]).parts == {"reblurred_sharp": whole["reblurred"]}
    assert blur_of_seeds(None, t["seeds"], LossConfig(seeds=0.0)).total == 0
    both = first_stage(t["deblurred"], t["sharp"]) + losses
    assert list(both.parts) == ["deblurred", "reblurred_sharp", "blur_map", "seeds"]
    assert both.total == sum(both.parts.values())


@pytest.mark.parametrize("name", ["eps", "reblurring", "blur_map", "seeds", "brightness"])
def test_impossible_weights_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be a number of at least 0, got -1"):
        LossConfig(**{name: -1.0})


@pytest.mark.parametrize("config", [None, PUBLISHED_LOSSES, LossConfig(eps=0.1, reblurring=2.0, blur_map=0.25)])
def test_the_second_stage(config):
    t = stage()
    losses = second_stage(**t, config=config)
    options = config or LossConfig()

    def loss(a, b):
        return ((a - b) ** 2 + options.eps**2).sqrt().mean()

    signed = options.compare == "signed"
    expected = {
        "deblurred": loss(t["mask"] * t["deblurred"], t["mask"] * t["warped_sharp"]),
        "sharp": loss(t["sharp_mask"] * t["sharp"], t["sharp_mask"] * t["warped_deblurred"]),
        "reblurred": options.reblurring * loss(t["reblurred"], t["blurry"]),
        "blur_map": options.blur_map
        * (loss(t["blur_map"], t["seeds"]) if signed else loss(t["blur_map"].abs(), t["seeds"].abs())),
    }
    if options.seeds:
        expected["seeds"] = options.seeds * (t["seeds"] ** 2).mean()
    assert {name: part.item() for name, part in losses.parts.items()} == pytest.approx(
        {name: part.item() for name, part in expected.items()}
    )
    assert losses.total.item() == pytest.approx(sum(expected.values()).item())


def test_the_sign_of_the_seeds_is_not_compared_but_as_published():
    blur_map, _ = pictures(2, channels=35)
    opposite = stage(blur_map=blur_map, seeds=-blur_map)
    assert second_stage(**opposite).parts["blur_map"] == pytest.approx(0.5e-3)
    assert second_stage(**opposite, config=PUBLISHED_LOSSES).parts["blur_map"] > 0.1
    with pytest.raises(ValueError, match="compare must be one of"):
        LossConfig(compare="both")
    with pytest.raises(ValueError, match="blur_from must be one of 'sharp', 'deblurred', got 'blurry'"):
        LossConfig(blur_from="blurry")


def test_the_seeds_are_no_target_that_moves_but_as_published():
    for config, moves in ((None, False), (PUBLISHED_LOSSES, True)):
        t = stage()
        for name in ("seeds", "blur_map"):
            t[name].requires_grad_()
        second_stage(**t, config=config).parts["blur_map"].backward()
        assert t["blur_map"].grad.abs().max() > 0
        assert (t["seeds"].grad is not None) == moves


def test_clipped_highlights_are_left_out_of_the_reblurring():
    t = stage()
    t["blurry"][0, 1, 2, 3] = 1.0
    for losses in (reblurred_sharp(t["reblurred"], t["blurry"]), second_stage(**t)):
        moved = t["reblurred"].clone().requires_grad_()
        (reblurred_sharp(moved, t["blurry"]).total).backward()
        assert (moved.grad[0, :, 2, 3] == 0).all()
        assert (moved.grad != 0).sum() == moved.numel() - 3
        assert losses.total.isfinite()
    assert unclipped(t["blurry"], PUBLISHED_LOSSES) is None
    with pytest.raises(ValueError, match="clipped must be above 0 and at most 1, got 0"):
        LossConfig(clipped=0.0)


def test_where_the_blur_is_not_known_the_deblurred_image_is_free():
    t = stage()
    t["reblurred"].requires_grad_()
    second_stage(**t, reblurred_mask=t["mask"]).parts["reblurred"].backward()
    assert torch.equal(t["reblurred"].grad != 0, (t["mask"] != 0).expand(-1, 3, -1, -1))


def test_brightness_is_that_of_squares():
    image = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    textured = image + 0.1 * (-1.0) ** torch.arange(24)
    assert brightness_loss(textured, image) == pytest.approx(0)
    assert brightness_loss(image + 0.02, image) == pytest.approx(0.02)
    parts = first_stage(image + 0.02, image, LossConfig(brightness=0.5)).parts
    assert parts["brightness"] == pytest.approx(0.01)


def test_the_radius_of_a_map():
    radius = torch.tensor([0.0, 1.0, 3.5]).reshape(1, 1, 1, 3)
    certain = torch.cat([(radius + 0.5).log(), torch.full_like(radius, -2)], dim=1)
    config = LossConfig(blur_map=1.0)
    assert blur_radius(certain, radius, config).total == pytest.approx(-2)
    off = certain + torch.tensor([0.3, 0.0]).reshape(1, 2, 1, 1)
    assert blur_radius(off, radius, config).total == pytest.approx(-2 + 0.3 * 2.718281828**2, rel=1e-5)
    # The spread that explains an error best is the error.
    spread = torch.tensor([0.3]).log().item()
    best = torch.cat([off[:, :1], torch.full_like(radius, spread)], dim=1)
    assert blur_radius(best, radius, config).total < blur_radius(best + 0.1 * (best == spread), radius, config).total
    confidence = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
    wrong = torch.cat([certain[:, :1] + torch.tensor([0.0, 2.0, 2.0]), certain[:, 1:]], dim=1)
    assert blur_radius(wrong, radius, config, confidence).total == pytest.approx(-2)


def test_the_radius_found_is_compared_with_the_truth():
    radius = torch.tensor([0.5, 3.5]).reshape(1, 1, 1, 2)
    assert found_radius(radius, radius, LossConfig()).total == 0
    expected = 0.5 * (torch.tensor([2.0, 1.25]).log().mean() + 0.5 * 1.0)
    assert found_radius(radius + 1, radius, LossConfig()).total == pytest.approx(expected.item())


def test_the_ramp():
    assert blur_map_ramp(0) == pytest.approx(0.001 + 0.999 / 15)
    assert blur_map_ramp(14) == blur_map_ramp(100) == pytest.approx(1)
    assert blur_map_ramp(1, epochs=4) == pytest.approx(0.001 + 0.999 / 2)
