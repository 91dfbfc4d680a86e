"""Pictures that OpenCV decodes."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .formats import ImageError


def decode_opencv(data: bytes) -> NDArray[Any]:
    """(H, W, C), RGB or RGBA; a grey one may have come as RGB."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise ImageError("does not decode")
    if samples.ndim == 2:
        return samples[..., None]
    return samples[..., [2, 1, 0, 3][: samples.shape[2]]]
