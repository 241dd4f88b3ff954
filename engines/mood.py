"""`Mood`: what an emotion asks of a face in numbers, so that two can be mixed and one eased into another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.motion import EXPRESSION_COUNT
from engines.presets import parts_lips, preset_motion

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mood:
    """An emotion as the face of somebody at rest.

    - `expression`: (52,) coefficients, 0 … 2 times those of `engines.presets`;
    - `share`: how much of the photo's own expression gives way to it, 0 none … 1 all;
    - `lips`: the part of `share` whose lips are closed, 0 … `share`.
    """

    expression: F64
    share: float
    lips: float

    @property
    def lips_closed(self) -> float:
        """How closed the lips are where the emotion alone shapes the mouth, 0 … 1."""
        return self.lips / self.share if self.share > 0 else 0.0


NO_MOOD = Mood(np.zeros(EXPRESSION_COUNT), 0.0, 0.0)


def mood_of(name: str, strength: float) -> Mood:
    """The emotion `name` of `engines.presets`, or "none". From strength 1 on nothing of the photo's own is left.

    Raises PresetError for any other name.
    """
    expression = preset_motion(name, strength).astype(np.float64)
    share = 0.0 if name == "none" else min(strength, 1.0)
    return Mood(expression, share, 0.0 if parts_lips(name) else share)


def between(one: Mood, other: Mood, weight: float) -> Mood:
    """On the way from `one` (weight 0) to `other` (1)."""
    if weight >= 1:
        return other
    keep = 1 - weight
    return Mood(
        keep * one.expression + weight * other.expression,
        keep * one.share + weight * other.share,
        keep * one.lips + weight * other.lips,
    )
