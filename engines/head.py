"""Enrollment + motion → posed `HeadMesh` in a viewport; and the viewports themselves."""

from __future__ import annotations

import numpy as np

from engines.enrollment import Enrollment
from engines.face_model import FaceModel
from engines.gbuffer import HeadMesh, Viewport
from engines.geometry import Camera, Similarity
from engines.motion import Motion


def head_viewport(enrollment: Enrollment, size_px: int) -> Viewport:
    """The standard head crop as a square of `size_px`."""
    left, top, side = enrollment.crop_px
    return Viewport(left, top, size_px / side, size_px, size_px)


def photo_viewport(enrollment: Enrollment) -> Viewport:
    """The photo's own framing, pixel for pixel."""
    height, width = enrollment.photo.shape[:2]
    return Viewport(0.0, 0.0, 1.0, width, height)


def pose_in_viewport(enrollment: Enrollment, motion: Motion, viewport: Viewport) -> Similarity:
    """Head units → viewport pixels for a motion told in the photo's camera."""
    height, width = enrollment.photo.shape[:2]
    pose = Camera(width, height).to_similarity(motion.rotation_rad, motion.translation_hu)
    shift = np.append(pose.shift[:2] - (viewport.origin_x_px, viewport.origin_y_px), pose.shift[2])
    return Similarity(pose.scale * viewport.scale, pose.rotation, shift * viewport.scale)


def pose_head(model: FaceModel, enrollment: Enrollment, motion: Motion, viewport: Viewport) -> HeadMesh:
    """Decode and pose: `P = (1 − r) P_photo + r S_t(V(β_t))`, r the rigidity (1 on the head, 0 far out)."""
    rest = enrollment.motion
    pose = pose_in_viewport(enrollment, motion, viewport)
    moved = pose.apply(model.decode(enrollment.neutral_hu, motion.expression, enrollment.gain))
    still_pose = pose_in_viewport(enrollment, rest, viewport)
    still = still_pose.apply(model.decode(enrollment.neutral_hu, rest.expression, enrollment.gain))
    r = model.rigidity[:, None]
    return HeadMesh(((1 - r) * still + r * moved).astype(np.float32), pose)
