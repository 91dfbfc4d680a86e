"""A misaligned pair and its truth, made of one photograph."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import Array
from .defocus import coc, render_defocus, to_linear, to_srgb
from .motion import displaced, inverse_flow, random_flow
from .scene import make_scene
from .settings import Settings

# From the disk of one depth layer to that of the next, pixels. Against 0.25 the picture differs by 60 dB PSNR, in half
# the time.
LAYER_STEP = 0.5
# Maps are rounded to this part of a pixel, which halves their size on disk and is far below what can be measured.
MAP_STEP = 1 / 1024


class SyntheticPair(NamedTuple):
    """A pair and its truth, in the formats described above; pictures (H, W, 3), sRGB, 0 … 1."""

    blurry: Array
    sharp: Array
    aligned: Array
    blur_radius: Array
    flow: Array
    visible: NDArray[np.bool_] | None = None  # (H, W), whether the sharp picture shows it; of scenes alone


def make_pair(
    photograph: Array, disparity: Array | None, settings: Settings, generator: np.random.Generator
) -> SyntheticPair:
    """A pair cut from somewhere in a photograph.

    Args:
        photograph: (H, W, 3), sRGB, 0 … 1, at least patch + 2 margin each way.
        disparity: (H, W), finite, larger where nearer; a random one without.
        settings: of which those that choose photographs, count pairs or scale play no part here.
        generator: of all that is random.
    """
    if settings.scenes:
        return SyntheticPair(*make_scene([photograph], settings.scene, generator))
    window = _detailed_window(photograph, settings.extent, generator)
    inside = (slice(settings.margin, -settings.margin),) * 2
    srgb = photograph[window]
    depth = random_disparity(srgb, generator) if disparity is None else _normalised(disparity[window])

    radius = _random_coc(depth, settings.blur, generator)
    blurry = render_defocus(to_linear(srgb), radius, LAYER_STEP)
    flow = random_flow(depth, settings.misalignment, settings.patch, generator)
    sharp = displaced(srgb, inverse_flow(flow)) if settings.misalignment else srgb
    noise = generator.uniform(0, settings.noise)
    return SyntheticPair(
        blurry=to_srgb(noisy(blurry[inside], noise, generator)),
        sharp=to_srgb(noisy(to_linear(sharp[inside]), noise, generator)),
        aligned=srgb[inside],
        blur_radius=_rounded(np.abs(radius[inside]) / np.float32(2**0.5)),
        flow=_rounded(flow[inside]),
    )


def _detailed_window(photograph: Array, extent: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """The one of two random windows with more detail: nothing is to be learnt from a blue sky, and yet it counts."""
    windows = []
    for _ in range(2):
        top, left = (int(generator.integers(size - extent + 1)) for size in photograph.shape[:2])
        windows.append((slice(top, top + extent), slice(left, left + extent)))
    return max(windows, key=lambda window: float(np.abs(np.diff(photograph[window], axis=1)).mean()))


def random_disparity(srgb: Array, generator: np.random.Generator) -> Array:
    """Depth that could be: smooth, but for edges along some of the edges of the picture.

    A watershed from a few random pixels cuts the picture where its colours change; each part then stands at a distance
    of its own, and is slightly uneven.

    Args:
        srgb: (H, W, 3), 0 … 1.

    Returns:
        (H, W), 0 … 1, larger where nearer.
    """
    height, width = srgb.shape[:2]
    count = int(generator.integers(1, 7))
    markers = np.zeros((height, width), np.int32)
    for label in range(1, count + 1):
        y, x = int(generator.integers(height)), int(generator.integers(width))
        cv2.circle(markers, (x, y), 3, label, -1)
    smooth = cv2.GaussianBlur(np.rint(srgb * 255).astype(np.uint8), (0, 0), 2)
    labels = cv2.watershed(smooth, markers)
    labels = cv2.dilate(np.maximum(labels, 0).astype(np.uint8), np.ones((3, 3), np.uint8))  # over the watershed lines
    labels = cv2.medianBlur(labels, 7)
    distances = generator.uniform(0, 1, int(labels.max()) + 1).astype(np.float32)
    uneven = _smooth_noise(height, width, generator) * np.float32(generator.uniform(0.2, 0.8))
    return _normalised(distances[labels] + uneven)


def _smooth_noise(height: int, width: int, generator: np.random.Generator) -> Array:
    """(H, W), a slope with gentle hills, of order 1."""
    grid = generator.normal(0, 0.3, (4, 4)) + np.add.outer(*generator.uniform(-0.25, 0.25, (2, 1)) * np.arange(-1.5, 2))
    return np.asarray(cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _normalised(values: Array) -> Array:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / max(high - low, np.float32(1e-6)), np.float32)


def _random_coc(disparity: Array, blur: float, generator: np.random.Generator) -> Array:
    """Focused somewhere in the picture or a bit before or behind it all; a lens open a third or more."""
    focus = generator.uniform(-0.2, 1.2)
    return coc(disparity, focus, generator.uniform(blur / 3, blur))


def noisy(light: Array, noise: float, generator: np.random.Generator) -> Array:
    """Linear light with the noise of photons: standard deviation noise·√light. Any shape."""
    return light + generator.standard_normal(light.shape, np.float32) * np.float32(noise) * np.sqrt(
        np.maximum(light, 0)
    )


def _rounded(values: Array) -> Array:
    return np.asarray(np.rint(values / MAP_STEP) * MAP_STEP, np.float32)
