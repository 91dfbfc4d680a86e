"""The configuration of a run: a dataclass for each section, read from YAML, checked before anything is loaded."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from ..core.config import from_dict, to_dict
from ..data.layouts import PHOTOGRAPHS, parse_source
from ..data.pairs import DataError
from ..flow.load import FLOWS
from ..flow.warping import GRIDS, INTERPOLATIONS, PADDINGS
from ..framework import Framework, FrameworkConfig
from ..synthesis.generator import GeneratorConfig
from .losses import LossConfig, blur_map_ramp

RECIPES = Path(__file__).parents[1] / "configs"
MASKS = ("none", "inside", "calibration", "consistency")
PARTS = ("blur_map", "deblur", "reblur")  # of a `Framework`
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class DataConfig:
    """The pairs, and the crops taken from them."""

    # LAYOUT[/SPLIT]:DIR each: models.data.layouts. Or photographs:DIR each: sharp photographs, from which pairs are
    # made on the device during training: `generator`.
    train: tuple[str, ...] = ()
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)  # settings for pairs of photographs
    validation: tuple[str, ...] = ()  # pairs, named likewise; if none, part of `train` is held out
    held_out: float = 0.1  # the part of `train` to hold out, where `validation` is empty
    # Whether a test split may be used for validation and so choose the best checkpoint, as published. Scores of the
    # best checkpoint on that test are then too good.
    validate_on_test: bool = False
    target: str = "sharp"  # "sharp", as it was taken; or "aligned", where the truth is known, or `align` has aligned it
    batch: int = 8  # crops per step, all processes together
    crop: int = 256  # height and width, pixels
    augmentation: str = "uniform"  # "uniform" or "published": models.data.samples
    workers: int = 4  # loader processes for each training process, at most one a CPU; 0: none
    decode: bool = True  # whether files are decoded before training starts; if not, only their headers are read

    @property
    def generated(self) -> bool:
        """Whether pairs are made of photographs while training."""
        return any(parse_source(source).layout == PHOTOGRAPHS for source in self.train)

    def __post_init__(self) -> None:
        _between("held_out", self.held_out, 0, 1, open_ends=True)
        _one_of("target", self.target, ("sharp", "aligned"))
        _at_least("batch", self.batch, 1)
        _at_least("crop", self.crop, 16)
        _one_of("augmentation", self.augmentation, ("uniform", "published"))
        _at_least("workers", self.workers, 0)
        for name in ("train", "validation"):
            for source in getattr(self, name):
                try:
                    split = parse_source(source).split
                except DataError as error:
                    raise ValueError(f"{name}: {error.problems[0]}") from error
                if name == "validation" and parse_source(source).layout == PHOTOGRAPHS:
                    raise ValueError(
                        f"validation must name pairs, so that all runs are judged by the same, got {source!r}"
                    )
                if split == "test" and not (name == "validation" and self.validate_on_test):
                    raise ValueError(f"{name} must not be a test split, which is for the evaluation, got {source!r}")
        if self.generated:
            if not all(parse_source(source).layout == PHOTOGRAPHS for source in self.train):
                raise ValueError(f"train must be photographs or pairs, not both, got {list(self.train)}")
            if not self.validation:
                raise ValueError("validation must name pairs where train names photographs, got none")


@dataclass(frozen=True)
class StartConfig:
    """Weights to begin with; random ones where none are named."""

    # "default": PyTorch's, but for what the networks say; or "published": models.networks.initialization.
    random: str = "default"

    # Folder of `Framework.save_pretrained`, or "pretrained": the one that comes with the package.
    framework: str | None = None
    parts: tuple[str, ...] = PARTS  # which of its parts to begin with, of those that it and this framework have
    # File of the deblurring network alone, safetensors or torch.save: its own weights, and for the network "own" those
    # of the class that it puts behind the blur map. For "restormer" also the public weights of the Restormer, in front
    # of which the blur map's fusion stays random.
    deblur: str | None = None

    def __post_init__(self) -> None:
        _one_of("random", self.random, ("default", "published"))
        for part in self.parts:
            _one_of("parts", part, PARTS)


@dataclass(frozen=True)
class AlignmentConfig:
    """Alignment of the two images of a pair: models.flow."""

    # "dis", "variational", "reblur", "pwc", "raft", "none", or "auto": "variational" on a GPU, else "dis".
    flow: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the flow; of "pwc" `weights`
    fallback: str | None = None  # the flow instead of "pwc" where it has no weights
    # Masks of the loss: "none" (everywhere), "inside" the image, "calibration", "consistency": models.flow.masks.
    first_mask: str = "inside"  # in the first stage, with the flow one way, so that "consistency" costs a second
    mask: str = "consistency"  # in the second
    grid: str = "exact"  # "exact" or "published": models.flow.warp
    # "bicubic"; or "bilinear", as published, which blurs the target, so the network learns to blur what is in focus.
    interpolation: str = "bicubic"
    padding: str = "border"  # "border", as published; or "zeros": black, which bicubic mixes into the outermost pixels

    def __post_init__(self) -> None:
        _one_of("flow", self.flow, ("auto", *FLOWS))
        if self.fallback is not None:
            _one_of("fallback", self.fallback, tuple(FLOWS))
        _one_of("first_mask", self.first_mask, MASKS)
        _one_of("mask", self.mask, MASKS)
        _one_of("grid", self.grid, GRIDS)
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("padding", self.padding, PADDINGS)


@dataclass(frozen=True)
class ScheduleConfig:
    """Steps, stages and the learning rate over them. A value below 1 for a step is a fraction of `steps`."""

    steps: int = 100_000  # of the optimizer, all stages together
    boundary: float = 0.075  # the step at which the second stage begins, which trains all networks
    # The first stage. "deblur" trains the deblurring network and the blur map network towards the warped sharp image.
    # "reblur" trains the reblurring and the blur map network, with a deblurring network that was trained before and is
    # frozen until the joint stage.
    first: str = "deblur"
    # The blur map grows from near 0 to 1 over the first stage "deblur", in so many equal steps; 0: at each step.
    ramp_levels: int = 0
    frozen: tuple[str, ...] = ()  # parts of the framework that no stage trains: "blur_map", "deblur", "reblur"
    joint_lr: float = 1.0  # factor on the learning rate in the joint stage
    decay: str = "cosine"  # "cosine", "halving" or "constant"
    final_lr: float = 0.01  # cosine: the part of the learning rate that is left at the end
    halve_every: float = 0.35  # halving: steps from one halving to the next
    # Steps over which the learning rate rises from near 0, at the start of each stage. Untrained networks join at the
    # joint stage, too, and their first gradients would undo what the others have learnt.
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _at_least("steps", self.steps, 1)
        for name in ("boundary", "halve_every", "warmup"):
            value = getattr(self, name)
            _between(name, value, 0, self.steps)
            if value >= 1 and value != int(value):
                raise ValueError(f"{name} must be a whole number of steps, or a fraction below 1, got {value}")
        if not self.halve_every:
            raise ValueError("halve_every must be above 0, got 0")
        _one_of("first", self.first, ("deblur", "reblur"))
        for part in self.frozen:
            _one_of("frozen", part, PARTS)
        _at_least("ramp_levels", self.ramp_levels, 0)
        _between("joint_lr", self.joint_lr, 0, 1000, open_ends=True)
        _one_of("decay", self.decay, ("cosine", "halving", "constant"))
        _between("final_lr", self.final_lr, 0, 1)

    def _steps(self, value: float) -> int:
        return int(value) if value >= 1 else round(value * self.steps)

    def stage(self, step: int) -> str:
        """The stage of the step with this number, from 0: "deblur", "reblur" or "joint"."""
        return self.first if step < self._steps(self.boundary) else "joint"

    def map_scale(self, step: int) -> float:
        """The factor on the blur map before the deblurring network sees it."""
        if self.stage(step) != "deblur":
            return 1.0
        boundary = self._steps(self.boundary)
        levels = self.ramp_levels or boundary
        return blur_map_ramp(step * levels // boundary, levels)

    def lr_factor(self, step: int) -> float:
        """The factor on the learning rate."""
        warmup, joint = self._steps(self.warmup), self.stage(step) == "joint"
        since = step - self._steps(self.boundary) if joint else step
        factor = min(1.0, (since + 1) / (warmup + 1)) * (self.joint_lr if joint else 1.0)
        if self.decay == "halving":
            return factor * 0.5 ** (step // max(self._steps(self.halve_every), 1))
        if self.decay == "cosine":
            return factor * (self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * step / self.steps)) / 2)
        return factor


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, and what keeps it steady."""

    name: str = "adamw"  # "adamw" or "adam"
    lr: float = 2e-4  # the largest learning rate
    betas: tuple[float, ...] = (0.9, 0.999)  # decays of the means of the gradient and of its square
    weight_decay: float = 0.0  # the part of each weight, times the learning rate, that a step takes away
    clip: float | None = 1.0  # largest norm of the gradient of each network
    ema: float | None = 0.999  # decay of the moving average of the weights, which is what is validated and saved
    # Of the networks: "bfloat16", "float16", or "auto": bfloat16 on a device that computes in it, else float32. Losses,
    # alignment and weights stay float32.
    precision: str = "float32"
    nonfinite: str = "skip"  # what a step does whose loss or gradient is not finite: "skip" or "stop"

    def __post_init__(self) -> None:
        _one_of("name", self.name, ("adam", "adamw"))
        _between("lr", self.lr, 0, math.inf, open_ends=True)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, got {list(self.betas)}")
        _at_least("weight_decay", self.weight_decay, 0)
        if self.clip is not None:
            _between("clip", self.clip, 0, math.inf, open_ends=True)
        if self.ema is not None:
            _between("ema", self.ema, 0, 1, open_ends=True)
        _one_of("precision", self.precision, (*PRECISIONS, "auto"))
        _one_of("nonfinite", self.nonfinite, ("skip", "stop"))


@dataclass(frozen=True)
class OutputConfig:
    """Intervals of the outputs, in steps; 0: never. All but `metrics` are also written after the last step."""

    metrics: int = 50  # from one line of the log to the next
    validation: int = 2000  # from one validation to the next, which decides what the best checkpoint is
    validation_pairs: int = 0  # as many of the pairs, spread over them; 0: all
    checkpoints: int = 2000  # from one checkpoint to the next
    keep: int = 3  # checkpoints: the last ones; and the best
    pictures: int = 2000  # from one set of pictures to the next
    picture_pairs: int = 3  # how many pairs they show
    tensorboard: bool = False  # event files in the folder of the run
    wandb: str | None = None  # a project of Weights & Biases
    profile: int = 0  # steps that are profiled, soon after the start

    def __post_init__(self) -> None:
        for name in ("metrics", "validation", "validation_pairs", "checkpoints", "pictures", "profile"):
            _at_least(name, getattr(self, name), 0)
        _at_least("keep", self.keep, 1)
        _at_least("picture_pairs", self.picture_pairs, 1)


@dataclass(frozen=True)
class TrainingConfig:
    """All of a run."""

    out: str = "runs/train"  # the folder of the run
    # "never": the folder must hold no run yet. "auto": go on with the run that is there, if any.
    resume: str = "never"
    seed: int = 0  # of all that is random: weights, crops, made pairs
    device: str = "auto"  # CUDA if there is, each process its own; "cpu", "cuda"
    data: DataConfig = field(default_factory=DataConfig)
    framework: FrameworkConfig = field(default_factory=FrameworkConfig)
    start: StartConfig = field(default_factory=StartConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def __post_init__(self) -> None:
        _one_of("resume", self.resume, ("never", "auto"))
        if not self.out:
            raise ValueError("out must name a folder, got ''")
        _between("seed", self.seed, 0, 2**63 - 1)
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        framework = self.framework
        if framework.deblur.prior and framework.blur_map is None:
            raise ValueError("framework.deblur.prior needs framework.blur_map, got null")
        if framework.blur_map is not None and not framework.deblur.prior and framework.reblur is None:
            raise ValueError(
                "framework.blur_map must be null: neither the deblurring nor the reblurring network uses it"
            )
        if self.schedule.first == "reblur":
            if framework.reblur is None:
                raise ValueError('schedule.first "reblur" needs framework.reblur, got null')
            if not (self.start.deblur or (self.start.framework and "deblur" in self.start.parts)):
                raise ValueError(
                    'start.framework or start.deblur must name weights for schedule.first "reblur", which freezes the '
                    "deblurring network, got neither"
                )
        self._check_frozen()
        if framework.deblur.network != "own":  # a network of the user's own may do anything when it is made
            try:
                with torch.device("meta"):  # checks without computing
                    Framework(framework)
            except (TypeError, ValueError) as error:
                raise ValueError(f"framework: {error}") from error

    def _check_frozen(self) -> None:
        """Each stage must have something to train."""
        present = {"deblur"} | {name for name in ("blur_map", "reblur") if getattr(self.framework, name) is not None}
        without_reblurring = self.losses.blur_from == "deblurred"
        trained = {
            "deblur": {"deblur", "blur_map"} if without_reblurring else set(PARTS),
            "reblur": {"blur_map", "reblur"},
            "joint": set(PARTS),
        }
        for stage in (self.schedule.stage(step) for step in (0, self.schedule.steps - 1)):
            if not trained[stage] & present - set(self.schedule.frozen):
                raise ValueError(
                    f'schedule.frozen must leave something to train in the stage "{stage}", '
                    f"got {list(self.schedule.frozen)}"
                )


# Sections and keys that leave what is learnt as it is, and so may differ when a run goes on.
FREE_KEYS = (
    "out",
    "resume",
    "device",
    "data.train",  # a folder may move: the pairs are compared
    "data.validation",
    "data.workers",
    "data.decode",
    "output",
)


def load_config(path: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """A configuration from a YAML file, with `section.key=value` overrides.

    Args:
        path: a file, or the name of a recipe in models/configs.
        overrides: values are YAML.

    Raises:
        ValueError: the file cannot be read, a key is unknown or twice there, a type is wrong or a value impossible;
            names it.
    """
    file = Path(path)
    if not file.exists() and (RECIPES / f"{path}.yaml").is_file():
        file = RECIPES / f"{path}.yaml"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise ValueError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; there are the recipes {names}"
        ) from error
    values = _parse_yaml(text, str(file))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a mapping of names to values, got {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    # A section without a key, its values all commented out, is null in YAML.
    values = {key: {} if value is None else value for key, value in values.items()}
    return from_dict(TrainingConfig, values)


def dump_config(config: TrainingConfig) -> str:
    """The whole configuration as YAML that `load_config` reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys, section.key, in which two configurations as dictionaries differ, other than FREE_KEYS."""
    keys: list[str] = []
    for name in [*first, *(key for key in second if key not in first)]:
        path = f"{prefix}{name}"
        one, other = first.get(name), second.get(name)
        if path in FREE_KEYS or one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            keys += differing_keys(one, other, f"{path}.")
        else:
            keys.append(path)
    return keys


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    *sections, key = path.split(".")
    if not equals or not all([*sections, key]):
        raise ValueError(f"an override must be section.key=value, got {override!r}")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise ValueError(f"{override!r}: {section} is a value, not a section")
    values[key] = _parse_yaml(text, override)


class _Loader(yaml.SafeLoader):
    """Takes 1e-4 for a number, as YAML 1.2 does, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            names = [key.value for key, _ in node.value]
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(repeated)} is given twice", node.start_mark
            )
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{source}{place}: {problem}") from error


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _at_least(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _between(name: str, value: float, low: float, high: float, open_ends: bool = False) -> None:
    inside = low < value < high if open_ends else low <= value <= high
    if not inside:
        limits = f"above {low} and below {high}" if open_ends else f"from {low} to {high}"
        raise ValueError(f"{name} must be {limits}, got {value}")
