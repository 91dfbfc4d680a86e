"""Masks of the pixels whose flow can be trusted: (N, 1, H, W), of 0 and 1."""

import functools
import math

import torch
from torch import Tensor

from .base import check_flow
from .warping import positions, warp

# How many colours the wheel of the Middlebury flow pages (Baker et al., "A Database and Evaluation Methodology for
# Optical Flow", IJCV 2011) has from red to yellow, from yellow to green, …, and which channel rises or falls meanwhile.
WHEEL = ((15, 1, "rises"), (6, 0, "falls"), (4, 2, "rises"), (11, 1, "falls"), (13, 0, "rises"), (6, 2, "falls"))


@functools.cache
def colour_wheel() -> Tensor:
    """(55, 3), float64, whole numbers from 0 to 255: RGB around the wheel, from red over green and blue back to red."""
    colours = []
    colour = [255, 0, 0]
    for count, channel, direction in WHEEL:
        for step in range(count):
            level = 255 * step // count
            colour[channel] = level if direction == "rises" else 255 - level
            colours.append(list(colour))
        colour[channel] = 255 if direction == "rises" else 0
    return torch.tensor(colours, dtype=torch.float64)


def flow_colours(flow: Tensor) -> Tensor:
    """A flow as the Middlebury pages draw it: the hue is the direction; still is white, each image's fastest is full.

    Args:
        flow: (N, 2, H, W), pixels. Each image is divided by its largest magnitude plus 1e-5. What is not finite counts
            as unknown and is black.

    Returns:
        (N, 3, H, W), uint8, RGB, on the flow's device.

    Raises:
        TypeError, ValueError: not a floating-point tensor, or not of that shape.
    """
    check_flow("flow", flow)
    if flow.numel() == 0:
        return flow.new_zeros((flow.shape[0], 3, *flow.shape[2:]), dtype=torch.uint8)
    # Directions in float32 and colours in float64, as NumPy computes them from a flow in float32: floor() below
    # shows every digit.
    flow = flow.detach().float()
    known = flow.isfinite().all(dim=1, keepdim=True)
    flow = torch.where(known, flow, 0)
    u, v = (flow / (magnitude(flow).amax(dim=(2, 3), keepdim=True) + 1e-5)).unbind(1)
    radius = (u * u + v * v).sqrt()
    wheel = colour_wheel().to(flow.device) / 255
    place = (torch.atan2(-v, -u) / math.pi + 1) / 2 * (len(wheel) - 1)
    before = place.long()
    part = (place.double() - before)[..., None]
    hue = (1 - part) * wheel[before] + part * wheel[(before + 1) % len(wheel)]
    radius = radius.double()[..., None]
    # By rounding, the fastest may be a little beyond 1. The original draws those darker.
    colour = torch.where(radius <= 1, 1 - radius * (1 - hue), 0.75 * hue)
    return (255 * colour).floor().to(torch.uint8).permute(0, 3, 1, 2) * known


def magnitude(flow: Tensor) -> Tensor:
    """(N, 1, H, W): the length of each displacement, pixels."""
    return (flow[:, 0:1] * flow[:, 0:1] + flow[:, 1:2] * flow[:, 1:2]).sqrt()


def calibration_mask(flow: Tensor, tolerance: float = 0.35) -> Tensor:
    """The published calibration mask: pixels whose flow, drawn and turned to grey, is close to the image's mean grey.

    `flow_colours` draws the flow; its grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), rounded to whole numbers as
    image libraries do, in the fixed-point arithmetic of OpenCV; the mean is not rounded. (arXiv 2409.17792)

    A criterion of appearance, it looks at direction as well as speed, and at how the rest of the image moves: zero or
    equal flow everywhere keeps everything, and what moves unlike the rest is left out.

    Args:
        flow: (N, 2, H, W), pixels. Each image of the batch is judged by itself.
        tolerance: a pixel is kept while |grey - mean| <= tolerance · mean.

    Returns:
        (N, 1, H, W), float32: 1 to keep, 0 to leave out.

    Raises:
        TypeError, ValueError: not a floating-point tensor, or not of that shape; a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    red, green, blue = flow_colours(flow).int().unbind(1)
    grey = (9798 * red + 19235 * green + 3735 * blue + (1 << 14) >> 15).double()[:, None]
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return ((grey - mean).abs() <= tolerance * mean).float()


def consistency_mask(forward: Tensor, backward: Tensor, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Pixels that the flow there and the flow back bring home: seen in both images, and found.

    With w the flow at p and w' the flow back, looked up at p + w, kept where (Sundaram, Brox, Keutzer, "Dense Point
    Trajectories by GPU-Accelerated Large Displacement Optical Flow", ECCV 2010, equation 5)::

        |w + w'|² <= relative · (|w|² + |w'|²) + absolute

    and p + w is inside the image. An occluded pixel is hidden in the other image: the flow back from where it ought to
    be is another's.

    Args:
        forward: (N, 2, H, W), pixels: the flow from the first image to the second. The mask is on the first.
        backward: (N, 2, H, W), pixels: from the second to the first.
        relative: of the squared lengths of both.
        absolute: pixels².

    Returns:
        (N, 1, H, W), float32: 1 to keep, 0 to leave out.

    Raises:
        TypeError, ValueError: flows that are not floating point, or of different or wrong shapes or devices; a negative
            bound.
    """
    check_flow("forward", forward)
    check_flow("backward", backward)
    if forward.shape != backward.shape:
        raise ValueError(
            f"forward and backward must be of one shape, got {tuple(forward.shape)} and {tuple(backward.shape)}"
        )
    if not (relative >= 0 and absolute >= 0):
        raise ValueError(f"relative and absolute must be at least 0, got {relative} and {absolute}")
    there = forward.detach().float()
    back = warp(backward.detach().float(), there, padding="border")
    bound = relative * (magnitude(there) ** 2 + magnitude(back) ** 2) + absolute
    return (magnitude(there + back) ** 2 <= bound).float() * inside_mask(there)


def inside_mask(flow: Tensor) -> Tensor:
    """Pixels that `warp` looks up within the image, between the centres of its outermost pixels.

    Args:
        flow: (N, 2, H, W), pixels.

    Returns:
        (N, 1, H, W), float32: 1 inside, 0 outside.

    Raises:
        TypeError, ValueError: not a floating-point tensor, or not of that shape.
    """
    check_flow("flow", flow)
    height, width = flow.shape[2:]
    x, y = positions(flow.detach())
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))[:, None].float()
