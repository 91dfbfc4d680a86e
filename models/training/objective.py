"""What training minimises: from a batch to a loss, in each stage."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models import losses
from models.flow import Flow, calibration_mask, consistency_mask, inside_mask, load_flow, warp
from models.framework import Framework
from models.losses import LossConfig, Losses
from models.networks.reblurring import Reblurred
from models.training.config import PRECISIONS, AlignmentConfig


@dataclass(frozen=True)
class Outcome:
    """A loss, and the pictures it comes from: detached, (N, C, H, W) float32, None where a stage has none."""

    losses: Losses
    deblurred: Tensor
    warped_sharp: Tensor | None = None
    mask: Tensor | None = None  # None: everywhere
    flow: Tensor | None = None
    reblurred: Reblurred | None = None


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
        self.name = config.flow
        options = config.options
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
        """What differs from what was asked for."""
        if self.name == self.config.flow:
            return None
        if self.config.flow == "pwc" and self.name == self.config.fallback:
            return (
                f'alignment: PWC-Net has no weights here, so the flow is "{self.name}" and results will differ; '
                "alignment.options={weights: FILE} gives it some"
            )
        return 'alignment: the target is aligned, so the flow is "none"'

    def warp(self, image: Tensor, flow: Tensor) -> Tensor:
        options = self.config
        return warp(image, flow, padding=options.padding, grid=options.grid, interpolation=options.interpolation)

    def mask(self, kind: str, forward: Tensor, backward: Tensor | None) -> Tensor | None:
        """Where `forward` can be trusted, (N, 1, H, W), or None for everywhere; only "consistency" needs `backward`."""
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
    """

    def __init__(self, framework: Framework, aligner: Aligner, loss_config: LossConfig, precision: str) -> None:
        super().__init__()
        self.framework = framework
        self.aligner = aligner
        self.loss_config = loss_config
        self.dtype = PRECISIONS[precision]

    def prepare(self, stage: str) -> None:
        """Train what the stage trains, and freeze the rest."""
        framework = self.framework
        sees_map = framework.deblur.map_channels > 0
        trained: dict[str, list[nn.Module | None]] = {
            "deblur": [framework.deblur, framework.blur_map if sees_map else None],
            "reblur": [framework.reblur, framework.blur_map],
            "joint": [framework.deblur, framework.blur_map, framework.reblur],
        }
        framework.eval().requires_grad_(False)
        for part in trained[stage]:
            if part is not None:
                part.train().requires_grad_(True)
        for parameter in framework.parameters():
            if not parameter.requires_grad:
                parameter.grad = None

    def forward(self, blurry: Tensor, sharp: Tensor, stage: str, map_scale: float = 1.0) -> Outcome:
        """The loss of (N, 3, H, W) pairs in a stage of `ScheduleConfig.stage`.

        Args:
            map_scale: what the blur map is multiplied by before the deblurring network sees it.
        """
        networks = torch.autocast(blurry.device.type, self.dtype, enabled=self.dtype is not torch.float32)
        with networks:
            blur_map = None if self.framework.blur_map is None else self.framework.blur_map(blurry)
            with torch.set_grad_enabled(torch.is_grad_enabled() and stage != "reblur"):
                prior = None if blur_map is None or not self.framework.deblur.map_channels else blur_map * map_scale
                deblurred = self.framework.deblur(blurry, prior)
        deblurred = deblurred.float()
        if stage == "deblur":
            return self._first_stage(deblurred, blurry, sharp)
        reblurred = None
        if self.framework.reblur is not None:
            with networks:
                reblurred = self.framework.reblur(deblurred, blurry)
        return self._second_stage(deblurred, blurry, sharp, blur_map, reblurred, stage)

    def _first_stage(self, deblurred: Tensor, blurry: Tensor, sharp: Tensor) -> Outcome:
        align, kind = self.aligner, self.aligner.config.first_mask
        flow = align.flow(blurry, sharp)
        warped = align.warp(sharp, flow)
        mask = align.mask(kind, flow, align.flow(sharp, blurry) if kind == "consistency" else None)
        loss = losses.first_stage(deblurred, warped, self.loss_config, mask)
        return Outcome(loss, deblurred.detach(), warped, mask, flow)

    def _second_stage(
        self,
        deblurred: Tensor,
        blurry: Tensor,
        sharp: Tensor,
        blur_map: Tensor | None,
        reblurred: Reblurred | None,
        stage: str,
    ) -> Outcome:
        of_reblurring: dict[str, Any] = {
            "blurry": blurry,
            "reblurred": None if reblurred is None else reblurred.image.float(),
            "blur_map": None if blur_map is None else blur_map.float(),
            "seeds": None if reblurred is None else reblurred.seeds.float(),
            "config": self.loss_config,
        }
        if stage == "reblur":
            return Outcome(losses.warm_up(**of_reblurring), deblurred, reblurred=reblurred)
        align, kind = self.aligner, self.aligner.config.mask
        found = deblurred.detach()
        forward, backward = align.flow(found, sharp), align.flow(sharp, found)
        warped, mask = align.warp(sharp, forward), align.mask(kind, forward, backward)
        loss = losses.second_stage(
            deblurred=deblurred,
            sharp=sharp,
            warped_sharp=warped,
            warped_deblurred=align.warp(deblurred, backward),
            mask=mask,
            sharp_mask=align.mask(kind, backward, forward),
            **of_reblurring,
        )
        return Outcome(loss, found, warped, mask, forward, reblurred)
