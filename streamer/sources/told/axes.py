"""Others' axes become those of `Motion`: rotations, gaze, places, mirrors. Pure functions.

`Motion`: x to the picture's right, y down, z away from the camera. A person who faces the camera has their left hand at
the picture's right. What each protocol says is in docs/drivers.md, as a table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, rotation_from_degrees, rotation_vector, yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, ARKIT_NAMES, Motion
from streamer.sources.told.reading import BadDatagram

F32 = NDArray[np.float32]

USUAL_DISTANCE_HU = 6.0  # where a sender tells none
HU_PER_M = 10.0
# an eye that looks as far as it goes: 9.1 … 15.6° were sent with coefficients of 0.26 … 0.44 (docs/drivers.md)
LOOK_RAD = float(np.radians(35.0))
_NEAREST_HU, _FARTHEST_HU, _ASIDE_HU = 1.5, 60.0, 30.0

_SWAPPED = np.array(
    [
        ARKIT_INDEX[name.replace("Left", "Right") if name.endswith("Left") else name.replace("Right", "Left")]
        for name in ARKIT_NAMES
    ]
)


def turned(*, yaw_deg: float, pitch_deg: float, roll_deg: float) -> F32:
    """Rotation (3,) of a head: yaw > 0 to the picture's right, pitch > 0 down, roll > 0 clockwise in the picture."""
    return rotation_from_degrees(yaw_deg, pitch_deg, roll_deg).astype(np.float32)


def matrix_of(x: float, y: float, z: float, w: float) -> F64:
    """(3, 3) of a quaternion, of any length but none; raises BadDatagram. The same in left- and right-handed axes."""
    q = np.array([x, y, z, w], np.float64)
    length = float(np.linalg.norm(q))
    if not 1e-3 < length < 1e3:
        raise BadDatagram("a quaternion without a length")
    x, y, z, w = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_of(rotation_rad: F32 | F64) -> tuple[float, float, float, float]:
    """(x, y, z, w) of a rotation vector (3,)."""
    v = np.asarray(rotation_rad, np.float64)
    angle = float(np.linalg.norm(v))
    x, y, z = v * (np.sin(angle / 2) / angle if angle > 1e-9 else 0.5)
    return float(x), float(y), float(z), float(np.cos(angle / 2))


def vector_of(matrix: F64) -> F32:
    """The rotation vector (3,) of a matrix (3, 3)."""
    return rotation_vector(matrix).astype(np.float32)


def gaze_of_looks(expression: F32) -> F32:
    """Gaze (2, 2) of ARKit's eyeLook coefficients (52,): yaw and pitch of the right and the left eye."""

    def look(name: str) -> float:
        return float(expression[ARKIT_INDEX[f"eyeLook{name}"]])

    right = (look("InRight") - look("OutRight"), look("DownRight") - look("UpRight"))
    left = (look("OutLeft") - look("InLeft"), look("DownLeft") - look("UpLeft"))
    return (LOOK_RAD * np.array([right, left])).astype(np.float32)


def looks_of_gaze(gaze_rad: F32) -> dict[str, float]:
    """ARKit's eight eyeLook coefficients, 0 … 1, of a gaze (2, 2): the other way round."""
    (right_yaw, right_pitch), (left_yaw, left_pitch) = (gaze_rad / LOOK_RAD).clip(-1, 1).tolist()
    signed = {
        "eyeLookInRight": right_yaw, "eyeLookOutRight": -right_yaw, "eyeLookOutLeft": left_yaw,
        "eyeLookInLeft": -left_yaw, "eyeLookDownRight": right_pitch, "eyeLookUpRight": -right_pitch,
        "eyeLookDownLeft": left_pitch, "eyeLookUpLeft": -left_pitch,
    }  # fmt: skip
    return {name: max(value, 0.0) for name, value in signed.items()}


def gaze_of_directions(right: F64, left: F64) -> F32:
    """Gaze (2, 2) of two directions (3,) in the axes of a head that faces the camera: x right, y down, −z forward."""
    rows = [(np.arctan2(x, -z), np.arctan2(y, np.hypot(x, z))) for x, y, z in (right, left)]
    return np.array(rows, np.float32)


def placed(x_hu: float, y_hu: float, distance_hu: float) -> F32:
    """A place (3,) in head units; a distance that cannot be one is the usual one."""
    if not _NEAREST_HU <= distance_hu <= _FARTHEST_HU:
        distance_hu = USUAL_DISTANCE_HU
    aside = np.clip([x_hu, y_hu], -_ASIDE_HU, _ASIDE_HU)
    return np.array([*aside, distance_hu], np.float32)


def flipped(motion: Motion, flips: Collection[str]) -> Motion:
    """`motion` with these turns of the head ("yaw", "pitch", "roll") the other way round."""
    if not flips:
        return motion
    angles = zip(("yaw", "pitch", "roll"), yaw_pitch_roll_deg(motion.rotation_rad), strict=True)
    yaw, pitch, roll = (-angle if name in flips else angle for name, angle in angles)
    return replace(motion, rotation_rad=turned(yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll))


def mirrored(motion: Motion) -> Motion:
    """`motion` as a mirror shows it: left and right exchanged in everything."""
    across = np.array(
        [1, -1, -1], np.float32
    )  # a turn about x is the same in a mirror that stands along y and z
    return replace(
        motion,
        expression=motion.expression[_SWAPPED],
        rotation_rad=motion.rotation_rad * across,
        translation_hu=motion.translation_hu * np.array([-1, 1, 1], np.float32),
        gaze_rad=motion.gaze_rad[::-1] * np.array([-1, 1], np.float32),
        closure=motion.closure[[0, 2, 1]],
    )
