"""What to show when the face is lost: hold, ease to neutral with idle life, recover in three frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engines.motion import Motion, blend
from streamer.drive.idle import with_idle

PresenceLabel = Literal["tracking", "holding", "idle"]

HOLD_S = 0.4
EASE_S = 1.2
RECOVER_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Presence:
    """Where a stream of motions stands.

    `shown` is the last motion given out, `held` the last good one, `recovering` how many frames are left
    of the way back (0: on track).
    """

    shown: Motion | None = None
    held: Motion | None = None
    lost_since_s: float | None = None
    recovering: int = 0

    @property
    def label(self) -> PresenceLabel:
        """What the picture shows now."""
        if self.lost_since_s is None:
            return "tracking"
        assert self.shown is not None
        return "holding" if self.shown.time_s - self.lost_since_s <= HOLD_S else "idle"


def advance(state: Presence, seen: Motion | None, time_s: float, neutral: Motion) -> tuple[Presence, Motion]:
    """The next motion to show, for what the tracker saw at `time_s` (None or not finite: no face).

    Found: the motion itself, after a loss reached over `RECOVER_FRAMES` frames. Lost: the last motion held
    for `HOLD_S`, then eased over `EASE_S` into `neutral` with idle life.
    """
    if seen is not None and seen.is_finite():
        recovering = state.recovering
        if state.lost_since_s is not None:
            recovering = RECOVER_FRAMES
        if recovering and state.shown is not None:
            recovering -= 1
            shown = replace(blend(state.shown, seen, 1 / (recovering + 1)), time_s=time_s)
        else:
            shown = seen
        return Presence(shown, seen, None, recovering), shown
    since_s = time_s if state.lost_since_s is None else state.lost_since_s
    held = state.shown if state.lost_since_s is None else state.held
    idle = with_idle(neutral, time_s)
    if held is None:
        shown = idle
    else:
        weight = float(np.clip((time_s - since_s - HOLD_S) / EASE_S, 0, 1))
        shown = replace(blend(held, idle, weight * weight * (3 - 2 * weight)), time_s=time_s)
    shown = replace(shown, confidence=0.0)
    return Presence(shown, held, since_s, 0), shown
