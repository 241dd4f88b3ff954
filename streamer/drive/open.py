"""`open_driver`: what makes motion of the moments of one stream."""

from __future__ import annotations

from collections.abc import Callable

from engines.motion import Motion
from streamer.drive.driver import Driver
from streamer.drive.trackers.open import open_tracker
from streamer.drive.trackers.tracker import NoTracker


def open_driver(
    tracker: str | None,
    on_fault: Callable[[BaseException], None] | None = None,
    *,
    said: Callable[[Motion], Motion | None] | None = None,
) -> Driver:
    """A driver that follows faces with the tracker of that name; None where there is no picture to track.

    `said`: see `Driver`. Raises as `open_tracker` does.
    """
    return Driver(NoTracker() if tracker is None else open_tracker(tracker), on_fault=on_fault, said=said)
