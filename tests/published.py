"""The networks of the published implementation, for tests: their weights' names, and what they compute.

The functions here are the definitions in the fewest words, on the published names, one call for each step; the networks
of `models` must agree with them.
"""

import json
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

DATA = Path(__file__).parent / "data"
# Names and shapes of the weights of Reblur_Model, Pred, VGG_Deblur (the U-Net) and Restormer.
SHAPES: dict[str, dict[str, list[int]]] = json.loads((DATA / "published_networks.json").read_text())
State = dict[str, Tensor]


def weights(shapes: Mapping[str, list[int]]) -> State:
    """The weights with which the published cases were made: random, each from its name."""
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        state[name] = noise * (1 / prod(shape[1:])) ** 0.5 if len(shape) > 1 else noise * 0.05
    return state


def checkpoint(network: str = "VGG_Deblur", prefix: str = "module.") -> dict[str, object]:
    """A training checkpoint as the published code writes it, with either deblurring network."""

    def state(name: str) -> State:
        return {prefix + key: tensor for key, tensor in weights(SHAPES[name]).items()}

    return {
        "epoch": 200,
        "global_step": 70000,
        "G_state_dict": state(network),
        "Pred_state_dict": state("Pred"),
        "Reblur_state_dict": state("Reblur_Model"),
        "G_opt": {"state": {}, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.999)}]},
    }


def jdrl_checkpoint() -> dict[str, object]:
    """As the forerunner writes it: no blur map, three channels in, no squeeze-excite."""
    shapes = {name: shape for name, shape in SHAPES["VGG_Deblur"].items() if "attention" not in name}
    shapes["encoder.block1.0.weight"] = [64, 3, 3, 3]
    return {"G_state_dict": weights(shapes), "Reblur_state_dict": weights(SHAPES["Reblur_Model"])}


def case(name: str) -> dict[str, Tensor]:
    """A published case: inputs and outputs by name."""
    with np.load(DATA / f"published_{name}.npz") as arrays:
        return {key.partition("/")[2]: torch.from_numpy(array) for key, array in arrays.items()}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def unet(state: State, blurry: Tensor, blur_map: Tensor | None) -> Tensor:
    """The published U-Net, of five sizes. Heights and widths are multiples of 16."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding="same")

    def double_conv(name: str, x: Tensor) -> Tensor:
        return conv(f"{name}.2", conv(f"{name}.0", x).relu()).relu()

    def up(name: str, x: Tensor) -> Tensor:
        enlarged = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return F.conv2d(F.pad(enlarged, (0, 1, 0, 1)), state[f"{name}.1.weight"], state[f"{name}.1.bias"])

    x = blurry
    if blur_map is not None:
        x = squeeze_excite(state, "channel_attention", torch.cat([blurry, blur_map], dim=1))
    encoded = [double_conv("encoder.block1", x)]
    for block in range(2, 6):
        encoded.append(double_conv(f"encoder.block{block}", F.max_pool2d(encoded[-1], 2)))
    x = encoded[4]
    for number, skip in zip((6, 7, 8, 9), (3, 2, 1, 0), strict=True):
        x = double_conv(f"block{number}", torch.cat([up(f"up{number}", x), encoded[skip]], dim=1))
    return conv("out.0", x).sigmoid()


def restormer(state: State, blurry: Tensor, blur_map: Tensor | None) -> Tensor:
    """The published Restormer, of four sizes. Heights and widths are multiples of 8."""

    def conv(name: str, x: Tensor, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2, groups=groups)

    def norm(name: str, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, unbiased=False)
        scale, shift = (state[f"{name}.body.{key}"][:, None, None] for key in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def attention(name: str, x: Tensor) -> Tensor:
        qkv = conv(f"{name}.qkv", x)
        qkv = conv(f"{name}.qkv_dwconv", qkv, groups=qkv.shape[1])
        outputs = []
        heads = len(state[f"{name}.temperature"])
        parts = zip(*(part.flatten(2).chunk(heads, dim=1) for part in qkv.chunk(3, dim=1)), strict=True)
        for head, (query, key, value) in enumerate(parts):
            query, key = (part / part.norm(dim=2, keepdim=True) for part in (query, key))
            similar = torch.einsum("nip,njp->nij", query, key) * state[f"{name}.temperature"][head]
            outputs.append(similar.softmax(dim=2) @ value)
        return conv(f"{name}.project_out", torch.cat(outputs, dim=1).view(x.shape))

    def feed_forward(name: str, x: Tensor) -> Tensor:
        x = conv(f"{name}.project_in", x)
        first, second = conv(f"{name}.dwconv", x, groups=x.shape[1]).chunk(2, dim=1)
        return conv(f"{name}.project_out", F.gelu(first) * second)

    def stage(name: str, x: Tensor) -> Tensor:
        for block in sorted({int(key.split(".")[1]) for key in state if key.startswith(f"{name}.")}):
            x = x + attention(f"{name}.{block}.attn", norm(f"{name}.{block}.norm1", x))
            x = x + feed_forward(f"{name}.{block}.ffn", norm(f"{name}.{block}.norm2", x))
        return x

    x = blurry
    if blur_map is not None:
        joined = torch.cat([blurry, blur_map], dim=1)
        x = conv("adjust_channels", squeeze_excite(state, "channel_attention_t", joined))
    level1 = stage("encoder_level1", conv("patch_embed.proj", x))
    level2 = stage("encoder_level2", F.pixel_unshuffle(conv("down1_2.body.0", level1), 2))
    level3 = stage("encoder_level3", F.pixel_unshuffle(conv("down2_3.body.0", level2), 2))
    x = stage("latent", F.pixel_unshuffle(conv("down3_4.body.0", level3), 2))
    x = torch.cat([F.pixel_shuffle(conv("up4_3.body.0", x), 2), level3], dim=1)
    x = stage("decoder_level3", conv("reduce_chan_level3", x))
    x = torch.cat([F.pixel_shuffle(conv("up3_2.body.0", x), 2), level2], dim=1)
    x = stage("decoder_level2", conv("reduce_chan_level2", x))
    x = stage("decoder_level1", torch.cat([F.pixel_shuffle(conv("up2_1.body.0", x), 2), level1], dim=1))
    return conv("output", stage("refinement", x)) + blurry


def squeeze_excite(state: State, name: str, x: Tensor) -> Tensor:
    hidden = (x.mean((2, 3)) @ state[f"{name}.fc.0.weight"].T).relu()
    return x * (hidden @ state[f"{name}.fc.2.weight"].T).sigmoid()[:, :, None, None]
