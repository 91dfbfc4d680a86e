"""The state of training: networks, their average, the optimizer, and counters."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..checkpoints.load import DEFAULT_CHECKPOINT, load_public_restormer
from ..core.devices import computes_in_bfloat16
from ..core.weights import load_exactly, read_safetensors, read_state, read_torch
from ..framework import Framework
from ..networks import Restormer
from ..networks.initialization import initialize_as_published
from .config import OptimizerConfig, StartConfig, TrainingConfig
from .folder import Checkpoint
from .losses import Losses


@dataclass
class State:
    """All of it is in a checkpoint, and the rest follows from the configuration.

    Random numbers, too: before each step they are seeded with the step, so that they are no state.
    """

    framework: Framework
    average: Framework  # the moving average of the weights; the framework itself without
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0  # steps done
    skipped: int = 0  # of these
    skipped_in_a_row: int = 0  # the last of these
    sound_step: int | None = None  # the last checkpoint whose last step was not skipped
    best_psnr: float | None = None
    best_step: int | None = None

    # What a checkpoint holds beside the networks and the optimizer, by the names of the fields.
    COUNTS = ("skipped", "skipped_in_a_row", "sound_step", "best_psnr", "best_step")

    def checkpoint(self) -> dict[str, Any]:
        return {
            # Without an average, the weights are those that the checkpoint has already.
            "framework": self.framework.state_dict() if self.average is not self.framework else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in self.COUNTS},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        state, source = checkpoint.state, f"the checkpoint of step {checkpoint.step}"
        load_exactly(self.average, checkpoint.saved, source)
        if self.average is not self.framework:
            load_exactly(self.framework, state["framework"], source)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = checkpoint.step
        for name in self.COUNTS:
            setattr(self, name, state.get(name, getattr(self, name)))

    def backward(self, losses: Losses, options: OptimizerConfig, lr: float) -> float:
        """The gradients, averaged over processes and clipped; their norm before."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.autograd.backward(self.scaler.scale(losses.total))
        self.scaler.unscale_(self.optimizer)
        largest = math.inf if options.clip is None else options.clip
        # Each network by itself: where one has a bad batch, the others still learn at their own pace.
        norms = [
            nn.utils.clip_grad_norm_([value for value in part.parameters() if value.grad is not None], largest)
            for part in self.framework.children()
        ]
        return float(torch.stack([norm.to(losses.total.device) for norm in norms]).square().sum().sqrt())

    def update(self, options: OptimizerConfig) -> None:
        """A step of the optimizer, and of the moving average."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.skipped_in_a_row = 0
        if options.ema is not None:
            # At first the average follows closely, or it would long remember the random weights.
            decay = min(options.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                get_ema_multi_avg_fn(decay)(list(self.average.parameters()), list(self.framework.parameters()), 0)
                for buffer, value in zip(self.average.buffers(), self.framework.buffers(), strict=True):
                    buffer.copy_(value)

    def skip(self) -> None:
        """Leave everything as it is: the step was not finite."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.scaler.update()


def make_state(config: TrainingConfig, device: torch.device) -> State:
    """Networks, with the weights to start from, and optimizer.

    Raises:
        WeightsError: weights to start from cannot be read or do not fit.
    """
    torch.manual_seed(config.seed)
    framework = Framework(config.framework)
    if config.start.random == "published":
        for part in framework.children():
            initialize_as_published(part)
    load_start(framework, config.start)
    framework.to(device)
    options = config.optimizer
    average = framework if options.ema is None else copy.deepcopy(framework).requires_grad_(False)
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.name](
        framework.parameters(),
        lr=options.lr,
        betas=(options.betas[0], options.betas[1]),
        weight_decay=options.weight_decay,
        fused=True,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")
    return State(framework, average, optimizer, scaler)


def precision_of(options: OptimizerConfig, device: torch.device) -> str:
    """A key of PRECISIONS."""
    if options.precision != "auto":
        return options.precision
    return "bfloat16" if computes_in_bfloat16(device) else "float32"


def load_start(framework: Framework, start: StartConfig) -> None:
    """Put the weights of `StartConfig` into a framework.

    Raises:
        WeightsError: they cannot be read or do not fit.
    """
    if start.framework:
        folder = DEFAULT_CHECKPOINT if start.framework == "pretrained" else start.framework
        other = Framework.from_pretrained(folder, _classes_of(framework))
        for name, part in framework.named_children():
            if name in start.parts and (given := getattr(other, name)) is not None:
                load_exactly(part, given.state_dict(), f"{name} of {start.framework}")
    if start.deblur:
        is_safetensors = Path(start.deblur).suffix == ".safetensors"
        contents = read_safetensors(start.deblur) if is_safetensors else read_torch(start.deblur)
        for key in ("state_dict", "params"):  # where others put the weights
            if isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping):
                contents = contents[key]
        state = {name.removeprefix("module."): tensor for name, tensor in read_state(contents).items()}
        if "patch_embed.proj.weight" in state and isinstance(framework.deblur, Restormer):
            load_public_restormer(framework.deblur, state, start.deblur)
        else:
            inner = framework.deblur.network if framework.config.deblur.network == "own" else framework.deblur
            load_exactly(inner, state, start.deblur)  # type: ignore[arg-type]


def _classes_of(framework: Framework) -> list[str]:
    """The classes that the configuration of the run itself names: the user has asked for these."""
    return [path for path in [framework.config.deblur.options.get("class_path")] if path]
