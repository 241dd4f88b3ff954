"""When a told motion was true by our clock, and when a phone is asked again."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.sources.told.timing import FLOWS_S, LONGEST_WAIT_S, Asking, SenderClock

AHEAD_S = 1.79e9  # of a sender's clock: seconds since 1970


def play(sent_and_arrived: list[tuple[float, float]]) -> list[float | None]:
    clock = SenderClock()
    times: list[float | None] = []
    for sent_s, arrived_s in sent_and_arrived:
        clock, time_s = clock.after(AHEAD_S + sent_s, arrived_s)
        times.append(time_s)
    return times


def test_times_are_the_senders_and_not_the_networks() -> None:
    """What comes late by chance was true when it was sent, but for the least time that the way takes."""
    delays = np.random.default_rng(3).uniform(0.004, 0.08, 120)
    delays[0] = 0.07
    times = play([(k / 60, k / 60 + d) for k, d in enumerate(delays)])
    settled = [t for k, t in enumerate(times) if t is not None and k > 60]
    steps = np.diff(settled)
    assert steps == pytest.approx(np.full(len(steps), 1 / 60), abs=0.003)
    late = [t - k / 60 for k, t in enumerate(times) if t is not None and k > 60]
    assert max(late) == pytest.approx(float(delays[:60].min()), abs=0.004)


def test_times_are_never_after_arrival() -> None:
    delays = np.random.default_rng(5).uniform(0, 0.3, 600)
    for k, time_s in enumerate(play([(k / 60, k / 60 + d) for k, d in enumerate(delays)])):
        assert time_s is not None
        assert time_s <= k / 60 + delays[k] + 1e-6


def test_what_comes_twice_or_out_of_order_is_left_out() -> None:
    times = play([(0.0, 0.1), (0.1, 0.2), (0.05, 0.21), (0.1, 0.22), (0.2, 0.3)])
    assert [t is None for t in times] == [False, False, True, True, False]


def test_a_clock_that_drifts_is_followed() -> None:
    """A thousandth too slow: after a minute the difference is 60 ms, and no time is early by so much."""
    times = play([(k / 60 * 0.999, k / 60 + 0.01) for k in range(3600)])
    last_s = times[-1]
    assert last_s is not None
    assert 3599 / 60 + 0.01 - last_s < 0.012


@pytest.mark.parametrize("jump_s", [-3600.0, -2.0, 3600.0, 6.0])
def test_a_clock_that_is_set_begins_anew(jump_s: float) -> None:
    times = play([(0.0, 0.1), (0.1, 0.2), (0.2 + jump_s, 0.3), (0.3 + jump_s, 0.4)])
    assert times[2:] == pytest.approx([0.3, 0.4])


def asked(keep_s: float | None, heard: dict[float, bool], until_s: float) -> list[float]:
    """When a phone is asked that says something wherever `heard` says so from then on; ten looks a second."""
    asking, heard_s, times = Asking(keep_s), None, []
    answers = False
    for k in range(round(until_s * 10)):
        now_s = k / 10
        answers = heard.get(now_s, answers)
        heard_s = now_s if answers else heard_s
        asking, due = asking.after(now_s, heard_s)
        if due:
            times.append(now_s)
    return times


def test_a_silent_phone_is_asked_ever_less_often() -> None:
    times = asked(1.0, {}, 60)
    steps = np.diff(times)
    assert times[0] == 0
    assert steps[:4] == pytest.approx([1, 2, 4, 8])
    assert steps[4:] == pytest.approx(np.full(len(steps) - 4, LONGEST_WAIT_S))


def test_a_phone_that_answers_is_kept_at_it() -> None:
    steps = np.diff(asked(1.0, {0.5: True}, 10))
    assert steps == pytest.approx(np.ones(len(steps)))
    assert asked(None, {0.5: True}, 30) == [0], "one greeting is enough"


def test_a_phone_that_falls_silent_is_asked_at_once_and_again() -> None:
    times = asked(None, {0.5: True, 20.0: False}, 40)
    last_heard_s = 19.9
    assert times[1] == pytest.approx(last_heard_s + FLOWS_S, abs=0.11)
    assert np.diff(times[1:4]) == pytest.approx([1, 2])
