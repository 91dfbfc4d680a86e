"""The framework on images of any size, in tiles that overlap.

Neighbouring tiles share a strip. What a tile shows within `trim` pixels of its border there is not used, as the network
cannot see beyond; between, one tile fades into the other. So tiles agree with the whole image where the trim is as wide
as the network reaches. What a network pools over the whole image is computed once, over the whole image, before. Where
the blur map is a radius, map, deblurring and restraint each pass over the image by themselves: what one reaches is not
what all of them reach together, and tiles share much less.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ..core.devices import free_memory, is_out_of_memory, peak_memory
from ..core.errors import UserError
from ..core.positions import POSITIONS, check_copies
from ..framework import Framework
from ..networks import BlurRadiusNet, pooled_statistics, restraint
from ..networks.layers import SqueezeExcite
from . import noise
from .scales import HALVINGS, at_scales

T = TypeVar("T")

FADE = 32  # pixels over which one tile fades into the next
# The trim where a network does not say how far it reaches. Restormer's attention is over all of a tile: there tiles
# differ from the whole in any case, and the fading hides it.
USUAL_REACH = 64
SMALLEST_TILE = 64
LARGEST_TILE = 4096
SMALL_IMAGE = 256 * 256  # pixels below which there is nothing to cut
PROBE = 128  # pixels, height and width, of what the memory of a network is measured on
# Tensors are counted, not what convolutions take inside for themselves.
MEMORY_MARGIN = 1.5
# On the CPU larger tiles gain little: with this a photograph of 24 megapixels stays within 3 GiB, 2.4 measured.
CPU_BUDGET = 640 * 2**20


@dataclass(frozen=True)
class Span:
    """The extent of a tile along one axis, from start to stop, and how much each of its pixels counts: (stop-start,).

    The weights of all spans at a pixel sum to 1.
    """

    start: int
    stop: int
    weights: Tensor


@dataclass(frozen=True)
class Layout:
    """The cut of an image into tiles.

    Attributes:
        tile: height and width, pixels; less at the right and at the bottom.
        overlap: what neighbours share, pixels, at most three quarters of the tile.
        trim: pixels at either end of the overlap that only the other tile gives.
    """

    tile: int
    overlap: int
    trim: int

    @classmethod
    def of(cls, tile: int, reach: int, multiple: int) -> "Layout":
        """Tiles of about this size that start and end at multiples, with a trim of `reach`, or less in small tiles."""
        tile = max(_rounded_up(tile, multiple), 2 * multiple)
        overlap = min(_rounded_up(2 * reach + FADE, multiple), 3 * tile // 4 // multiple * multiple)
        trim = min(reach, (overlap - min(FADE, overlap // 2, tile - overlap)) // 2)
        # A tile has faded in before the next one does, or the weights would not sum to 1.
        while overlap - 2 * trim > tile - overlap:
            overlap -= multiple
        return cls(tile, overlap, trim)

    def spans(self, extent: int) -> list[Span]:
        """The tiles along an axis of this many pixels."""
        stride = self.tile - self.overlap
        count = 1 if extent <= self.tile else math.ceil((extent - self.overlap) / stride)
        spans = []
        for index in range(count):
            start, stop = index * stride, min(index * stride + self.tile, extent)
            weights = torch.ones(stop - start)
            if index > 0:
                weights[: self.overlap] *= self._rise()
            if index < count - 1:
                weights[-self.overlap :] *= 1 - self._rise()
            spans.append(Span(start, stop, weights))
        return spans

    def _rise(self) -> Tensor:
        """(overlap,), from 0 over the trim to 1 over the trim."""
        fade = self.overlap - 2 * self.trim
        return ((torch.arange(self.overlap) + 0.5 - self.trim) / fade).clamp(0, 1)


def _rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class TiledFramework:
    """A framework for images of any size, without gradients.

    Args:
        framework: moved to the device, and put in evaluation mode.
        device: where it computes. Images and results stay on the CPU.
        bf16: compute in bfloat16 where autocast does.
        compiled: with `torch.compile`: the first tile of each size takes long.
        tile: height and width of tiles, pixels; None for what fits into the memory that is free. Halved, and tried
            again, where it runs out.
        halvings: how often `deblur` may halve an image where its blur is too large for the networks
            (`scales.at_scales`). Nothing is halved where the blur map is no radius.
        keep_noise: leave the noise of photographs as it is, also where the framework says `denoised`.
        copies: 1, 2, 4 or 8: of an image, turned and mirrored, over which the mean is taken (`core.positions`).
        source: where the framework comes from, for errors.

    Raises:
        ValueError: an option out of range.
        UserError: the deblurring network needs a blur map, and there is no network that gives one.
    """

    def __init__(
        self,
        framework: Framework,
        device: torch.device | str = "cpu",
        *,
        bf16: bool = False,
        compiled: bool = False,
        tile: int | None = None,
        halvings: int = HALVINGS,
        keep_noise: bool = False,
        copies: int = 1,
        source: str | os.PathLike[str] = "the framework",
    ) -> None:
        if tile is not None and tile < SMALLEST_TILE:
            raise ValueError(f"tile must be at least {SMALLEST_TILE} pixels, got {tile}")
        if halvings < 0:
            raise ValueError(f"halvings must be at least 0, got {halvings}")
        check_copies(copies)
        if framework.deblur.map_channels and framework.blur_map is None:
            raise UserError("the framework must have a blur map network, as its deblurring network needs a map")
        self.framework = framework.to(device).eval()
        self.device = torch.device(device)
        self.bf16 = bf16
        self.compiled = compiled
        self.tile = tile
        self.halvings = halvings if isinstance(framework.blur_map, BlurRadiusNet) else 0
        self.denoised = framework.config.denoised and not keep_noise
        self.copies = copies
        self.source = source
        self._deblur = torch.compile(framework) if compiled else framework
        self._compiled: dict[str, Callable[..., Tensor]] = {}
        self._bytes_per_pixel: dict[str, float] = {}

    def deblur(self, image: Tensor, name: str = "the image") -> Tensor:
        """Deblur, after what noise there is has been taken away, where the framework says so.

        Args:
            image: (3, H, W), 0 … 1, float32, on the CPU, of any strides.
            name: what errors call it.

        Returns:
            (3, H, W), clipped to 0 … 1. Its last stride is that of channels, as image files have them.

        Raises:
            TypeError, ValueError: an image of another type or shape.
            UserError: there is too little memory even for the smallest tiles, or the result is not finite.
        """
        _check(image)
        clean = self.without_noise(image)

        def once(part: Tensor) -> Tensor:
            return self._deblur_once(part, image if part is clean else part, name)

        return at_scales(clean, once, self._radius_once, self.halvings)

    def without_noise(self, image: Tensor) -> Tensor:
        """The image that is deblurred: without its noise, where it has some that is no texture (`inference.noise`).

        Args:
            image: (3, H, W), 0 … 1, float32, on the CPU.

        Returns:
            (3, H, W), 0 … 1: the image itself where nothing is to be taken away, or the framework is not `denoised`.

        Raises:
            UserError: there is too little memory.
        """
        if not self.denoised:
            return image
        with torch.inference_mode():
            level = noise.noise_to_remove(noise.noise_level(image[None]))
            if not bool(level > 0):
                return image
            arguments = noise.REACH, 1, level.to(self.device)
            return self._tiled("noise", noise.without_noise, [image], 3, *arguments).clamp_(0, 1)

    def _deblur_once(self, image: Tensor, original: Tensor, name: str) -> Tensor:
        """Deblur at the size that the image has. A map of the radius is told from the original, with its noise: where
        nothing is finer than the blur, noise shows that this is no lack of texture."""
        apart = isinstance(self.framework.blur_map, BlurRadiusNet) and self.framework.deblur.map_channels
        if apart:
            deblurred = self._mean_over_copies(self._deblur_in_stages, image, original)
        else:
            deblurred = self._mean_over_copies(self._deblur_at_once, image)
        if not bool(deblurred.isfinite().all()):
            diverged = f"the weights of {self.source} have diverged"
            reason = diverged if bool(image.isfinite().all()) else "nor is the image itself"
            raise UserError(f"{name}, deblurred, is not finite: {reason}")
        return deblurred

    def _deblur_in_stages(self, image: Tensor, original: Tensor) -> Tensor:
        """Map, deblurring and restraint, each over the whole image."""
        network, of_map = self.framework.deblur, self.framework.blur_map
        assert isinstance(of_map, BlurRadiusNet)
        seen = self._tiled("blur map", self._seen, [original], of_map.channels + 1, of_map.reach, of_map.multiple)
        blur_map, radius = seen[:-1], seen[-1:]
        pooled = pooled_statistics(image[None], blur_map[None]).to(self.device) if self._pools else None
        reach = USUAL_REACH if network.reach is None else network.reach
        images = [image, blur_map]
        deblurred = self._tiled("deblurring", network, images, 3, reach, network.multiple, pooled)
        if self.framework.config.deblur.restrained:
            images = [deblurred, image, radius]
            deblurred = self._tiled("restraint", restraint.restrain, images, 3, restraint.REACH, restraint.MULTIPLE)
        with torch.inference_mode():
            return deblurred.clamp_(0, 1)

    def _seen(self, image: Tensor) -> Tensor:
        """`Framework.see`: map and radius."""
        blur_map, radius = self.framework.see(image)
        assert blur_map is not None
        assert radius is not None
        return torch.cat([blur_map, radius], dim=1)

    def _deblur_at_once(self, image: Tensor) -> Tensor:
        """All of it tile by tile: a map of many channels would be larger than the image."""
        map_reach = self.framework.blur_map.reach if self.framework.blur_map else 0
        reach = self.framework.deblurring_reach
        if reach is None:
            reach = map_reach + USUAL_REACH

        def whole(layout: Layout) -> Tensor:
            pooled = self._pooled(image, map_reach, layout) if self._pools and _is_cut(image, layout) else None
            return self._joined("deblurring", self._deblur, [image], 3, layout, pooled)

        probe = self._probe("deblur", lambda part: self.framework(part), [image])
        return self._fitting(whole, image, probe, reach, self.framework.multiple)

    def reblur(self, deblurred: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """The deblurred image blurred again to be as the blurry one, and the blur that the reblurring network found.

        Args:
            deblurred, image: (3, H, W), 0 … 1, float32, on the CPU.

        Returns:
            (3, H, W), and (1, H, W): the RMS radius of the blur, pixels.

        Raises:
            UserError: the framework has no reblurring network, or there is too little memory.
        """
        _check(deblurred)
        _check(image)
        network = self.framework.reblur
        if network is None:
            raise UserError("the blur radius needs a reblurring network, and the framework has none")

        def reblurred(deblurred: Tensor, image: Tensor) -> Tensor:
            found = network(deblurred, image)
            return torch.cat([found.image, found.radius], dim=1)

        both = self._tiled("reblurring", reblurred, [deblurred, image], 4, network.reach, network.multiple)
        return both[:3], both[3:]

    @property
    def tells_radius(self) -> bool:
        """Whether `blur_radius` can be asked for."""
        return isinstance(self.framework.blur_map, BlurRadiusNet) or self.framework.reblur is not None

    def map_radius(self, image: Tensor) -> Tensor:
        """The blur of an image, as its blur map tells it: `Framework.blur_radius`, of the image made smaller where the
        blur is larger than the map can tell (`scales.at_scales`).

        Args:
            image: (3, H, W), 0 … 1, float32, on the CPU.

        Returns:
            (1, H, W), RMS radius in pixels.

        Raises:
            UserError: the framework has no such map, or there is too little memory.
        """
        _check(image)
        if not isinstance(self.framework.blur_map, BlurRadiusNet):
            raise UserError('the blur radius needs a blur map of the form "radius", and the framework has none')
        return at_scales(image, self._radius_once, self._radius_once, HALVINGS, lengths=True)

    def _radius_once(self, image: Tensor) -> Tensor:
        """`map_radius` at the size that the image has."""
        network = self.framework.blur_map
        assert isinstance(network, BlurRadiusNet)

        def once(image: Tensor) -> Tensor:
            return self._tiled("blur radius", self.framework.blur_radius, [image], 1, network.reach, network.multiple)

        return self._mean_over_copies(once, image)

    def blur_radius(self, deblurred: Tensor, image: Tensor) -> Tensor:
        """The blur of an image: of its map where that is a radius, else what the reblurring network finds.

        Args:
            deblurred, image: (3, H, W), 0 … 1, float32, on the CPU.

        Returns:
            (1, H, W), RMS radius in pixels.

        Raises:
            UserError: as `map_radius` and `reblur`.
        """
        if isinstance(self.framework.blur_map, BlurRadiusNet):
            return self.map_radius(image)
        return self.reblur(deblurred, image)[1]

    @property
    def _pools(self) -> bool:
        """Whether the deblurring network wants statistics of the whole image."""
        return any(isinstance(module, SqueezeExcite) for module in self.framework.deblur.modules())

    def _pooled(self, image: Tensor, reach: int, layout: Layout) -> Tensor:
        """(1, 3 + M): `pooled_statistics` of the whole image. Of weighted tiles, as the weights of a pixel sum to 1."""
        assert self.framework.blur_map is not None
        total = torch.zeros(1, dtype=torch.float64)
        tiles = Layout.of(layout.tile, reach, 1)
        for _, weights, (part,) in self._tiles("statistics", [image], tiles):
            weights = weights.to(self.device)
            means = pooled_statistics(weights * part, weights * self.framework.blur_map(part).float())
            total = total + means.double().cpu() * weights.numel()
        return (total / image[0].numel()).float().to(self.device)

    @torch.inference_mode()
    def _mean_over_copies(self, function: Callable[..., Tensor], *images: Tensor) -> Tensor:
        """(C, H, W), the mean of what a function of images, (..., H, W), gives for their copies, turned back."""
        result = function(*images)
        others = POSITIONS[1 : self.copies]
        for position in tqdm(others, "turned copies", leave=False, delay=1, disable=not others):
            result += position.turned_back(function(*map(position.turned, images)))
        return result.div_(self.copies)

    def _tiled(
        self,
        description: str,
        function: Callable[..., Tensor],
        images: Sequence[Tensor],
        channels: int,
        reach: int,
        multiple: int,
        *arguments: Tensor | None,
    ) -> Tensor:
        """(channels, H, W), the function in the largest tiles that fit into memory."""
        call = function
        if self.compiled:
            call = self._compiled.setdefault(description, torch.compile(function))

        def whole(layout: Layout) -> Tensor:
            return self._joined(description, call, images, channels, layout, *arguments)

        probe = self._probe(description, lambda *parts: function(*parts, *arguments), images)
        return self._fitting(whole, images[0], probe, reach, multiple)

    def _joined(
        self,
        description: str,
        function: Callable[..., Tensor],
        images: Sequence[Tensor],
        channels: int,
        layout: Layout,
        *arguments: Tensor | None,
    ) -> Tensor:
        """(channels, H, W), the function of tiles, joined."""
        result = torch.zeros(*images[0].shape[1:], channels).permute(2, 0, 1)
        for (rows, columns), weights, parts in self._tiles(description, images, layout):
            result[:, rows, columns] += weights * function(*parts, *arguments)[0].float().cpu()
        return result

    def _tiles(
        self, description: str, images: Sequence[Tensor], layout: Layout
    ) -> Iterator[tuple[tuple[slice, slice], Tensor, list[Tensor]]]:
        """For each tile: place, weights of its pixels, and its part of each image, (1, C, h, w), on the device."""
        places = list(itertools.product(*(layout.spans(extent) for extent in images[0].shape[1:])))
        for row, column in tqdm(places, description, unit="tile", leave=False, delay=1, disable=len(places) == 1):
            rows, columns = slice(row.start, row.stop), slice(column.start, column.stop)
            parts = [image[:, rows, columns].contiguous()[None].to(self.device) for image in images]
            yield (rows, columns), torch.outer(row.weights, column.weights), parts

    def _probe(self, name: str, function: Callable[..., Tensor], images: Sequence[Tensor]) -> Callable[[], float]:
        """A function that tells the bytes per pixel that a call takes, measured once on a corner of an image."""

        def measure() -> float:
            if name not in self._bytes_per_pixel:
                parts = [image[:, :PROBE, :PROBE].contiguous()[None].to(self.device) for image in images]
                pixels = parts[0].shape[2] * parts[0].shape[3]
                self._bytes_per_pixel[name] = MEMORY_MARGIN * peak_memory(lambda: function(*parts)) / pixels
            return self._bytes_per_pixel[name]

        return measure

    def _fitting(
        self,
        whole: Callable[[Layout], T],
        image: Tensor,
        bytes_per_pixel: Callable[[], float],
        reach: int,
        multiple: int,
    ) -> T:
        """The result with the largest tiles that fit into memory."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            tile = self.tile or self._fitting_tile(image, bytes_per_pixel)
            while True:
                try:
                    return whole(Layout.of(tile, reach, multiple))
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    if tile <= SMALLEST_TILE:
                        raise UserError(f"out of memory on {self.device}, even in tiles of {tile} pixels") from error
                # Outside of the handler, which holds what the attempt had.
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                tile = max(min(tile, _rounded_up(max(image.shape[1:]), 2)) // 2, SMALLEST_TILE)

    def _fitting_tile(self, image: Tensor, bytes_per_pixel: Callable[[], float]) -> int:
        height, width = image.shape[1:]
        if height * width <= SMALL_IMAGE:
            return max(height, width)
        free = free_memory(self.device)
        budget = min(free // 2, CPU_BUDGET) if self.device.type == "cpu" else 0.8 * free
        pixels = budget / bytes_per_pixel()
        if height * width <= pixels:
            return max(height, width)
        return min(max(math.isqrt(int(pixels)), SMALLEST_TILE), LARGEST_TILE)


def _check(image: Tensor) -> None:
    if not isinstance(image, Tensor) or image.dtype != torch.float32:
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"the image must be a tensor of float32, got {got}")
    if image.dim() != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"the image must have shape (3, H, W), got {tuple(image.shape)}")


def _is_cut(image: Tensor, layout: Layout) -> bool:
    return max(image.shape[1:]) > layout.tile
