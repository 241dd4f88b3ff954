"""`open_tracker`: a tracker by its name. A new one stands here and in `names`, and can be chosen everywhere."""

from __future__ import annotations

from collections.abc import Callable

from engines.errors import DriverError, no_such
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.drive.trackers.tracker import Tracker


# Imported when asked for: a mediapipe that does not load must not take the regressor with it.
def _mediapipe() -> Tracker:
    from streamer.drive.trackers.mediapipe import MediaPipeTracker

    return MediaPipeTracker()


def _regressor() -> Tracker:
    from streamer.drive.trackers.regressor import RegressorTracker

    return RegressorTracker()


TRACKERS: dict[str, Callable[[], Tracker]] = {"mediapipe": _mediapipe, "regressor": _regressor}


def open_tracker(name: str = DEFAULT_TRACKER) -> Tracker:
    """A new tracker for one stream of frames.

    Raises DriverError for an unknown name or a tracker whose library does not load; ModelError,
    ModelMissing or WeightsError when its model file is missing or broken.
    """
    if name not in TRACKERS:
        raise DriverError(no_such("tracker", name, TRACKERS))
    try:
        return TRACKERS[name]()
    except (ImportError, OSError) as error:  # OSError: a system library that mediapipe loads is missing
        others = ", ".join(other for other in TRACKERS if other != name)
        raise DriverError(
            f"the tracker {name} does not load ({error}); choose another with --tracker {others}, "
            "or install visavis again"
        ) from error
