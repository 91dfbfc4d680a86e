"""Random weights as the published training draws them."""

from torch import nn

from .blur_map import BlurMapNet
from .reblurring import ReblurringNet
from .unet import UNet


def initialize_as_published(network: nn.Module) -> None:
    """Draw the weights of a network anew, as the published code does; of networks that it does not draw, none.

    The U-Net's convolutions are Kaiming normal for ReLU, by the outputs; with PyTorch's defaults hardly a gradient
    reaches its lowest block. Those of the blur map network too, with biases of 0.1; those of the reblurring network are
    Xavier normal. The Restormer starts from PyTorch's defaults, or from weights.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if isinstance(network, (UNet, BlurMapNet)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(network, ReblurringNet):
            nn.init.xavier_normal_(module.weight)
        if isinstance(network, BlurMapNet) and module.bias is not None:
            nn.init.constant_(module.bias, 0.1)
