"""The motion that ships: lifelike, numbers only, and endless without a jump."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.enroll import enroll
from engines.geometry import yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.demo import DEMO_MOTION, DEMO_PHOTO, LOOP_FADE_S, demo_track, looped

TRACK = demo_track()
LENGTH_S = TRACK.duration_s - LOOP_FADE_S


def coefficient(name: str) -> NDArray[np.float64]:
    return np.array([float(m.expression[ARKIT_INDEX[name]]) for m in TRACK])


def angles() -> NDArray[np.float64]:
    return np.array([yaw_pitch_roll_deg(m.rotation_rad) for m in TRACK])


def step(a: Motion, b: Motion) -> tuple[float, float, float]:
    """(expression, degrees, head units) from one motion to the next."""
    turn = np.array(yaw_pitch_roll_deg(a.rotation_rad)) - yaw_pitch_roll_deg(b.rotation_rad)
    return (
        float(np.abs(a.expression - b.expression).max()),
        float(np.abs(turn).max()),
        float(np.abs(a.translation_hu - b.translation_hu).max()),
    )


def test_it_loads_and_is_long_enough() -> None:
    assert TRACK.neutral is not None
    assert 24 <= TRACK.fps <= 60
    assert TRACK.duration_s > 15
    assert all(m.is_finite() for m in TRACK)
    assert [m.time_s for m in TRACK] == pytest.approx(
        [k / TRACK.fps for k in range(len(TRACK.motions))], abs=1e-4
    )
    assert DEMO_MOTION.stat().st_size < 1_000_000


def test_it_blinks() -> None:
    lids = (coefficient("eyeBlinkLeft") + coefficient("eyeBlinkRight")) / 2
    closing = np.flatnonzero(np.diff((lids > 0.35).astype(int)) == 1)
    assert 0.15 <= len(closing) / TRACK.duration_s <= 0.7
    # both eyes together
    assert np.corrcoef(coefficient("eyeBlinkLeft"), coefficient("eyeBlinkRight"))[0, 1] > 0.7


def test_it_speaks() -> None:
    jaw = coefficient("jawOpen")
    turns = np.flatnonzero(np.diff(np.sign(np.diff(np.convolve(jaw, np.ones(3) / 3, "valid")))) != 0)
    assert np.percentile(jaw, 98) - np.percentile(jaw, 2) > 0.2
    assert 2 < len(turns) / TRACK.duration_s < 15  # syllables: the jaw goes up and down some times a second
    assert np.ptp(coefficient("mouthSmileLeft")) > 0.3


def test_it_turns_its_head() -> None:
    low, high = angles().min(0), angles().max(0)
    assert high[0] - low[0] > 15
    assert high[1] - low[1] > 8
    assert max(np.abs(low).max(), np.abs(high).max()) < 32
    assert np.abs(np.array([m.translation_hu[:2] for m in TRACK])).max() < 0.6


def test_it_looks_about() -> None:
    gaze = np.array([m.gaze_rad for m in TRACK])
    assert np.ptp(gaze[..., 0]) > 0.1
    assert np.abs(gaze).max() < 0.8


def test_the_head_moves_smoothly_all_along() -> None:
    steps = [step(a, b) for a, b in zip(TRACK.motions, TRACK.motions[1:], strict=False)]
    assert max(s[1] for s in steps) < 6  # degrees in a frame
    assert max(s[2] for s in steps) < 0.1


@pytest.mark.parametrize("round_", [1, 2, 50])
def test_it_loops_without_a_jump(round_: int) -> None:
    """Within a millisecond around any seam nothing moves: there is no seam."""
    for seam_s in (round_ * LENGTH_S, round_ * LENGTH_S + LOOP_FADE_S):
        for at_s in np.linspace(seam_s - 0.01, seam_s + 0.01, 21):
            expression, degrees, units = step(looped(TRACK, at_s), looped(TRACK, at_s + 0.001))
            assert expression < 0.05
            assert degrees < 0.3
            assert units < 0.01


def test_the_first_round_is_the_track_and_later_rounds_repeat() -> None:
    for t in (0.0, 1.0, LENGTH_S / 2):
        assert step(looped(TRACK, t), TRACK.at(t)) == (0, 0, 0)
    t = LENGTH_S / 2
    assert max(step(looped(TRACK, t + 3 * LENGTH_S), TRACK.at(t))) < 1e-5


def test_time_goes_on_in_later_rounds() -> None:
    times_s = np.arange(0, 3 * LENGTH_S, 0.5)
    assert [looped(TRACK, t).time_s for t in times_s] == pytest.approx(times_s)


@pytest.mark.slow
def test_the_demo_photo_can_be_enrolled() -> None:
    e = enroll(DEMO_PHOTO)
    assert e.notices == ()
    assert max(abs(a) for a in yaw_pitch_roll_deg(e.motion.rotation_rad)) < 15
