"""The last step of drawing: the generator's premultiplied RGBA over the photo's own background."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.gbuffer import Viewport
from engines.generators.geometric import resample

U8 = NDArray[np.uint8]


def make_background(enrollment: Enrollment, viewport: Viewport) -> U8:
    """(H, W, 3): the photo where its background shows, the filled plate behind the person."""
    height, width = enrollment.photo.shape[:2]
    plate = cv2.resize(enrollment.plate, (width, height), interpolation=cv2.INTER_LINEAR)
    # beyond the matte's soft edge, so that no rim of hair stays behind when the head moves away
    reach = max(2, round(enrollment.crop_px[2] / 40))
    grown = cv2.dilate((enrollment.matte > 8).astype(np.uint8) * 255, np.ones((3, 3), np.uint8), iterations=reach)
    soft = cv2.GaussianBlur(grown, (0, 0), max(1.0, reach / 3))[..., None].astype(np.float32) / 255
    behind = enrollment.photo * (1 - soft) + plate * soft
    size = (viewport.width_px, viewport.height_px)
    return resample((behind + 0.5).astype(np.uint8), viewport, 0, size)


def composite(rgba: U8, background: U8) -> U8:
    """`rgba` (H, W, 4) premultiplied over `background` (H, W, 3) → (H, W, 3) uint8."""
    alpha = rgba[..., 3]
    clear = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(background, clear, scale=1 / 255)
    return cv2.add(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), behind).astype(np.uint8)
