"""Pairs made while training, on the device: sharp scenes, and what a real lens and camera make of them.

Textures cut from photographs lie in slanted layers, the nearer over the farther. Each layer is cut into slices of one
circle of confusion, and each slice is blurred, in linear light, by the kernel of an aperture: round, polygonal,
ring-shaped or cut, which is why it is a product of Fourier transforms and not an operator of disks. Highlights are
brought above white before the blur. The camera adds noise, a tone curve, sharpening, JPEG and 8 bits.

The seed and the number of a sample alone say what it shows, so that it is the same for any number of processes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..blur.light import to_linear
from ..flow.warping import warp
from .aperture import Apertures, draw_apertures, kernels, rms_radius
from .camera import Cameras, develop, draw_cameras, photograph, photograph_again
from .photographs import Original
from .textures import Textures

SLICES = 3  # of a layer
GRID = 16  # pixels: JPEG's blocks lie anywhere


@dataclass(frozen=True)
class GeneratorConfig:
    """Settings of the pairs that are made while training.

    Attributes:
        blur: largest radius of a circle of confusion, pixels.
        small: part of the samples whose blur is at most half of that: there is more to learn where more can be seen.
        in_focus: part of the samples without blur: what is sharp, noisy or compressed has to stay.
        natural: part of those whose photographs may be soft themselves. Backgrounds of sharp photographs are, and a
            network that never sees them unblurred sharpens them.
        several: part of the samples of more than one layer. The others are one photograph on a slanted plane.
        layers: most layers of a scene.
        slant: largest change of the circle of confusion across a layer, pixels.
        highlights: part of the samples whose brightest places are brought above white, up to 8 times.
        noise: largest standard deviation, sRGB values of 0 … 1.
        compressed: part of the samples in JPEG, as nearly all photographs are; raw ones are not.
        quality: of JPEG, from … to.
        tone: largest contrast of the tone curve, either way; 0 is sRGB's. No two cameras have the same, and blur
            happened before it.
        sharpening: largest strength of the camera's sharpening, which four in ten samples have: it follows the blur.
        full_size: part of the textures taken at the full size of their photograph. Shrunk, photographs are sharper than
            any camera makes them, and a network that sees only those oversharpens.
        sharp: part of the blocks with edges that must be sharp in a texture: what is soft itself is no truth. 0: none.
        disks: part of the apertures that are plain disks, with a trace of softness: the kernel of the operators.
        polygons: part of the other apertures that have five to nine blades, as lenses stopped down have.
        rings: part of the others whose middle is darker, by spherical aberration or a mirror.
        cut: part of the others that are cut by the rim of the lens, as in the corners of a picture.
        softness: largest share of a Gaussian in the others, as aberrations make it.
        dispersion: standard deviation of how much larger the kernel of blue is than that of green, and that of red
            smaller, in radii, of the others.
        shift: largest displacement of the misaligned sharp picture, pixels. It also zooms and turns by up to a quarter
            of a hundredth for each pixel.
        exposure: largest difference of exposure of the misaligned sharp picture, as a part of its sRGB values.
        development: largest difference of its tone curve, as an exponent: 0.1 makes v of v^1.1. A tenth of it is haze.
        own_noise: part of the misaligned sharp pictures with noise and JPEG of their own, as photographs have; the
            others are as clean as a truth.
    """

    blur: float = 12.0
    small: float = 0.5
    in_focus: float = 0.35
    natural: float = 0.0
    several: float = 0.5
    layers: int = 3
    slant: float = 2.5
    highlights: float = 0.25
    noise: float = 0.03
    compressed: float = 0.5
    quality: tuple[int, ...] = (60, 95)
    tone: float = 0.5
    sharpening: float = 0.6
    full_size: float = 0.5
    sharp: float = 0.5
    disks: float = 0.5
    polygons: float = 0.6
    rings: float = 0.3
    cut: float = 0.4
    softness: float = 1.0
    dispersion: float = 0.03
    shift: float = 8.0
    exposure: float = 0.0
    development: float = 0.0
    own_noise: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("blur", 0.5, 64),
            ("small", 0, 1),
            ("in_focus", 0, 1),
            ("natural", 0, 1),
            ("several", 0, 1),
            ("layers", 1, 8),
            ("slant", 0, 16),
            ("highlights", 0, 1),
            ("noise", 0, 0.2),
            ("compressed", 0, 1),
            ("tone", 0, 1),
            ("sharpening", 0, 2),
            ("full_size", 0, 1),
            ("sharp", 0, 1),
            ("disks", 0, 1),
            ("polygons", 0, 1),
            ("rings", 0, 1),
            ("cut", 0, 1),
            ("softness", 0, 1),
            ("dispersion", 0, 0.1),
            ("shift", 0, 64),
            ("exposure", 0, 0.5),
            ("development", 0, 0.5),
            ("own_noise", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")
        if len(self.quality) != 2 or not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"quality must be two numbers, 1 to 100, rising, got {list(self.quality)}")

    @property
    def reach(self) -> int:
        """Largest radius of the kernels, pixels: blue may be 10 % larger, and edges are soft."""
        return math.ceil(1.1 * self.blur + 1)


@dataclass(frozen=True)
class _Kind:
    """The properties of a sample that are decided before anything of it is drawn."""

    layers: int
    in_focus: bool
    natural: bool  # its photographs may be soft themselves


class PairGenerator:
    """Samples for training, numbered without end, made from photographs on a device.

    Args:
        originals: the photographs, decoded once.
        config: what the pairs are like.
        crop: height and width, pixels.
        seed: of all that is random.
        device: where pairs are made.

    Raises:
        DataError, ImageError: photographs that are too small or do not decode.
    """

    def __init__(
        self, originals: Sequence[Original], config: GeneratorConfig, crop: int, seed: int, device: torch.device
    ) -> None:
        self.config, self.crop, self.seed, self.device = config, crop, seed, device
        self.outer = -(-(crop + GRID - 1) // GRID) * GRID  # what the camera sees: JPEG's grid lies anywhere in the crop
        self.margin = max(config.reach, math.ceil(config.shift) + 2)
        self.extent = _fast_size(self.outer + 2 * self.margin)
        self.textures = Textures(originals, self.extent, device, config.full_size, config.sharp)
        self.light = to_linear(torch.arange(256, device=device) / 255)

    def batch(self, numbers: Sequence[int], misaligned: bool = True) -> dict[str, Tensor]:
        """The samples with these numbers.

        Args:
            misaligned: whether `sharp` is misaligned; else it is `aligned`, which is cheaper.

        Returns:
            `blurry`, `sharp`, `aligned`, (N, 3, crop, crop), sRGB 0 … 1; `blur_radius`, (N, 1, crop, crop), RMS pixels.
        """
        generators = [np.random.default_rng([self.seed, 2, number]) for number in numbers]
        kinds = [_draw_kind(generator, self.config) for generator in generators]
        samples: dict[int, dict[str, Tensor]] = {}
        for count in sorted({kind.layers for kind in kinds}):  # scenes of few layers do not pay for those of many
            members = [index for index, kind in enumerate(kinds) if kind.layers == count]
            made = self._scenes(
                [generators[index] for index in members], [kinds[index] for index in members], misaligned
            )
            for place, index in enumerate(members):
                samples[index] = {name: values[place] for name, values in made.items()}
        return {name: torch.stack([samples[index][name] for index in range(len(kinds))]) for name in samples[0]}

    def _scenes(self, generators: list[np.random.Generator], kinds: list[_Kind], misaligned: bool) -> dict[str, Tensor]:
        """Samples of as many layers."""
        n, count, config, device = self.extent, kinds[0].layers, self.config, self.device
        drawn = [
            self.textures.draw(generator, soft=kind.natural)
            for generator, kind in zip(generators, kinds, strict=True)
            for _ in range(count)
        ]
        light = self.light.index_select(0, torch.stack(drawn).flatten().int()).view(len(kinds), count, 3, n, n)
        masks = _masks(generators, count, n, device)
        levels, shares = _slices(generators, kinds, n, config, device)
        apertures = _draw_apertures(generators, config).to(device)
        cameras = _moved(_draw_cameras(generators, config), device)
        kernel = kernels(levels.flatten(1).abs(), apertures, config.reach).unflatten(1, (count, SLICES))
        sharp = _over(light * masks, masks)
        colours, coverage = light * masks * _highlights(generators, light, config.highlights), masks
        if out_of_focus := [index for index, kind in enumerate(kinds) if not kind.in_focus]:
            coverage = masks.clone()
            colours[out_of_focus], coverage[out_of_focus] = _blurred(
                colours[out_of_focus], masks[out_of_focus], shares[out_of_focus], kernel[out_of_focus], config.reach
            )
        blurred = _over(colours, coverage)
        radius = _foremost_radius(masks, shares, kernel)
        corners = [generator.integers(self.outer - self.crop + 1, size=2) for generator in generators]
        noise = torch.stack([_normal(one, (3, self.outer, self.outer), device) for one in generators])
        aligned = develop(self._window(sharp), cameras)
        another = self._another_shot(sharp, cameras, generators) if misaligned else aligned
        pictures = {
            "blurry": photograph(self._window(blurred), cameras, noise),
            "sharp": another,
            "aligned": aligned,
            "blur_radius": self._window(radius),
        }
        return {name: _cut(values, corners, self.crop) for name, values in pictures.items()}

    def _another_shot(self, light: Tensor, cameras: Cameras, generators: list[np.random.Generator]) -> Tensor:
        """The misaligned sharp picture, sRGB, of light without blur."""
        image = self._window(_moved_picture(develop(light, cameras), generators, self.config))
        image = _developed(image, generators, self.config)
        noisy = [index for index, one in enumerate(generators) if one.random() < self.config.own_noise]
        if noisy:
            own = Cameras(**{name: values[noisy] for name, values in vars(cameras).items()})
            noise = torch.stack([_normal(generators[index], image.shape[1:], self.device) for index in noisy])
            image[noisy] = photograph_again(image[noisy], own, noise)
        return image

    def _window(self, image: Tensor) -> Tensor:
        """The part that the camera sees: the middle, which no edge reaches."""
        first = (self.extent - self.outer) // 2
        return image[..., first : first + self.outer, first : first + self.outer]


def _fast_size(least: int) -> int:
    """The next even number without a prime factor above 5: Fourier transforms are fast there."""
    size = least + least % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def _draw_kind(generator: np.random.Generator, config: GeneratorConfig) -> _Kind:
    several, in_focus, natural = generator.random(3) < (config.several, config.in_focus, config.natural)
    layers = int(generator.integers(2, config.layers + 1)) if several and config.layers > 1 else 1
    return _Kind(layers, bool(in_focus), bool(in_focus and natural))


def _draw_apertures(generators: list[np.random.Generator], config: GeneratorConfig) -> Apertures:
    return draw_apertures(
        generators,
        disks=config.disks,
        polygons=config.polygons,
        rings=config.rings,
        cut=config.cut,
        softness=config.softness,
        dispersion=config.dispersion,
    )


def _draw_cameras(generators: list[np.random.Generator], config: GeneratorConfig) -> Cameras:
    return draw_cameras(
        generators,
        noise=config.noise,
        compressed=config.compressed,
        quality=(config.quality[0], config.quality[1]),
        tone=config.tone,
        sharpening=config.sharpening,
    )


def _masks(generators: list[np.random.Generator], count: int, n: int, device: torch.device) -> Tensor:
    """(N, count, 1, n, n), 0 … 1: everything for the farthest layer, blobs that cover 20 to 50 % for the others."""
    masks = torch.ones(len(generators), count, 1, n, n, device=device)
    for index, generator in enumerate(generators):
        for layer in range(1, count):
            cells = int(generator.integers(3, 10))
            hills = torch.from_numpy(generator.standard_normal((1, 1, cells, cells)).astype(np.float32)).to(device)
            hills = F.interpolate(hills, (n, n), mode="bicubic", align_corners=True)
            level = torch.quantile(hills[..., ::4, ::4], generator.uniform(0.5, 0.8))
            slope = (hills[..., 1:, :] - hills[..., :-1, :]).abs().mean().clamp_min(1e-6)
            masks[index, layer] = ((hills - level) / slope / 1.5 + 0.5).clamp(0, 1)[0]
    return masks


def _slices(
    generators: list[np.random.Generator], kinds: list[_Kind], n: int, config: GeneratorConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Radii of the circles of confusion of slices, (N, count, SLICES), and what of each pixel is in which slice.

    The farther a layer, the smaller its signed radius, as a lens has it: layers behind the plane in focus are negative.
    """
    levels, weights, count = [], [], kinds[0].layers
    ramp = torch.linspace(-0.5, 0.5, n, device=device)
    for generator, kind in zip(generators, kinds, strict=True):
        if kind.in_focus:
            centres, slants = np.zeros(count), np.zeros(count)
        else:
            largest = config.blur * (0.5 if generator.random() < config.small else 1.0)
            centres = generator.uniform(-largest, largest, count)
            if count > 1 and generator.random() < 0.4:
                centres[int(generator.integers(count))] = 0.0
            centres = np.sort(centres)
            slants = np.minimum(generator.uniform(0, config.slant, count), largest - np.abs(centres))
        angles = generator.uniform(0, 2 * math.pi, count)
        for centre, slant, angle in zip(centres, slants, angles, strict=True):
            across = (ramp * math.cos(angle) + (ramp * math.sin(angle))[:, None]).clamp(-0.5, 0.5)
            place = (across + 0.5) * (SLICES - 1)
            steps = torch.arange(SLICES, device=device)[:, None, None]
            weights.append((1 - (place - steps).abs()).clamp_min(0))
            levels.append(torch.linspace(centre - slant / 2, centre + slant / 2, SLICES, device=device))
    shape = (len(generators), count)
    return torch.stack(levels).unflatten(0, shape), torch.stack(weights).unflatten(0, shape)


def _highlights(generators: list[np.random.Generator], light: Tensor, part: float) -> Tensor:
    """(N, count, 1, n, n), what the light is multiplied by: above 1 where it is nearly white."""
    strength = [generator.uniform(1, 7) if generator.random() < part else 0.0 for generator in generators]
    brightest = light.amax(2, keepdim=True)
    factor = torch.tensor(strength, device=light.device)[:, None, None, None, None]
    return 1 + factor * ((brightest - 0.8) / 0.2).clamp(0, 1).square()


def _blurred(colours: Tensor, masks: Tensor, shares: Tensor, kernel: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Light times coverage, (N, count, 3, n, n), and coverage, (N, count, 1, n, n), of blurred layers."""
    n = colours.shape[-1]
    alone = colours.shape[1] == 1  # and covers everything
    # Colours, coverage, and what falls on a pixel at all.
    layer = torch.cat([colours, masks] if alone else [colours, masks, torch.ones_like(masks)], dim=2)
    spectra = torch.fft.rfft2(layer[:, :, None] * shares[:, :, :, None])
    transfer = torch.fft.rfft2(kernel, s=(n, n))
    green = transfer[:, :, :, 1:2]
    spectra[:, :, :, :3] *= transfer
    spectra[:, :, :, 3:] *= green
    blurred = torch.fft.irfft2(spectra.sum(2), s=(n, n)).roll((-reach, -reach), (-2, -1))
    total = blurred[:, :, -1:].clamp_min(1e-3)
    coverage = masks if alone else (blurred[:, :, 3:4] / total).clamp(0, 1)
    return (blurred[:, :, :3] / total).clamp_min(0), coverage


def _over(light: Tensor, coverage: Tensor) -> Tensor:
    """(N, 3, n, n): layers (N, count, …), light times coverage, the later over the earlier."""
    result = light[:, 0]
    for index in range(1, light.shape[1]):
        result = result * (1 - coverage[:, index]) + light[:, index]
    return result


def _foremost_radius(masks: Tensor, shares: Tensor, kernel: Tensor) -> Tensor:
    """(N, 1, n, n), RMS radius of the foremost layer's kernel, pixels."""
    radii = rms_radius(kernel[:, :, :, 1])
    layers = (shares * radii[..., None, None]).sum(2)
    result = layers[:, :1]
    for index in range(1, layers.shape[1]):
        result = torch.where(masks[:, index] > 0.5, layers[:, index, None], result)
    return result


def _moved_picture(image: Tensor, generators: list[np.random.Generator], config: GeneratorConfig) -> Tensor:
    """The image shifted, zoomed and turned a little."""
    n, shift, slope = image.shape[-1], config.shift, config.shift / 400
    y, x = torch.meshgrid(*(torch.linspace(-0.5, 0.5, n, device=image.device),) * 2, indexing="ij")
    flows = []
    for generator in generators:
        right, down = generator.uniform(-0.6, 0.6, 2) * shift
        zoom, turn = generator.uniform(-slope, slope, 2) * n
        flows.append(torch.stack([right + zoom * x - turn * y, down + zoom * y + turn * x]).clamp(-shift, shift))
    return warp(image, torch.stack(flows), interpolation="bicubic").clamp(0, 1)


def _developed(image: Tensor, generators: list[np.random.Generator], config: GeneratorConfig) -> Tensor:
    """The image, sRGB, exposed and developed a little differently."""
    drawn = [
        (
            1 + generator.uniform(-config.exposure, config.exposure),
            1 + generator.uniform(-config.development, config.development),
            0.1 * generator.uniform(-config.development, config.development),
        )
        for generator in generators
    ]
    gain, exponent, haze = torch.tensor(drawn, dtype=image.dtype, device=image.device).T[..., None, None, None]
    return (gain * image.clamp_min(1e-4) ** exponent + haze).clamp(0, 1)


def _normal(generator: np.random.Generator, shape: tuple[int, ...], device: torch.device) -> Tensor:
    noise = torch.Generator(device).manual_seed(int(generator.integers(2**63)))
    return torch.randn(shape, generator=noise, device=device)


def _moved(cameras: Cameras, device: torch.device) -> Cameras:
    return Cameras(**{name: values.to(device) for name, values in vars(cameras).items()})


def _cut(values: Tensor, corners: Sequence[NDArray[np.int64]], crop: int) -> Tensor:
    return torch.stack(
        [one[..., top : top + crop, left : left + crop] for one, (top, left) in zip(values, corners, strict=True)]
    )
