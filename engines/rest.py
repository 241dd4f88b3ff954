"""What a face rests in: the photo's own expression, the neutral face, or something in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engines.motion import ARKIT_NAMES, Motion

F32 = NDArray[np.float32]

# lids that follow the eyes do so in the neutral face too
_FOLLOWS_GAZE = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])
_CLOSED = np.array([1, 0, 0], np.float32)  # the neutral face: lips together, eyes open


def resting(source: Motion, rest: float) -> Motion:
    """The photo's motion `source` with `rest` of its own expression left: 1 all of it … 0 the neutral face.

    Pose and gaze stay, and the lids as they follow it.
    """
    if rest >= 1:
        return source
    expression = np.where(_FOLLOWS_GAZE, 1.0, rest) * source.expression
    closure = rest * source.closure + (1 - rest) * _CLOSED
    return replace(source, expression=expression.astype(np.float32), closure=closure.astype(np.float32))
