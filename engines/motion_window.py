"""`MotionWindow`: the motion to draw and those around it, for generators that look at more than one moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engines.motion import Motion

WINDOW_HZ = 25.0  # of the moments in a window, whatever the rate of the pictures: that of the training clips
_JUMP_S = 0.5  # motions further apart are no neighbours: the driver was away, or the clip was cut
_EARLY_S = 0.25 / WINDOW_HZ  # how far a moment may miss its place in the window


@dataclass(frozen=True, slots=True)
class MotionWindow:
    """`motions`, oldest first, 1 / `WINDOW_HZ` apart; `motions[past]` is the one to draw."""

    motions: tuple[Motion, ...]
    past: int = 0

    @staticmethod
    def of(motion: Motion) -> MotionWindow:
        """A moment alone."""
        return MotionWindow((motion,))

    @property
    def now(self) -> Motion:
        """The motion to draw."""
        return self.motions[self.past]


class MotionHistory:
    """The recent motions of one call, out of which windows are cut. One thread."""

    def __init__(self, past: int, ahead: int = 0) -> None:
        """`past` and `ahead`: how many moments a window has before and after the one to draw."""
        self._past, self._ahead = past, ahead
        self._kept: deque[Motion] = deque()

    def reset(self) -> None:
        """Nothing was before."""
        self._kept.clear()

    def see(self, motion: Motion) -> None:
        """Keep `motion` for windows to come. Time that runs backwards or jumps begins anew."""
        now_s = motion.time_s
        if self._kept and not 0 <= now_s - self._kept[-1].time_s <= _JUMP_S:
            self.reset()
        if self._kept and self._kept[-1].time_s == now_s:
            self._kept.pop()  # the same moment, told anew
        self._kept.append(motion)
        while len(self._kept) > 1 and self._kept[1].time_s <= now_s - self._past / WINDOW_HZ:
            self._kept.popleft()

    def window(self, motion: Motion, coming: Sequence[Motion] = ()) -> MotionWindow:
        """The window around `motion`, which is kept; `coming` are the motions after it, soonest first.

        What is not known (before the first motion, after the last, live always) is as the nearest that is.
        """
        if not self._past and not self._ahead:
            return MotionWindow.of(motion)
        self.see(motion)
        now_s = motion.time_s
        before = [_latest(self._kept, now_s - k / WINDOW_HZ) for k in range(self._past, 0, -1)]
        later = [m for m in coming if 0 < m.time_s - now_s <= _JUMP_S + self._ahead / WINDOW_HZ]
        after = [_soonest(later, now_s + k / WINDOW_HZ, motion) for k in range(1, self._ahead + 1)]
        return MotionWindow((*before, motion, *after), self._past)


def _latest(motions: Sequence[Motion], time_s: float) -> Motion:
    """The last that is not after `time_s`, else the first."""
    found = motions[0]
    for motion in motions:
        if motion.time_s > time_s + _EARLY_S:
            break
        found = motion
    return found


def _soonest(motions: Sequence[Motion], time_s: float, none: Motion) -> Motion:
    """The first that is not before `time_s`, else the last."""
    return next((m for m in motions if m.time_s >= time_s - _EARLY_S), motions[-1] if motions else none)
