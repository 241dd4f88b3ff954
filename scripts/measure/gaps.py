"""Of the moments at which pictures came: how long they stood still, and how soon after a blackout they moved again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FREEZE_S = 0.150  # longer than the usual by so much, and by three times: as browsers count freezes (webrtc-stats § 8.5)
_USUAL_OF = 30


@dataclass(frozen=True, slots=True)
class Frozen:
    """How often, and for how long in all."""

    count: int
    seconds: float


def frozen(times_s: Sequence[float]) -> Frozen:
    """Of pictures shown at `times_s`, which rise: intervals of more than max(3 d, d + 150 ms), d the usual one."""
    gaps = np.diff(np.asarray(times_s, np.float64))
    count, seconds = 0, 0.0
    for k, gap in enumerate(gaps):
        before = gaps[max(0, k - _USUAL_OF) : k]
        if not len(before):
            continue
        usual = float(before.mean())
        if gap > max(3 * usual, usual + FREEZE_S):
            count, seconds = count + 1, seconds + float(gap)
    return Frozen(count, seconds)


def back_after_s(
    end_s: float, pictures_s: Sequence[float], answers: Sequence[tuple[float, float]]
) -> float | None:
    """How long after `end_s` a picture was there again, and one of what the camera saw after it; None: never.

    `answers`: (when it was told of, its age in ms), as they came.
    """
    shown_s = next((at_s for at_s in pictures_s if at_s > end_s), None)
    answered_s = next((at_s for at_s, age_ms in answers if at_s - age_ms / 1000 > end_s), None)
    return None if shown_s is None or answered_s is None else max(shown_s, answered_s) - end_s


def slope_per_min(samples: Sequence[tuple[float, float]], from_s: float = 0.0) -> float:
    """Of (seconds, value), by least squares over those from `from_s` on; 0 for fewer than two."""
    kept = np.array([s for s in samples if s[0] >= from_s], np.float64)
    return 0.0 if len(kept) < 2 else float(np.polyfit(kept[:, 0] / 60, kept[:, 1], 1)[0])
