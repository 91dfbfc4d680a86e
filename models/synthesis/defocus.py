"""Defocus by a thin lens, rendered from a sharp picture and its disparity, without this project's operator.

The pictures are there to test the operator, so they come another way: disks of the circle of confusion, blurred with
OpenCV layer by layer, the nearer layers hiding the farther.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
EDGE = 0.05  # of the range of disparities: a larger difference within five pixels is an edge
EDGE_WIDTH = 8  # pixels that the false depths of an edge may take


def to_linear(srgb: Array) -> Array:
    """Linear light, 0 … 1, of sRGB values, 0 … 1 (IEC 61966-2-1). Any shape. A lens adds light, not sRGB values."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: Array) -> Array:
    """sRGB values, 0 … 1, of linear light; what is beyond 0 … 1 is clipped. Any shape. The inverse of `to_linear`."""
    light = np.clip(linear, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def fill_disparity(disparity: Array) -> Array:
    """Disparity without holes: they close from the rim inwards, pixel by pixel, the farthest neighbour first.

    Most holes lie beside something near, where it hides from one eye what the other sees: the background goes on there.

    Args:
        disparity: (H, W), pixels, larger where nearer. Holes are NaN or infinite; something must be finite.

    Returns:
        (H, W), pixels, finite. False depths halfway across an edge are gone: where the range of 5 × 5 pixels is above
        5 % of that of all, a pixel takes the nearer of their least and their largest disparity.
    """
    hole = ~np.isfinite(disparity)
    if hole.all():
        raise ValueError("disparity must be finite somewhere, got only holes")
    filled = np.where(hole, np.inf, disparity).astype(np.float32)
    while hole.any():
        farthest = cv2.erode(filled, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
        filled = np.where(hole, farthest, filled)
        hole = np.isinf(filled)
    filled, window = np.asarray(cv2.medianBlur(filled, 5), np.float32), np.ones((5, 5), np.uint8)
    edge = EDGE * np.ptp(filled)
    for _ in range(EDGE_WIDTH // 2):
        least = cv2.erode(filled, window, borderType=cv2.BORDER_REPLICATE)
        largest = cv2.dilate(filled, window, borderType=cv2.BORDER_REPLICATE)
        nearer = np.where(filled - least < largest - filled, least, largest)
        filled = np.where(largest - least > edge, nearer, filled)
    return np.asarray(cv2.medianBlur(filled, 5), np.float32)  # without specks


def coc(disparity: Array, focus: float, largest: float) -> Array:
    """The radius of the circle of confusion, signed: positive in front of the plane in focus, negative behind it.

    A thin lens makes it proportional to 1/depth - 1/focus depth, hence to disparity - focus disparity. `largest` says
    how wide the lens is open.

    Args:
        disparity: (H, W), pixels, finite.
        focus: the disparity in focus, pixels.
        largest: the radius where the picture is farthest out of focus, pixels.

    Returns:
        (H, W), pixels, from -largest to largest.
    """
    defocus = disparity - focus
    farthest = np.abs(defocus).max()
    return np.asarray(defocus * (largest / farthest if farthest else 0), np.float32)


def disk_kernel(radius: float) -> Array:
    """A disk with a soft edge, one pixel wide, that sums to 1 and has the RMS radius of a true disk, radius/√2.

    Args:
        radius: pixels, >= 0. The identity for 0.

    Returns:
        (2R+1, 2R+1), R = ⌈radius⌉.
    """
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(y, x)

    def soft_disk(edge: float) -> Array:
        kernel = np.clip(edge + 0.5 - distance, 0, 1)
        return np.asarray(kernel / kernel.sum(), np.float32)

    # With the edge at `radius`, pixels being coarse, disks smaller than 1 would hardly blur.
    low, high = 0.5, radius + 0.5
    for _ in range(24):
        edge = (low + high) / 2
        if (soft_disk(edge) * distance**2).sum() < radius**2 / 2:
            low = edge
        else:
            high = edge
    return soft_disk(low)


def render_defocus(image: Array, radius: Array, step: float = 0.25) -> Array:
    """The picture that a lens with these circles of confusion makes.

    The picture is cut by depth into layers, each pixel shared between two neighbouring ones, and each layer's light and
    coverage are blurred with its disk. Then each layer, from the nearest back, gets what coverage those before it have
    left. Where some is left over at the end, the lens sees what the picture does not show, behind the edge of something
    near: the visible surroundings are spread over it.

    Args:
        image: (H, W, 3), linear light. Beyond it, its edge is repeated.
        radius: (H, W), pixels, signed and larger where nearer, as from `coc`.
        step: from the disk of one layer to that of the next, pixels.

    Returns:
        (H, W, 3), linear light.
    """
    light = np.zeros_like(image)
    left = np.ones_like(radius)
    for level in range(int(np.ceil(radius.max() / step)), int(np.floor(radius.min() / step)) - 1, -1):
        share = np.maximum(1 - np.abs(radius / step - level), 0)[..., None]
        if not share.any():
            continue
        layer = np.concatenate([image * share, share], axis=2)
        blurred = cv2.filter2D(layer, cv2.CV_32F, disk_kernel(abs(level) * step), borderType=cv2.BORDER_REPLICATE)
        # OpenCV filters with large kernels by Fourier transform, which makes rounding errors of nothing.
        coverage = np.maximum(blurred[..., 3], 1e-6)
        taken = np.minimum(coverage, left)
        light += blurred[..., :3] * (taken / coverage)[..., None]
        left -= taken
    return np.asarray(light / (1 - left)[..., None], np.float32)
