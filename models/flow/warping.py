"""Warping an image by a flow, and flows of images of another size."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import check_choice, check_flow

PADDINGS = ("zeros", "border")
GRIDS = ("exact", "published")
INTERPOLATIONS = ("bilinear", "bicubic")


def warp(
    image: Tensor, flow: Tensor, *, padding: str = "zeros", grid: str = "exact", interpolation: str = "bilinear"
) -> Tensor:
    """Look up the image at p + flow(p), for every pixel p.

    Differentiable in image and flow. With zero flow the image comes back as it was.

    Args:
        image: (N, C, H, W), floating point, any C.
        flow: (N, 2, H, W), pixels: to the right, down.
        padding: beyond the image lie "zeros", or its edge goes on ("border"). What is less than a pixel outside mixes
            the two. `inside_mask` tells where that is.
        grid: "exact", or "published": the published training spreads the pixels over [-1, 1], which are the outer edges
            of the outermost pixels and not their centres, so that the picture is magnified about its middle by
            size/(size-1) and zero flow moves pixels by up to half a pixel. For repeating that training only.
        interpolation: "bilinear", which stays within the range of the pixels, but blurs: between two pixels it is their
            mean; or "bicubic", which keeps what is sharp sharp, and may overshoot beside edges.

    Returns:
        (N, C, H, W), in the image's dtype. Positions are computed in float64: in float32 they would be wrong by up to
        1e-4 pixels in a large image, and zero flow would change it.

    Raises:
        TypeError: dtypes that are not floating point.
        ValueError: shapes, devices or options that do not fit.
    """
    check_flow("flow", flow)
    check_choice("padding", padding, PADDINGS)
    check_choice("grid", grid, GRIDS)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image must be a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 4 or (image.shape[0], *image.shape[2:]) != (flow.shape[0], *flow.shape[2:]):
        raise ValueError(
            f"image must be (N, C, H, W) with the N, H and W of flow {tuple(flow.shape)}, got {tuple(image.shape)}"
        )
    if image.device != flow.device:
        raise ValueError(f"image and flow must be on one device, got {image.device} and {flow.device}")
    if image.numel() == 0:
        return image * 1  # grid_sample refuses it

    height, width = image.shape[2:]
    with torch.autocast(image.device.type, enabled=False):
        x, y = positions(flow)
        if grid == "exact":  # the centre of pixel i of n is at (2 i + 1)/n - 1
            where = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        else:
            where = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
        sampled = F.grid_sample(image.double(), where, mode=interpolation, padding_mode=padding, align_corners=False)
    return sampled.to(image.dtype)


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H, W) each, float64: x and y of p + flow(p), pixels."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device, dtype=torch.float64) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=torch.float64)[:, None] + flow[:, 1]
    return x, y


def resized(flow: Tensor, size: Sequence[int]) -> Tensor:
    """A flow of images of another size, bilinear, (N, 2, *size): its pixels are theirs."""
    if tuple(flow.shape[2:]) == tuple(size):
        return flow
    scales = size[1] / flow.shape[3], size[0] / flow.shape[2]
    larger = F.interpolate(flow, size=list(size), mode="bilinear", align_corners=False)
    return torch.stack([scale * larger[:, axis] for axis, scale in enumerate(scales)], dim=1)
