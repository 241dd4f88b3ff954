"""The VMC protocol: OSC over UDP, as VSeeFace, Waidayo, Blender's add-ons and many others speak it.

The protocol: https://protocol.vmc.info/english; for who receives, https://protocol.vmc.info/marionette-spec. Read are
`/VMC/Ext/Blend/Val`, `/VMC/Ext/Blend/Apply`, `/VMC/Ext/Bone/Pos` and `/VMC/Ext/OK`. Bones are Unity's: left-handed, y
up, the figure faces z; so its right is x, and a rotation has the same vector as in `Motion`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from streamer.osc import Argument, OscError, OscMessage, messages_of
from streamer.sources.told.axes import gaze_of_directions, gaze_of_looks, matrix_of, vector_of
from streamer.sources.told.reading import BadDatagram, Dialect, Reading, number, shape_of

F32 = NDArray[np.float32]

# a turned head is shared out among these, each relative to the one before
_NECK = ("Spine", "Chest", "UpperChest", "Neck", "Head")
_EYES = ("RightEye", "LeftEye")
_FORWARD = np.array([0.0, 0.0, 1.0])

# What an avatar of VRM can do at least, for senders that tell no ARKit shapes: our own reading of its names.
_BOTH_BLINK = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
_SMILE = {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4}
_ANGRY = {"browDownLeft": 0.8, "browDownRight": 0.8, "noseSneerLeft": 0.3, "noseSneerRight": 0.3}
_SORROW = {"browInnerUp": 0.7, "mouthFrownLeft": 0.5, "mouthFrownRight": 0.5}
_A, _I = {"jawOpen": 0.5}, {"jawOpen": 0.12, "mouthStretchLeft": 0.4, "mouthStretchRight": 0.4}
_U, _E = (
    {"jawOpen": 0.12, "mouthPucker": 0.6},
    {"jawOpen": 0.25, "mouthStretchLeft": 0.3, "mouthStretchRight": 0.3},
)
_O = {"jawOpen": 0.3, "mouthFunnel": 0.5}
_SURPRISED = {"browInnerUp": 0.7, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7, "jawOpen": 0.25}
PRESETS: dict[str, dict[str, float]] = {
    "blink": _BOTH_BLINK, "blink_l": {"eyeBlinkLeft": 1.0}, "blinkleft": {"eyeBlinkLeft": 1.0},
    "blink_r": {"eyeBlinkRight": 1.0}, "blinkright": {"eyeBlinkRight": 1.0},
    "a": _A, "aa": _A, "i": _I, "ih": _I, "u": _U, "ou": _U, "e": _E, "ee": _E, "o": _O, "oh": _O,
    "joy": _SMILE, "happy": _SMILE, "fun": _SMILE, "relaxed": _SMILE, "angry": _ANGRY,
    "sorrow": _SORROW, "sad": _SORROW, "surprised": _SURPRISED,
}  # fmt: skip


class Vmc(Dialect):
    """Keeps what it was told last, as the protocol wants; a reading is made when shapes are applied.

    Of a sender without shapes each head is one. Places of bones are an avatar's, not a person's: the face stays where
    it is. The protocol's own time comes in messages of its own, so arrival counts.
    """

    most_bytes = 65_507
    is_raw = False  # whoever has an avatar to show has smoothed

    def __init__(self) -> None:
        self._shapes: F32 = np.zeros(EXPRESSION_COUNT, np.float32)
        self._presets: dict[str, float] = {}
        self._bones: dict[str, F64] = {}
        self._knows_shapes = False
        self._is_applied = False  # since the last head
        self._is_found = True

    def take(self, datagram: bytes) -> Reading | None:
        """The newest reading that the datagram completes."""
        try:
            messages = messages_of(datagram)
        except OscError as error:
            raise BadDatagram(str(error)) from error
        if not any(message.address.startswith("/VMC/") for message in messages):
            raise BadDatagram("no message of VMC")
        readings = [self._heard(message) for message in messages]
        return next((reading for reading in reversed(readings) if reading is not None), None)

    def _heard(self, message: OscMessage) -> Reading | None:
        arguments = message.arguments
        if message.address == "/VMC/Ext/Blend/Val":
            self._shape(arguments)
        elif message.address == "/VMC/Ext/Blend/Apply":
            self._is_applied = True
            return self._reading()
        elif message.address == "/VMC/Ext/Bone/Pos":
            return self._bone(arguments)
        elif message.address == "/VMC/Ext/OK":
            return self._state(arguments)
        return None

    def _shape(self, arguments: tuple[Argument, ...]) -> None:
        name, value = _named(arguments, 1)
        value = min(max(value[0], 0.0), 1.0)
        if (shape := shape_of(name)) is not None:
            self._shapes[shape] = value
            self._knows_shapes = True
        elif name.lower() in PRESETS:
            self._presets[name.lower()] = value

    def _bone(self, arguments: tuple[Argument, ...]) -> Reading | None:
        name, numbers = _named(arguments, 7)
        if name not in _NECK and name not in _EYES:
            return None
        x, y, z, w = numbers[3:]
        self._bones[name] = matrix_of(x, y, z, w)
        if name != "Head":
            return None
        was_applied, self._is_applied = self._is_applied, False
        return None if was_applied else self._reading()  # of who applies shapes it comes with them

    def _state(self, arguments: tuple[Argument, ...]) -> Reading | None:
        """`loaded`, and from version 2.7 on, fourth, whether tracking works: without either there is nobody."""
        if not arguments:
            raise BadDatagram("a state without a number")
        flags = [number(a) for a in (arguments[0], *arguments[3:4])]
        was_found, self._is_found = self._is_found, all(flag > 0 for flag in flags)
        return Reading(None) if was_found and not self._is_found else None

    def _reading(self) -> Reading:
        if not self._is_found:
            return Reading(None)
        turn = np.eye(3)
        for name in _NECK:
            turn = turn @ self._bones.get(name, np.eye(3))
        expression = self._shapes.copy() if self._knows_shapes else self._of_presets()
        if all(eye in self._bones for eye in _EYES):
            right, left = (-(self._bones[eye] @ _FORWARD) for eye in _EYES)
            gaze = gaze_of_directions(right, left)
        else:
            gaze = gaze_of_looks(expression)
        return Reading(Motion(expression=expression, rotation_rad=vector_of(turn), gaze_rad=gaze))

    def _of_presets(self) -> F32:
        expression = np.zeros(EXPRESSION_COUNT, np.float32)
        for preset, value in self._presets.items():
            for name, share in PRESETS[preset].items():
                expression[ARKIT_INDEX[name]] += share * value
        return np.minimum(expression, 1.0)


def _named(arguments: tuple[Argument, ...], count: int) -> tuple[str, list[float]]:
    """A name and `count` numbers; more, as later versions have, are left out."""
    if len(arguments) <= count or not isinstance(arguments[0], str):
        raise BadDatagram("no name, or too few numbers")
    return arguments[0], [number(a) for a in arguments[1 : count + 1]]
