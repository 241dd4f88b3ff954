"""`open_driver`: what makes motion of the moments of one stream."""

from __future__ import annotations

from collections.abc import Callable

from engines.motion import Motion
from streamer.drive.driver import Drive, Driver
from streamer.drive.trackers.names import TOLD
from streamer.drive.trackers.open import open_tracker
from streamer.drive.trackers.tracker import NoTracker, Tracker
from streamer.drive.voice_helps import Said


def open_driver(
    tracker: str | None,
    on_fault: Callable[[BaseException], None] | None = None,
    *,
    said: Callable[[Motion], Said | None] | None = None,
    on_drive: Callable[[Drive], None] | None = None,
) -> Driver:
    """A driver that follows faces with the tracker of that name; `TOLD` where others do, None where there is no face.

    `said`, `on_drive`: see `Driver`. Raises as `open_tracker` does.
    """
    return Driver(_tracker(tracker), on_fault=on_fault, said=said, on_drive=on_drive)


def _tracker(name: str | None) -> Tracker:
    if name is None:
        return NoTracker()
    if name != TOLD:
        return open_tracker(name)
    from streamer.drive.trackers.told import ToldTracker  # loads the head model

    return ToldTracker()
