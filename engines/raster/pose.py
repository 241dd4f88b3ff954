"""Enrollment + motion → posed `HeadMesh` in a viewport; and the viewports themselves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.errors import EnrollmentError
from engines.geometry import Camera, Similarity
from engines.head.glasses import hold_glasses
from engines.head.lips import hold_lips
from engines.head.model import HeadModel, close_gaps
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.gbuffer import HeadMesh, Viewport

F32 = NDArray[np.float32]


def head_viewport(enrollment: Enrollment, size_px: int) -> Viewport:
    """The standard head crop as a square of `size_px`."""
    left, top, side = enrollment.crop_px
    return Viewport(left, top, size_px / side, size_px, size_px)


def head_window(enrollment: Enrollment, width_px: int, height_px: int) -> Viewport:
    """The standard head crop `height_px` high, narrower or wider about its middle."""
    left, top, side = enrollment.crop_px
    scale = height_px / side
    return Viewport(left + side / 2 - width_px / scale / 2, top, scale, width_px, height_px)


_CUT_AT_MOST = 0.25  # of the crop's height, which a photo that ends below the chin takes away


def wide_viewport(enrollment: Enrollment, width_px: int, height_px: int) -> Viewport:
    """`width_px` × `height_px` around the head, as high as the standard head crop.

    It never looks below the photo's lower edge: nobody has a chest to show that the photo does not have. Where the
    crop does, it is a little nearer and higher. Sideways and above it may reach beyond the photo.
    """
    left, top, side = enrollment.crop_px
    below = max(0.0, top + side - len(enrollment.photo))
    high = side - min(below, _CUT_AT_MOST * side)
    scale = height_px / high
    origin_x = left + side / 2 - width_px / 2 / scale
    return Viewport(origin_x, top + side - below - high, scale, width_px, height_px)


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


# the fitted β of a shut eye is not exactly 1: from the first value on lids begin to meet, at the second they do
_BLINK_MEETS = (0.7, 0.95)
_BLINKS = [ARKIT_INDEX["eyeBlinkRight"], ARKIT_INDEX["eyeBlinkLeft"]]


def closure_of(motion: Motion) -> F32:
    """(3,) closure of lips, right and left eye: what was measured, and what β alone says of the lids."""
    low, high = _BLINK_MEETS
    lids = np.clip((motion.expression[_BLINKS] - low) / (high - low), 0, 1)
    return np.concatenate([motion.closure[:1], np.maximum(motion.closure[1:], lids)]).astype(np.float32)


def decode_head(model: HeadModel, enrollment: Enrollment, motion: Motion) -> F32:
    """A person's head (N, 3) in head units, un-posed: β, gaze, what is rigid held, lips and lids brought together.

    Raises EnrollmentError when the enrollment belongs to another head model.
    """
    if enrollment.neutral_hu.shape != model.mean_hu.shape:
        raise EnrollmentError(
            f"{enrollment.name} was enrolled with another head model ({len(enrollment.neutral_hu)} vertices, "
            f"not {model.vertex_count}); enroll the photo again: visavis enroll PHOTO"
        )
    shape = model.decode(enrollment.neutral_hu, motion.expression, motion.gaze_rad)
    if enrollment.glasses:
        hold_glasses(model, shape, motion.expression - enrollment.motion.expression)
    hold_lips(model, shape, enrollment.neutral_hu, motion.expression, enrollment.motion.expression)
    close_gaps(model, shape, closure_of(motion))
    return shape


def pose_head(model: HeadModel, enrollment: Enrollment, motion: Motion, viewport: Viewport) -> HeadMesh:
    """Decode and pose: `P = (1 − r) P_photo + r S_t(V(β_t))`, r the rigidity (1 on the head, 0 at the neck's base)."""
    pose = pose_in_viewport(enrollment, motion, viewport)
    shape = decode_head(model, enrollment, motion)
    vertices = pose.apply(shape).astype(np.float32)
    neck = _neck_of(model)
    still_pose = pose_in_viewport(enrollment, enrollment.motion, viewport)
    # expressions hardly reach the neck: where it is still, it is as in the photo
    still = still_pose.apply(enrollment.neutral_hu[neck])
    r = model.rigidity[neck, None]
    vertices[neck] = (1 - r) * still + r * vertices[neck]
    return HeadMesh(vertices, pose, model.landmarks(vertices).astype(np.float32))


@lru_cache(maxsize=4)
def _neck_of(model: HeadModel) -> NDArray[np.intp]:
    return np.flatnonzero(model.rigidity < 1)
