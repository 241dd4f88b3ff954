"""`CameraPace`: whether a camera gives as many pictures as it said that it would; in the dark most expose longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

WINDOW_S = 4.0
SLOW_SHARE = 0.75  # of what was promised; a camera that loses now and then a picture is not meant


@dataclass(frozen=True, slots=True)
class CameraPace:
    """`promised_fps`; capture times of the last `WINDOW_S`, in nanoseconds. Immutable: `after` gives the next."""

    promised_fps: float
    times_ns: Sequence[int] = ()

    def after(self, capture_ns: int) -> CameraPace:
        """With one more picture; one that was taken before the last begins anew (the camera was opened again)."""
        if self.times_ns and not 0 < capture_ns - self.times_ns[-1] < 1e9 * WINDOW_S:
            return replace(self, times_ns=(capture_ns,))
        kept = [t for t in self.times_ns if capture_ns - t <= 1e9 * WINDOW_S]
        return replace(self, times_ns=(*kept, capture_ns))

    @property
    def fps(self) -> float | None:
        """Pictures a second, lately; None before most of a window has gone by."""
        if len(self.times_ns) < 2:
            return None
        span_s = (self.times_ns[-1] - self.times_ns[0]) / 1e9
        return (len(self.times_ns) - 1) / span_s if span_s > 0.75 * WINDOW_S else None

    @property
    def is_slow(self) -> bool:
        """Whether it gives clearly fewer than it promised."""
        return self.fps is not None and self.fps < SLOW_SHARE * self.promised_fps
