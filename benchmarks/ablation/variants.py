"""The variants of one training that are compared, and the scales."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from models.synthesis.settings import Settings

# What the sharp picture of a pair is before training. "truth": aligned, which is the upper bound; "sharp": as it was
# taken; "dis", "reblur": warped by that flow; "true flow": warped by the true one.
Target = Literal["truth", "sharp", "dis", "reblur", "true flow"]


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        target: what the deblurred picture is compared with.
        trusted: whether places count by the confidence of the alignment; else all alike.
        against: the variant that it is compared with in the table; None: the blurry pictures.
        overrides: of the base recipe, section.key to value.
    """

    name: str
    description: str
    target: Target
    against: str | None
    trusted: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _loss(light: str) -> dict[str, Any]:
    """Reblurring as a loss, over the second half of the training."""
    reblur = {"form": "radius", "max_radius": 7, "width": 16, "blocks": 2, "light": light}
    return {"framework.reblur": reblur, "schedule.boundary": 0.5}


_PRIOR: dict[str, Any] = {
    "framework.blur_map": {"form": "radius", "width": 32, "blocks": 3},
    "framework.deblur.prior": True,
}
_PUBLISHED: dict[str, Any] = {
    "framework.blur_map": {"width": 32, "blocks": 2},
    "framework.deblur.prior": True,
    "framework.reblur": {"width": 32, "blocks": 2, "light": "srgb"},
    "alignment": {"flow": "dis", "first_mask": "none", "mask": "calibration", "interpolation": "bilinear"},
    "losses": {"seeds": 0.0, "compare": "signed", "detach_seeds": False, "blur_from": "deblurred", "clipped": 1.0},
    "schedule.boundary": 0.5,
}
# In the order of the table.
VARIANTS = (
    Variant("aligned", "aligned pairs: the upper bound", "truth", None),
    Variant("misaligned", "misaligned pairs, compared as they are", "sharp", "aligned"),
    Variant("flow", "warped by DIS", "dis", "misaligned"),
    Variant("true flow", "warped by the true flow, where it is visible", "true flow", "flow", True),
    Variant("reblurring", "aligned by reblurring", "reblur", "flow"),
    Variant("flow, trusted", "warped by DIS, places weighted by the error after reblurring", "dis", "flow", True),
    Variant("reblurring, trusted", "aligned by reblurring, places weighted so", "reblur", "flow", True),
    Variant(
        "loss in light", "+ reblurring as a loss, in light", "reblur", "reblurring, trusted", True, _loss("linear")
    ),
    Variant("loss in sRGB", "+ reblurring as a loss, in sRGB", "reblur", "reblurring, trusted", True, _loss("srgb")),
    Variant("prior", "+ the radius map, which learns what was found", "reblur", "reblurring, trusted", True, _PRIOR),
    Variant("published", "the published method: flow, mask, kernels and losses", "sharp", "flow", False, _PUBLISHED),
)


@dataclass(frozen=True)
class Scale:
    """The scale of a study: how much is trained, and on what.

    Attributes:
        recipe: the training that variants change.
        overrides: of it, `section.key=value`.
        seeds: runs of each variant, of the seeds 0, 1, …
        parallaxes: largest displacements between layers of a scene, pixels; 0: smooth pairs, moved by 4.
        pairs: how these are made; its `misalignment` plays no part.
        test_pairs: how many of the test pairs are scored, spread over them; 0: all.
    """

    recipe: str
    overrides: tuple[str, ...]
    seeds: int
    parallaxes: tuple[float, ...]
    pairs: Settings
    test_pairs: int


TINY = Scale(
    recipe="demo",
    overrides=(
        "data={batch: 4, crop: 96, held_out: 0.01, workers: 0}",  # nothing is chosen by validating
        "framework={blur_map: null, reblur: null, deblur: {prior: false}}",
        "start={framework: null}",
        "schedule={steps: 600, boundary: 0.5, joint_lr: 1.0}",
        "output={metrics: 50, validation: 0, checkpoints: 0, keep: 1, pictures: 0}",
    ),
    seeds=2,
    parallaxes=(4.0, 12.0),
    pairs=Settings(
        patch=128,
        patches=14,
        scenes=True,
        scale=(1.0, 0.6),
        test=("astronaut", "coffee"),
        test_patch=160,
        test_patches=12,
    ),
    test_pairs=24,
)
FULL = Scale(
    recipe="reblur",
    overrides=(
        "framework={blur_map: null, reblur: null, deblur: {network: compact, prior: false}}",
        "data={held_out: 0.01, batch: 16, crop: 128, workers: 2}",
        "schedule={steps: 3000, boundary: 0.5, warmup: 0.02}",
        "optimizer.lr=1e-3",
        "output={metrics: 100, validation: 0, checkpoints: 1000, keep: 1, pictures: 0}",
    ),
    seeds=3,
    parallaxes=(0.0, 4.0, 12.0, 24.0),
    pairs=Settings(patch=192, scenes=True),
    test_pairs=200,
)
