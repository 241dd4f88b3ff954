"""Motion as datagrams of the VMC protocol: the head's bone and the 52 shapes. Pure.

The protocol: https://protocol.vmc.info/marionette-spec; `streamer.sources.told.vmc` reads it. Names are those of
“perfect sync”, ARKit's with a capital; who receives them usually minds no case.
"""

from __future__ import annotations

import numpy as np

from engines.geometry import rotation_matrix, rotation_vector
from engines.motion import ARKIT_NAMES, Motion
from streamer.osc import OscMessage, datagram_of
from streamer.sources.told.axes import looks_of_gaze, quaternion_of

MOST_BYTES = 1200  # of a datagram: whole on any network
_SHAPES_EACH = 18  # of 60 bytes at the most
# where a head's bone lies on its neck in a figure of a person's size, for those who move bones as well as turn them
_HEAD_M = (0.0, 0.08, 0.0)


def datagrams_of(motion: Motion, neutral: Motion, time_s: float, *, is_there: bool) -> list[bytes]:
    """What `motion` says beyond the driver's rest `neutral`: the head's turn, shapes in 0 … 1, eyes as eyeLook shapes.

    `is_there`: whether there is a face; without one the motion is idle life, and the protocol can say so.
    """
    turn = rotation_vector(rotation_matrix(motion.rotation_rad) @ rotation_matrix(neutral.rotation_rad).T)
    head = OscMessage("/VMC/Ext/Bone/Pos", ("Head", *_HEAD_M, *quaternion_of(turn)))
    state = OscMessage("/VMC/Ext/OK", (1, 3, 0, int(is_there)))  # loaded, calibrated, as usual
    shapes = [
        OscMessage("/VMC/Ext/Blend/Val", (name[0].upper() + name[1:], value))
        for name, value in _shapes(motion, neutral).items()
    ]
    parts = [shapes[k : k + _SHAPES_EACH] for k in range(0, len(shapes), _SHAPES_EACH)]
    parts[0] = [state, OscMessage("/VMC/Ext/T", (float(time_s),)), head, *parts[0]]
    parts[-1] = [*parts[-1], OscMessage("/VMC/Ext/Blend/Apply")]
    return [datagram_of(part) for part in parts]


def _shapes(motion: Motion, neutral: Motion) -> dict[str, float]:
    change = np.clip(motion.expression - neutral.expression, 0, 1).tolist()
    # a lid that is seen shut is shut, whatever its coefficient
    right, left = np.clip(motion.closure[1:] - neutral.closure[1:], 0, 1).tolist()
    named = dict(zip(ARKIT_NAMES, change, strict=True))
    named["eyeBlinkRight"] = max(named["eyeBlinkRight"], right)
    named["eyeBlinkLeft"] = max(named["eyeBlinkLeft"], left)
    return named | looks_of_gaze(motion.gaze_rad - neutral.gaze_rad)
