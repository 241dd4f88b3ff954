"""How far the mouth is open: the gap between the lips that a motion gives a head, in the head's own measure."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engines.head.landmark_names import LOWER_LIP, UPPER_LIP
from engines.head.model import load_head_model

F32 = NDArray[np.float32]

_FOREHEAD = 10  # MediaPipe's landmark at the hairline
WIDE_OPEN = 0.31  # opening at jawOpen = 1


@lru_cache(1)
def opening_weights() -> F32:
    """(52,): gap that each coefficient at 1 opens, over the distance from forehead to upper lip.

    The head model is linear, and against gaps measured between landmarks the sum has r > 0.99. Always of our own
    head, whatever the avatar's: it measures what is said in the 52 coefficients, and the speech network learnt by it.
    """
    model = load_head_model()
    # the mean head, then what each coefficient adds to it
    shapes = np.concatenate([model.mean_hu[None], model.expression_hu])
    columns = shapes.transpose(1, 0, 2).reshape(model.vertex_count, -1)
    points = model.landmarks(columns).reshape(-1, len(shapes), 3)
    upper, lower, forehead = points[UPPER_LIP], points[LOWER_LIP], points[_FOREHEAD]
    height = np.linalg.norm(forehead[0] - upper[0])
    down = np.sign(lower[0, 1] - upper[0, 1])
    return (down * (lower - upper)[1:, 1] / height).astype(np.float32)


def openings_of(expressions: NDArray[np.floating], closures: NDArray[np.floating] | float) -> F32:
    """(…,) opening for β (…, 52) and closure of the lips (…,): 0 where they meet, about 0.12 on an open vowel."""
    gap = np.maximum(np.asarray(expressions) @ opening_weights(), 0)
    return np.asarray(gap * (1 - np.asarray(closures)), np.float32)
