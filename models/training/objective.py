"""The objective of training: from a batch to a loss, in each stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..flow import Flow, NoFlow, calibration_mask, consistency_mask, inside_mask, load_flow, warp
from ..framework import Framework
from ..networks import BlurRadiusNet, Reblurred, ReblurredByDisks
from . import losses
from .config import PRECISIONS, AlignmentConfig
from .losses import LossConfig, Losses


@dataclass(frozen=True)
class Outcome:
    """A loss, and the pictures it comes from: detached, (N, C, H, W) float32, None where a stage has none."""

    losses: Losses
    deblurred: Tensor
    warped_sharp: Tensor | None = None
    mask: Tensor | None = None  # None: everywhere
    flow: Tensor | None = None
    reblurred: Reblurred | ReblurredByDisks | None = None


class Aligner:
    """Flow, warping and masks as configured.

    Attributes:
        name: of the flow in use, for people.

    Raises:
        ValueError: an unknown flow or option, by name, or weights that cannot be read.
        ModuleNotFoundError: the flow needs a package that is not installed.
    """

    def __init__(self, config: AlignmentConfig, target: str = "sharp", device: torch.device | None = None) -> None:
        self.config = config
        self.name = self._wanted = config.flow
        options = config.options
        if config.flow == "auto":
            self.name = self._wanted = "variational" if device is not None and device.type == "cuda" else "dis"
        if target == "aligned":
            self.name, options = "none", {}
        elif config.flow == "pwc" and config.fallback and not options.get("weights"):
            self.name, options = config.fallback, {}
        try:
            self.flow: Flow = load_flow(self.name, **options)
        except (ValueError, OSError) as error:
            raise ValueError(f"alignment: {error}") from error
        self.flow.to(device or "cpu")

    @property
    def notice(self) -> str | None:
        """A notice where the flow differs from the one that was asked for."""
        if self.name == self._wanted:
            return None
        if self.config.flow == "pwc" and self.name == self.config.fallback:
            return (
                f'alignment: PWC-Net has no weights here, so the flow is "{self.name}" and results will differ; '
                "alignment.options.weights=FILE gives it some"
            )
        return 'alignment: the target is aligned, so the flow is "none"'

    def warp(self, image: Tensor, flow: Tensor) -> Tensor:
        """The image warped by a flow of this aligner."""
        if type(self.flow) is NoFlow:  # by nothing
            return image
        options = self.config
        return warp(image, flow, padding=options.padding, grid=options.grid, interpolation=options.interpolation)

    def mask(self, kind: str, forward: Tensor, backward: Tensor | None) -> Tensor | None:
        """The mask of trust in `forward`, (N, 1, H, W), or None for everywhere; only "consistency" needs `backward`."""
        if kind == "none":
            return None
        if kind == "inside":
            return inside_mask(forward)
        if kind == "calibration":
            return calibration_mask(forward)
        assert backward is not None
        return consistency_mask(forward, backward)


class Objective(nn.Module):
    """(blurry, sharp) -> `Outcome`: the framework and the loss of a stage. Its forward is what DDP has to see.

    Args:
        framework: trained in place.
        aligner: frozen.
        loss_config: of the losses.
        precision: of the networks, a key of PRECISIONS.
        frozen: names of parts of the framework that no stage trains.
    """

    def __init__(
        self,
        framework: Framework,
        aligner: Aligner,
        loss_config: LossConfig,
        precision: str,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.framework = framework
        self.aligner = aligner
        self.loss_config = loss_config
        self.dtype = PRECISIONS[precision]
        self.frozen = tuple(frozen)

    @property
    def finds_blur_from_sharp(self) -> bool:
        """Whether the reblurring network compares the sharp picture with the blurry one: `LossConfig.blur_from`."""
        return self.framework.reblur is not None and self.loss_config.blur_from == "sharp"

    def prepare(self, stage: str) -> None:
        """Train what the stage trains, and freeze the rest."""
        framework = self.framework
        deblurring_networks = [framework.deblur, framework.blur_map if framework.deblur.map_channels else None]
        reblurring_networks = [framework.reblur, framework.blur_map]
        trained: dict[str, list[Any]] = {
            "deblur": [*deblurring_networks, *(reblurring_networks if self.finds_blur_from_sharp else [])],
            "reblur": reblurring_networks,
            "joint": [*deblurring_networks, *reblurring_networks],
        }
        framework.eval().requires_grad_(False)
        for part in trained[stage]:
            if part is not None:
                part.train().requires_grad_(True)
        for name in self.frozen:
            if (part := getattr(framework, name)) is not None:
                part.eval().requires_grad_(False)
        for parameter in framework.parameters():
            if not parameter.requires_grad:
                parameter.grad = None

    def forward(
        self,
        blurry: Tensor,
        sharp: Tensor,
        stage: str,
        map_scale: float = 1.0,
        blur_radius: Tensor | None = None,
        confidence: Tensor | None = None,
    ) -> Outcome:
        """The loss of (N, 3, H, W) pairs in a stage of `ScheduleConfig.stage`.

        Args:
            map_scale: what the blur map is multiplied by before the deblurring network sees it.
            blur_radius: (N, 1, H, W), RMS pixels: the truth, where data has it. A `BlurRadiusNet` learns from it.
            confidence: (N, 1, H, W), 0 … 1: how far targets that were found by `models.alignment` can be trusted.
        """
        with self._networks(blurry):
            blur_map = None if self.framework.blur_map is None else self.framework.blur_map(blurry)
            with torch.set_grad_enabled(torch.is_grad_enabled() and stage != "reblur"):
                prior = self._prior(blur_map, map_scale)
                deblurred = self.framework.deblur(blurry, prior)
        deblurred, blur_map = deblurred.float(), None if blur_map is None else blur_map.float()
        stages = {"deblur": self._first_stage, "reblur": self._warm_up, "joint": self._second_stage}
        outcome = stages[stage](deblurred, blurry, sharp, blur_map, confidence)
        return outcome if blur_radius is None else self._with_truth(outcome, blur_map, blur_radius, confidence)

    @property
    def predicts_radius(self) -> bool:
        """Whether the blur map is a radius, and not seeds."""
        return isinstance(self.framework.blur_map, BlurRadiusNet)

    def _prior(self, blur_map: Tensor | None, scale: float) -> Tensor | None:
        """The blur map as the deblurring network sees it. Its gradient would bend a radius into something else."""
        if blur_map is None or not self.framework.deblur.map_channels:
            return None
        return blur_map.detach() if self.predicts_radius else blur_map * scale

    def _networks(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def _with_truth(
        self, outcome: Outcome, blur_map: Tensor | None, radius: Tensor, confidence: Tensor | None
    ) -> Outcome:
        """Add losses against a radius: where it is known, for map and reblurring; where found, for the map."""
        loss = outcome.losses
        if self.predicts_radius:
            assert blur_map is not None
            loss += losses.blur_radius(blur_map, radius, self.loss_config, confidence)
        if isinstance(outcome.reblurred, ReblurredByDisks) and confidence is None:
            loss += losses.found_radius(outcome.reblurred.radius, radius, self.loss_config)
        return replace(outcome, losses=loss)

    def _first_stage(
        self,
        deblurred: Tensor,
        blurry: Tensor,
        sharp: Tensor,
        blur_map: Tensor | None,
        confidence: Tensor | None,
    ) -> Outcome:
        detached = deblurred.detach()
        warped, mask, flow = self._align(blurry, sharp, confidence)
        loss, found = losses.first_stage(deblurred, warped, self.loss_config, mask), None
        if self.finds_blur_from_sharp:
            found = self._reblur(warped, blurry)
            loss += self._blur_losses(found, blurry, mask, blur_map)
        return Outcome(loss, detached, warped, mask, flow, found)

    def _warm_up(
        self,
        deblurred: Tensor,
        blurry: Tensor,
        sharp: Tensor,
        blur_map: Tensor | None,
        confidence: Tensor | None,
    ) -> Outcome:
        if self.finds_blur_from_sharp:
            warped, mask, flow = self._align(deblurred, sharp, confidence)
            found = self._reblur(warped, blurry)
            return Outcome(self._blur_losses(found, blurry, mask, blur_map), deblurred, warped, mask, flow, found)
        found = self._reblur(deblurred, blurry)
        blur_losses = self._map_losses(found, None, blur_map)
        loss = losses.warm_up(reblurred=found.image, blurry=blurry, blur_map=None, seeds=None, config=self.loss_config)
        return Outcome(loss + blur_losses, deblurred, reblurred=found)

    def _second_stage(
        self,
        deblurred: Tensor,
        blurry: Tensor,
        sharp: Tensor,
        blur_map: Tensor | None,
        confidence: Tensor | None,
    ) -> Outcome:
        align, kind = self.aligner, self.aligner.config.mask
        detached = deblurred.detach()
        forward, backward = align.flow(detached, sharp), align.flow(sharp, detached)
        warped, mask = align.warp(sharp, forward), _product(align.mask(kind, forward, backward), confidence)
        found, blur_losses, reblurred, reblurred_mask = None, None, None, None
        if self.finds_blur_from_sharp:
            found = self._reblur(warped, blurry)
            blur_losses = self._blur_losses(found, blurry, mask, blur_map)
            # Here the blur is given: only the deblurred picture can make it fit, where the blur is known.
            reblurred, reblurred_mask = found.again(deblurred), _trusted(mask, found)
        elif self.framework.reblur is not None:
            found = self._reblur(deblurred, blurry)
            blur_losses = self._map_losses(found, None, blur_map)
            reblurred = found.image
        loss = losses.second_stage(
            deblurred=deblurred,
            sharp=sharp,
            warped_sharp=warped,
            warped_deblurred=align.warp(deblurred, backward),
            mask=mask,
            sharp_mask=_product(align.mask(kind, backward, forward), confidence),
            blurry=blurry,
            reblurred=reblurred,
            reblurred_mask=reblurred_mask,
            config=self.loss_config,
        )
        return Outcome(loss if blur_losses is None else loss + blur_losses, detached, warped, mask, forward, found)

    def _align(self, image: Tensor, sharp: Tensor, confidence: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """The sharp picture warped to another as in the first stage; the mask; the flow."""
        align, kind = self.aligner, self.aligner.config.first_mask
        flow = align.flow(image, sharp)
        mask = align.mask(kind, flow, align.flow(sharp, image) if kind == "consistency" else None)
        return align.warp(sharp, flow), _product(mask, confidence), flow

    def _reblur(self, image: Tensor, blurry: Tensor) -> Reblurred | ReblurredByDisks:
        assert self.framework.reblur is not None
        with self._networks(blurry):
            found: Reblurred | ReblurredByDisks = self.framework.reblur(image, blurry)
        return found.float()

    def _blur_losses(
        self, found: Reblurred | ReblurredByDisks, blurry: Tensor, mask: Tensor | None, blur_map: Tensor | None
    ) -> Losses:
        """The loss of the blur found between the sharp image and the blurry one, and of the map that predicts it."""
        explained = losses.reblurred_sharp(found.image, blurry, mask, self.loss_config)
        return explained + self._map_losses(found, mask, blur_map)

    def _map_losses(self, found: Reblurred | ReblurredByDisks, mask: Tensor | None, blur_map: Tensor | None) -> Losses:
        """The map learns what was found, as far as that can be trusted."""
        if self.predicts_radius:
            assert blur_map is not None
            return losses.blur_radius(blur_map, found.radius.detach(), self.loss_config, _trusted(mask, found))
        if isinstance(found, ReblurredByDisks):  # `Framework` sees to it that there is no map of another form
            return Losses.of({})
        return losses.blur_of_seeds(blur_map, found.seeds, self.loss_config)


def _trusted(mask: Tensor | None, found: Reblurred | ReblurredByDisks) -> Tensor | None:
    """Where what was found can be trusted. No gradient: less confidence must not make a loss smaller."""
    confidence = None if found.confidence is None else found.confidence.detach()
    return _product(mask, confidence)


def _product(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The product of masks, of which None is 1 everywhere."""
    if first is None or second is None:
        return second if first is None else first
    return first * second
