"""A camera that gives fewer pictures than it promised is told of, one that loses some, or was away, is not."""

from __future__ import annotations

import pytest

from streamer.sources.camera_pace import WINDOW_S, CameraPace


def seen(pace: CameraPace, fps: float, seconds: float, begin_s: float = 1.0) -> CameraPace:
    for k in range(round(seconds * fps)):
        pace = pace.after(round(1e9 * (begin_s + k / fps)))
    return pace


@pytest.mark.parametrize(
    ("promised", "given", "is_slow"),
    [
        (30, 30, False),
        (30, 15, True),
        (30, 25, False),
        (60, 30, True),
        (30, 60, False),
        (15, 15, False),
        (30, 20, True),
    ],
)
def test_what_is_slow(promised: float, given: float, is_slow: bool) -> None:
    pace = seen(CameraPace(promised), given, 10)
    assert pace.fps == pytest.approx(given, rel=0.02)
    assert pace.is_slow == is_slow


def test_nothing_is_said_of_the_first_seconds() -> None:
    pace = seen(CameraPace(30), 10, 0.7 * WINDOW_S)
    assert pace.fps is None
    assert not pace.is_slow


def test_light_that_comes_back_and_cameras_that_were_away_are_no_slow_cameras() -> None:
    dark = seen(CameraPace(30), 10, 10)
    assert dark.is_slow
    assert not seen(dark, 30, WINDOW_S + 1, begin_s=11.0).is_slow
    away = seen(CameraPace(30), 30, 5)
    back = away.after(round(1e9 * (6 + WINDOW_S)))
    assert back.fps is None
    earlier = away.after(1)
    assert earlier.times_ns == (1,)


def test_it_remembers_no_more_than_its_window() -> None:
    assert len(seen(CameraPace(30), 30, 100).times_ns) <= 30 * WINDOW_S + 1
