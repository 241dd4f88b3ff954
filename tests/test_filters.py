"""One-Euro: equal to the authors' package; how much it steadies and how little it delays, measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from OneEuroFilter import OneEuroFilter

from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector, yaw_pitch_roll_deg
from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.demo import demo_track
from streamer.drive.filters import EXPRESSION, GAZE, POSE, MotionFilter, OneEuroConfig, OneEuroState, one_euro

F64 = NDArray[np.float64]
FPS = 25.0


def run(config: OneEuroConfig, times_s: F64, values: F64) -> F64:
    state: OneEuroState | None = None
    out: list[F64] = []
    for t, v in zip(times_s, values, strict=True):
        state = one_euro(config, state, float(t), v)
        out.append(state.value)
    return np.array(out)


def smooth(motions: list[Motion]) -> list[Motion]:
    f = MotionFilter()
    return [f(m) for m in motions]


def delay_frames(x: F64, y: F64) -> float:
    """The shift of `x` that explains `y` best, in frames."""
    t = np.arange(len(x))
    shifts = np.arange(-1, 4, 0.02)
    errors = [((y - np.interp(t - s, t, x))[10:-10] ** 2).sum() for s in shifts]
    return float(shifts[int(np.argmin(errors))])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 5), st.floats(0, 20), st.floats(0.5, 3))
def test_parity_with_the_authors_package(
    seed: int, min_cutoff_hz: float, beta: float, derivative_cutoff_hz: float
) -> None:
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.normal(size=(60, 3)), 0)
    times_s = np.cumsum(rng.uniform(0.01, 0.08, 60))
    got = run(OneEuroConfig(min_cutoff_hz, beta, derivative_cutoff_hz), times_s, values)
    for d in range(3):
        theirs = OneEuroFilter(freq=25.0, mincutoff=min_cutoff_hz, beta=beta, dcutoff=derivative_cutoff_hz)
        expected = [theirs(v, t) for v, t in zip(values[:, d], times_s, strict=True)]
        assert np.abs(got[:, d] - expected).max() < 1e-6


def test_dimensions_do_not_touch_each_other() -> None:
    t = np.arange(50) / FPS
    loud = np.column_stack([np.sin(9 * t), np.zeros(50)])
    assert (run(EXPRESSION, t, loud)[:, 1] == 0).all()


def test_the_first_sample_passes_and_time_going_back_starts_anew() -> None:
    state = one_euro(POSE, None, 5.0, np.array([1.0]))
    assert state.value == 1
    state = one_euro(POSE, state, 5.04, np.array([2.0]))
    assert 1 < state.value[0] < 2
    for t in (5.04, 1.0):  # the same moment again, and a clip that loops
        again = one_euro(POSE, state, t, np.array([7.0]))
        assert again.value == 7
        assert again.speed == 0


def test_a_step_is_followed_to_its_end() -> None:
    t = np.arange(100) / FPS
    out = run(EXPRESSION, t, (t > 1).astype(float)[:, None])[:, 0]
    assert out.max() <= 1
    assert out[-1] == pytest.approx(1, abs=1e-3)
    assert out[int(1.0 * FPS) + 3] > 0.75


@pytest.mark.parametrize("name", ["jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "mouthPucker", "browInnerUp"])
def test_the_delay_of_a_living_expression_is_at_most_a_frame(name: str) -> None:
    motions = [replace(m, time_s=k / FPS) for k, m in enumerate(demo_track())]
    x = np.array([m.expression[ARKIT_INDEX[name]] for m in motions])
    y = np.array([m.expression[ARKIT_INDEX[name]] for m in smooth(motions)])
    delay = delay_frames(x, y)
    print(f"filter delay, {name}: {delay:.2f} frames at 25 fps ({delay * 40:.0f} ms)")
    assert 0 < delay <= 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_delay_of_a_living_head_is_at_most_a_frame(axis: int) -> None:
    motions = [replace(m, time_s=k / FPS) for k, m in enumerate(demo_track())]
    out = smooth(motions)
    turn = delay_frames(
        *(np.array([yaw_pitch_roll_deg(m.rotation_rad)[axis] for m in s]) for s in (motions, out))
    )
    place = delay_frames(*(np.array([float(m.translation_hu[axis]) for m in s]) for s in (motions, out)))
    print(f"filter delay, head axis {axis}: turn {turn:.2f}, place {place:.2f} frames at 25 fps")
    assert 0 < turn <= 1
    assert 0 < place <= 1


@pytest.mark.parametrize("hz", [0.5, 1, 2, 3])
@pytest.mark.parametrize("config", [EXPRESSION, POSE], ids=["expression", "pose"])
def test_the_delay_of_a_swing_is_at_most_a_frame(config: OneEuroConfig, hz: float) -> None:
    t = np.arange(250) / FPS
    x = 0.15 * np.sin(2 * np.pi * hz * t)
    assert delay_frames(x, run(config, t, x[:, None])[:, 0]) <= 1


@pytest.mark.parametrize(
    ("config", "noise"), [(EXPRESSION, 0.01), (POSE, 0.002), (GAZE, 0.01)], ids=["expression", "pose", "gaze"]
)
def test_the_jitter_of_a_still_face_falls_to_less_than_half(config: OneEuroConfig, noise: float) -> None:
    t = np.arange(500) / FPS
    x = np.random.default_rng(0).normal(size=(500, 4)) * noise
    y = run(config, t, x)
    gain = np.abs(np.diff(x, axis=0)).mean() / np.abs(np.diff(y[25:], axis=0)).mean()
    print(f"still-face jitter from frame to frame divided by {gain:.1f}")
    assert gain >= 2


def test_still_motions_are_steadied_in_every_part() -> None:
    rng = np.random.default_rng(1)

    def noisy(k: int) -> Motion:
        turn = rotation_matrix(rng.normal(size=3) * 0.002) @ rotation_matrix(rotation_from_degrees(20, 10, 5))
        return Motion(
            time_s=k / FPS,
            expression=(0.3 + rng.normal(size=52) * 0.01).astype(np.float32),
            rotation_rad=rotation_vector(turn).astype(np.float32),
            translation_hu=(np.array([0, 0, 8]) + rng.normal(size=3) * 0.004).astype(np.float32),
            gaze_rad=(rng.normal(size=(2, 2)) * 0.01).astype(np.float32),
        )

    raw = [noisy(k) for k in range(200)]
    out = smooth(raw)

    def jitter(motions: list[Motion], name: str) -> float:
        return float(np.abs(np.diff([getattr(m, name) for m in motions[25:]], axis=0)).mean())

    for name in ("expression", "rotation_rad", "translation_hu", "gaze_rad"):
        assert jitter(raw, name) >= 2 * jitter(out, name), name
    middle = np.mean([m.rotation_rad for m in out[25:]], 0)
    assert np.allclose(middle, rotation_from_degrees(20, 10, 5), atol=1e-3)


def test_a_head_turned_away_does_not_spin_at_the_half_turn() -> None:
    """Rotation vectors jump at ±π: the filter must not average across the jump."""
    around = [np.array([0, np.pi - 0.03, 0]), np.array([0, -np.pi + 0.03, 0])]
    motions = [Motion(time_s=k / FPS, rotation_rad=around[k % 2].astype(np.float32)) for k in range(20)]
    for m in smooth(motions):
        off = rotation_vector(rotation_matrix(m.rotation_rad) @ rotation_matrix(np.array([0, np.pi, 0])).T)
        assert np.linalg.norm(off) < 0.05


def test_reset_lets_the_next_motion_pass() -> None:
    f = MotionFilter()
    f(Motion(time_s=0))
    far = Motion(
        time_s=0.04, expression=np.ones(52, np.float32), rotation_rad=np.array([0, 0.5, 0], np.float32)
    )
    f.reset()
    got = f(far)
    assert np.allclose(got.expression, 1)
    assert np.allclose(got.rotation_rad, far.rotation_rad, atol=1e-6)
    assert got.time_s == 0.04
