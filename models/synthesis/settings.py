"""Settings that determine synthetic pairs."""

import dataclasses
import math
from dataclasses import dataclass

from .scene import SceneSettings


@dataclass(frozen=True)
class Settings:
    """Settings that, together with the photographs, determine the pairs.

    Attributes:
        patch: height and width of a pair, pixels.
        patches: pairs of each photograph.
        blur: the largest radius of a circle of confusion, pixels. Each pair has its own largest, from a third of it.
        misalignment: the largest displacement, pixels. Each pair has its own largest, from half of it.
        scenes: whether pairs are layered scenes (`models.synthesis.scene`): textures of the photograph in slanted
            layers that hide one another. `misalignment` is then the largest parallax between layers, and `zoom`,
            `shift` and `gain` count.
        zoom: largest zoom between the shots of a scene, as refocusing does it: 0.03 magnifies by 3 %.
        shift: largest common shift between the shots of a scene, pixels, in each direction.
        gain: largest difference of exposure between the shots of a scene, in linear light.
        noise: standard deviation at white, in linear light, white being 1; falls with the square root of the light, as
            that of photons does. Each pair has its own, up to it.
        bits: of a channel of the pictures, 8 or 16.
        scale: of the photographs, before patches are cut from them. Of several, the pairs of a photograph take those in
            turn at which it is large enough. Large photographs are rarely sharp to the pixel; small copies are.
        test_fraction: the part of the photographs that is kept for the test, chosen by their names.
        test: the names of the photographs to keep instead.
        test_patch, test_patches: `patch` and `patches` for the test; the same if None.
        seed: of everything random; the choice of photographs is not.
    """

    patch: int = 256
    patches: int = 20
    blur: float = 6.5
    misalignment: float = 4.0
    scenes: bool = False
    zoom: float = 0.02
    shift: float = 0.0
    gain: float = 0.05
    noise: float = 0.01
    bits: int = 8
    scale: tuple[float, ...] = (1.0,)
    test_fraction: float = 0.2
    test: tuple[str, ...] = ()
    test_patch: int | None = None
    test_patches: int | None = None
    seed: int = 0

    @property
    def margin(self) -> int:
        """The margin that a patch needs around it, pixels: the reach of a disk and of a displacement."""
        if self.scenes:
            return self.scene.margin
        return math.ceil(max(self.blur, self.misalignment)) + 4

    @property
    def extent(self) -> int:
        """Height and width that a photograph must have, pixels: the patch and what is around it."""
        return self.patch + 2 * self.margin

    @property
    def scene(self) -> SceneSettings:
        """The ranges that scenes are drawn from."""
        return SceneSettings(
            size=self.patch,
            blur=self.blur,
            parallax=self.misalignment,
            zoom=self.zoom,
            shift=self.shift,
            gain=self.gain,
            noise=self.noise,
        )

    def for_split(self, split: str) -> "Settings":
        """The settings of the pairs in a folder of OUT, "train_patches" or "test"."""
        if split != "test":
            return self
        return dataclasses.replace(self, patch=self.test_patch or self.patch, patches=self.test_patches or self.patches)
