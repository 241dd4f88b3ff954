"""One time line for sound and pictures of a sender, on virtual clocks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.media_clock import JUMP_NS, Earliest, Kind, Line, MediaClock, Stream

MS = 1e6
PERIOD_NS: dict[Kind, float] = {"sound": 20 * MS, "pictures": 33 * MS}
NOON_NS = 1.7e18  # the sender's wall clock when the streams begin


def heard(
    clock: MediaClock, kind: Kind, seconds: float, late_ns: float, jitter_ns: tuple[float, ...] = (0.0,)
) -> MediaClock:
    """`kind` for some seconds: each time arrives `late_ns`, and something of `jitter_ns`, after it was captured."""
    for k in range(round(seconds * 1e9 / PERIOD_NS[kind])):
        media_ns = k * PERIOD_NS[kind]
        clock = clock.arrived(kind, media_ns, media_ns + late_ns + jitter_ns[k % len(jitter_ns)])
    return clock


def off_ns(clock: MediaClock) -> float:
    """How far what was captured at once lies apart."""
    sound, pictures = clock.captured_ns("sound", 5e9), clock.captured_ns("pictures", 5e9)
    assert sound is not None
    assert pictures is not None
    return pictures - sound


def test_before_anything_came_nothing_is_known() -> None:
    assert MediaClock().captured_ns("sound", 0.0) is None


def test_by_arrival_the_earliest_counts() -> None:
    clock = heard(MediaClock(), "sound", 10, 5 * MS, (40 * MS, 0.0, 90 * MS))
    assert clock.captured_ns("sound", 0.0) == pytest.approx(5 * MS, abs=3 * MS)


def test_what_an_encoder_holds_back_was_captured_before() -> None:
    plain = heard(MediaClock(), "sound", 1, 5 * MS)
    leads = heard(MediaClock(sound=Stream(lead_ns=6.5 * MS)), "sound", 1, 5 * MS)
    one, other = plain.captured_ns("sound", 0.0), leads.captured_ns("sound", 0.0)
    assert one is not None
    assert other == pytest.approx(one - 6.5 * MS)


def both(late_ms: float, reports: tuple[Kind, ...]) -> MediaClock:
    """Ten seconds in which pictures take `late_ms` longer to come than sound, with reports of these streams."""
    clock = MediaClock()
    for k in range(500):
        at_ns = k * 20 * MS
        if k % 50 == 10:
            for kind in reports:
                clock = clock.reported(kind, at_ns, NOON_NS + at_ns)
        clock = clock.arrived("sound", at_ns, at_ns + 30 * MS)
        clock = clock.arrived("pictures", at_ns, at_ns + (30 + late_ms) * MS)
    return clock


def test_reports_of_both_put_them_on_one_line() -> None:
    assert abs(off_ns(both(25, ("sound", "pictures")))) < 0.5 * MS


@pytest.mark.parametrize("reports", [(), ("sound",), ("pictures",)])
def test_reports_of_one_alone_say_nothing_of_the_other(reports: tuple[Kind, ...]) -> None:
    assert off_ns(both(25, reports)) == pytest.approx(25 * MS, abs=0.5 * MS)


def test_reports_correct_smoothly() -> None:
    clock = both(25, ())
    media_ns, seen = 10e9, [off_ns(clock)]
    for kind in ("sound", "pictures"):
        clock = clock.reported(kind, media_ns, NOON_NS + media_ns)
    for k in range(400):
        at_ns = media_ns + k * 20 * MS
        clock = clock.arrived("sound", at_ns, at_ns + 30 * MS).arrived("pictures", at_ns, at_ns + 55 * MS)
        seen.append(off_ns(clock))
    assert max(abs(b - a) for a, b in itertools.pairwise(seen)) < 1 * MS
    assert abs(seen[-1]) < 0.5 * MS


def test_a_sender_that_sets_its_clock_is_followed() -> None:
    clock = both(25, ("sound", "pictures"))
    hour_ns = 3600e9
    for kind in ("sound", "pictures"):
        clock = clock.reported(kind, 10e9, NOON_NS + 10e9 - hour_ns)
    for k in range(500):
        at_ns = 10e9 + k * 20 * MS
        clock = clock.arrived("sound", at_ns, at_ns + 30 * MS).arrived("pictures", at_ns, at_ns + 55 * MS)
    assert abs(off_ns(clock)) < 1 * MS
    captured = clock.captured_ns("sound", 20e9)
    assert captured == pytest.approx(20e9 + 30 * MS, abs=3 * MS), "and nothing moved by an hour"


def test_one_report_that_is_off_moves_little() -> None:
    clock = both(0, ("sound", "pictures"))
    clock = clock.reported("sound", 10e9, NOON_NS + 10e9 + 20 * MS)
    for k in range(300):
        at_ns = 10e9 + k * 20 * MS
        clock = clock.arrived("sound", at_ns, at_ns + 30 * MS).arrived("pictures", at_ns, at_ns + 30 * MS)
    assert abs(off_ns(clock)) < 6 * MS


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_the_earliest_is_never_later_than_what_came(seen: list[float]) -> None:
    least = Earliest(seen[0], 0.0)
    for k, value in enumerate(seen):
        least = least.after(value, k * 20 * MS)
        assert least.least_ns <= value
    assert least.least_ns <= min(seen) + 0.001 * len(seen) * 20 * MS


def test_clocks_that_drift_are_followed() -> None:
    """The sender's runs slower by 100 ppm: all comes later and later."""
    clock = MediaClock()
    for k in range(30_000):  # ten minutes
        media_ns = k * 20 * MS
        clock = clock.arrived("sound", media_ns, media_ns * 1.0001 + 5 * MS)
    captured = clock.captured_ns("sound", 600e9)
    assert captured == pytest.approx(600e9 * 1.0001 + 5 * MS, abs=1 * MS)


def test_a_line_jumps_only_to_another_clock() -> None:
    line = Line(0.0)
    assert line.towards(100.0, 0.1).origin_ns == pytest.approx(10.0)
    assert line.towards(2 * JUMP_NS, 0.1).origin_ns == 2 * JUMP_NS
    assert line.media_ns(line.at_ns(7.0)) == 7.0
