"""Idle life: how often it blinks, that nothing jumps, that it repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.idle import BLINK_S, blink_at, saccade_at, with_idle

LEFT, RIGHT = ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]
times = st.floats(0, 1e6)


@pytest.mark.slow
def test_it_blinks_as_often_as_people_do() -> None:
    step_s = 0.01
    closed = np.array([blink_at(t) for t in np.arange(0, 1000, step_s)]) > 0.5
    starts = np.flatnonzero(np.diff(closed.astype(int)) == 1) * step_s
    assert 0.2 <= len(starts) / 1000 <= 0.3
    gaps = np.diff(starts)
    assert gaps.min() > 2 * BLINK_S  # never two at once
    assert gaps.std() > 0.5  # never like a clock


@pytest.mark.slow
def test_each_blink_closes_and_takes_a_sixth_of_a_second() -> None:
    lids = np.array([blink_at(t) for t in np.arange(0, 400, 0.002)])
    runs = np.split(lids, np.flatnonzero(np.diff((lids > 0).astype(int))) + 1)
    blinks = [r for r in runs if r.max() > 0]
    assert len(blinks) == 100
    for r in blinks:
        assert r.max() > 0.95
        assert len(r) * 0.002 == pytest.approx(BLINK_S, abs=0.006)


@given(times)
def test_nothing_jumps(t: float) -> None:
    a, b = with_idle(Motion(), t), with_idle(Motion(), t + 0.001)
    assert np.abs(a.expression - b.expression).max() < 0.03
    assert np.abs(a.rotation_rad - b.rotation_rad).max() < 1e-4
    assert np.abs(a.gaze_rad - b.gaze_rad).max() <= 0.07  # saccades jump, that is what they are: 4° at most


@given(times)
def test_it_is_small_and_repeatable(t: float) -> None:
    m = with_idle(Motion(), t)
    assert m.to_json() == with_idle(Motion(), t).to_json()
    assert max(abs(a) for a in yaw_pitch_roll_deg(m.rotation_rad)) < 2
    assert np.abs(m.gaze_rad).max() <= 0.03 + 1e-6
    assert set(np.flatnonzero(m.expression)) <= {LEFT, RIGHT}
    assert m.expression[LEFT] == m.expression[RIGHT]
    assert (m.translation_hu == Motion().translation_hu).all()


def test_the_head_sways() -> None:
    yaws = [yaw_pitch_roll_deg(with_idle(Motion(), t).rotation_rad)[0] for t in np.arange(0, 60, 0.5)]
    assert np.ptp(yaws) > 1
    assert len({saccade_at(t) for t in np.arange(0, 60, 0.5)}) > 30


def test_it_is_added_to_the_rest() -> None:
    rest = Motion(
        expression=np.full(52, 0.4, np.float32),
        rotation_rad=rotation_from_degrees(10, 0, 0).astype(np.float32),
        gaze_rad=np.full((2, 2), 0.1, np.float32),
    )
    t = next(t for t in np.arange(0, 9, 0.01) if blink_at(t) > 0.9)
    m = with_idle(rest, t)
    assert m.expression[LEFT] > 0.9
    others = np.delete(m.expression, [LEFT, RIGHT])
    assert np.allclose(others, 0.4)
    assert np.allclose(rest.expression, 0.4)  # not in place
    asleep = replace(rest, expression=np.ones(52, np.float32))
    assert with_idle(asleep, t).expression[LEFT] == 1  # a closed eye is not opened by a blink


def test_no_strength_is_the_rest_itself() -> None:
    for t in np.arange(0, 10, 0.1):
        m = with_idle(Motion(), t, strength=0)
        assert (m.expression == 0).all()
        assert np.allclose(m.rotation_rad, 0)
        assert (m.gaze_rad == 0).all()


def test_time_before_zero_works() -> None:
    assert with_idle(Motion(), -3.7).is_finite()
