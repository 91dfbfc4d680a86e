"""Frameworks from the files that people have: folders, training runs, and checkpoints of the published training."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..core.tensors import IMAGE_CHANNELS
from ..core.weights import WeightsError, load_exactly, read_torch
from ..framework import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    BlurMapConfig,
    DeblurConfig,
    Framework,
    FrameworkConfig,
    ReblurConfig,
)
from ..networks import BlurMapNet, ReblurringNet, Restormer, UNet

ChannelOrder = Literal["rgb", "bgr"]
State = dict[str, Tensor]
Rules = Mapping[str, str | Callable[[re.Match[str]], str]]  # regular expression: what stands there instead

# The framework that comes with the package, trained.
DEFAULT_CHECKPOINT = Path(str(resources.files(__package__.partition(".")[0]))) / "pretrained" / "compact"


def load_framework(path: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()) -> Framework:
    """The framework of a checkpoint, in evaluation mode, on the CPU.

    Args:
        path: a folder that `Framework.save_pretrained` wrote; the folder of a training run, which means the best of its
            checkpoints, or the last if none is marked as the best; or a file of the published training code. None: the
            one that comes with the package.
        trust: class paths of networks of your own that it may import: `Framework.from_pretrained`.

    Raises:
        WeightsError: there is none, or it is damaged, or its weights do not fit its configuration.
    """
    if path is None and not DEFAULT_CHECKPOINT.is_dir():
        raise WeightsError(f"no trained framework is in {DEFAULT_CHECKPOINT}: give one with --checkpoint")
    source = DEFAULT_CHECKPOINT if path is None else Path(path)
    if source.is_file():
        return import_official(source)
    if (source / "best").is_dir():
        source = source / "best"
    elif (source / "checkpoints").is_dir():
        source = _last_checkpoint(source / "checkpoints")
    return Framework.from_pretrained(source, trust)


def _last_checkpoint(folder: Path) -> Path:
    """The complete folder `step-0001000` with the largest number."""
    steps = sorted(
        (int(match[1]), path) for path in folder.iterdir() if (match := re.fullmatch(r"step-(\d+)", path.name))
    )
    whole = [path for _, path in steps if (path / CONFIG_FILE).is_file() and (path / WEIGHTS_FILE).is_file()]
    if not whole:
        raise WeightsError(f"{folder} must hold a folder step-… with {CONFIG_FILE} and {WEIGHTS_FILE}; there is none")
    return whole[-1]


def load_public_restormer(network: Restormer, state: State, source: str) -> None:
    """Put the public weights of the Restormer into one of ours; a fusion in front of it stays as it is.

    Raises:
        WeightsError: names or shapes differ.
    """
    own = {_restormer_name(name): tensor for name, tensor in network.state_dict().items() if name.startswith("fusion.")}
    load_exactly(network, {**own, **state}, source, _restormer_name)


def import_official(
    checkpoint: str | os.PathLike[str] | Mapping[str, Any], channels: ChannelOrder | None = None
) -> Framework:
    """A `Framework` with the weights of a checkpoint of the published training code.

    Widths, depths, and whether there is squeeze-excite, follow from the shapes of the weights; the radii are 1 … 7.

    Args:
        checkpoint: a file written by `torch.save`, read without running anything in it, or the dictionary in it.
            `G_state_dict` is the deblurring network: U-Net or Restormer, told apart by names. `Pred_state_dict`, the
            blur map network, and `Reblur_state_dict`, the reblurring network, may be missing, and are then None in
            the framework; JDRL has no blur map. Names may begin with `module.`; other entries are ignored.
        channels: in which order the networks were trained to see colours. Ours see red, green, blue, and weights for
            "bgr" are turned round. None: "bgr" of a deblurring network without the blur map, as JDRL trains it, else
            "rgb".

    Returns:
        The framework in evaluation mode, on the CPU, in float32.

    Raises:
        WeightsError: the file cannot be read, would run code, or does not hold such networks: then all names and shapes
            that differ are named.
    """
    source = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    contents = checkpoint if isinstance(checkpoint, Mapping) else read_torch(checkpoint)
    if not isinstance(contents, Mapping) or "G_state_dict" not in contents:
        held = ", ".join(map(repr, list(contents)[:8])) if isinstance(contents, Mapping) else type(contents).__name__
        raise WeightsError(f"{source} must be a dictionary with 'G_state_dict', the deblurring network; got {held}")

    deblur = _state(contents, "G_state_dict", source)
    blur_map = _state(contents, "Pred_state_dict", source) if "Pred_state_dict" in contents else None
    reblur = _state(contents, "Reblur_state_dict", source) if "Reblur_state_dict" in contents else None
    if any(name.startswith("encoder.block") for name in deblur):
        deblur_config = _unet_config(deblur)
        deblur_name = _unet_name(deblur_config.options["depth"])
    elif any(name.startswith("patch_embed.") for name in deblur):
        deblur_config, deblur_name = _restormer_config(deblur), _restormer_name
    else:
        raise WeightsError(
            f"G_state_dict of {source} is neither the U-Net (encoder.block1…) nor the Restormer (patch_embed…): "
            f"it has {', '.join(list(deblur)[:8]) or 'nothing'} …"
        )
    config = FrameworkConfig(
        blur_map=None if blur_map is None else BlurMapConfig(*_width_and_blocks(blur_map)),
        deblur=deblur_config,
        reblur=None if reblur is None else ReblurConfig(*_width_and_blocks(reblur, "kpn."), light="srgb"),
    )
    try:
        framework = Framework(config)
    except ValueError as error:  # sizes inferred from shapes that no such network has
        raise WeightsError(f"{source} fits no published network: {error}") from error
    load_exactly(framework.deblur, deblur, f"G_state_dict of {source}", deblur_name)
    if framework.blur_map is not None and blur_map is not None:
        load_exactly(framework.blur_map, blur_map, f"Pred_state_dict of {source}", _small_net_name)
    if framework.reblur is not None and reblur is not None:
        load_exactly(framework.reblur, reblur, f"Reblur_state_dict of {source}", _small_net_name)
    if (channels or ("rgb" if deblur_config.prior else "bgr")) == "bgr":
        _reverse_colours(framework)
    return framework.eval()


def _reverse_colours(framework: Framework) -> None:
    """Make networks that see blue, green, red see red, green, blue: the same results of turned round images."""
    deblur = framework.deblur
    fusion = deblur.fusion if isinstance(deblur, Restormer) else None
    first = deblur.embed if isinstance(deblur, Restormer) else cast(nn.Conv2d, cast(UNet, deblur).encoder[0][0])  # type: ignore[index]
    squeeze_excite = fusion.squeeze_excite if fusion else getattr(deblur, "squeeze_excite", None)
    inputs = [fusion.adjust if fusion else first]  # what the fusion gives is the network's own, and no image
    if framework.blur_map is not None:
        inputs.append(cast(BlurMapNet, framework.blur_map).net.first)
    if framework.reblur is not None:
        reblur = cast(ReblurringNet, framework.reblur)
        inputs += [reblur.seeds.first, reblur.weights.first]
    with torch.no_grad():
        for convolution in inputs:
            _turn_round(convolution.weight, 1)
        last = cast(nn.Conv2d, deblur.last)
        _turn_round(last.weight, 0)
        if last.bias is not None:
            _turn_round(last.bias, 0)
        if squeeze_excite is not None:
            _turn_round(squeeze_excite.squeeze.weight, 1)
            _turn_round(squeeze_excite.excite.weight, 0)


def _turn_round(weight: Tensor, dim: int) -> None:
    """Reverse the three colours, or the colours of both images where there are six channels, and leave the rest."""
    images = 2 if weight.shape[dim] == 2 * IMAGE_CHANNELS else 1
    order = list(range(weight.shape[dim]))
    for image in range(images):
        start = image * IMAGE_CHANNELS
        order[start : start + IMAGE_CHANNELS] = reversed(order[start : start + IMAGE_CHANNELS])
    weight.copy_(weight.index_select(dim, torch.tensor(order)))


def _state(contents: Mapping[str, Any], key: str, source: str) -> State:
    """The weights of one network, names without `module.`."""
    values = contents[key]
    if not isinstance(values, Mapping):
        raise WeightsError(f"{key} of {source} must be a dictionary of tensors, got {type(values).__name__}")
    state: State = {}
    for name, tensor in values.items():
        if not isinstance(name, str):
            raise WeightsError(f"names in {key} of {source} must be texts, got {name!r}")
        usable = isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_meta
        if not usable or not tensor.is_floating_point():
            kind = f"{tensor.dtype}, {tensor.layout}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise WeightsError(f"{name} in {key} of {source} must be a dense floating-point tensor, got {kind}")
        short = re.sub(r"^(module\.)+", "", name)
        if short in state:
            raise WeightsError(f"{key} of {source} has {short} twice, with and without 'module.'")
        state[short] = tensor
    return state


def _unet_config(state: State) -> DeblurConfig:
    in_channels = _size(state, "encoder.block1.0.weight", 1, IMAGE_CHANNELS)
    options = {
        "width": _size(state, "encoder.block1.0.weight", 0, 64),
        "depth": _count(state, r"encoder\.block(\d+)\.", first=1),
    }
    return DeblurConfig("unet", options, prior=in_channels != IMAGE_CHANNELS)


def _restormer_config(state: State) -> DeblurConfig:
    levels = _count(state, r"encoder_level(\d+)\.", first=1) + 1
    stages = [*(f"encoder_level{level}" for level in range(1, levels)), "latent"]
    width = _size(state, "patch_embed.proj.weight", 0, 48)
    hidden = _size(state, "latent.0.ffn.project_out.weight", 1, 0)
    options = {
        "width": width,
        "blocks": [_count(state, rf"{stage}\.(\d+)\.") for stage in stages],
        "heads": [_size(state, f"{stage}.0.attn.temperature", 0, 2**level) for level, stage in enumerate(stages)],
        "refinement": _count(state, r"refinement\.(\d+)\."),
        "expansion": _expansion(width * 2 ** (levels - 1), hidden),
    }
    return DeblurConfig("restormer", options, prior="adjust_channels.weight" in state)


def _expansion(channels: int, hidden: int) -> float:
    """A factor that makes int(channels · factor) hidden: the published one if it does, else the middle of those."""
    published = 2.66
    return published if int(channels * published) == hidden or not hidden else (hidden + 0.5) / channels


def _width_and_blocks(state: State, prefix: str = "") -> tuple[int, int]:
    """The width and the blocks of a `ResidualNet`, from its published names."""
    width = _size(state, f"{prefix}conv_first.weight", 0, 32)
    return width, _count(state, rf"{re.escape(prefix)}block(\d+)\.", first=1)


def _size(state: State, name: str, dim: int, otherwise: int) -> int:
    """The length of one dimension of a weight. If there is none, what lets the comparison of names name it."""
    return state[name].shape[dim] if name in state and state[name].dim() > dim else otherwise


def _count(state: State, pattern: str, first: int = 0) -> int:
    """The count of consecutive numbers, from `first` on, that names have at the group of the pattern."""
    found = {int(match[1]) for match in map(re.compile(pattern).match, state) if match}
    count = 0
    while first + count in found:
        count += 1
    return count


# What the published code calls a weight of ours. Its numbers mostly count from 1.


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def _small_net_name(name: str) -> str:
    return _renamed(
        name,
        {
            r"^net\.": "",
            r"^seeds\.": "kpn.",
            r"^weights\.": "kernel_map_gene.",
            r"first\.": "conv_first.",
            r"blocks\.(\d+)": lambda match: f"block{int(match[1]) + 1}",
            r"last\.": "out.",
        },
    )


def _unet_name(depth: int) -> Callable[[str], str]:
    """The decoder's numbers go on from the encoder's."""
    rules: Rules = {
        r"^squeeze_excite\.squeeze": "channel_attention.fc.0",
        r"^squeeze_excite\.excite": "channel_attention.fc.2",
        r"^encoder\.(\d+)": lambda match: f"encoder.block{int(match[1]) + 1}",
        r"^up\.(\d+)": lambda match: f"up{int(match[1]) + depth + 1}.1",
        r"^decoder\.(\d+)": lambda match: f"block{int(match[1]) + depth + 1}",
        r"^last": "out.0",
    }
    return lambda name: _renamed(name, rules)


def _restormer_name(name: str) -> str:
    return _renamed(
        name,
        {
            r"^fusion\.squeeze_excite\.squeeze": "channel_attention_t.fc.0",
            r"^fusion\.squeeze_excite\.excite": "channel_attention_t.fc.2",
            r"^fusion\.adjust": "adjust_channels",
            r"^embed": "patch_embed.proj",
            r"^(en|de)coder\.(\d+)": lambda match: f"{match[1]}coder_level{int(match[2]) + 1}",
            r"^down\.(\d+)": lambda match: f"down{int(match[1]) + 1}_{int(match[1]) + 2}.body.0",
            r"^up\.(\d+)": lambda match: f"up{int(match[1]) + 2}_{int(match[1]) + 1}.body.0",
            r"^reduce\.(\d+)": lambda match: f"reduce_chan_level{int(match[1]) + 2}",
            r"\.(norm\d)\.": r".\1.body.",
            r"^last": "output",
        },
    )
