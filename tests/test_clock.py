"""Clocks and the pacing rule."""

from __future__ import annotations

import time

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from streamer.clock import Pacer, PacingConfig, PacingState, SystemClock, next_due


def test_system_clock_agrees_with_time() -> None:
    clock = SystemClock()
    before = time.monotonic_ns()
    clock.sleep(0.01)
    assert clock.now_ns() - before >= 10_000_000
    clock.sleep(-1)
    earliest_ms = time.time_ns() / 1e6
    assert earliest_ms <= clock.wall_ms() <= time.time_ns() / 1e6


def test_virtual_clock_moves_only_when_told() -> None:
    clock = FakeClock(start_ns=5, wall_start_ms=1000.0)
    assert (clock.now_ns(), clock.wall_ms()) == (5, 1000.0)
    clock.sleep(2)
    clock.sleep(-1)
    assert (clock.now_ns(), clock.wall_ms()) == (2_000_000_005, 3000.0)


def test_first_frame_is_due_at_once() -> None:
    decision = next_due(PacingConfig(30), PacingState(), 77)
    assert (decision.wait_s, decision.due_ns, decision.skipped) == (0.0, 77, 0)
    assert decision.state == PacingState(77, 1)


def test_ten_minutes_at_2997_do_not_drift() -> None:
    clock = FakeClock()
    fps = 30000 / 1001
    pacer = Pacer(fps, clock)
    for _ in range(17982):
        pacer.wait()
        clock.advance(0.0123)  # work
    assert pacer.skipped == 0
    pacer.wait()
    assert clock.now_ns() / 1e9 == pytest.approx(17982 / fps, abs=1e-6)


def test_a_stall_is_skipped_not_caught_up() -> None:
    clock = FakeClock()
    pacer = Pacer(25, clock)
    pacer.wait()
    clock.advance(5.01)
    sent_ns: list[int] = []
    for _ in range(4):
        pacer.wait()
        sent_ns.append(clock.now_ns())
    # At once (tick 125, begun 10 ms ago), then on the old grid again: no burst.
    assert [ns / 1e9 for ns in sent_ns] == pytest.approx([5.01, 5.04, 5.08, 5.12])
    assert pacer.skipped == 124


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
def test_impossible_rates_are_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        PacingConfig(fps)


@given(
    fps=st.floats(1, 240),
    works_s=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    start_ns=st.integers(0, 2**53),
)
def test_lag_is_always_under_one_period(fps: float, works_s: list[float], start_ns: int) -> None:
    config, state, now_ns = PacingConfig(fps), PacingState(), start_ns
    period_ns = 1e9 / fps
    last_due = -1
    ticks = 0
    for work_s in works_s:
        decision = next_due(config, state, now_ns)
        state = decision.state
        now_ns += round(decision.wait_s * 1e9)
        ticks += 1 + decision.skipped
        assert decision.due_ns > last_due
        assert decision.wait_s * 1e9 <= period_ns + 2
        assert -2 <= now_ns - decision.due_ns <= period_ns + 2
        last_due = decision.due_ns
        now_ns += round(work_s * 1e9)
    assert state.tick == ticks
