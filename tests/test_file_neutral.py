"""The neutral of a file: the first calm second, else the calmest of a bounded look, taken before the first picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import FakeSource, FakeTracker

from calibration.neutral import DriverNeutral, NeutralReport
from engines.motion import Motion
from streamer.drive.trackers.tracker import Track
from streamer.frame import Frame
from streamer.recordings import calibrate

FPS = 30.0
REST = DriverNeutral(np.zeros((478, 3)), Motion())


class Probe(FakeTracker):
    """Its neutral is taken `taken_s` after the first face; until `face_s` there is none."""

    def __init__(self, taken_s: float, face_s: float = 0.0) -> None:
        super().__init__()
        self.given = [REST]
        self._taken_s, self._face_s = taken_s, face_s
        self.seen_s: list[float] = []
        self.report = NeutralReport()

    def track(self, frame: Frame) -> Track:
        self.seen_s.append(frame.pts_s)
        if frame.pts_s < self._face_s:
            return Track(None)
        if frame.pts_s - self._face_s >= self._taken_s:
            self.report = NeutralReport("taken", (), 1)
        return Track(Motion())


def looked_at(probe: Probe, seconds: float) -> tuple[FakeTracker, Sequence[float]]:
    tracker = FakeTracker()
    calibrate(tracker, probe, FakeSource(count=round(seconds * FPS), fps=FPS))
    assert probe.closed
    return tracker, probe.seen_s


@pytest.mark.parametrize(
    ("why", "probe", "until_s"),
    [
        ("calm at once", Probe(taken_s=1.0), 1.0),
        ("a late face, calm at once", Probe(taken_s=1.0, face_s=5.0), 6.0),
        ("talks for a while: perhaps a calmer second comes", Probe(taken_s=8.0), 60.0),
        ("never calm", Probe(taken_s=1e9), 60.0),
    ],
)
def test_a_file_is_looked_through_as_far_as_it_needs(why: str, probe: Probe, until_s: float) -> None:
    tracker, seen_s = looked_at(probe, 90)
    assert seen_s[-1] == pytest.approx(until_s, abs=0.2), why
    assert tracker.given == [REST]
    assert len(seen_s) <= until_s * 17, "at about 15 frames a second"


def test_a_file_without_a_face_is_given_up() -> None:
    tracker, seen_s = looked_at(Probe(taken_s=1.0, face_s=1e9), 90)
    assert seen_s[-1] == pytest.approx(20, abs=0.2)
    assert tracker.given == [REST], "whatever the probe has"


def test_a_short_file_gives_what_it_has() -> None:
    tracker, seen_s = looked_at(Probe(taken_s=1e9), 3)
    assert seen_s[-1] == pytest.approx(3, abs=0.1)
    assert tracker.given == [REST]


class Cut(Probe):
    """From `cut_s` on it sees somebody else."""

    def __init__(self, taken_s: float, cut_s: float) -> None:
        super().__init__(taken_s)
        self._cut_s = cut_s

    def track(self, frame: Frame) -> Track:
        track = super().track(frame)
        if frame.pts_s >= self._cut_s:
            self.report = NeutralReport("waiting", ("new_person", "talking"), 2)
            self.given = [OTHER]
        return track


OTHER = DriverNeutral(np.ones((478, 3)), Motion())


def test_whom_a_file_shows_first_keeps_the_neutral() -> None:
    tracker, seen_s = looked_at(Cut(taken_s=8.0, cut_s=20.0), 90)
    assert seen_s[-1] == pytest.approx(20, abs=0.2)
    assert tracker.given == [REST]
