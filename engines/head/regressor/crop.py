"""Crops that the regressor looks at: squares of a picture, turned, and points that move with them.

Continuous pixel coordinates: pixel i covers i … i + 1, as MediaPipe's landmarks do.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64
from engines.head.landmark_names import LANDMARK_COUNT

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

INPUT_PX = 128
CROP_PER_FACE = 1.4  # side of the crop over the longer side of the landmarks' box
SKIN_LANDMARKS = LANDMARK_COUNT - 10  # the last ten are the irises: they turn with the gaze


@dataclass(frozen=True, slots=True)
class CropBox:
    """A square of a picture: centre (`x_px`, `y_px`) and `side_px`, turned by `roll_rad` (clockwise)."""

    x_px: float
    y_px: float
    side_px: float
    roll_rad: float = 0.0

    def to_picture(self, size_px: int) -> F64:
        """(2, 3): pixels of a crop of `size_px` → pixels of the picture."""
        k = self.side_px / size_px
        c, s = np.cos(self.roll_rad) * k, np.sin(self.roll_rad) * k
        turn = np.array([[c, -s], [s, c]])
        shift = np.array([self.x_px, self.y_px]) - turn @ np.full(2, size_px / 2)
        return np.column_stack([turn, shift])

    def to_crop(self, size_px: int) -> F64:
        """(2, 3): pixels of the picture → pixels of a crop of `size_px`."""
        return np.asarray(cv2.invertAffineTransform(self.to_picture(size_px)), np.float64)


def move_points(matrix: F64, points: F32 | F64) -> F64:
    """Points (N, 2 or 3) through an affine similarity (2, 3); z is scaled along."""
    points = np.asarray(points, np.float64)
    out = points.copy()
    out[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    out[:, 2:] *= np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return out


def face_extent(points_px: F32 | F64) -> tuple[float, float, float]:
    """(x, y, size): middle and longer side of the box around face landmarks (478, 2 or 3), irises left out."""
    skin = points_px[:SKIN_LANDMARKS, :2]
    low, high = skin.min(0), skin.max(0)
    x, y = (low + high) / 2
    return float(x), float(y), float((high - low).max())


def box_around(points_px: F32 | F64, crop_per_face: float = CROP_PER_FACE) -> CropBox:
    """The upright crop for a face with these landmarks."""
    x, y, size = face_extent(points_px)
    return CropBox(x, y, size * crop_per_face)


def cut(image: U8, box: CropBox, size_px: int = INPUT_PX) -> U8:
    """The crop (size, size, 3) of `image`; beyond the border its edge goes on.

    Shrunk by whole pixels first where it is much larger, or it would alias.
    """
    to_crop = box.to_crop(size_px)
    factor = int(box.side_px / size_px)
    if factor > 1:
        height, width = image.shape[:2]
        reach = box.side_px * (0.5 if box.roll_rad == 0 else 0.75) + factor
        left, right = _span(box.x_px, reach, width, factor)
        top, bottom = _span(box.y_px, reach, height, factor)
        if right > left and bottom > top:
            size = ((right - left) // factor, (bottom - top) // factor)
            part = cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
            image = np.asarray(part, np.uint8)
            to_crop = to_crop.copy()
            to_crop[:, 2] += to_crop[:, :2] @ np.array([left, top], np.float64)
            to_crop[:, :2] *= factor
    centres = to_crop.copy()  # OpenCV counts from the middle of the first pixel
    centres[:, 2] += to_crop[:, :2] @ np.full(2, 0.5) - 0.5
    out = cv2.warpAffine(
        image, centres, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(out, np.uint8)


def _span(centre: float, reach: float, length: int, factor: int) -> tuple[int, int]:
    start = max(0, int(centre - reach))
    stop = min(length, int(centre + reach) + 1)
    return start, start + (stop - start) // factor * factor
