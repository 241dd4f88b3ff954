"""Webcam and microphone together: the voice moves the mouth while the camera does not see it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engines.motion import ARKIT_NAMES, Motion

FADE_S = 0.3

_MOUTH = np.array([n.startswith(("jaw", "mouth")) for n in ARKIT_NAMES])


@dataclass(frozen=True, slots=True)
class Said:
    """The motion that a voice asks for, and when that was in the air, in ns of the monotonic clock."""

    motion: Motion
    captured_ns: int


def with_voice(seen: Motion, said: Motion, share: float) -> Motion:
    """`seen` with `share` of its jaw, mouth and closure of the lips taken from `said`."""
    if share <= 0:
        return seen
    weight = np.where(_MOUTH, share, 0.0)
    expression = (1 - weight) * seen.expression + weight * said.expression
    closure = seen.closure.copy()
    closure[0] = (1 - share) * seen.closure[0] + share * said.closure[0]
    return replace(seen, expression=expression.astype(np.float32), closure=closure)
