"""Deblurring with the blur map as prior: what all such networks have in common, and any network of your own."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import reblur_ops

from ..core.tensors import IMAGE_CHANNELS, check_image, check_integer, check_same_size, pad_to_multiple
from .layers import SqueezeExcite

PUBLISHED_MAP_CHANNELS, _ = reblur_ops.map_channels()


class DeblurringNetwork(nn.Module):
    """Base of the deblurring networks: they share how they are called, whatever they compute.

    Args:
        map_channels: channels of the blur map, or 0 for a network without the prior.

    Attributes:
        map_channels: as given.
        multiple: of which heights and widths are made inside; an image that starts at a multiple of it gives the same.
        reach: how far away, in pixels, an output pixel can see, but for what squeeze-excite pools; None if that is
            not known, or the whole image.
    """

    multiple: int = 1
    reach: int | None = None

    def __init__(self, map_channels: int) -> None:
        super().__init__()
        check_integer("map_channels", map_channels, 0)
        self.map_channels = map_channels

    def forward(self, blurry: Tensor, blur_map: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        """Deblur.

        Args:
            blurry: (N, 3, H, W), 0 … 1, of any size: networks that need multiples of some number pad and crop inside.
            blur_map: (N, map_channels, H, W), from `BlurMapNet`. Ignored by a network without the prior.
            pooled: (N, 3 + map_channels), for tiles of an image: the `pooled_statistics` of the whole of it. Ignored by
                a network without squeeze-excite.

        Returns:
            (N, 3, H, W), about 0 … 1; not clipped, so that gradients pass.

        Raises:
            TypeError, ValueError: what does not fit.
        """
        raise NotImplementedError

    def join(self, blurry: Tensor, blur_map: Tensor | None) -> Tensor:
        """cat(blurry, blur_map), checked: (N, 3 + map_channels, H, W)."""
        check_image("blurry", blurry, IMAGE_CHANNELS)
        if not self.map_channels:
            return blurry
        if blur_map is None:
            raise ValueError(f"this network needs a blur map of {self.map_channels} channels, got None")
        check_image("blur_map", blur_map, self.map_channels)
        check_same_size("blur_map", blur_map, "blurry", blurry)
        return torch.cat([blurry, blur_map], dim=1)


class Fusion(nn.Module):
    """Squeeze-excite on cat(blurry, blur_map) and a 1×1 convolution: the blur map put into a few channels.

    (N, 3 + map_channels, H, W) -> (N, out_channels, H, W).
    """

    def __init__(self, map_channels: int, out_channels: int = IMAGE_CHANNELS) -> None:
        super().__init__()
        channels = IMAGE_CHANNELS + map_channels
        self.squeeze_excite = SqueezeExcite(channels)
        self.adjust = nn.Conv2d(channels, out_channels, 1)

    def forward(self, joined: Tensor, pooled: Tensor | None = None) -> Tensor:
        return self.adjust(self.squeeze_excite(joined, pooled))


class OwnNet(DeblurringNetwork):
    """Any network of yours behind the prior.

    It is a `torch.nn.Module` that turns (N, channels, H, W) into (N, 3, H, W). `Fusion` stands in front. With 3
    channels the fusion's output is added to the blurry image and starts near nothing, so that a network trained on
    pictures sees, at first, the blurry picture.

    Args:
        map_channels: as for `DeblurringNetwork`. With 0 the network gets the blurry image itself.
        class_path: where to import the class from: "package.module.Class". Importing runs that module.
        arguments: keyword arguments of the class.
        channels: channels that it takes; 3 if map_channels is 0.
        multiple: it gets heights and widths that are multiples of this.
        residual: whether its output is added to the blurry image.

    Raises:
        ValueError: the class cannot be imported, is none of `torch.nn.Module`, or refuses the arguments.
    """

    def __init__(
        self,
        map_channels: int = PUBLISHED_MAP_CHANNELS,
        *,
        class_path: str,
        arguments: Mapping[str, Any] | None = None,
        channels: int = IMAGE_CHANNELS,
        multiple: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__(map_channels)
        check_integer("channels", channels)
        check_integer("multiple", multiple)
        if not map_channels and channels != IMAGE_CHANNELS:
            raise ValueError(f"channels must be {IMAGE_CHANNELS} without a blur map, got {channels}")
        self.class_path = class_path
        self.multiple = multiple
        self.residual = residual
        self.keeps_image = channels == IMAGE_CHANNELS
        self.fusion = Fusion(map_channels, channels) if map_channels else None
        if self.fusion is not None and self.keeps_image:
            # Near 0, not 0: behind weights of 0, squeeze-excite would get no gradient.
            nn.init.normal_(self.fusion.adjust.weight, std=1e-3)
            nn.init.zeros_(self.fusion.adjust.bias)  # type: ignore[arg-type]
        network = import_network(class_path)
        try:
            self.network = network(**(arguments or {}))
        except TypeError as error:
            raise ValueError(f"{class_path} refuses its arguments: {error}") from error

    def forward(self, blurry: Tensor, blur_map: Tensor | None = None, pooled: Tensor | None = None) -> Tensor:
        joined = self.join(blurry, blur_map)
        if self.fusion is None:
            x = blurry
        else:
            x = self.fusion(joined, pooled)
            if self.keeps_image:
                x = blurry + x
        height, width = blurry.shape[2:]
        output = self.network(pad_to_multiple(x, self.multiple))[..., :height, :width]
        if output.shape != blurry.shape:
            raise ValueError(
                f"{self.class_path} must give (N, 3, H, W) at the size that it gets: "
                f"{tuple(blurry.shape)} is needed, got {tuple(output.shape)}"
            )
        return blurry + output if self.residual else output


def import_network(class_path: str) -> type[nn.Module]:
    """The class that a path such as "package.module.Class" names.

    Raises:
        ValueError: there is none, or it is none of `torch.nn.Module`; nothing is called then.
    """
    module_name, _, class_name = class_path.rpartition(".")
    if not module_name:
        raise ValueError(f"class_path must be of the form 'package.module.Class', got {class_path!r}")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{class_path!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{class_path!r} must be a class derived from torch.nn.Module, got {found!r}")
    return found
