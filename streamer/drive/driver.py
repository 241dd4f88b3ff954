"""Moment → `Motion`: tracking, smoothing, and an answer for every moment even when there is no face."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral, NeutralReport
from engines.motion import Motion
from streamer.drive.filters import MotionFilter
from streamer.drive.idle import with_idle
from streamer.drive.presence import Presence, advance
from streamer.drive.share import Share
from streamer.drive.told import Told
from streamer.drive.trackers.tracker import Track, Tracker
from streamer.drive.voice_helps import FADE_S, Said, with_voice
from streamer.frame import Frame, Moment

MOST_OF_IT = 0.5  # of the mouth: then it is the voice's

DriverState = Literal["calibrating", "tracking", "holding", "idle", "fault"]


@dataclass(frozen=True, slots=True)
class Drive:
    """What drives one output frame: the motion, the neutral it is relative to, and how it came about.

    `heard_ns`: when what moves the mouth was in the air, while a voice helps, in ns of the monotonic clock.
    """

    motion: Motion
    neutral: Motion
    state: DriverState
    face: bool
    landmarks_px: NDArray[np.float32] | None = None
    heard_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Heard(Moment):
    """A moment of sound: there is nothing to track, `motion` is what a voice asks for then, relative to `Motion()`."""

    motion: Motion = field(kw_only=True)


class Driver:
    """A tracker with everything around it that makes its answer fit to show. One per stream, used by one thread.

    Only `recalibrate` and `use_neutral` may be called, and `neutral_report` be read, from another one.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        smooth: bool = True,
        on_fault: Callable[[BaseException], None] | None = None,
        said: Callable[[Motion], Said | None] | None = None,
        on_drive: Callable[[Drive], None] | None = None,
    ) -> None:
        """What a driver may be given.

        - `said`: the motion that a voice asks for now, on top of a rest motion; it helps while no face is seen;
        - `on_drive`: told each answer as it is given, by the driver's thread; it must neither wait nor raise.
        """
        self._tracker = tracker
        self._said = said
        self._voices = Share(FADE_S)  # of the mouth
        self._last_said: Said | None = None
        self._filter = MotionFilter() if smooth else None
        self._presence = Presence()
        self._on_fault = on_fault
        self._on_drive = on_drive
        # the newest wish: a neutral to use, or None to take it anew
        self._wished: deque[DriverNeutral | None] = deque(maxlen=1)

    def drive(self, moment: Moment) -> Drive:
        """Motion for `moment`: a `Frame` is tracked, `Heard` and `Told` bring their own, else there is no face.

        A tracker that fails counts as a lost face and is reported.
        """
        failed = False
        try:
            track = self._look(moment)
        except Exception as error:
            track, failed = Track(None), True
            if self._on_fault:
                self._on_fault(error)
        seen = track.motion if track.motion is not None and track.motion.is_finite() else None
        # what is heard is smooth by itself, and what is told may be
        is_smooth = isinstance(moment, Heard) or (isinstance(moment, Told) and not moment.is_raw)
        if seen is not None and self._filter is not None and not is_smooth:
            if self._presence.lost_since_s is not None:
                self._filter.reset()
            seen = self._filter(seen)
        drive = self._answer(seen, moment.pts_s)
        state: DriverState = (
            "fault" if failed else "calibrating" if track.calibrating and seen else drive.state
        )
        landmarks = track.landmarks_px
        if landmarks is not None and not np.isfinite(landmarks).all():
            landmarks = None  # nothing that a preview could draw
        return self._given(replace(drive, state=state, landmarks_px=landmarks))

    def _given(self, drive: Drive) -> Drive:
        if self._on_drive is not None:
            self._on_drive(drive)
        return drive

    def _look(self, moment: Moment) -> Track:
        if isinstance(moment, Heard):
            return Track(with_idle(moment.motion, moment.pts_s))
        if not isinstance(moment, Frame | Told):
            return Track(None)
        if self._wished:
            neutral = self._wished.popleft()
            if neutral is None:
                self._tracker.retake_neutral()
            else:
                self._tracker.use_neutral(neutral)
        return self._tracker.told(moment) if isinstance(moment, Told) else self._tracker.track(moment)

    def idle(self, time_s: float) -> Drive:
        """Motion for a moment at which nothing came: the camera is gone or late."""
        return self._given(self._answer(None, time_s))

    def _answer(self, seen: Motion | None, time_s: float) -> Drive:
        neutral = self._tracker.neutral or Motion()
        self._presence, motion = advance(self._presence, seen, time_s, neutral)
        if self._said is not None:
            said = self._said(neutral)  # asked always: who is heard only now and then is not understood
            self._voices = self._voices.towards(seen is None and said is not None, time_s)
            self._last_said = said or self._last_said  # what fades out when the voice ends
        heard_ns = None
        if self._last_said is not None:
            share = self._voices.value
            motion = with_voice(motion, self._last_said.motion, share)
            heard_ns = self._last_said.captured_ns if share > MOST_OF_IT else None
        return Drive(motion, neutral, self._presence.label, seen is not None, heard_ns=heard_ns)

    def recalibrate(self) -> None:
        """Take the driver's neutral anew, from the next frame on; from any thread."""
        self._wished.append(None)  # the tracker's own thread does it: it may be in the middle of a frame

    def use_neutral(self, neutral: DriverNeutral) -> None:
        """Use a neutral that was taken before, from the next frame on, instead of waiting; from any thread."""
        self._wished.append(neutral)

    @property
    def neutral_report(self) -> NeutralReport:
        """How the driver's neutral stands; from any thread."""
        return self._tracker.neutral_report

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        """The driver's neutral, to be kept once `neutral_report` says "taken"; from any thread."""
        return self._tracker.driver_neutral

    def close(self) -> None:
        """Free the tracker."""
        self._tracker.close()
