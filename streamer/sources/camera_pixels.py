"""`rgb_of_shot`: what a camera gives in its own format, as RGB."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

# BT.601, limited range, as UVC cameras give it (USB Video Class 1.5, colour matching descriptor's default)
_CONVERSIONS = {
    "NV12": cv2.COLOR_YUV2RGB_NV12,
    "YU12": cv2.COLOR_YUV2RGB_I420,
    "YUYV": cv2.COLOR_YUV2RGB_YUY2,
    "UYVY": cv2.COLOR_YUV2RGB_UYVY,
    "GREY": cv2.COLOR_GRAY2RGB,
    "BGR": cv2.COLOR_BGR2RGB,
}


def shape_of(fourcc: str, width_px: int, height_px: int) -> tuple[int, ...] | None:
    """How OpenCV lays out one picture of that format; None where its length varies (MJPG)."""
    match fourcc:
        case "NV12" | "YU12":
            return height_px * 3 // 2, width_px
        case "YUYV" | "UYVY":
            return height_px, width_px, 2
        case "GREY":
            return height_px, width_px
        case "BGR":
            return height_px, width_px, 3
        case _:
            return None


def rgb_of_shot(raw: U8, fourcc: str) -> U8 | None:
    """(H, W, 3) uint8 RGB of one picture laid out as `shape_of` says; None for a JPEG that is torn.

    A JPEG of a camera may come without its Huffman tables (RFC 2435 § 4.1): libjpeg has the usual ones.
    """
    if fourcc != "MJPG":
        return np.asarray(cv2.cvtColor(raw, _CONVERSIONS[fourcc]), np.uint8)
    try:
        # at once to RGB: a decoder's BGR would be turned round by a second pass
        read = cv2.imdecode(raw.reshape(-1), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # an empty one
        return None
    return None if read is None else np.asarray(read, np.uint8)
