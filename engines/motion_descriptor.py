"""The motion descriptor: a `Motion` as a picture shows it, in 65 numbers, for networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.geometry import Similarity, rotation_vector
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT, Motion

F32 = NDArray[np.float32]

DESCRIPTOR_SIZE = EXPRESSION_COUNT + 13
# where each part lies
EXPRESSION = slice(0, EXPRESSION_COUNT)
CLOSURE = slice(EXPRESSION_COUNT, EXPRESSION_COUNT + 3)
GAZE = slice(EXPRESSION_COUNT + 3, EXPRESSION_COUNT + 7)
ROTATION = slice(EXPRESSION_COUNT + 7, EXPRESSION_COUNT + 10)
SCALE = EXPRESSION_COUNT + 10
SHIFT = slice(EXPRESSION_COUNT + 11, EXPRESSION_COUNT + 13)


def describe(motion: Motion, pose: Similarity) -> F32:
    """(65,) float32: β 52, closure 3, gaze 4 (right eye, left eye), then of `pose` (head units → pixels) the rotation
    vector 3, the scale 1 and the shift 2."""
    parts = (
        motion.expression, motion.closure, motion.gaze_rad.ravel(),
        rotation_vector(pose.rotation), [pose.scale], pose.shift[:2],
    )  # fmt: skip
    return np.concatenate([np.asarray(p, np.float32) for p in parts]).astype(np.float32)


def in_window(descriptors: F32, middle_px: F32, side_px: F32) -> F32:
    """Descriptors (…, 65) told in a window: scale as log of its share of the side, shift from the middle in half sides.

    `middle_px` (…, 2), `side_px` (…): the window's middle and height, in the pixels of the pose.
    """
    out = descriptors.copy()
    side = np.asarray(side_px, np.float32)
    out[..., SCALE] = np.log(np.maximum(descriptors[..., SCALE] / side, 1e-6))
    out[..., SHIFT] = (descriptors[..., SHIFT] - middle_px) * (2 / side[..., None])
    return out


def mirror_matrix() -> F32:
    """(65, 65) M: `d @ M` is the descriptor of the mirrored picture, for `d` told in a window (scale as it is)."""
    opposite = [
        ARKIT_NAMES.index(n.replace("Left", "Right") if "Left" in n else n.replace("Right", "Left"))
        for n in ARKIT_NAMES
    ]
    c, g, r, s = CLOSURE.start, GAZE.start, ROTATION.start, SHIFT.start
    # each number of the mirrored descriptor: which number it was, and its sign
    source = [*opposite, c, c + 2, c + 1, g + 2, g + 3, g, g + 1, r, r + 1, r + 2, SCALE, s, s + 1]
    sign = [1.0] * DESCRIPTOR_SIZE
    for turned in (g, g + 2, r + 1, r + 2, s):
        sign[turned] = -1.0
    out = np.zeros((DESCRIPTOR_SIZE, DESCRIPTOR_SIZE), np.float32)
    out[source, range(DESCRIPTOR_SIZE)] = sign
    return out
