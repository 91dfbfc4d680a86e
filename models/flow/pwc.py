"""PWC-Net in plain PyTorch, for the public weights.

Sun, Yang, Liu, Kautz, "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume" (CVPR 2018), in the
variant with dense connections.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.weights import load_exactly, read_state
from .base import Flow, check_choice

# Level l of the pyramid, from 1, has 1/2^l of the resolution.
CHANNELS = (16, 32, 64, 96, 128, 196)
FINEST = 2  # the level whose flow is the result
REACH = 4  # of the search, in pixels of a level, each way
COSTS = (2 * REACH + 1) ** 2
DENSE = (128, 128, 96, 64, 32)
REFINER = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))  # channels, dilation
MULTIPLE = 2 ** len(CHANNELS)
FLOW_SCALE = 20.0  # the network's unit of flow, in pixels of the image
CHANNEL_ORDERS = ("rgb", "bgr")

# The public weights call level 1 and so on so, and a decoder's layers alike.
NUMBERS = ("One", "Two", "Thr", "Fou", "Fiv", "Six")


def convolution(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation)


def leaky_relu() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1)


class Decoder(nn.Module):
    """Flow at one level from the features of both images there, and from what the coarser level found.

    Args:
        level: from 6, the coarsest, to 2.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level
        self.coarsest = level == len(CHANNELS)
        width = COSTS
        if not self.coarsest:
            self.upflow = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
            self.upfeat = nn.ConvTranspose2d(decoder_width(level + 1), 2, 4, stride=2, padding=1)
            width += CHANNELS[level - 1] + 2 + 2
        self.layers = nn.ModuleList()
        for outputs in DENSE:
            self.layers.append(nn.Sequential(convolution(width, outputs), leaky_relu()))
            width += outputs
        self.layers.append(nn.Sequential(convolution(width, 2)))

    def forward(self, first: Tensor, second: Tensor, coarser: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Flow and features, (N, 2, h, w) and (N, decoder_width, h, w), from those of the coarser level."""
        if coarser is None:
            features = F.leaky_relu(cost_volume(first, second), 0.1)
        else:
            flow, upfeat = self.upflow(coarser[0]), self.upfeat(coarser[1])
            # From the network's unit to pixels of this level: 0.625, 1.25, 2.5, 5.
            warped = warp_features(second, flow * (FLOW_SCALE / 2**self.level))
            features = torch.cat([F.leaky_relu(cost_volume(first, warped), 0.1), first, flow, upfeat], dim=1)
        *dense, last = self.layers
        for layer in dense:
            features = torch.cat([layer(features), features], dim=1)
        return last(features), features


def decoder_width(level: int) -> int:
    """Channels of the features that a decoder ends with."""
    inputs = COSTS if level == len(CHANNELS) else COSTS + CHANNELS[level - 1] + 2 + 2
    return inputs + sum(DENSE)


class PWCNet(Flow):
    """PWC-Net. Images are resized bilinearly to multiples of 64, and the flow back.

    It takes about 400 bytes of memory a pixel, 0.8 GB at 1080p, most of it features at a quarter of the resolution.

    Args:
        channel_order: in which the network gets the channels of images, which are RGB: "rgb" as they are, "bgr"
            reversed. The public weights were trained on BGR.
    """

    def __init__(self, channel_order: str = "rgb") -> None:
        super().__init__()
        check_choice("channel_order", channel_order, CHANNEL_ORDERS)
        self.channel_order = channel_order
        self.extractor = nn.ModuleList()
        inputs = 3
        for outputs in CHANNELS:
            self.extractor.append(
                nn.Sequential(
                    *(convolution(inputs, outputs, stride=2), leaky_relu()),
                    *(convolution(outputs, outputs), leaky_relu()),
                    *(convolution(outputs, outputs), leaky_relu()),
                )
            )
            inputs = outputs
        self.decoders = nn.ModuleList(Decoder(level) for level in range(len(CHANNELS), FINEST - 1, -1))
        self.refiner = nn.Sequential()
        inputs = decoder_width(FINEST)
        for outputs, dilation in REFINER:
            self.refiner.extend([convolution(inputs, outputs, dilation=dilation), leaky_relu()])
            inputs = outputs
        self.refiner.append(convolution(inputs, 2))

    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        if self.channel_order == "bgr":
            first, second = first.flip(1), second.flip(1)
        height, width = first.shape[2:]
        size = [-(-extent // MULTIPLE) * MULTIPLE for extent in (height, width)]
        dtype = next(self.parameters()).dtype
        resized = (resize(image, size).to(dtype) for image in (first, second))
        flow = FLOW_SCALE * self.quarter_flow(*resized)
        ratio = flow.new_tensor([width / size[1], height / size[0]]).view(1, 2, 1, 1)
        return (resize(flow, [height, width]) * ratio).float()

    def quarter_flow(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, 2, H/4, W/4), in the network's unit, for sizes that are multiples of 64."""
        found: tuple[Tensor, Tensor] | None = None
        for decoder, ours, theirs in zip(self.decoders, self.pyramid(first), self.pyramid(second), strict=True):
            found = decoder(ours, theirs, found)
        assert found is not None
        flow, features = found
        return flow + self.refiner(features)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The image's features at the levels that have a decoder, the coarsest first."""
        levels = []
        for stage in self.extractor:
            image = stage(image)
            levels.append(image)
        return levels[: FINEST - 2 : -1]


def resize(image: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def cost_volume(first: Tensor, second: Tensor) -> Tensor:
    """The match of each pixel of `first` with those of `second` around it: the mean over channels of their product.

    Args:
        first, second: (N, C, h, w). Beyond `second` lie zeros.

    Returns:
        (N, 81, h, w), one plane for each displacement up to 4 pixels each way, the vertical one outermost. Besides its
        results it needs memory for one product of the features.
    """
    height, width = first.shape[2:]
    padded = F.pad(second, (REACH, REACH, REACH, REACH))
    steps = range(2 * REACH + 1)
    return torch.stack(
        [(first * padded[:, :, dy : dy + height, dx : dx + width]).mean(dim=1) for dy in steps for dx in steps], dim=1
    )


def warp_features(features: Tensor, flow: Tensor) -> Tensor:
    """The network's own warp, which its weights have learned with; for images there is `models.flow.warp`.

    Pixel centres are where they should be, but displacements are divided by (size - 1)/2 where size/2 would be right:
    they come out longer by size/(size - 1). What is not wholly inside becomes zero.

    Args:
        features: (N, C, h, w), h and w at least 2.
        flow: (N, 2, h, w), pixels.

    Returns:
        (N, C, h, w).
    """
    height, width = features.shape[2:]
    x, y = (
        torch.linspace(1 / size - 1, 1 - 1 / size, size, dtype=flow.dtype, device=flow.device)
        for size in (width, height)
    )
    where = torch.stack(
        [x + flow[:, 0] / ((width - 1) / 2), y[:, None] + flow[:, 1] / ((height - 1) / 2)],
        dim=-1,
    )
    with_ones = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
    sampled = F.grid_sample(with_ones, where, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled[:, :-1] * (sampled[:, -1:] > 0.999)


def load_pwcnet(
    state_or_path: str | Path | Mapping[str, Tensor], *, channel_order: str = "rgb", device: str | torch.device = "cpu"
) -> PWCNet:
    """PWC-Net with the public weights.

    Args:
        state_or_path: a state dict, or a file of `torch.save` with one. Names may begin with the `module.` of
            `nn.DataParallel`, and their parts with `net` or, as in the file that was first published, `module`.
        channel_order: in which the network gets the channels of RGB images, see `PWCNet`. As it is by default, "rgb",
            the result is that of the bare network; the public weights do better on "bgr".
        device: where to.

    Returns:
        The network in eval mode, its parameters frozen.

    Raises:
        WeightsError: the file cannot be read without running code, or does not fit: then it names all that differs.
    """
    state = {canonical_name(name): tensor for name, tensor in read_state(state_or_path).items()}
    network = PWCNet(channel_order)
    load_exactly(network, state, "the state" if isinstance(state_or_path, Mapping) else str(state_or_path), public_name)
    return network.to(device).eval().requires_grad_(False)


def canonical_name(name: str) -> str:
    """A parameter's name in a state dict, without `module.` in front, its parts beginning with `net`."""
    return re.sub(r"(^|\.)module(?=[A-Z])", r"\1net", re.sub(r"^(module\.)+", "", name))


def public_name(name: str) -> str:
    """The name that the public weights have for a parameter of `PWCNet`."""
    part, *rest = name.split(".")
    if part == "refiner":
        return ".".join(["netRefiner", "netMain", *rest])
    index = int(rest[0])
    if part == "extractor":
        return ".".join(["netExtractor", f"net{NUMBERS[index]}", *rest[1:]])
    decoder = f"net{NUMBERS[len(CHANNELS) - 1 - index]}"  # the coarsest is the first
    if rest[1] == "layers":
        return ".".join([decoder, f"net{NUMBERS[int(rest[2])]}", *rest[3:]])
    return ".".join([decoder, f"net{rest[1].capitalize()}", *rest[2:]])
