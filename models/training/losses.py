"""The losses of the two stages of training (arXiv 2409.17792, and its published implementation)."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.blur_radius import encode_radius, radius_likelihood


@dataclass(frozen=True)
class LossConfig:
    """The options of the losses; `PUBLISHED_LOSSES` repeats the published implementation."""

    # How the deblurred image is compared with the sharp one: "charbonnier", as published, pixel by pixel, or "psnr", by
    # the decibels of each image, so that a picture with little blur counts as much as one with strong blur.
    deblurred: str = "charbonnier"
    eps: float = 1e-3  # error below which less is gained by lowering it, in the unit of the images
    reblurring: float = 0.5  # weight of the reblurred image
    blur_map: float = 0.5  # weight of the blur map
    # Pixels of the blurry image that are brighter than this are left out of the reblurring: they may be clipped, and
    # then no blur explains them. Published: 1, so none is left out.
    clipped: float = 0.98
    # Weight of the mean square of the seeds. Seeds are logits that nothing else bounds: they drift, and the blur map
    # follows. Seeds of 0 give disks, as a lens does. Published: 0.
    seeds: float = 1e-3
    # Weight of the means of the deblurred image over 8 × 8 pixels. Blur keeps them, and so must deblurring.
    # Published: 0.
    brightness: float = 0.0
    # The values of map and seeds that are compared: "magnitude", as -2 and 2 are the same blur, or "signed", as
    # published.
    compare: str = "magnitude"
    # Whether the seeds are a fixed target. Published: they are not, so the gradient also draws them towards the map,
    # away from the blur that they should find.
    detach_seeds: bool = True
    # The image that the reblurring network compares with the blurry one to find the blur. "deblurred", as published, in
    # the joint stage: the deblurred image is not sharp yet, so the blur is underestimated, and zero where deblurring
    # did nothing. "sharp": the warped sharp image shows the blur of the lens from the first step on, and the deblurred
    # image, blurred by it, must resemble the blurry one.
    blur_from: str = "sharp"

    def __post_init__(self) -> None:
        for name in ("eps", "reblurring", "blur_map", "seeds", "brightness"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {getattr(self, name)}")
        if not 0 < self.clipped <= 1:
            raise ValueError(f"clipped must be above 0 and at most 1, got {self.clipped}")
        for name, choices in (
            ("deblurred", ("charbonnier", "psnr")),
            ("compare", ("magnitude", "signed")),
            ("blur_from", ("sharp", "deblurred")),
        ):
            if (choice := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {choice!r}")


PUBLISHED_LOSSES = LossConfig(seeds=0.0, compare="signed", detach_seeds=False, blur_from="deblurred", clipped=1.0)


@dataclass(frozen=True)
class Losses:
    """A loss and what it is made of."""

    total: Tensor  # scalar
    parts: dict[str, Tensor] = field(default_factory=dict)  # scalars as they count in the total, which is their sum

    @classmethod
    def of(cls, parts: dict[str, Tensor]) -> "Losses":
        """Their sum; without any, 0."""
        values = list(parts.values())
        return cls(torch.stack(values).sum() if values else torch.zeros(()), parts)

    def __add__(self, other: "Losses") -> "Losses":
        both = {name: value + self.parts.get(name, 0) for name, value in other.parts.items()}
        return Losses.of({**self.parts, **both})


def charbonnier(a: Tensor, b: Tensor, eps: float = 1e-3, mask: Tensor | None = None) -> Tensor:
    """The mean of √((a - b)² + eps²): the absolute difference, smooth at 0.

    With a mask, both images are multiplied by it first, as published: a pixel masked out counts eps and has gradient 0,
    and the mean is over all pixels, so that the loss weighs less where less is trusted.

    Args:
        a, b: of one shape.
        eps: where the quadratic part ends, in the unit of the images.
        mask: what (N, 1, H, W) broadcasts to their shape; 0 … 1.

    Returns:
        A scalar, at least eps.

    Raises:
        ValueError: shapes that differ: broadcasting them is hardly ever meant.
    """
    return torch.sqrt(_masked_difference(a, b, mask).square() + eps**2).mean()


def negative_psnr(a: Tensor, b: Tensor, eps: float = 1e-3, mask: Tensor | None = None) -> Tensor:
    """The mean over images of 10·log₁₀(mean square of a - b + eps²), dB: the loss of NAFNet (Chen et al., ECCV 2022).

    Halving the error of an image counts the same, however large it is. A mean of errors is that of the worst images.

    Args:
        a, b: of one shape, (N, …).
        eps: an image whose error is smaller counts little, in the unit of the images.
        mask: what (N, 1, H, W) broadcasts to their shape, multiplied with both; 0 … 1.

    Returns:
        A scalar, at least 20·log₁₀(eps).

    Raises:
        ValueError: shapes that differ.
    """
    return 10 * torch.log10(_masked_difference(a, b, mask).square().flatten(1).mean(1) + eps**2).mean()


def _masked_difference(a: Tensor, b: Tensor, mask: Tensor | None) -> Tensor:
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return a - b if mask is None else a * mask - b * mask


def _distance(deblurred: Tensor, sharp: Tensor, config: LossConfig, mask: Tensor | None) -> Tensor:
    """What `LossConfig.deblurred` names."""
    measure = negative_psnr if config.deblurred == "psnr" else charbonnier
    return measure(deblurred, sharp, config.eps, mask)


def first_stage(
    deblurred: Tensor, warped_sharp: Tensor, config: LossConfig | None = None, mask: Tensor | None = None
) -> Losses:
    """The loss of the first epochs: deblur towards the sharp image, aligned.

    Args:
        deblurred: (N, 3, H, W), from the blurry image, the map scaled by `blur_map_ramp`.
        warped_sharp: (N, 3, H, W), the sharp image warped to the blurry one.
        mask: (N, 1, H, W), where that can be trusted; everywhere if None, as published.

    Returns:
        Losses with the part "deblurred", and "brightness" where it counts.
    """
    config = config or LossConfig()
    parts = {"deblurred": _distance(deblurred, warped_sharp, config, mask)}
    if config.brightness:
        parts["brightness"] = config.brightness * brightness_loss(deblurred, warped_sharp, mask)
    return _losses(**parts)


def brightness_loss(deblurred: Tensor, sharp: Tensor, mask: Tensor | None = None, side: int = 8) -> Tensor:
    """Mean absolute difference of means over squares, of (N, 3, H, W) images times a mask (N, 1, H, W): a scalar."""
    difference = deblurred - sharp if mask is None else (deblurred - sharp) * mask
    return F.avg_pool2d(difference, side, ceil_mode=True).abs().mean()


def blur_radius(blur_map: Tensor, radius: Tensor, config: LossConfig, confidence: Tensor | None = None) -> Losses:
    """The loss of the map of a `BlurRadiusNet` against a radius, as part "blur_map": the radius's unlikeliness.

    Args:
        blur_map: (N, 2, H, W).
        radius: (N, 1, H, W), RMS pixels: true, or found between the two images.
        confidence: (N, 1, H, W), 0 … 1: how much each pixel counts; alike if None.
    """
    return _losses(blur_map=config.blur_map * radius_likelihood(blur_map, radius, confidence))


def found_radius(found: Tensor, radius: Tensor, config: LossConfig) -> Losses:
    """The loss of the radius that reblurring found against the truth, (N, 1, H, W) RMS pixels each: part "radius".

    The mean of half the absolute difference and of that of the logarithms, log(radius + 0.5): a pixel counts more where
    there is little blur.
    """
    relative = (encode_radius(found) - encode_radius(radius)).abs().mean()
    return _losses(radius=config.reblurring * (relative + 0.5 * (found - radius).abs().mean()))


def unclipped(blurry: Tensor, config: LossConfig, mask: Tensor | None = None) -> Tensor | None:
    """The mask (N, 1, H, W) of what reblurring has to explain: where the blurry image is not clipped, times a mask."""
    if config.clipped >= 1:
        return mask
    open_highlights = (blurry.amax(1, keepdim=True) < config.clipped).to(blurry.dtype)
    return open_highlights if mask is None else open_highlights * mask


def reblurred_sharp(
    reblurred: Tensor, blurry: Tensor, mask: Tensor | None = None, config: LossConfig | None = None
) -> Losses:
    """The loss of the sharp image, warped to the blurry one and reblurred, against it: part "reblurred_sharp".

    Args:
        reblurred, blurry: (N, 3, H, W).
        mask: (N, 1, H, W), where the warp can be trusted; everywhere if None.
    """
    config = config or LossConfig()
    loss = charbonnier(reblurred, blurry, config.eps, unclipped(blurry, config, mask))
    return _losses(reblurred_sharp=config.reblurring * loss)


def blur_of_seeds(blur_map: Tensor | None, seeds: Tensor, config: LossConfig | None = None) -> Losses:
    """The loss of the map against the seeds found, and of the seeds' size: parts "blur_map" and "seeds".

    Args:
        blur_map, seeds: as for `second_stage`.
    """
    return Losses.of(_blur_parts(blur_map, seeds, config or LossConfig()))


def warm_up(
    *,
    reblurred: Tensor,
    blurry: Tensor,
    blur_map: Tensor | None,
    seeds: Tensor | None,
    config: LossConfig | None = None,
) -> Losses:
    """The loss while the deblurring network, trained before, is frozen: reblurring, and the blur map.

    Args: as for `second_stage`.

    Returns:
        Losses with the part "reblurred", and of "blur_map" and "seeds" what there is.
    """
    return _losses(**_reblurring_parts(reblurred, blurry, blur_map, seeds, config or LossConfig()))


def second_stage(
    *,
    deblurred: Tensor,
    sharp: Tensor,
    warped_sharp: Tensor,
    warped_deblurred: Tensor,
    mask: Tensor | None,
    sharp_mask: Tensor | None,
    blurry: Tensor,
    reblurred: Tensor | None = None,
    reblurred_mask: Tensor | None = None,
    blur_map: Tensor | None = None,
    seeds: Tensor | None = None,
    config: LossConfig | None = None,
) -> Losses:
    """The loss of the other epochs: alignment both ways, reblurring, and the blur map.

        L(m·deblurred, m·warped_sharp) + L(m'·sharp, m'·warped_deblurred)
            + 0.5·L(reblurred, blurry) + 0.5·L(|blur_map|, |seeds|) + 0.001·mean(seeds²)      L: Charbonnier

    Args:
        deblurred, sharp: (N, 3, H, W).
        warped_sharp: the sharp image warped to the deblurred one, mask m: (N, 1, H, W), where that can be trusted;
            everywhere if None.
        warped_deblurred: the deblurred image warped to the sharp one, sharp_mask m': where that can be.
        blurry, reblurred: (N, 3, H, W); without a reblurring network None.
        reblurred_mask: (N, 1, H, W), where the blur that it was reblurred by can be trusted; everywhere if None.
        blur_map, seeds: (N, Σ(r+1), H, W), from the blur map network and the reblurring network; without these, or
            where `blur_of_seeds` judges them, None.
        config: the weights, and what of maps and seeds is compared.

    Returns:
        Losses with the parts "deblurred" and "sharp", and, of what there is, "reblurred", "blur_map" and "seeds".
    """
    config = config or LossConfig()
    parts = {
        "deblurred": _distance(deblurred, warped_sharp, config, mask),
        "sharp": _distance(sharp, warped_deblurred, config, sharp_mask),
    }
    if reblurred is not None:
        parts |= _reblurring_parts(reblurred, blurry, blur_map, seeds, config, reblurred_mask)
    return _losses(**parts)


def _reblurring_parts(
    reblurred: Tensor,
    blurry: Tensor,
    blur_map: Tensor | None,
    seeds: Tensor | None,
    config: LossConfig,
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    loss = charbonnier(reblurred, blurry, config.eps, unclipped(blurry, config, mask))
    parts = {"reblurred": config.reblurring * loss}
    return parts if seeds is None else parts | _blur_parts(blur_map, seeds, config)


def _blur_parts(blur_map: Tensor | None, seeds: Tensor, config: LossConfig) -> dict[str, Tensor]:
    parts = {}
    if blur_map is not None:
        parts["blur_map"] = config.blur_map * blur_map_loss(blur_map, seeds, config)
    if config.seeds:
        parts["seeds"] = config.seeds * seeds.square().mean()
    return parts


def blur_map_loss(blur_map: Tensor, seeds: Tensor, config: LossConfig | None = None) -> Tensor:
    """The loss of the predicted map against the seeds that reblurring found, (N, Σ(r+1), H, W) each: a scalar."""
    config = config or LossConfig()
    target = seeds.detach() if config.detach_seeds else seeds
    if config.compare == "magnitude":
        blur_map, target = blur_map.abs(), target.abs()
    return charbonnier(blur_map, target, config.eps)


def blur_map_ramp(epoch: int, epochs: int = 15) -> float:
    """The factor on the map at an epoch, counted from 0: from near 0 to 1 at the end of the first stage.

    0.001 + 0.999·(epoch + 1)/epochs, at most 1: at first the map is noise, and the deblurring network should not learn
    to do without it once it is none.
    """
    return 0.001 + 0.999 * min(1.0, (epoch + 1) / epochs)


def _losses(**parts: Tensor) -> Losses:
    return Losses.of(parts)
