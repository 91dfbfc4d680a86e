"""Alignment: optical flow by several methods behind one interface, warping, and masks of what can be trusted.

    flow = load_flow("dis")              # "variational", "reblur", "pwc", "raft", "none"
    displacement = flow(first, second)   # (N, 2, H, W), pixels; channel 0 to the right, channel 1 down
    aligned = warp(second, displacement) # matches first

The displacement at pixel p of `first` says where to look in `second`: at p + displacement(p).
"""

from .base import Flow
from .dis import DisFlow
from .load import NoFlow, load_flow
from .masks import calibration_mask, consistency_mask, flow_colours, inside_mask
from .pwc import PWCNet, load_pwcnet
from .raft import RaftFlow
from .reblur import ReblurFlow
from .variational import VariationalFlow
from .warping import warp

__all__ = [
    "DisFlow",
    "Flow",
    "NoFlow",
    "PWCNet",
    "RaftFlow",
    "ReblurFlow",
    "VariationalFlow",
    "calibration_mask",
    "consistency_mask",
    "flow_colours",
    "inside_mask",
    "load_flow",
    "load_pwcnet",
    "warp",
]
