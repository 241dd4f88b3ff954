"""A driver's neutral as a short text, so that a page can keep it and give it back: one person, one camera."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral
from engines.errors import VisavisError
from engines.geometry import F64
from engines.head.fit import EXPRESSION_HIGH, EXPRESSION_LOW
from engines.head.landmark_names import LANDMARK_COUNT
from engines.motion import EXPRESSION_COUNT, Motion

MAX_KEPT_CHARACTERS = 4096
VERSION = 1
_MAX_NAME_BYTES = 32
_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_REACH_HU = 4.0  # what the mesh's 16 bits span on either side: a step of a thousandth of a millimetre
_STEPS = 32767

# Whole numbers and floats in network order, then the tracker's name to the end.
_MESH_BYTES = 2 * 3 * LANDMARK_COUNT
_MOTION = np.dtype(
    [
        ("expression", ">i2", EXPRESSION_COUNT),
        ("rotation_rad", ">f4", 3),
        ("translation_hu", ">f4", 3),
        ("gaze_rad", ">f2", 4),
        ("closure", ">f2", 3),
    ]
)
_HEAD_BYTES = 1 + _MESH_BYTES + _MOTION.itemsize

# Between these a head's landmarks lie, along each axis (the mean head: 1.42, 1.70 and 1.03).
_MIN_SPREAD_HU, _MAX_SPREAD_HU = 0.5, 4.0
_MAX_OFF_CENTRE_HU = 1.0
_EXPRESSION_SPAN = 2.0
_MAX_ROTATION_RAD, _MAX_GAZE_RAD = 3.2, 1.6
_DISTANCE_HU, _MAX_ASIDE_HU = (0.2, 1000.0), 1000.0


class NeutralError(VisavisError):
    """A kept neutral is not one that visavis gave out; the message says why and to recalibrate."""


@dataclass(frozen=True, slots=True)
class KeptNeutral:
    """`neutral`, and the name of the `tracker` that took it: another one sees another face at rest."""

    neutral: DriverNeutral
    tracker: str


def text_of(neutral: DriverNeutral, tracker_name: str) -> str:
    """`neutral` in base64 (RFC 4648 § 4), at most `MAX_KEPT_CHARACTERS`. Raises NeutralError for what is no rest."""
    name = tracker_name.encode("ascii", "replace")
    _require(neutral, name)
    motion = np.zeros((), _MOTION)
    motion["expression"] = _whole(neutral.motion.expression, _EXPRESSION_SPAN)
    motion["rotation_rad"] = neutral.motion.rotation_rad
    motion["translation_hu"] = neutral.motion.translation_hu
    motion["gaze_rad"] = neutral.motion.gaze_rad.ravel()
    motion["closure"] = neutral.motion.closure
    mesh = _whole(neutral.mesh_hu, _REACH_HU).astype(">i2")
    return base64.b64encode(bytes([VERSION]) + mesh.tobytes() + motion.tobytes() + name).decode("ascii")


def read_kept(text: str) -> KeptNeutral:
    """Inverse of `text_of`, to the step of its numbers. Raises NeutralError for anything else, however long."""
    if len(text) > MAX_KEPT_CHARACTERS:
        raise NeutralError(_refusal(f"it is longer than {MAX_KEPT_CHARACTERS} characters"))
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise NeutralError(_refusal("it is no base64")) from error
    if data[:1] != bytes([VERSION]):
        raise NeutralError(_refusal("it is of another version"))
    if not _HEAD_BYTES < len(data) <= _HEAD_BYTES + _MAX_NAME_BYTES:
        raise NeutralError(_refusal(f"it has {len(data)} bytes"))
    mesh = np.frombuffer(data, ">i2", 3 * LANDMARK_COUNT, 1).reshape(LANDMARK_COUNT, 3)
    told = np.frombuffer(data, _MOTION, 1, 1 + _MESH_BYTES)[0]
    name = data[_HEAD_BYTES:]
    motion = Motion(
        expression=(told["expression"] * (_EXPRESSION_SPAN / _STEPS)).astype(np.float32),
        rotation_rad=told["rotation_rad"].astype(np.float32),
        translation_hu=told["translation_hu"].astype(np.float32),
        gaze_rad=told["gaze_rad"].astype(np.float32).reshape(2, 2),
        closure=told["closure"].astype(np.float32),
    )
    neutral = DriverNeutral(mesh * (_REACH_HU / _STEPS), motion)
    _require(neutral, name)
    return KeptNeutral(neutral, name.decode("ascii"))


def _refusal(why: str) -> str:
    return f"the kept neutral cannot be used: {why}; recalibrate with a calm face"


def _whole(values: NDArray[np.float32] | F64, span: float) -> NDArray[np.int16]:
    return np.rint(np.clip(values, -span, span) * (_STEPS / span)).astype(np.int16)


def _require(neutral: DriverNeutral, name: bytes) -> None:
    """Raise NeutralError unless this is a head that a camera could have seen at rest."""
    if not 1 <= len(name) <= _MAX_NAME_BYTES or not set(name) <= _NAME_BYTES:
        raise NeutralError(_refusal("it names no tracker"))
    mesh, motion = neutral.mesh_hu, neutral.motion
    if mesh.shape != (LANDMARK_COUNT, 3) or not np.isfinite(mesh).all() or not motion.is_finite():
        raise NeutralError(_refusal("a number is not finite"))
    spread = np.ptp(mesh, axis=0)
    if not _MIN_SPREAD_HU <= spread.min() <= spread.max() <= _MAX_SPREAD_HU:
        raise NeutralError(_refusal("it has not the size of a head"))
    if float(np.abs(mesh.mean(0)).max()) > _MAX_OFF_CENTRE_HU or float(np.abs(mesh).max()) > _REACH_HU:
        raise NeutralError(_refusal("its face is not where a head has it"))
    low, high = EXPRESSION_LOW - 1e-3, EXPRESSION_HIGH + 1e-3
    if not low <= motion.expression.min() <= motion.expression.max() <= high:
        raise NeutralError(_refusal("its expression is no face's"))
    near, far = _DISTANCE_HU
    if (
        not near <= float(motion.translation_hu[2]) <= far
        or np.abs(motion.translation_hu).max() > _MAX_ASIDE_HU
    ):
        raise NeutralError(_refusal("its head is too far away"))
    if np.abs(motion.rotation_rad).max() > _MAX_ROTATION_RAD or np.abs(motion.gaze_rad).max() > _MAX_GAZE_RAD:
        raise NeutralError(_refusal("its angles are no head's"))
    if not 0 <= motion.closure.min() <= motion.closure.max() <= 1:
        raise NeutralError(_refusal("its lids and lips are no face's"))
