"""Small shapes in pictures: polygons, regions, the grid of pixels, and the map between two poses of a plane."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, Similarity
from engines.head.landmark_names import LIPS_INNER

F32 = NDArray[np.float32]


def polygon_mask(outline: F64, width: int, height: int) -> F32:
    """Anti-aliased mask (h, w) 0 … 1 of a polygon (N, 2) in pixel coordinates (edges at whole numbers)."""
    mask = np.zeros((height, width), np.uint8)
    fixed = np.rint((outline - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=4)
    return (mask.astype(np.float32) / 255).astype(np.float32, copy=False)


def planar_map(photo_pose: Similarity, pose: Similarity) -> F64:
    """(2, 2): the linear part that takes picture offsets on a face-parallel plane back to the photo's."""
    to_photo = photo_pose.scale * photo_pose.rotation[:2, :2]
    to_target = pose.scale * pose.rotation[:2, :2]
    return to_photo @ np.linalg.inv(to_target)


def region(outline: F64, pad_px: float, width: int, height: int) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) around an outline inside a picture, or None when nothing of it is inside."""
    x0, y0 = np.maximum(np.floor(outline.min(0) - pad_px), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(outline.max(0) + pad_px), [width, height]).astype(int)
    return (int(x0), int(y0), int(x1), int(y1)) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


@lru_cache(maxsize=8)
def pixel_grid(width: int, height: int) -> F32:
    """(h, w, 2) place of each pixel as `cv2.remap` counts, centres at whole numbers; never write to it."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grid = np.stack([x, y], -1)
    grid.setflags(write=False)
    return grid


def smooth_lips(ring_px: F64) -> F64:
    """The inner lips (20, 2) as a curve (80, 2) through them, upper and lower lip apart: corners stay corners."""
    return _CURVE @ ring_px


def _curve_weights() -> F64:
    """(80, 20) Catmull-Rom's spline along each lip, four points for each landmark."""
    count = len(LIPS_INNER)
    half = count // 2  # the corners are the first landmark and the one half-way round
    rows: list[F64] = []
    for begin in (0, half):
        for step in range(half):
            # beyond a corner the lip goes on straight
            ids = [begin + k for k in (step - 1, step, step + 1, step + 2)]
            for t in np.arange(_FINER) / _FINER:
                w = 0.5 * np.array(
                    [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]
                )
                row = np.zeros(count)
                for place, weight in zip(ids, w, strict=True):
                    if place < begin:
                        row[begin] += 2 * weight
                        row[begin + 1] -= weight
                    elif place > begin + half:
                        row[(begin + half) % count] += 2 * weight
                        row[begin + half - 1] -= weight
                    else:
                        row[place % count] += weight
                rows.append(row)
    return np.array(rows)


_FINER = 4
_CURVE = _curve_weights()
