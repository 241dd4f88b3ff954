"""A photo-sized picture, in a viewport's pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.raster.gbuffer import Viewport

U8 = NDArray[np.uint8]


def resample(image: U8, viewport: Viewport, margin_px: int, size: tuple[int, int]) -> U8:
    """Photo-sized `image` in viewport pixels: area-averaged when it shrinks, cubic when it grows."""
    affine = viewport.affine_from_photo()
    if viewport.scale < 1:
        height, width = image.shape[:2]
        small = cv2.resize(
            image,
            (max(1, round(width * viewport.scale)), max(1, round(height * viewport.scale))),
            interpolation=cv2.INTER_AREA,
        )
        fx, fy = width / small.shape[1], height / small.shape[0]
        # from small-picture pixel centres to photo pixel centres, then on to the viewport
        affine = affine @ np.array([[fx, 0, fx / 2 - 0.5], [0, fy, fy / 2 - 0.5], [0, 0, 1]])
        image = small.astype(np.uint8)
    affine[:, 2] += margin_px
    exact = viewport.scale == 1 and float(affine[0, 2]).is_integer() and float(affine[1, 2]).is_integer()
    flags = cv2.INTER_NEAREST if exact else (cv2.INTER_CUBIC if viewport.scale > 1 else cv2.INTER_LINEAR)
    return cv2.warpAffine(image, affine, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101).astype(
        np.uint8
    )
