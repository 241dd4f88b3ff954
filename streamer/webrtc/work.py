"""`Work`: what a call has done so far, as `Tally` counts it."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.webrtc.lip_sync import LipSync
from streamer.webrtc.media import Outgoing

WORK_STAGES = {"decoded", "tracked", "fitted", "rasterised", "generated", "composited", "encoded"}


@dataclass(frozen=True, slots=True)
class Work:
    """What a call has done so far. `busy_ms`: from decoding to encoding, all new pictures together.

    `asked`: driving moments, drawn or overtaken by newer ones; not what the peer's network or its sizes cost it.
    `lag_ms`: smoothed over `timed` pictures, from a moment's arrival to its picture's departure.
    """

    drawn: int = 0
    asked: int = 0
    busy_ms: float = 0.0
    lag_ms: float | None = None
    timed: int = 0


class Tally:
    """Counts a call's pictures; event-loop only. `dropped`: driving frames that were never drawn."""

    def __init__(self) -> None:
        self.dropped = 0
        self._drawn = self._overtaken = 0
        self._busy_ms = 0.0

    def drop(self, count: int, stage: str) -> None:
        """Frames that did not reach `stage`. What came too late or too large for the decoder overtook nobody."""
        self.dropped += count
        if stage != "received":
            self._overtaken += count

    def sent(self, outgoing: Outgoing) -> None:
        """A picture has left."""
        if outgoing.fresh:
            self._drawn += 1
            stages = outgoing.trace.stage_ms()
            self._busy_ms += sum(ms for stage, ms in stages.items() if stage in WORK_STAGES)

    def work(self, lip_sync: LipSync) -> Work:
        """All of it."""
        asked = self._drawn + self._overtaken
        return Work(self._drawn, asked, self._busy_ms, lip_sync.picture_ms, lip_sync.timed)
