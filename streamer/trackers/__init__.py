"""Trackers: pictures in, `Motion` out; chosen by name."""

from __future__ import annotations

from collections.abc import Callable

from engines.errors import DriverError
from streamer.tracker import Tracker

DEFAULT_TRACKER = "mediapipe"


# Imported when asked for: a mediapipe that does not load must not take the regressor with it.
def _mediapipe() -> Tracker:
    from streamer.trackers.mediapipe import MediaPipeTracker

    return MediaPipeTracker()


def _regressor() -> Tracker:
    from streamer.trackers.regressor import RegressorTracker

    return RegressorTracker()


_TRACKERS: dict[str, Callable[[], Tracker]] = {"mediapipe": _mediapipe, "regressor": _regressor}


def tracker_names() -> tuple[str, ...]:
    """Names that `make_tracker` takes, the default first."""
    return tuple(_TRACKERS)


def make_tracker(name: str = DEFAULT_TRACKER) -> Tracker:
    """A new tracker for one stream of frames.

    Raises DriverError for an unknown name or a tracker whose library does not load, and ModelError or
    ModelMissing when its model file is missing or broken.
    """
    maker = _TRACKERS.get(name)
    if maker is None:
        raise DriverError(f"unknown tracker {name!r}; choose one of {', '.join(_TRACKERS)} with --tracker")
    try:
        return maker()
    except (ImportError, OSError) as error:  # OSError: a system library that mediapipe loads is missing
        others = ", ".join(other for other in _TRACKERS if other != name)
        raise DriverError(
            f"the tracker {name} does not load ({error}); choose another with --tracker {others}, "
            "or install visavis again"
        ) from error
