"""What a sender makes of reports: no time but what the reports bring."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.webrtc.loss_control import (
    MOST_LOSS_PERCENT,
    REMB_HOLDS_S,
    ExpectedLoss,
    PathRate,
    loss_of,
)

LEAST, START, MOST = 300_000, 2_500_000, 4_000_000


def rate() -> PathRate:
    return PathRate(START, LEAST, MOST)


def after(share: float, seconds: int, path: PathRate, begin_s: int = 0) -> int:
    """The bitrate after a report of `share` a second."""
    for k in range(seconds):
        path.report(share, float(begin_s + k))
    return path.bitrate(float(begin_s + seconds))


def test_eight_bits_are_a_share() -> None:
    assert (loss_of(0), loss_of(64), loss_of(255)) == (0, 0.25, 255 / 256)


def test_little_loss_lets_the_bitrate_rise_by_a_twentieth_a_second() -> None:
    assert after(0.01, 1, rate()) == round(START * 1.05)
    assert after(0.01, 3, rate()) == pytest.approx(START * 1.05**3, abs=1)
    assert after(0.0, 60, rate()) == MOST


def test_often_reports_raise_it_no_faster() -> None:
    path = rate()
    for k in range(30):
        path.report(0.0, k / 10)
    assert path.bitrate(3.0) == pytest.approx(START * 1.05**3, abs=1)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.10])
def test_between_the_bounds_it_stays(share: float) -> None:
    assert after(share, 100, rate()) == START


def test_much_loss_lowers_it_by_half_of_the_loss_each_time() -> None:
    assert after(0.2, 1, rate()) == round(START * 0.9)
    assert after(0.5, 2, rate()) == round(START * 0.75**2)
    assert after(1.0, 60, rate()) == LEAST


def test_it_comes_back_after_a_blackout() -> None:
    path = rate()
    low = after(0.9, 3, path)
    assert low < START / 4
    assert after(0.0, 60, path, 3) == MOST


def test_what_a_receiver_estimates_is_a_bound_while_it_says_so() -> None:
    path = rate()
    path.remb(1_000_000, 10.0)
    assert path.bitrate(10.0 + REMB_HOLDS_S - 0.1) == 1_000_000
    assert path.bitrate(10.0 + REMB_HOLDS_S) == START
    path.remb(30_000_000, 20.0)
    assert path.bitrate(20.0) == START, "loss is another bound"
    path.remb(1_000, 21.0)
    assert path.bitrate(21.0) == LEAST


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 3), st.none() | st.floats(0, 1e9)), max_size=60))
def test_it_is_always_within_its_bounds(told: list[tuple[float, float, float | None]]) -> None:
    path, now_s = rate(), 0.0
    for share, step_s, said in told:
        now_s += step_s
        path.report(share, now_s)
        if said is not None:
            path.remb(said, now_s)
        assert LEAST <= path.bitrate(now_s) <= MOST


def test_loss_is_believed_at_once_and_forgotten_slowly() -> None:
    loss = ExpectedLoss()
    assert loss.percent(0.0) == 0
    loss.report(0.1, 1.0)
    assert loss.percent(1.0) == 10
    loss.report(0.0, 6.0)
    assert loss.percent(6.0) == 6
    loss.report(0.02, 7.0)
    assert loss.percent(7.0) == 5, "less than what is remembered"
    for k in range(60):
        loss.report(0.0, 7.0 + k)
    assert loss.percent(67.0) == 0
    loss.report(1.0, 70.0)
    assert loss.percent(70.0) == MOST_LOSS_PERCENT
