"""The numbers of a network that means something: what the regressor's tests say in its place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.head.regressor.prediction import SCALE_PX_PER_HU, Layout
from engines.motion import ARKIT_INDEX

F32 = NDArray[np.float32]


def say(
    layout: Layout,
    *,
    rotation: NDArray[np.floating] | None = None,
    centre_px: tuple[float, float] = (64, 64),
    scale_px: float = SCALE_PX_PER_HU,
    confidence: float = 6.0,
    coefficients: dict[str, float] | None = None,
) -> F32:
    """The numbers (D,) of a network that means this."""
    raw = np.zeros(layout.length, np.float32)
    m = np.eye(3) if rotation is None else rotation
    raw[layout.part("rotation")] = np.concatenate([m[:, 0], m[:, 1]])
    place = [centre_px[0] / 64 - 1, centre_px[1] / 64 - 1, np.log(scale_px / SCALE_PX_PER_HU)]
    raw[layout.part("place")] = place
    raw[layout.part("confidence")] = confidence
    for name, value in (coefficients or {}).items():
        raw[ARKIT_INDEX[name]] = value
    return raw
