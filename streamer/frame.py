"""`Moment`: a point of media time that carries its own clock; `Frame`: a moment and its picture; `LatencyTrace`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Stages in the order a frame passes them (docs/latency.md). A trace may lack some.
STAGES: tuple[str, ...] = (
    "captured",
    "received",
    "decoded",
    "tracked",
    "waited",
    "fitted",
    "rasterised",
    "generated",
    "composited",
    "encoded",
    "sent",
    "presented",
)


@dataclass(frozen=True, slots=True)
class LatencyTrace:
    """When a frame left each stage, in monotonic nanoseconds; immutable, `mark` returns a new one."""

    stamps_ns: Mapping[str, int] = field(default_factory=dict[str, int])

    def mark(self, stage: str, now_ns: int) -> LatencyTrace:
        """Trace with `stage` stamped at `now_ns`; raises ValueError for a name not in `STAGES`."""
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}; one of {', '.join(STAGES)}")
        return LatencyTrace({**self.stamps_ns, stage: now_ns})

    def stage_ms(self) -> dict[str, float]:
        """Milliseconds spent reaching each stamped stage from the stamped stage before it."""
        known = [(s, self.stamps_ns[s]) for s in STAGES if s in self.stamps_ns]
        return {b: (tb - ta) / 1e6 for (_, ta), (b, tb) in pairwise(known)}

    def total_ms(self) -> float:
        """Milliseconds from the first to the last stamp (0 with fewer than two stamps)."""
        known = [self.stamps_ns[s] for s in STAGES if s in self.stamps_ns]
        return (known[-1] - known[0]) / 1e6 if len(known) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of media time on its way through the house: what drives an avatar, with or without a picture.

    `pts_s` is the media time in seconds, `capture_time_ns` the monotonic time at which the camera or the
    microphone (or the receiver, when the device's time is unknown) had it.
    """

    pts_s: float
    capture_time_ns: int
    trace: LatencyTrace = field(default_factory=LatencyTrace)
    sequence: int = 0

    def mark(self, stage: str, now_ns: int) -> Self:
        """The same moment with `stage` stamped in its trace."""
        return replace(self, trace=self.trace.mark(stage, now_ns))

    def with_image(self, image: NDArray[np.uint8]) -> Frame:
        """The frame that shows `image` (H, W, 3 or 4) uint8 at this moment."""
        return Frame(self.pts_s, self.capture_time_ns, self.trace, self.sequence, image=image)


@dataclass(frozen=True, slots=True)
class Frame(Moment):
    """A moment and its picture: `image` is (H, W, 3) uint8 RGB, on the way out (H, W, 4) where transparent."""

    image: NDArray[np.uint8] = field(kw_only=True)
