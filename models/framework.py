"""The framework: blur map network, deblurring network and reblurring network, and how they are kept in files."""

import inspect
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

import reblur_ops
from reblur_ops.options import Padding, Support

from .blur.light import Light
from .core import weights
from .core.config import from_dict, to_dict
from .core.files import replacing
from .core.tensors import IMAGE_CHANNELS, check_image
from .core.weights import WeightsError
from .networks import (
    BlurMapNet,
    BlurRadiusNet,
    CompactNet,
    DeblurringNetwork,
    OwnNet,
    RadiusReblurringNet,
    ReblurringNet,
    Restormer,
    UNet,
    restraint,
)
from .networks.blur_radius import decode_radius

DEBLURRING_NETWORKS: dict[str, type[DeblurringNetwork]] = {
    "compact": CompactNet,
    "unet": UNet,
    "restormer": Restormer,
    "own": OwnNet,
}
LARGEST_SIZE = 16384  # of widths, depths and numbers of blocks in a file: far beyond any network
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BlurMapConfig:
    """Which blur map network, and its arguments."""

    width: int = 32  # channels
    blocks: int = 3  # residual blocks
    # "seeds": `BlurMapNet`, which predicts what the published reblurring network finds; or "radius": `BlurRadiusNet`,
    # which predicts the radius of the blur and how certain it is.
    form: str = "seeds"
    # Of the form "radius", once it is trained: where the map is less certain than this, nothing is deblurred.
    doubt: float | None = None

    def __post_init__(self) -> None:
        if self.form not in ("seeds", "radius"):
            raise ValueError(f"form must be one of 'seeds', 'radius', got {self.form!r}")
        if self.doubt is not None and self.form != "radius":
            raise ValueError(f'doubt must be null where the form is not "radius", got {self.doubt}')


@dataclass(frozen=True)
class DeblurConfig:
    """Which deblurring network, and its arguments.

    A network of your own:
    `DeblurConfig("own", {"class_path": "my_package.MyNet", "arguments": {"depth": 4}, "multiple": 8})`; see `OwnNet`.
    """

    network: str = "compact"  # "compact", "unet", "restormer" or "own"
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the network, but for map_channels
    prior: bool = True  # whether it gets the blur map
    # Once it is trained: whether changes that the photograph contradicts are left out, see `networks.restraint`.
    restrained: bool = False


@dataclass(frozen=True)
class ReblurConfig:
    """Which reblurring network, and its arguments."""

    width: int = 64  # channels
    blocks: int = 3  # residual blocks
    support: str = "square"  # of the form "kernels"
    padding: str = "zeros"  # of the form "kernels"
    # "kernels": `ReblurringNet`, as published, which has kernels of any profile and may learn a single one; or
    # "radius": `RadiusReblurringNet`, which tries disks of each radius.
    form: str = "kernels"
    max_radius: int = 7  # of the form "radius": the largest circle of confusion at the size of the image, pixels
    # Of the form "radius", once it is trained: how often images are halved for larger ones.
    halvings: int = 0
    # Likewise: over how many turned and mirrored copies of both images the mean is taken, 1, 2, 4 or 8.
    copies: int = 1
    # Where blur is computed: "linear" light, as a lens adds it, "gamma", or "srgb", as published.
    light: str = "linear"

    def __post_init__(self) -> None:
        if self.form not in ("kernels", "radius"):
            raise ValueError(f"form must be one of 'kernels', 'radius', got {self.form!r}")


@dataclass(frozen=True)
class FrameworkConfig:
    """The parts of a `Framework`. JSON can hold it: `models.core.config`."""

    radii: tuple[int, ...] = reblur_ops.PUBLISHED_RADII  # pixels; of the blur map and the reblurring alike
    blur_map: BlurMapConfig | None = field(default_factory=BlurMapConfig)  # null: none
    deblur: DeblurConfig = field(default_factory=DeblurConfig)
    reblur: ReblurConfig | None = field(default_factory=ReblurConfig)  # null: none
    # Once it is trained: whether `TiledFramework`, which sees a photograph as a whole, takes its noise away first, see
    # `inference.noise`.
    denoised: bool = False


class Framework(nn.Module):
    """Reblurring-guided single image defocus deblurring (arXiv 2409.17792).

    Args:
        config: what it is made of.

    Attributes:
        config: as given, with every option of the deblurring network written out.
        blur_map: `BlurMapNet` or `BlurRadiusNet`, or None: then the deblurring network goes without, or gets a map from
            elsewhere.
        deblur: a `DeblurringNetwork`.
        reblur: `ReblurringNet` or `RadiusReblurringNet`, or None: it is needed in training, and to see the blur.

    Raises:
        ValueError: an unknown network or option, by name, or arguments that its networks refuse.
    """

    def __init__(self, config: FrameworkConfig | None = None) -> None:
        super().__init__()
        config = config or FrameworkConfig()
        network, options = _network_and_options(config.deblur)
        self.config = replace(config, deblur=replace(config.deblur, options=options))
        self.blur_map = _blur_map_network(config)
        map_channels = reblur_ops.map_channels(config.radii)[0] if self.blur_map is None else self.blur_map.channels
        self.deblur = network(map_channels if config.deblur.prior else 0, **options)
        self.reblur = _reblurring_network(config)

    def forward(self, blurry: Tensor, pooled: Tensor | None = None) -> Tensor:
        """Deblur, as after training; training calls the parts.

        Args:
            blurry: (N, 3, H, W), 0 … 1, any size.
            pooled: where blurry is a tile, (N, 3 + M) of the whole image:
                `pooled_statistics(image, framework.blur_map(image))`, which can be added up from tiles.

        Returns:
            (N, 3, H, W), clipped to 0 … 1.

        Raises:
            TypeError: no tensor, or one of another type than the weights, but under autocast.
            ValueError: shapes that do not fit; or the deblurring network needs a map and there is no blur map network.
        """
        check_image("blurry", blurry, IMAGE_CHANNELS)
        own = next((weights.dtype for weights in self.parameters()), blurry.dtype)
        if blurry.dtype != own and not torch.is_autocast_enabled(blurry.device.type):
            raise TypeError(f"blurry must be {own}, as the weights of the framework are, got {blurry.dtype}")
        prior, radius = self.see(blurry)
        deblurred = self.deblur(blurry, prior, pooled)
        if self.config.deblur.restrained:
            deblurred = restraint.restrain(deblurred, blurry, radius)
        return deblurred.clamp(0, 1)

    def see(self, blurry: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the deblurring network is told of the blur.

        Args:
            blurry: (N, 3, H, W), 0 … 1, any size.

        Returns:
            (N, M, H, W), the map; None where the network takes none. (N, 1, H, W), the RMS radius in pixels; None where
            the map is no radius.

        Raises:
            ValueError: the deblurring network needs a map and there is no blur map network.
        """
        if not self.deblur.map_channels:
            return None, None
        if self.blur_map is None:
            raise ValueError("this framework has no blur map network: call deblur(blurry, blur_map) with a map")
        blur_map = self.blur_map(blurry)
        if isinstance(self.blur_map, BlurRadiusNet):
            return self.blur_map.prior(blur_map), decode_radius(blur_map.float())
        return blur_map, None

    @property
    def deblurring_reach(self) -> int | None:
        """How far away, in pixels, an output pixel of `forward` can see, but for what is pooled; None: not known."""
        if self.deblur.reach is None:
            return None
        of_map = self.blur_map.reach if self.blur_map is not None else 0
        return of_map + self.deblur.reach + (restraint.REACH if self.config.deblur.restrained else 0)

    @property
    def multiple(self) -> int:
        """A tile that starts at a multiple of it is deblurred like the whole image."""
        return math.lcm(self.deblur.multiple, restraint.MULTIPLE if self.config.deblur.restrained else 1)

    def blur_radius(self, blurry: Tensor) -> Tensor:
        """The blur of a single image, as its blur map network sees it.

        Args:
            blurry: (N, 3, H, W), 0 … 1, any size.

        Returns:
            (N, 1, H, W), RMS radius in pixels, at least 0.

        Raises:
            ValueError: the framework has no blur map network that predicts the radius.
        """
        if not isinstance(self.blur_map, BlurRadiusNet):
            raise ValueError('blur_radius needs a blur map network of the form "radius", and this framework has none')
        return decode_radius(self.blur_map(blurry).float())

    def save_pretrained(self, directory: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Write `model.safetensors` and `config.json` into a folder, made if need be; each file whole or not at all.

        Args:
            dtype: of the weights in the file, such as torch.float16 for half the size; as they are if None. Reading
                gives float32 again.

        Raises:
            OSError: it cannot be written.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_dict(self.config), indent=2) + "\n"
        state = {name: value if dtype is None else value.to(dtype) for name, value in self.state_dict().items()}
        weights.write_safetensors(folder / WEIGHTS_FILE, state)
        with replacing(folder / CONFIG_FILE) as file:
            file.write(text.encode())

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], trust: Sequence[str] = ()) -> "Framework":
        """Read what `save_pretrained` wrote, in evaluation mode, on the CPU.

        Nothing in the folder can run code: a network of your own is imported only if `trust` names its class.

        Args:
            path: the folder.
            trust: class paths, "package.module.Class", that the checkpoint may ask for. Importing one runs its module,
                which is looked for on Python's path, and so in the current folder, too.

        Raises:
            WeightsError: a file is missing or damaged, the configuration is not understood, it asks for a class that is
                not trusted, or the weights do not fit: then it names every tensor that differs.
        """
        folder = Path(path)
        config = _read_config(folder / CONFIG_FILE)
        state = weights.read_safetensors(folder / WEIGHTS_FILE)
        try:
            _check_trust(config.deblur, trust)
            _check_sizes(to_dict(config))
            if config.deblur.network != "own":
                with torch.device("meta"):  # a size that is not that of the weights takes no memory
                    weights.check_exactly(cls(config), state, str(folder / WEIGHTS_FILE))
            framework = cls(config)
        except (TypeError, ValueError) as error:
            raise WeightsError(f"{folder / CONFIG_FILE}: {error}") from error
        weights.load_exactly(framework, state, str(folder / WEIGHTS_FILE))
        return framework.eval()


def _blur_map_network(config: FrameworkConfig) -> BlurMapNet | BlurRadiusNet | None:
    if config.blur_map is None:
        return None
    width, blocks = config.blur_map.width, config.blur_map.blocks
    if config.blur_map.form == "radius":
        return BlurRadiusNet(width=width, blocks=blocks, doubt=config.blur_map.doubt)
    return BlurMapNet(config.radii, width=width, blocks=blocks)


def _reblurring_network(config: FrameworkConfig) -> ReblurringNet | RadiusReblurringNet | None:
    options = config.reblur
    if options is None:
        return None
    light = cast(Light, options.light)  # checked there
    if options.form == "kernels":
        return ReblurringNet(
            config.radii,
            support=cast(Support, options.support),
            padding=cast(Padding, options.padding),
            width=options.width,
            blocks=options.blocks,
            light=light,
        )
    if config.blur_map is not None and config.blur_map.form == "seeds":
        raise ValueError('blur_map.form must be "radius" where reblur.form is, got "seeds", which nothing would teach')
    return RadiusReblurringNet(
        options.max_radius,
        halvings=options.halvings,
        copies=options.copies,
        light=light,
        width=options.width,
        blocks=options.blocks,
    )


def _check_trust(config: DeblurConfig, trust: Sequence[str]) -> None:
    class_path = config.options.get("class_path")
    if config.network == "own" and class_path not in trust:
        raise ValueError(
            f"it needs the class {class_path}, whose module would run. If you trust it, give "
            f'--trust {class_path}, or in Python trust=["{class_path}"]'
        )


def _check_sizes(config: Any) -> None:
    """Refuse sizes that no network has, before their modules are made."""
    if isinstance(config, Mapping):
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            _check_sizes(value)
    elif isinstance(config, (int, float)) and not abs(config) <= LARGEST_SIZE:
        raise ValueError(f"its sizes must be at most {LARGEST_SIZE}, got {config}")


def _read_config(path: Path) -> FrameworkConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict) and isinstance(values.get("reblur"), dict):
            values["reblur"].setdefault("light", "srgb")  # of checkpoints from before there was a choice
        return from_dict(FrameworkConfig, values)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no text, no JSON, or not this configuration
        raise WeightsError(f"{path}: {error}") from error


def _network_and_options(config: DeblurConfig) -> tuple[type[DeblurringNetwork], dict[str, Any]]:
    """The class, and its keyword arguments with the defaults written out: a saved model must not change with them."""
    if config.network not in DEBLURRING_NETWORKS:
        raise ValueError(f"deblur.network must be one of {', '.join(DEBLURRING_NETWORKS)}, got {config.network!r}")
    network = DEBLURRING_NETWORKS[config.network]
    parameters = _keyword_parameters(network)
    unknown = [f"deblur.options.{name}" for name in config.options if name not in parameters]
    if unknown:
        raise ValueError(f"unknown options: {', '.join(unknown)}; {config.network} has {', '.join(parameters)}")
    required = [name for name, default in parameters.items() if default is inspect.Parameter.empty]
    missing = [f"deblur.options.{name}" for name in required if name not in config.options]
    if missing:
        raise ValueError(f"{config.network} needs {', '.join(missing)}")
    try:
        # As JSON has them: a saved configuration is equal to the one read back.
        return network, json.loads(json.dumps({**parameters, **config.options}))
    except TypeError as error:
        raise ValueError(f"deblur.options must be what JSON can hold: {error}") from error


def _keyword_parameters(network: type[DeblurringNetwork]) -> Mapping[str, Any]:
    parameters = inspect.signature(network).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
