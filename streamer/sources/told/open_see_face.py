"""OpenSeeFace: a webcam's face as packed numbers over UDP, from its `facetracker`.

The protocol: https://github.com/emilianavt/OpenSeeFace, as its `facetracker` packs it and its `OpenSee` for Unity
reads it: little-endian, 1785 bytes a face, faces one after the other, nothing while there is none.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, FOCAL_PER_SIDE
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from streamer.sources.told.axes import gaze_of_directions, matrix_of, placed, vector_of
from streamer.sources.told.reading import BadDatagram, Dialect, Reading

F32 = NDArray[np.float32]

# time, id, size of the picture, right and left eye open, 3D known, its error, quaternion, Euler angles, translation;
# confidence and place of 68 landmarks, 70 points in 3D, 14 features
_HEAD = struct.Struct("<di2f2fBf4f3f3f")
_POINTS_AT = _HEAD.size + 68 * 4 + 68 * 8
_FEATURES_AT = _POINTS_AT + 70 * 12
FACE_BYTES = _FEATURES_AT + 14 * 4
_MOST_FACES = 40  # the sender's own bound

_FEATURES: tuple[str, ...] = (
    "eye_l", "eye_r", "steep_l", "brow_l", "quirk_l", "steep_r", "brow_r", "quirk_r", "corner_l", "inout_l",
    "corner_r", "inout_r", "mouth_open", "mouth_wide",
)  # fmt: skip
# Its axes: the picture's (down, right, away), and of a face (its right, up, forward). Both are left-handed.
_PICTURE = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float64)
# its face is 0.63 … 0.66 wide between the outer corners of the eyes, ours 0.89 head units
_HU_PER_UNIT = 1.37
# 1 is as wide as this mouth was ever seen, ARKit's 1 as wide as any mouth goes
_WIDEST_JAW, _WIDEST_LIPS = 0.6, 0.5


class OpenSeeFace(Dialect):
    """One face is followed: the one that was, or the first there is.

    Its features know lids, brows up and down, mouth open, wide and its corners; all else of ARKit's 52 stays 0.
    """

    most_bytes = _MOST_FACES * FACE_BYTES
    is_raw = True
    fps = 30.0

    def __init__(self) -> None:
        self._followed: int | None = None

    def take(self, datagram: bytes) -> Reading:
        """One picture's faces."""
        count, rest = divmod(len(datagram), FACE_BYTES)
        if rest or not count:
            raise BadDatagram("a wrong count of bytes")
        faces = [_HEAD.unpack_from(datagram, k * FACE_BYTES) for k in range(count)]
        ids = [face[1] for face in faces]
        k = ids.index(self._followed) if self._followed in ids else 0
        self._followed = ids[k]
        return _reading(faces[k], datagram[k * FACE_BYTES : (k + 1) * FACE_BYTES])


def _reading(head: tuple[Any, ...], face: bytes) -> Reading:
    sent_s, _, width, height, right_open, left_open, has_3d = head[:7]
    quaternion, translation = head[8:12], np.array(head[15:18])
    with np.errstate(invalid="ignore"):  # what is no number is refused below
        points = np.frombuffer(face, "<f4", 12, _POINTS_AT + 66 * 12).reshape(4, 3).astype(np.float64)
        features = np.frombuffer(face, "<f4", len(_FEATURES), _FEATURES_AT).astype(np.float64)
    told_first = [sent_s, width, height, right_open, left_open, *quaternion, *translation]
    used = np.concatenate([told_first, points.ravel(), features])
    if not (np.abs(used) < 1e12).all():  # not NaN either
        raise BadDatagram("a number is not finite, or far too large")
    if not has_3d:
        return Reading(None, sent_s)
    told = dict(zip(_FEATURES, np.clip(features, -1, 1).tolist(), strict=True))
    return Reading(
        Motion(
            expression=_expression(told, right_open, left_open),
            # its quaternion is the transpose's; a frontal face has its right at the picture's left, and so on
            rotation_rad=vector_of(-_PICTURE @ matrix_of(*quaternion).T),
            translation_hu=_place(translation, width, height),
            gaze_rad=_gaze(points),
        ),
        sent_s,
    )


def _expression(told: dict[str, float], right_open: float, left_open: float) -> F32:
    brow = {"Left": told["brow_l"], "Right": told["brow_r"]}
    lids = {"Left": (left_open, told["eye_l"]), "Right": (right_open, told["eye_r"])}
    # it measures how far the corner is below the lip: a smile is less than nothing
    corner = {"Left": -told["corner_l"], "Right": -told["corner_r"]}
    named = {
        "browInnerUp": (max(brow["Left"], 0) + max(brow["Right"], 0)) / 2,
        "jawOpen": _WIDEST_JAW * told["mouth_open"],
        "mouthPucker": -_WIDEST_LIPS * told["mouth_wide"],
    }
    for side in ("Left", "Right"):
        is_open, feature = lids[side]
        named |= {
            f"eyeBlink{side}": 1 - is_open,
            f"eyeWide{side}": feature,
            f"browOuterUp{side}": brow[side],
            f"browDown{side}": -brow[side],
            f"mouthSmile{side}": corner[side],
            f"mouthFrown{side}": -corner[side],
            f"mouthStretch{side}": _WIDEST_LIPS * told["mouth_wide"],
        }
    expression = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in named.items():
        expression[ARKIT_INDEX[name]] = min(max(value, 0.0), 1.0)
    return expression


def _place(translation: F64, width_px: float, height_px: float) -> F32:
    """Its camera's focal length is the picture's width, ours `FOCAL_PER_SIDE` of the longer side."""
    down, right, away = (translation * _HU_PER_UNIT).tolist()
    longer = max(width_px, height_px) / width_px if width_px > 0 else 1.0
    return placed(right, down, FOCAL_PER_SIDE * longer * away)


def _gaze(points: F64) -> F32:
    """From the middles of both eyeballs through the pupils; `points`: right and left pupil, right and left middle.

    They are sent as (x, −y, −z) of a face that has its right at x, up at y, forward at z.
    """
    right, left = (points[k] - points[k + 2] for k in (0, 1))
    return gaze_of_directions(*(eye * np.array([-1, 1, 1]) for eye in (right, left)))
