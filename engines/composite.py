"""The last step of drawing: the generator's premultiplied RGBA over the photo's own background."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.gbuffer import Viewport, rasterise
from engines.head import photo_viewport, pose_head
from engines.head_model import load_head_model
from engines.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_GRID_PX = 512
_REACH_HU = 0.9  # the body layer moves along this far from the head


def make_background(enrollment: Enrollment, viewport: Viewport) -> U8:
    """(H, W, 3): the photo where nothing will ever move, the filled plate behind the part that does."""
    height, width = enrollment.photo.shape[:2]
    plate = cv2.resize(enrollment.plate, (width, height), interpolation=cv2.INTER_LINEAR)
    # beyond the matte's soft edge, so that no rim of hair stays behind when the head moves away
    reach = max(2, round(enrollment.crop_px[2] / 40))
    grown = cv2.dilate(
        (enrollment.matte > 8).astype(np.uint8) * 255, np.ones((3, 3), np.uint8), iterations=reach
    )
    soft = cv2.GaussianBlur(grown, (0, 0), max(1.0, reach / 3)).astype(np.float32) / 255
    soft = (soft * _may_move(enrollment))[..., None]
    behind = enrollment.photo * (1 - soft) + plate * soft
    size = (viewport.width_px, viewport.height_px)
    return resample((behind + 0.5).astype(np.uint8), viewport, 0, size)


def _may_move(enrollment: Enrollment) -> F32:
    """(H, W) 0 … 1 over the photo: 1 where the head can uncover what is behind it, 0 beyond its reach."""
    model = load_head_model()
    viewport = photo_viewport(enrollment)
    mesh = pose_head(model, enrollment, enrollment.motion, viewport)
    covered = (rasterise(model, mesh, viewport, _GRID_PX).part > 0).astype(np.uint8)
    height, width = enrollment.photo.shape[:2]
    distance = cv2.distanceTransform(1 - covered, cv2.DIST_L2, 5)
    reach = _REACH_HU * mesh.pose.scale * covered.shape[1] / width
    near = np.clip(2 - 2 * distance / max(reach, 1e-3), 0, 1).astype(np.float32)
    return cv2.resize(near, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def composite(rgba: U8, background: U8) -> U8:
    """`rgba` (H, W, 4) premultiplied over `background` (H, W, 3) → (H, W, 3) uint8."""
    alpha = rgba[..., 3]
    clear = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(background, clear, scale=1 / 255)
    return cv2.add(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), behind).astype(np.uint8)
