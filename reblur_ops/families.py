"""The families of kernels, and the options that tell one kernel of a family from another."""

from typing import NamedTuple

from reblur_ops.geometry import distance_classes


class Kernel(NamedTuple):
    """Description of every pixel's kernel, besides its parameters. The operators of `library` take it in this order.

    Attributes:
        family: "seeds" (parameters: seeds, and weights), "radial" (a profile), "taps" (tap weights), "gaussian" (σ) or
            "disk" (ρ).
        radii: increasing; one, but for seeds.
        support: of seeds and radial, "square" or "disk".
        normalize: of radial, "softmax", "sum" or "none".
    """

    family: str
    radii: tuple[int, ...]
    support: str = "square"
    normalize: str = "softmax"

    @property
    def radius(self) -> int:
        """Half the width of the window, less half a pixel."""
        return self.radii[-1]

    @property
    def parameter_channels(self) -> int:
        """The channels that the parameters have, the weights of seeds apart."""
        if self.family == "taps":
            return len(distance_classes(self.radius))
        return 1 if self.family in ("gaussian", "disk") else sum(self.radii) + len(self.radii)


def seeds(radii: tuple[int, ...], support: str) -> Kernel:
    return Kernel("seeds", radii, support)


def radial(radius: int, support: str, normalize: str) -> Kernel:
    return Kernel("radial", (radius,), support, normalize)


def taps(radius: int) -> Kernel:
    return Kernel("taps", (radius,))


def gaussian(radius: int) -> Kernel:
    return Kernel("gaussian", (radius,))


def disk(radius: int) -> Kernel:
    return Kernel("disk", (radius,))
