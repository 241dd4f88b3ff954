"""Retargeting: nothing moves nothing, strengths scale, limits hold, and nobody's identity leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.retarget import Controls, MotionMode, retarget

F32 = NDArray[np.float32]
MODES: tuple[MotionMode, ...] = ("relative", "absolute")


def motion(seed: int, turn_deg: float = 15) -> Motion:
    rng = np.random.default_rng(seed)
    return Motion(
        time_s=float(rng.uniform(0, 9)),
        expression=rng.uniform(0, 0.6, EXPRESSION_COUNT).astype(np.float32),
        rotation_rad=rotation_from_degrees(*rng.uniform(-turn_deg, turn_deg, 3)).astype(np.float32),
        translation_hu=(rng.uniform(-0.3, 0.3, 3) + np.array([0, 0, rng.uniform(5, 12)])).astype(np.float32),
        gaze_rad=rng.uniform(-0.2, 0.2, (2, 2)).astype(np.float32),
        confidence=float(rng.uniform()),
    )


def near(rest: Motion, seed: int, size: float = 1.0) -> Motion:
    """A small movement away from `rest`, within all limits."""
    rng = np.random.default_rng(seed)
    turn = rotation_matrix(rng.uniform(-0.08, 0.08, 3) * size)
    return replace(
        rest,
        expression=(rest.expression + rng.uniform(-0.2, 0.2, EXPRESSION_COUNT) * size).astype(np.float32),
        rotation_rad=rotation_vector(turn @ rotation_matrix(rest.rotation_rad)).astype(np.float32),
        translation_hu=(rest.translation_hu + rng.uniform(-0.2, 0.2, 3) * size).astype(np.float32),
        gaze_rad=(rest.gaze_rad + rng.uniform(-0.1, 0.1, (2, 2)) * size).astype(np.float32),
    )


def angle_deg(a: F32, b: F32) -> float:
    return float(np.degrees(np.linalg.norm(rotation_vector(rotation_matrix(a) @ rotation_matrix(b).T))))


def assert_same(a: Motion, b: Motion, tolerance: float = 2e-5) -> None:
    assert np.allclose(a.expression, b.expression, atol=tolerance)
    assert angle_deg(a.rotation_rad, b.rotation_rad) < 0.01
    assert np.allclose(a.translation_hu, b.translation_hu, atol=tolerance)
    assert np.allclose(a.gaze_rad, b.gaze_rad, atol=tolerance)


seeds = st.integers(0, 2**32 - 1)
strengths = st.floats(0, 2)


@given(seeds, seeds, strengths, strengths)
def test_no_motion_shows_the_photo_exactly(source: int, neutral: int, expression: float, head: float) -> None:
    s, n = motion(source), motion(neutral)
    got = retarget(n, n, s, Controls(expression, head))
    assert_same(got, s, 1e-6)


@given(seeds, seeds, seeds)
def test_relative_adds_what_the_driver_does(source: int, neutral: int, moved: int) -> None:
    s, n = motion(source), motion(neutral)
    d = near(n, moved)
    got = retarget(d, n, s, Controls())
    assert np.allclose(got.expression, s.expression + d.expression - n.expression, atol=1e-6)
    assert np.allclose(got.gaze_rad, s.gaze_rad + d.gaze_rad - n.gaze_rad, atol=1e-6)
    turn = rotation_matrix(d.rotation_rad) @ rotation_matrix(n.rotation_rad).T
    assert np.allclose(rotation_matrix(got.rotation_rad), turn @ rotation_matrix(s.rotation_rad), atol=1e-6)
    assert got.translation_hu[2] / s.translation_hu[2] == pytest.approx(
        d.translation_hu[2] / n.translation_hu[2], rel=1e-4
    )
    # the same shift on the picture as at the photo's own distance
    shown = got.translation_hu[:2] / got.translation_hu[2] - s.translation_hu[:2] / s.translation_hu[2]
    assert np.allclose(shown * s.translation_hu[2], d.translation_hu[:2] - n.translation_hu[:2], atol=1e-5)
    assert got.time_s == d.time_s
    assert got.confidence == d.confidence


@given(seeds, seeds, seeds, st.sampled_from(MODES))
def test_head_strength_zero_keeps_the_photos_pose(
    source: int, neutral: int, moved: int, mode: MotionMode
) -> None:
    s, n = motion(source), motion(neutral)
    got = retarget(motion(moved), n, s, Controls(head=0, motion=mode))
    assert angle_deg(got.rotation_rad, s.rotation_rad) < 0.01
    assert np.allclose(got.translation_hu, s.translation_hu, atol=1e-5)


@given(seeds, seeds, seeds)
def test_expression_strength_zero_keeps_the_photos_face(source: int, neutral: int, moved: int) -> None:
    s, d = motion(source), motion(moved)
    got = retarget(d, motion(neutral), s, Controls(expression=0))
    assert np.allclose(got.expression, s.expression, atol=1e-6)
    assert np.allclose(got.gaze_rad, s.gaze_rad, atol=1e-6)
    absolute = retarget(d, motion(neutral), s, Controls(expression=0, motion="absolute"))
    assert (absolute.expression == 0).all()


@given(seeds, seeds, st.floats(0.1, 2))
def test_strengths_scale(neutral: int, moved: int, strength: float) -> None:
    s, n = Motion(), motion(neutral)
    d = near(n, moved, 0.5)
    got = retarget(d, n, s, Controls(strength, strength))
    assert np.allclose(got.expression, strength * (d.expression - n.expression), atol=1e-5)
    assert angle_deg(got.rotation_rad, s.rotation_rad) == pytest.approx(
        strength * angle_deg(d.rotation_rad, n.rotation_rad), abs=0.02
    )


@given(seeds, seeds, seeds, seeds)
def test_the_drivers_own_face_does_not_leak(source: int, one: int, other: int, moved: int) -> None:
    """Two drivers with other resting faces, poses and places, doing the same: the same picture."""
    s, a, b = motion(source), motion(one), motion(other)
    b = replace(b, translation_hu=np.array([*b.translation_hu[:2], a.translation_hu[2]], np.float32))
    assert_same(retarget(near(a, moved), a, s, Controls()), retarget(near(b, moved), b, s, Controls()), 1e-4)


@given(seeds, seeds, seeds)
def test_absolute_in_place_is_exactly_the_driver(source: int, neutral: int, moved: int) -> None:
    s = motion(source, 8)
    d = replace(near(s, moved), translation_hu=motion(moved).translation_hu)
    got = retarget(d, motion(neutral), s, Controls(motion="absolute", place_absolutely=True))
    assert np.allclose(got.expression, d.expression, atol=1e-6)
    assert angle_deg(got.rotation_rad, d.rotation_rad) < 0.01
    assert np.allclose(got.translation_hu, d.translation_hu)


@given(st.floats(-90, 90), st.floats(-60, 60), st.floats(-90, 90), strengths, st.sampled_from(MODES))
def test_the_head_never_turns_beyond_what_the_photo_bears(
    yaw: float, pitch: float, roll: float, head: float, mode: MotionMode
) -> None:
    d = replace(Motion(), rotation_rad=rotation_from_degrees(yaw, pitch, roll).astype(np.float32))
    got = retarget(d, Motion(), Motion(), Controls(head=head, motion=mode))
    assert angle_deg(got.rotation_rad, Motion().rotation_rad) <= 32.01


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0.01, 1e3), strengths)
def test_the_head_never_leaves(x: float, y: float, z: float, head: float) -> None:
    d = replace(Motion(), translation_hu=np.array([x, y, z], np.float32))
    got = retarget(d, Motion(), Motion(), Controls(head=head))
    zoom = got.translation_hu[2] / Motion().translation_hu[2]
    assert np.exp(-0.301) <= zoom <= np.exp(0.301)
    assert np.abs(got.translation_hu[:2] / zoom).max() <= 0.601


def test_limits_are_soft_and_monotone() -> None:
    def yaw(value: float) -> float:
        d = replace(Motion(), rotation_rad=rotation_from_degrees(value, 0, 0).astype(np.float32))
        return angle_deg(retarget(d, Motion(), Motion(), Controls()).rotation_rad, Motion().rotation_rad)

    steps = [yaw(v) for v in np.arange(0, 90, 1.0)]
    grown = np.diff(steps)
    assert (grown > 0).all()
    assert grown.max() < 1.01
    assert np.abs(np.diff(grown)).max() < 0.1  # no kink to be seen
    assert yaw(15) == pytest.approx(15, abs=0.01)


@given(seeds, seeds, seeds, st.floats(0, 2), st.floats(0, 2), st.sampled_from(MODES), st.booleans())
def test_whatever_comes_in_is_drawable(
    source: int, neutral: int, moved: int, expression: float, head: float, mode: MotionMode, place: bool
) -> None:
    d = motion(moved, 80)
    d = replace(d, expression=d.expression * 9, gaze_rad=d.gaze_rad * 9)
    got = retarget(d, motion(neutral), motion(source), Controls(expression, head, mode, place))
    assert got.is_finite()
    assert got.expression.dtype == np.float32
    assert np.abs(got.expression - 0.5).max() <= 1
    assert np.abs(got.gaze_rad).max() <= 0.8
    assert got.translation_hu[2] > 0


def test_a_driver_at_distance_zero_does_no_harm() -> None:
    d = replace(Motion(), translation_hu=np.zeros(3, np.float32))
    assert retarget(d, d, Motion(), Controls()).is_finite()
    assert retarget(Motion(), d, Motion(), Controls()).is_finite()


def test_nothing_is_changed_in_place() -> None:
    d, n, s = motion(1), motion(2), motion(3)
    before = [m.to_json() for m in (d, n, s)]
    got = retarget(d, n, s, Controls())
    got.expression[:] = 9
    got.translation_hu[:] = 9
    absolute = retarget(d, n, s, Controls(motion="absolute", place_absolutely=True))
    absolute.translation_hu[:] = 9
    assert [m.to_json() for m in (d, n, s)] == before


def test_a_blink_blinks_whatever_the_photo() -> None:
    d, s = Motion(expression=Motion().expression.copy()), motion(4)
    d.expression[ARKIT_INDEX["eyeBlinkLeft"]] = 0.9
    got = retarget(d, Motion(), s, Controls())
    index = ARKIT_INDEX["eyeBlinkLeft"]
    assert got.expression[index] == pytest.approx(min(1.5, s.expression[index] + 0.9))
