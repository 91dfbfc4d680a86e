"""Trackers of experiments: where metrics and pictures go besides the folder of the run."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .config import OutputConfig


class Tracker(Protocol):
    """Takes the numbers and pictures of a training."""

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Numbers of a group, "train" or "validation", after a step."""

    def picture(self, step: int, picture: Any) -> None:
        """(H, W, 3), uint8."""

    def close(self) -> None:
        """The run has ended, or been interrupted."""


class TensorBoard:
    """Event files in a folder, for TensorBoard. Raises ModuleNotFoundError without the package tensorboard."""

    def __init__(self, folder: Path) -> None:
        self.writer = _module("torch.utils.tensorboard", "output.tensorboard", "tensorboard").SummaryWriter(folder)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, picture: Any) -> None:
        self.writer.add_image("samples", picture, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, which goes on where the folder has begun one. Raises as `TensorBoard`, for wandb."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        self.wandb = _module("wandb", "output.wandb", "wandb")
        identity = folder / "wandb-id.txt"
        if not identity.exists():
            identity.write_text(self.wandb.util.generate_id())
        name = identity.read_text().strip()
        self.run = self.wandb.init(project=project, id=name, resume="allow", dir=str(folder), config=dict(config))

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        self.run.log({f"{group}/{name}": value for name, value in values.items()}, step=step)

    def picture(self, step: int, picture: Any) -> None:
        self.run.log({"samples": self.wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self.run.finish()


def check_trackers(output: OutputConfig) -> None:
    """Raise ModuleNotFoundError if one is asked for that is not installed."""
    if output.tensorboard:
        _module("torch.utils.tensorboard", "output.tensorboard", "tensorboard")
    if output.wandb:
        _module("wandb", "output.wandb", "wandb")


def open_trackers(output: OutputConfig, folder: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """Those that the settings ask for.

    Args:
        folder: of the run; it exists.
        config: of the whole training, to be shown beside it.
    """
    trackers: list[Tracker] = []
    if output.tensorboard:
        trackers.append(TensorBoard(folder / "tensorboard"))
    if output.wandb:
        trackers.append(WeightsAndBiases(folder, output.wandb, config))
    return trackers


def _module(name: str, setting: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModuleNotFoundError(f"{setting} needs the package {package}: pip install {package}") from error
