"""The networks of the framework, each usable alone."""

from models.networks.blur_map import BlurMapNet
from models.networks.compact import CompactNet
from models.networks.layers import pooled_statistics
from models.networks.prior import DeblurringNetwork, OwnNet
from models.networks.reblurring import Reblurred, ReblurringNet
from models.networks.restormer import Restormer
from models.networks.unet import UNet

__all__ = [
    "BlurMapNet",
    "CompactNet",
    "DeblurringNetwork",
    "OwnNet",
    "Reblurred",
    "ReblurringNet",
    "Restormer",
    "UNet",
    "pooled_statistics",
]
