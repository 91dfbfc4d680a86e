"""Layered scenes with full truth: a blurry and a misaligned sharp shot of textures that hide one another.

Textures cut from photographs lie in slanted layers behind soft masks. A lens blurs each layer by disks in linear light,
the nearer layers over the farther. Between the two shots the camera moves, so that the layers shift by their depth and
their edges hide and uncover what is behind; it refocuses, which zooms ("breathing"); and its exposure differs. A tone
curve that no one is told of makes the pictures of the light.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .defocus import Array, disk_kernel, to_linear, to_srgb

LEVEL_STEP = 0.5  # from the disk of one part of a slanted layer to that of the next, pixels of radius


@dataclass(frozen=True)
class SceneSettings:
    """Ranges that scenes are drawn from.

    Attributes:
        size: height and width, pixels.
        blur: largest radius of a circle of confusion, pixels; each scene has its own largest, from half of it.
        parallax: largest displacement of layers and of a small common motion, pixels; each scene has its own, from half
            of it.
        zoom: largest zoom between the shots, both ways: 0.03 magnifies by 3 %.
        shift: largest common shift, pixels, in each direction.
        turn: largest common turn, degrees.
        slant: largest change of depth across a layer, as a part of the scene's depth.
        gain: largest difference of exposure, in linear light, and half as much between the channels.
        tone: strength of the unknown tone curve, 0 … 1.
        noise: largest standard deviation at white, linear light; grows with the root of the light.
    """

    size: int = 256
    blur: float = 6.5
    parallax: float = 12.0
    zoom: float = 0.0
    shift: float = 0.0
    turn: float = 0.0
    slant: float = 0.15
    gain: float = 0.05
    tone: float = 0.5
    noise: float = 0.005

    @property
    def displacement(self) -> float:
        """Largest displacement anywhere, pixels."""
        corner = self.size / math.sqrt(2)
        return self.parallax + math.sqrt(2) * self.shift + corner * (self.zoom + math.radians(self.turn))

    @property
    def margin(self) -> int:
        """Texture around the picture that disks and displacements reach, pixels."""
        return math.ceil(max(self.blur, self.displacement)) + 4

    @property
    def extent(self) -> int:
        """Height and width that photographs must have, pixels."""
        return self.size + 2 * self.margin


class Scene(NamedTuple):
    """Two shots and the truth. Pictures are (H, W, 3), 0 … 1.

    Attributes:
        blurry: the shot out of focus.
        sharp: the other shot, misaligned.
        aligned: sharp and free of noise, with the geometry and the exposure of `blurry`.
        blur_radius: (H, W), RMS radius of the blur of the foremost layer, pixels.
        flow: (H, W, 2), x and y in pixels: `sharp` at p + flow(p) shows what `blurry` shows at p.
        visible: (H, W), bool: whether `sharp` shows it, inside the frame and not behind another layer.
    """

    blurry: Array
    sharp: Array
    aligned: Array
    blur_radius: Array
    flow: Array
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class _Layer:
    """A texture on a plane. `light` (n, n, 3) linear, `mask` (n, n) 0 … 1, `depth` (n, n) 0 … 1, larger is nearer."""

    light: Array
    mask: Array
    depth: Array


def make_scene(photographs: Sequence[Array], settings: SceneSettings, generator: np.random.Generator) -> Scene:
    """A scene of textures cut from photographs.

    Args:
        photographs: (H, W, 3), sRGB, 0 … 1, `settings.extent` each way at least.
        generator: of all that is random.

    Raises:
        ValueError: no photograph is large enough.
    """
    large = [photograph for photograph in photographs if min(photograph.shape[:2]) >= settings.extent]
    if not large:
        needed = f"{settings.extent} pixels each way, for scenes of {settings.size} and what is around them"
        raise ValueError(f"at least one photograph must have {needed}; none of the {len(photographs)} has")
    layers = _layers(large, settings, generator)
    cocs = _circles_of_confusion(layers, settings.blur, generator)
    flows = _flows(layers, settings, generator)
    moved = [_moved(layer, flow) for layer, flow in zip(layers, flows, strict=True)]
    return _shots(layers, cocs, flows, moved, settings, generator)


def _layers(photographs: Sequence[Array], settings: SceneSettings, generator: np.random.Generator) -> list[_Layer]:
    """Two to four, from the farthest to the nearest; the farthest covers everything."""
    n = settings.extent
    count = int(generator.integers(2, 5))
    distances = np.sort(generator.uniform(0, 1, count))
    distances = (distances - distances[0]) / max(distances[-1] - distances[0], 1e-3)
    across = np.linspace(-0.5, 0.5, n, dtype=np.float32)
    layers = []
    for index, distance in enumerate(distances):
        slope_x, slope_y = generator.uniform(-0.5, 0.5, 2) * settings.slant
        depth = (distance + slope_x * across + slope_y * across[:, None]).astype(np.float32)
        mask = np.ones((n, n), np.float32) if index == 0 else _soft_mask(n, generator)
        layers.append(_Layer(to_linear(_textured_cut(photographs, n, generator)), mask, depth))
    return layers


def _textured_cut(photographs: Sequence[Array], n: int, generator: np.random.Generator) -> Array:
    """The one of three random cuts with the most texture."""
    cuts = []
    for _ in range(3):
        photograph = photographs[int(generator.integers(len(photographs)))]
        top, left = (int(generator.integers(extent - n + 1)) for extent in photograph.shape[:2])
        cuts.append(photograph[top : top + n, left : left + n])
    return max(cuts, key=lambda cut: float(np.abs(np.diff(cut, axis=1)).mean()))


def _soft_mask(n: int, generator: np.random.Generator) -> Array:
    """(n, n): blobs that cover 15 to 40 %, their edge a pixel or two wide."""
    hills = cv2.GaussianBlur(generator.standard_normal((n, n)).astype(np.float32), (0, 0), n / generator.uniform(6, 14))
    blobs = (hills > np.quantile(hills, generator.uniform(0.6, 0.85))).astype(np.uint8) * 255
    return np.asarray(cv2.GaussianBlur(cv2.medianBlur(blobs, 5).astype(np.float32) / 255, (0, 0), 0.6), np.float32)


def _circles_of_confusion(layers: Sequence[_Layer], blur: float, generator: np.random.Generator) -> list[Array]:
    """(n, n) for each layer: signed radii, pixels, of a lens focused somewhere in the scene or a bit beyond."""
    focus, largest = generator.uniform(-0.2, 1.2), generator.uniform(blur / 2, blur)
    farthest = max(float(np.abs(layer.depth - focus).max()) for layer in layers)
    return [
        np.asarray((layer.depth - focus) * np.float32(largest / max(farthest, 1e-3)), np.float32) for layer in layers
    ]


def _flows(layers: Sequence[_Layer], settings: SceneSettings, generator: np.random.Generator) -> list[Array]:
    """(n, n, 2) for each layer: parallax by depth with a little camera motion, and the common motion of all."""
    n, size = settings.extent, settings.size
    y, x = np.mgrid[:n, :n].astype(np.float32) - np.float32((n - 1) / 2)
    from_centre, around = np.stack([x, y], 2), np.stack([-y, x], 2)
    angle = generator.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    move, zoom, turn = generator.uniform(-0.35, 0.35, 3)
    strength = generator.choice([-1, 1]) * generator.uniform(0.5, 1)
    flows = [
        direction * (move + strength * (layer.depth - 0.5))[..., None] + (zoom * from_centre + turn * around) * 2 / size
        for layer in layers
    ]
    inner = (slice(settings.margin, -settings.margin),) * 2
    largest = max(float(np.hypot(*np.moveaxis(flow[inner], 2, 0)).max()) for flow in flows)
    scale = generator.uniform(0.5, 1) * settings.parallax / max(largest, 1e-6)
    common = (
        generator.uniform(-1, 1, 2) * settings.shift
        + generator.uniform(-1, 1) * settings.zoom * from_centre
        + generator.uniform(-1, 1) * math.radians(settings.turn) * around
    )
    return [np.asarray(flow * scale + common, np.float32) for flow in flows]


def _moved(layer: _Layer, flow: Array) -> _Layer:
    """The layer as the other shot sees it."""
    back = _inverse(flow)
    return _Layer(
        to_linear(np.clip(_looked_up(to_srgb(layer.light), back, order=3), 0, 1)),
        np.clip(_looked_up(layer.mask[..., None], back, order=1)[..., 0], 0, 1),
        layer.depth,
    )


def _inverse(flow: Array, iterations: int = 12) -> Array:
    """The displacement back, g(q) = -f(q + g(q)), of a smooth flow (H, W, 2)."""
    back = -flow
    for _ in range(iterations):
        back = -_looked_up(flow, back, order=1)
    return back


def _looked_up(picture: Array, flow: Array, order: int) -> Array:
    """`picture`, (H, W, C), at p + flow(p) by splines of an order; its edge is repeated."""
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    places = np.stack([y + flow[..., 1], x + flow[..., 0]])
    channels = [
        ndimage.map_coordinates(plane, places, order=order, mode="nearest") for plane in np.moveaxis(picture, 2, 0)
    ]
    return np.stack(channels, axis=2).astype(np.float32)


def composite(layers: Sequence[_Layer], cocs: Sequence[Array] | None = None) -> Array:
    """The light of layers, (n, n, 3), the nearer over the farther; blurred where circles of confusion are given."""
    light = np.zeros_like(layers[0].light)
    for index, layer in enumerate(layers):
        premultiplied = np.dstack([layer.light * layer.mask[..., None], layer.mask])
        if cocs is not None:
            premultiplied = _scattered(premultiplied, cocs[index])
        light = light * (1 - premultiplied[..., 3:]) + premultiplied[..., :3]
    return light


def _scattered(premultiplied: Array, coc: Array) -> Array:
    """A layer, (n, n, 4), each pixel spread over its disk; the radius changes gently, in levels that are mixed."""
    radius = np.abs(coc) / LEVEL_STEP
    total = np.zeros_like(premultiplied)
    weight = np.zeros((*coc.shape, 1), np.float32)
    for level in range(int(radius.min()), math.ceil(float(radius.max())) + 1):
        share = np.maximum(1 - np.abs(radius - level), 0)[..., None]
        if not share.any():
            continue
        part = np.dstack([premultiplied * share, share])
        if level:
            part = cv2.filter2D(
                part[..., :4], cv2.CV_32F, disk_kernel(level * LEVEL_STEP), borderType=cv2.BORDER_REPLICATE
            )
            share = cv2.filter2D(share, cv2.CV_32F, disk_kernel(level * LEVEL_STEP), borderType=cv2.BORDER_REPLICATE)[
                ..., None
            ]
        total += part[..., :4]
        weight += share
    return np.asarray(np.clip(total / np.maximum(weight, 1e-6), 0, 1), np.float32)


def _shots(
    layers: Sequence[_Layer],
    cocs: Sequence[Array],
    flows: Sequence[Array],
    moved: Sequence[_Layer],
    settings: SceneSettings,
    generator: np.random.Generator,
) -> Scene:
    inner = (slice(settings.margin, -settings.margin),) * 2
    foremost, foremost_moved = _foremost(layers), _foremost(moved)
    flow = np.take_along_axis(np.stack(flows), foremost[None, ..., None], 0)[0]
    radius = np.abs(np.take_along_axis(np.stack(cocs), foremost[None], 0)[0]) / math.sqrt(2)
    level = generator.uniform(0, settings.noise)
    exposure = 1 + settings.gain * (generator.uniform(-1, 1) + 0.5 * generator.uniform(-1, 1, 3))
    curve = ToneCurve.random(settings.tone, generator)

    def shot(light: Array) -> Array:
        noise = generator.standard_normal(light.shape, np.float32) * np.float32(level) * np.sqrt(np.maximum(light, 0))
        return np.asarray(np.rint(curve(to_srgb(light + noise)) * 255) / 255, np.float32)[inner]

    return Scene(
        blurry=shot(composite(layers, cocs)),
        sharp=shot(composite(moved) * exposure.astype(np.float32)),
        aligned=curve(to_srgb(composite(layers)))[inner],
        blur_radius=radius[inner].astype(np.float32),
        flow=flow[inner],
        visible=_visible(flow, foremost, foremost_moved, inner),
    )


def _foremost(layers: Sequence[_Layer]) -> NDArray[np.intp]:
    """(n, n): the number of the layer that is seen."""
    number = np.zeros(layers[0].mask.shape, np.intp)
    for index, layer in enumerate(layers):
        number[layer.mask > 0.5] = index
    return number


def _visible(
    flow: Array, foremost: NDArray[np.intp], moved: NDArray[np.intp], inner: tuple[slice, slice]
) -> NDArray[np.bool_]:
    n, margin = flow.shape[0], inner[0].start
    y, x = np.mgrid[:n, :n]
    to_x, to_y = (np.rint(place + flow[..., axis]).astype(int) for axis, place in enumerate((x, y)))
    inside = np.ones((n, n), bool)
    for to in (to_x, to_y):
        inside &= (to >= margin) & (to < n - margin)
    same = moved[to_y.clip(0, n - 1), to_x.clip(0, n - 1)] == foremost
    return (same & inside)[inner]


@dataclass(frozen=True)
class ToneCurve:
    """A camera's own curve upon sRGB values: a power and an S.

    Attributes:
        power: the exponent, around 1.
        bend: from -1 to 1: contrast taken from or given to the middle; the curve rises everywhere.
    """

    power: float = 1.0
    bend: float = 0.0

    @classmethod
    def random(cls, strength: float, generator: np.random.Generator) -> "ToneCurve":
        power, bend = generator.uniform(-1, 1, 2)
        return cls(float(np.exp(0.3 * strength * power)), float(0.6 * strength * bend))

    def __call__(self, srgb: Array) -> Array:
        raised = np.clip(srgb, 0, 1) ** self.power
        curved = raised - self.bend * np.sin(2 * np.pi * raised) / (2 * np.pi)
        return np.asarray(np.clip(curved, 0, 1), np.float32)
