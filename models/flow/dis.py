"""DIS optical flow, by OpenCV: no weights, on the CPU."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Flow, check_choice
from .equalise import equalise_blur

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
COARSEST_FINEST_SCALE = 2
# OpenCV refuses smaller images, and for some long and narrow ones reads out of bounds and ends the process. From here
# on its coarsest scale, ⌊log₂(96 / (4·8)) + ½⌋ = 2 for patches of 8 pixels, is never finer than the finest one.
SMALLEST = 96


class DisFlow(Flow):
    """Dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016).

    On grey images of 8 bits: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) of the values as they are, clipped to 0 … 1 and
    rounded. Images smaller than 96 pixels are enlarged by repeating their edge, and the flow is cropped. The images
    of a batch are computed one after another on the CPU. Results repeat bit for bit.

    The defaults are those that `python -m benchmarks.flow` found the most accurate when one image is out of focus.

    Args:
        preset: "ultrafast", "fast" or "medium": OpenCV's sets of parameters, from which those below differ.
        equalise: blur each image where the other is blurrier, before (`equalise_blur`).
        finest_scale: where it stops: at 1/2^n of the resolution, from 0 to 2. None, as for the next two, leaves the
            preset's.
        smoothness: how much a gradient of the flow counts in its variational refinement (OpenCV's alpha).
        refinements: iterations of that refinement, at each scale.

    Raises:
        ValueError: an option that does not exist, or is out of range.
    """

    def __init__(
        self,
        preset: str = "medium",
        *,
        equalise: bool = True,
        finest_scale: int | None = 0,
        smoothness: float | None = 40.0,
        refinements: int | None = 20,
    ) -> None:
        super().__init__()
        check_choice("preset", preset, tuple(PRESETS))
        if finest_scale is not None and finest_scale not in range(COARSEST_FINEST_SCALE + 1):
            raise ValueError(f"finest_scale must be from 0 to {COARSEST_FINEST_SCALE}, got {finest_scale}")
        for name, value in (("smoothness", smoothness), ("refinements", refinements)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.preset = preset
        self.equalise = equalise
        self.finest_scale = finest_scale
        self.smoothness = smoothness
        self.refinements = refinements

    def estimate(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[2:]
        right, bottom = (max(SMALLEST - extent, 0) for extent in (width, height))
        pair = tuple(F.pad(grey(image.cpu()), (0, right, 0, bottom), mode="replicate") for image in (first, second))
        if self.equalise:
            pair = equalise_blur(*pair)
        pair_8bit = [(255 * image[:, 0]).round().to(torch.uint8).numpy() for image in pair]
        # A new one each time: it holds buffers, and neither copies nor pickles.
        method = self._create()
        # None: a flow given would be where the search begins. OpenCV's types do not know.
        flows = [
            method.calc(one, other, None)  # type: ignore[call-overload, unused-ignore]
            for one, other in zip(*pair_8bit, strict=True)
        ]
        flow = torch.from_numpy(np.stack(flows))[:, :height, :width]
        return flow.permute(0, 3, 1, 2).contiguous().to(first.device)

    def _create(self) -> cv2.DISOpticalFlow:
        method = cv2.DISOpticalFlow.create(PRESETS[self.preset])
        if self.finest_scale is not None:
            method.setFinestScale(self.finest_scale)
        if self.smoothness is not None:
            method.setVariationalRefinementAlpha(self.smoothness)
        if self.refinements is not None:
            method.setVariationalRefinementIterations(self.refinements)
        return method

    def extra_repr(self) -> str:
        return (
            f"{self.preset}, equalise={self.equalise}, finest_scale={self.finest_scale}, "
            f"smoothness={self.smoothness}, refinements={self.refinements}"
        )


def grey(image: Tensor) -> Tensor:
    """(N, 1, H, W), from 0 to 1, of (N, 3, H, W) RGB. What is not a number is 0."""
    weights = image.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (image * weights).sum(dim=1, keepdim=True).clamp(0, 1).nan_to_num(0)
