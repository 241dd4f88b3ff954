"""iFacialMocap on an iPhone: lines of text over UDP, begun by a greeting.

The protocol: https://www.ifacialmocap.com/for-developer/, versions 1 and 2. Signs are read off the packets that are
published there and in the documentation of https://github.com/virtual-puppet-project/vpuppr (docs/drivers.md).
"""

from __future__ import annotations

import numpy as np

from engines.motion import Motion
from streamer.sources.told.axes import HU_PER_M, gaze_of_looks, placed, turned
from streamer.sources.told.reading import (
    MOST_DEG,
    BadDatagram,
    Dialect,
    Reading,
    expression_of,
    number_in,
    numbers_in,
    shape_of,
)

GREETING = b"iFacialMocap_sahuasouryya9218sauhuiayeta91555dy3719"
_VERSION_2 = b"|sendDataVersion=v2"
_MOST_FIELDS = 256


class IFacialMocap(Dialect):
    """Each line is whole: `name-NN|…|=head#rx,ry,rz,x,y,z|rightEye#rx,ry,rz|leftEye#rx,ry,rz|`.

    Version 2 has `name&NN`, which can say less than 0. Shapes are percents. Degrees and metres are ARKit's: x to the
    picture's right, y up, z towards the camera's back, right-handed; so x turns head and eyes down, y to the person's
    left, z tilts counterclockwise in the picture. There is no time; newer apps say `trackingStatus-0` without a face.
    """

    most_bytes = 8_192  # as much as the maker's own receiver takes
    is_raw = True

    def request(self, port: int) -> bytes:
        """The greeting; answers always go to the port of the same number, 49983, of who greets."""
        return GREETING + _VERSION_2

    def take(self, datagram: bytes) -> Reading:
        """One line."""
        shapes, turns, found = _fields(datagram)
        if not shapes:
            raise BadDatagram("none of the shapes is known")
        if not found:
            return Reading(None)
        if "head" not in turns:
            raise BadDatagram("no head")
        expression = expression_of((k, value / 100) for k, value in shapes)
        down, to_left, to_counter, x, y, z = turns["head"]
        gaze = gaze_of_looks(expression)
        if "rightEye" in turns and "leftEye" in turns:
            eyes = (turns["rightEye"], turns["leftEye"])
            gaze = np.radians([(eye[1], eye[0]) for eye in eyes]).astype(np.float32)
        return Reading(
            Motion(
                expression=expression,
                rotation_rad=turned(yaw_deg=to_left, pitch_deg=down, roll_deg=-to_counter),
                translation_hu=placed(HU_PER_M * x, -HU_PER_M * y, -HU_PER_M * z),
                gaze_rad=gaze,
            )
        )


def _fields(datagram: bytes) -> tuple[list[tuple[int, float]], dict[str, list[float]], bool]:
    """(shapes in percent by number, the numbers of head and eyes, whether there is a face)."""
    try:
        fields = datagram.decode("utf-8").replace("=", "|").split("|", _MOST_FIELDS)
    except UnicodeDecodeError as error:
        raise BadDatagram("no text") from error
    if len(fields) > _MOST_FIELDS:
        raise BadDatagram("too many fields")
    shapes: list[tuple[int, float]] = []
    turns: dict[str, list[float]] = {}
    found = True
    for field in fields:
        name, mark, rest = field.strip().partition("#")
        if mark:
            if name == "head":
                turns[name] = numbers_in(rest, 6, MOST_DEG)
            elif name in ("rightEye", "leftEye"):
                turns[name] = numbers_in(rest, 3, MOST_DEG)
            continue
        name, _, value = field.strip().partition("&" if "&" in field else "-")
        if (shape := shape_of(name)) is not None:
            shapes.append((shape, number_in(value)))
        elif name == "trackingStatus":
            found = number_in(value) > 0
    return shapes, turns, found
