"""Variational optical flow in PyTorch: no weights, batched, the same on every device."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.graphs import CapturedCalls
from .base import Flow
from .dis import grey
from .equalise import equalise_blur
from .warping import resized

COARSEST = 4  # pixels: least side of the coarsest scale, where the images are larger
FALL = 0.7  # of the smoothness from one scale to the next coarser one: what moves by itself is smaller there
MORE_WARPS = 2  # at coarse scales, which cost little and decide over large displacements
SEARCHED = (2, 2)  # where motion is searched as well: scale, and linearisations there before
REACH = 4  # pixels of that scale each way
SEARCH_WINDOW = 5  # pixels
BETTER = 0.7  # ratio of errors from which on what was searched is taken
WINDOW = 5  # pixels: side of the windows over which the data term is averaged
NOISE = 0.25 / 255  # second derivative, in grey a pixel squared, below which a place tells little of its motion
EDGE = 0.1  # gradient of the first image, in grey a pixel, at which the flow may change more easily
EPSILON = 0.03  # where both penalties turn from square to absolute: pixels of data, pixels a pixel of smoothness
CACHED = 1 << 17  # pixels at a time on a CPU, whose caches hold some planes of that size
TINY = 1e-20  # keeps what has converged from dividing by zero


class VariationalFlow(Flow):
    """Coarse-to-fine variational flow on the gradients of both images.

    The flow whose energy is least: gradients that move with it stay as they are, whatever the exposure, and neighbours
    move alike. Both terms are robust; the data term is normalised (Zimmer et al., "Optic Flow in Harmony", IJCV 2011)
    and averaged over small windows (Bruhn et al., "Lucas/Kanade Meets Horn/Schunck", IJCV 2005), and the smoothness is
    less across edges of the first image. At each scale the images are warped and the energy is linearised a few
    times (Brox et al., "High Accuracy Optical Flow Estimation Based on a Theory for Warping", ECCV 2004); each
    time conjugate gradients take a few steps towards its least.

    At a quarter of the size displacements are searched as well, as layers that move far past each other need it.

    On grey images as in `DisFlow`. Images of a batch are computed together, on a CPU a few at a time; on a GPU,
    from the second call with a shape on, as one CUDA graph. Takes some 400 bytes of memory a pixel.

    Args:
        equalise: blur each image where the other is blurrier, before (`equalise_blur`).
        smoothness: how much a gradient of the flow counts, above 0.
        warps: linearisations at the finest scale; coarser ones take two more.
        iterations: steps of conjugate gradients for each.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, *, equalise: bool = True, smoothness: float = 1.5, warps: int = 3, iterations: int = 7) -> None:
        super().__init__()
        if not 0 < smoothness < math.inf:
            raise ValueError(f"smoothness must be above 0 and finite, got {smoothness}")
        for name, value in (("warps", warps), ("iterations", iterations)):
            if not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.equalise = equalise
        self.smoothness = smoothness
        self.warps = warps
        self.iterations = iterations
        self._calls = CapturedCalls()

    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        one, other = grey(first), grey(second)
        if self.equalise:
            one, other = equalise_blur(one, other)
        if one.device.type != "cpu":
            return self._calls(self.from_grey, one, other)
        images = max(1, CACHED // (one.shape[2] * one.shape[3]))
        parts = zip(one.split(images), other.split(images), strict=True)
        return torch.cat([self.from_grey(*part) for part in parts])

    def from_grey(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow between grey images, (N, 1, H, W). Nothing here waits for a GPU, or copies to it."""
        scales = [_scale(first, second)]
        while min(first.shape[2:]) >= 2 * COARSEST:
            first, second = _halved(first), _halved(second)
            scales.append(_scale(first, second))
        flow = torch.zeros_like(first).expand(-1, 2, -1, -1)
        for number, scale in reversed(list(enumerate(scales))):
            flow = resized(flow, scale.second.shape[2:])
            for warped in range(self.warps + (MORE_WARPS if number else 0)):
                if (number, warped) == SEARCHED:
                    flow = _searched(flow, scale)
                system = _linearised(flow, scale, self.smoothness * FALL**number)
                flow = flow + system.solved(self.iterations)
        return flow

    def extra_repr(self) -> str:
        return (
            f"equalise={self.equalise}, smoothness={self.smoothness}, warps={self.warps}, iterations={self.iterations}"
        )


class _Scale(NamedTuple):
    """The parts that all linearisations at one scale share; planes of (N, C, H, W)."""

    second: Tensor
    derivatives: Tensor  # of the first image: five, see `_derivatives`
    evenness: Tensor  # 0 … 1, how evenly the first image shines: the less, the more easily the flow may change
    grid: Tensor  # (2, H, W), x and y of each pixel as `grid_sample` counts them


def _scale(first: Tensor, second: Tensor) -> _Scale:
    height, width = first.shape[2:]
    derivatives = _derivatives(first)
    evenness = torch.rsqrt(1 + derivatives[:, :2].square().sum(1, keepdim=True) / EDGE**2)
    x, y = ((2 * torch.arange(n, device=first.device, dtype=first.dtype) + 1) / n - 1 for n in (width, height))
    return _Scale(second, derivatives, evenness, torch.stack(torch.meshgrid(x, y, indexing="xy")))


class _System(NamedTuple):
    """The linear equations of an increment of the flow u, at each pixel p with its four neighbours q.

    (D(p) + Σ w(p, q)) u(p) + c(p) u′(p) − Σ w(p, q) u(q) = b(p), with u′ the two components of u exchanged.
    """

    diagonal: Tensor  # D + Σ w, (N, 2, H, W)
    coupling: Tensor  # c, (N, 1, H, W)
    right: Tensor  # b, (N, 2, H, W)
    across: Tensor  # w between a pixel and its left neighbour, 0 beyond the image: (N, 1, H, W + 1)
    down: Tensor  # w between a pixel and its upper neighbour: (N, 1, H + 1, W)

    def product(self, u: Tensor) -> Tensor:
        """The left side."""
        product = (self.diagonal * u).addcmul_(self.coupling, u.flip(1))
        return product.sub_(_neighbours(u, self.across, self.down))

    def solved(self, iterations: int) -> Tensor:
        """Conjugate gradients from zero, preconditioned by the diagonal; each image of the batch by itself."""
        increment, residual = torch.zeros_like(self.right), self.right
        scaled = residual / self.diagonal
        direction, square = scaled, _inner(residual, scaled)
        for left in reversed(range(iterations)):
            product = self.product(direction)
            step = square / (_inner(direction, product) + TINY)
            increment = torch.addcmul(increment, step, direction)
            if left:
                residual = torch.addcmul(residual, step, product, value=-1)
                scaled = residual / self.diagonal
                before, square = square, _inner(residual, scaled)
                direction = torch.addcmul(scaled, square / (before + TINY), direction)
        return increment


def _neighbours(u: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The sum of each pixel's four neighbours, weighted."""
    padded = F.pad(u, (1, 1, 1, 1))
    middle = slice(1, -1)
    total = across[..., :-1] * padded[:, :, middle, :-2]
    total.addcmul_(across[..., 1:], padded[:, :, middle, 2:])
    total.addcmul_(down[:, :, :-1], padded[:, :, :-2, middle])
    return total.addcmul_(down[:, :, 1:], padded[:, :, 2:, middle])


def _inner(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((1, 2, 3), keepdim=True)


def _linearised(flow: Tensor, scale: _Scale, smoothness: float) -> _System:
    diagonal, coupling, right = _window_means(_data_term(flow, scale), WINDOW).split((2, 1, 2), dim=1)
    across, down = _weights(flow, smoothness * scale.evenness)
    total = across[..., 1:] + across[..., :-1] + down[:, :, 1:] + down[:, :, :-1]
    right = (right + _neighbours(flow, across, down)).addcmul_(total, flow, value=-1)
    return _System(diagonal + (total + TINY), coupling, right, across, down)


def _data_term(flow: Tensor, scale: _Scale) -> Tensor:
    """The data term's D, c and b in one, (N, 2 + 1 + 2, H, W).

    The derivatives of the first image are compared with those of the second one where the flow leads, unless that is
    outside. Divided by their own gradients the differences are in pixels.
    """
    derivatives, inside = _looked_up(flow, scale)
    change = derivatives[:, :2] - scale.derivatives[:, :2]
    mean = torch.lerp(derivatives[:, 2:], scale.derivatives[:, 2:], 0.5)
    along_x, along_y = mean[:, :2], mean[:, 1:]  # of the derivative by x, and of the one by y
    norm = 1 / (along_x.square().addcmul_(along_y, along_y) + NOISE**2)
    distance = (change.square() * norm).sum(1, keepdim=True)
    weight = norm * (torch.rsqrt(distance + EPSILON**2) * inside)
    x, y = weight * along_x, weight * along_y
    terms = [x * along_x, y * along_y, x * along_y, -(x * change), -(y * change)]
    return torch.stack(terms, dim=1).sum(2)


def _looked_up(flow: Tensor, scale: _Scale) -> tuple[Tensor, Tensor]:
    """The derivatives of the second image, warped by the flow; whether the flow leads into it, (N, 1, H, W)."""
    height, width = flow.shape[2:]
    where = torch.stack([scale.grid[0] + 2 / width * flow[:, 0], scale.grid[1] + 2 / height * flow[:, 1]], dim=-1)
    warped = F.grid_sample(scale.second, where, mode="bicubic", padding_mode="border", align_corners=False)
    return _derivatives(warped), (where.abs().amax(dim=-1) <= 1)[:, None]


def _searched(flow: Tensor, scale: _Scale) -> Tensor:
    """The flow, moved by whole pixels where gradients match far better there: out of what is a minimum by chance."""
    n, _, height, width = flow.shape
    derivatives, _ = _looked_up(flow, scale)
    side = 2 * REACH + 1
    padded = F.pad(derivatives[:, :2], (REACH,) * 4, mode="replicate")
    moved = F.unfold(padded, side).view(n, 2, side**2, height, width)
    error = _window_means((moved - scale.derivatives[:, :2, None]).abs_().sum(1), SEARCH_WINDOW)
    least, place = error.min(dim=1, keepdim=True)
    better = least < BETTER * error[:, side**2 // 2, None]
    offset = torch.cat([place % side, place.div(side, rounding_mode="floor")], dim=1) - REACH
    return flow + better * offset


def _window_means(planes: Tensor, window: int) -> Tensor:
    """Means over windows of so many pixels each way, repeating the border. (`avg_pool2d` is slow on a CPU.)"""
    planes = F.pad(planes, (window // 2,) * 4, mode="replicate")
    for dim in (3, 2):
        size = planes.shape[dim] - window + 1
        total = planes.narrow(dim, 0, size).clone()
        for start in range(1, window):
            total += planes.narrow(dim, start, size)
        planes = total
    return planes / window**2


def _weights(flow: Tensor, smoothness: Tensor) -> tuple[Tensor, Tensor]:
    """How much each pixel is bound to its left and its upper neighbour, 0 at the border: `_System.across`, `.down`."""
    right, below = F.pad(flow.diff(dim=3), (0, 1)), F.pad(flow.diff(dim=2), (0, 0, 0, 1))
    bend = right.square().addcmul_(below, below).sum(1, keepdim=True)
    weight = smoothness * torch.rsqrt(bend + EPSILON**2)
    across = F.pad((weight[..., 1:] + weight[..., :-1]) / 2, (1, 1))
    return across, F.pad((weight[:, :, 1:] + weight[:, :, :-1]) / 2, (0, 0, 1, 1))


def _derivatives(image: Tensor) -> Tensor:
    """Derivatives of (N, 1, H, W) by x, y, xx, xy and yy, exact for polynomials of degree four: (N, 5, H, W)."""
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, _stencils(image.device, image.dtype))


@functools.cache
def _stencils(device: torch.device, dtype: torch.dtype) -> Tensor:
    first = torch.tensor([1.0, -8.0, 0.0, 8.0, -1.0]) / 12
    second = torch.tensor([-1.0, 16.0, -30.0, 16.0, -1.0]) / 12
    here = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    pairs = ((here, first), (first, here), (here, second), (first, first), (second, here))
    return torch.stack([torch.outer(*pair) for pair in pairs])[:, None].to(device, dtype)


def _halved(image: Tensor) -> Tensor:
    size = [-(-extent // 2) for extent in image.shape[2:]]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
