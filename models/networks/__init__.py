"""The networks of the framework, each usable alone."""

from .blur_map import BlurMapNet
from .blur_radius import BlurRadiusNet
from .compact import CompactNet
from .layers import pooled_statistics
from .prior import DeblurringNetwork, OwnNet
from .radius_reblurring import RadiusReblurringNet, ReblurredByDisks
from .reblurring import Reblurred, ReblurringNet
from .restormer import Restormer
from .unet import UNet

__all__ = [
    "BlurMapNet",
    "BlurRadiusNet",
    "CompactNet",
    "DeblurringNetwork",
    "OwnNet",
    "RadiusReblurringNet",
    "Reblurred",
    "ReblurredByDisks",
    "ReblurringNet",
    "Restormer",
    "UNet",
    "pooled_statistics",
]
