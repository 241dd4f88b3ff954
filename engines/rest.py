"""What a face rests in: the photo's own expression, the neutral face, or something in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engines.motion import ARKIT_NAMES, Motion

F32 = NDArray[np.float32]

# lids that follow the eyes do so in the neutral face too
_FOLLOWS_GAZE = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])
_LIDS = np.array([name.startswith(("eye", "cheekSquint")) for name in ARKIT_NAMES])
_CLOSED = np.array([1, 0, 0], np.float32)  # the neutral face: lips together, eyes open


def resting(source: Motion, rest: float, lids: float = 1.0) -> Motion:
    """The photo's motion `source` with `rest` of its own expression left: 1 all of it … 0 the neutral face.

    Pose and gaze stay, and the lids as they follow it. `lids` 0 … 1: how far the photo's lids may give way at all; what
    is behind dark glass stays as it is.
    """
    if rest >= 1:
        return source
    lids_rest = 1 - (1 - rest) * lids
    left = np.where(_FOLLOWS_GAZE, 1.0, np.where(_LIDS, lids_rest, rest))
    kept = np.array([rest, lids_rest, lids_rest])
    closure = kept * source.closure + (1 - kept) * _CLOSED
    return replace(
        source,
        expression=(left * source.expression).astype(np.float32),
        closure=closure.astype(np.float32),
    )
