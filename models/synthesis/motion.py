"""The displacement between two shots of a pair."""

import cv2
import numpy as np
from scipy import ndimage

from ..data.images import Array


def random_flow(disparity: Array, misalignment: float, patch: int, generator: np.random.Generator) -> Array:
    """The displacement between two shots with a camera that moved, turned about its axis and zoomed in between.

    Moved sideways, what is near shifts more. Its depth is smoothed, so that nothing is hidden or uncovered and the
    displacement can be inverted.

    Args:
        disparity: (H, W), 0 … 1, larger where nearer.
        misalignment: the displacement anywhere in the patch is at most this, pixels; its largest at least the half.
        patch: the height and width, in the middle of (H, W), that this is about, pixels.

    Returns:
        (H, W, 2), x and y, pixels.
    """
    height, width = disparity.shape
    # A step of height h, smoothed, has the slope h/(σ √(2π)): for h of 2 misalignments below 0.4 pixels per pixel.
    near = cv2.GaussianBlur(disparity, (0, 0), max(2 * misalignment, patch / 12), borderType=cv2.BORDER_REPLICATE)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre_x, centre_y = generator.uniform(-0.3, 0.3, 2) * patch + ((width - 1) / 2, (height - 1) / 2)
    from_centre = np.stack([x - centre_x, y - centre_y], axis=2) / np.float32(patch / 2)
    angle = generator.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    shift, parallax, zoom, turn = generator.uniform(-1, 1, 4).astype(np.float32)
    flow = direction * (shift + parallax * (near - near.mean()))[..., None]
    flow = flow + zoom * from_centre + turn * np.stack([-from_centre[..., 1], from_centre[..., 0]], axis=2)
    top, left = (height - patch) // 2, (width - patch) // 2
    largest = np.hypot(*np.moveaxis(flow[top : top + patch, left : left + patch], 2, 0)).max()
    size = generator.uniform(0.5, 1) * misalignment
    return np.asarray(flow * (size / max(largest, np.float32(1e-6))), np.float32)


def inverse_flow(flow: Array, iterations: int = 24) -> Array:
    """The displacement back: g(q) = -f(q + g(q)), by fixed-point iteration.

    Args:
        flow: (H, W, 2), x and y, pixels, changing by less than a pixel each pixel. Beyond, its edge is repeated.

    Returns:
        (H, W, 2), x and y, pixels.
    """
    inverse = -flow
    for _ in range(iterations):
        following = -sampled(flow, inverse, order=1)
        if np.abs(following - inverse).max() < 1e-4:
            return following
        inverse = following
    return inverse


def sampled(picture: Array, flow: Array, order: int = 3) -> Array:
    """`picture` at p + flow(p), by splines.

    Args:
        picture: (H, W, C). Beyond, its edge is repeated.
        flow: (H, W, 2), x and y, pixels.
        order: of the spline: 3 for pictures, 1 for linear interpolation.

    Returns:
        (H, W, C).
    """
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    places = np.stack([y + flow[..., 1], x + flow[..., 0]])
    channels = [
        ndimage.map_coordinates(picture[..., channel], places, order=order, mode="nearest")
        for channel in range(picture.shape[2])
    ]
    return np.stack(channels, axis=2).astype(np.float32)


def displaced(srgb: Array, flow: Array) -> Array:
    """A picture sampled at p + flow(p); 0 … 1."""
    return np.clip(sampled(srgb, flow), 0, 1)
