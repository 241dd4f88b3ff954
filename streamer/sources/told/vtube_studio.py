"""VTube Studio on an iPhone, as it tells other programs on UDP: JSON, asked for again and again.

The protocol: https://github.com/DenchiSoft/VTubeStudioBlendshapeUDPReceiverTest (README, `VTubeStudioRawTrackingData`).
What it does not publish is read off its example scene, which shows the phone's face as a mirror does, and off a
packet that https://github.com/virtual-puppet-project/vpuppr keeps in its documentation (docs/drivers.md).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from engines.motion import Motion
from streamer.sources.told.axes import USUAL_DISTANCE_HU, gaze_of_looks, placed, turned
from streamer.sources.told.reading import (
    MOST_DEG,
    BadDatagram,
    Dialect,
    Reading,
    expression_of,
    number,
    shape_of,
)

KEEPS_SENDING_S = 5.0  # after each request; 0.5 … 10 are allowed
_MOST_SHAPES = 200
# A unit of `Position` has no published length; https://github.com/Veasu/warudo-vtubestudio takes it for 4 cm.
_HU_PER_UNIT = 0.4


class VTubeStudio(Dialect):
    """Each packet is whole: `Timestamp`, `FaceFound`, `Rotation`, `Position`, `EyeLeft`, `EyeRight`, `BlendShapes`.

    In degrees: `Rotation` x turns the head to the person's right, y down, z tilts it to the person's left; an eye's x
    turns down, y to the person's left.
    """

    most_bytes = 16_384  # 4 kB in practice
    is_raw = True

    def request(self, port: int) -> bytes:
        """Asks for `KEEPS_SENDING_S` more seconds."""
        wish = {
            "messageType": "iOSTrackingDataRequest",
            "time": KEEPS_SENDING_S,
            "sentBy": "visavis",
            "ports": [port],
        }
        return json.dumps(wish).encode()

    def take(self, datagram: bytes) -> Reading:
        """One packet."""
        packet = _object(_json(datagram), "the packet")
        found = packet.get("FaceFound")
        if not isinstance(found, bool):
            raise BadDatagram("nothing says whether there is a face")
        sent = packet.get("Timestamp")
        sent_s = None if sent is None else number(sent, 1e15) / 1e3
        return Reading(_motion(packet) if found else None, sent_s)


def _motion(packet: dict[str, Any]) -> Motion:
    shapes = packet.get("BlendShapes")
    if not isinstance(shapes, list) or len(shapes) > _MOST_SHAPES:
        raise BadDatagram("no list of shapes, or too long a one")
    pairs = [(shape_of(str(s.get("k"))), number(s.get("v"))) for s in (_object(s, "a shape") for s in shapes)]
    known = [(k, value) for k, value in pairs if k is not None]
    if not known:
        raise BadDatagram("none of the shapes is known")
    expression = expression_of(known)
    yaw, pitch, roll = _vector(packet.get("Rotation"), MOST_DEG)
    x, y, z = _vector(packet.get("Position"), 1e4)
    gaze = gaze_of_looks(expression)
    if "EyeLeft" in packet and "EyeRight" in packet:
        eyes = [_vector(packet[name], MOST_DEG) for name in ("EyeRight", "EyeLeft")]
        gaze = np.radians([(to_left, down) for down, to_left, _ in eyes]).astype(np.float32)
    return Motion(
        expression=expression,
        rotation_rad=turned(yaw_deg=-yaw, pitch_deg=pitch, roll_deg=roll),
        translation_hu=placed(_HU_PER_UNIT * x, -_HU_PER_UNIT * y, USUAL_DISTANCE_HU + _HU_PER_UNIT * z),
        gaze_rad=gaze,
    )


def _json(datagram: bytes) -> object:
    try:
        return json.loads(datagram.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        raise BadDatagram("no JSON") from error


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadDatagram(f"{what} is no object")
    return value


def _vector(value: object, most: float) -> tuple[float, float, float]:
    axes = _object(value, "a vector")
    return number(axes.get("x"), most), number(axes.get("y"), most), number(axes.get("z"), most)
