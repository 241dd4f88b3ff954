"""Rotations, similarity alignment and the camera: properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.geometry import (
    Camera,
    Similarity,
    align_similarity,
    rotation_from_degrees,
    rotation_matrix,
    rotation_vector,
    yaw_pitch_roll_deg,
)

F64 = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)
unit = st.floats(-1, 1)


@st.composite
def axes(draw: st.DrawFn) -> F64:
    v = np.array([draw(unit), draw(unit), draw(unit)])
    assume(np.linalg.norm(v) > 0.05)
    return v / np.linalg.norm(v)


@given(axes(), st.floats(0, np.pi))
def test_a_rotation_matrix_is_a_rotation(axis: F64, angle: float) -> None:
    m = rotation_matrix(axis * angle)
    assert np.allclose(m @ m.T, np.eye(3), atol=1e-8)
    assert np.linalg.det(m) == pytest.approx(1)
    assert np.allclose(m @ axis, axis, atol=1e-8)


@given(axes(), st.floats(0, np.pi))
def test_rotation_vectors_survive_the_matrix(axis: F64, angle: float) -> None:
    back = rotation_vector(rotation_matrix(axis * angle))
    assert np.linalg.norm(back) <= np.pi + 1e-9
    # as matrices: a half turn has two vectors
    assert np.allclose(rotation_matrix(back), rotation_matrix(axis * angle), atol=1e-7)


@given(axes(), st.floats(0, 1e-4), st.sampled_from([0.0, np.pi]))
def test_rotation_vectors_survive_near_zero_and_near_a_half_turn(axis: F64, off: float, end: float) -> None:
    angle = abs(end - off)
    assert np.allclose(
        rotation_matrix(rotation_vector(rotation_matrix(axis * angle))),
        rotation_matrix(axis * angle),
        atol=1e-7,
    )


@given(st.floats(-170, 170), st.floats(-85, 85), st.floats(-170, 170))
def test_angles_round_trip(yaw: float, pitch: float, roll: float) -> None:
    assert yaw_pitch_roll_deg(rotation_from_degrees(yaw, pitch, roll)) == pytest.approx(
        (yaw, pitch, roll), abs=1e-4
    )


@pytest.mark.parametrize(
    ("angles", "x", "y"),
    [((30, 0, 0), 0.5, 0), ((-30, 0, 0), -0.5, 0), ((0, 30, 0), 0, 0.5), ((0, -30, 0), 0, -0.5)],
)
def test_a_face_turns_where_its_angles_say(angles: tuple[float, float, float], x: float, y: float) -> None:
    looks = rotation_matrix(rotation_from_degrees(*angles)) @ (0, 0, -1)  # a frontal face looks at the camera
    assert looks[:2] == pytest.approx((x, y), abs=1e-9)


def test_roll_is_clockwise_on_the_screen() -> None:
    top = rotation_matrix(rotation_from_degrees(0, 0, 30)) @ (0, -1, 0)
    assert top[:2] == pytest.approx((0.5, -np.sqrt(3) / 2))


@given(axes(), st.floats(0, 3), st.floats(0.1, 500), seeds)
def test_alignment_recovers_a_similarity(axis: F64, angle: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 3))
    truth = Similarity(scale, rotation_matrix(axis * angle), rng.normal(size=3) * 300)
    found = align_similarity(points, truth.apply(points), rng.uniform(0.1, 1, 30))
    assert found.scale == pytest.approx(scale)
    assert np.allclose(found.rotation, truth.rotation, atol=1e-7)
    assert np.allclose(found.invert(truth.apply(points)), points, atol=1e-6)


@given(seeds)
def test_alignment_of_a_flat_face_and_of_a_mirrored_one_is_a_proper_rotation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(20, 3))
    for target in (points * (1, 1, 0), points * (-1, 1, 1)):
        assert np.linalg.det(align_similarity(points, target).rotation) == pytest.approx(1)


@given(seeds)
def test_alignment_minimises_the_weighted_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, w = rng.normal(size=(15, 3)), rng.normal(size=(15, 3)), rng.uniform(0.1, 1, 15)

    def cost(s: Similarity) -> float:
        return float((w[:, None] * (s.apply(a) - b) ** 2).sum())

    best = align_similarity(a, b, w)
    for _ in range(5):
        nudge = rotation_matrix(rng.normal(size=3) * 0.01)
        near = Similarity(
            best.scale * (1 + rng.normal() * 0.01),
            nudge @ best.rotation,
            best.shift + rng.normal(size=3) * 0.01,
        )
        assert cost(best) <= cost(near) + 1e-9


@given(seeds, st.floats(0.01, 1000))
def test_points_on_a_line_or_in_one_place_cannot_be_aligned(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    along = rng.normal(size=(20, 1)) * spread
    line = rng.normal(size=3) * 1000 + along * rng.normal(size=3)
    face = rng.normal(size=(20, 3))
    for degenerate in (line, np.broadcast_to(line[:1], line.shape)):
        with pytest.raises(ValueError, match="line"):
            align_similarity(degenerate, face[:1] + along * face[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_cannot_be_aligned(bad: float) -> None:
    good = np.random.default_rng(0).normal(size=(10, 3))
    broken = good.copy()
    broken[3, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        align_similarity(good, broken)
    with pytest.raises(ValueError, match="finite"):
        align_similarity(broken, good)


@given(axes(), st.floats(0, 3), st.integers(16, 4096), st.integers(16, 4096), seeds)
def test_the_camera_round_trip_is_exact(axis: F64, angle: float, width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = Camera(width, height)
    translation = np.array([rng.normal(), rng.normal(), rng.uniform(1, 30)])
    rotation, back = camera.from_similarity(camera.to_similarity(axis * angle, translation))
    assert np.allclose(back, translation, atol=1e-9)
    assert np.allclose(rotation, axis * angle, atol=1e-6)


def test_the_camera_draws_a_head_unit_where_it_says() -> None:
    camera = Camera(640, 480)
    similarity = camera.to_similarity(np.zeros(3), np.array([0.5, -0.25, 6.0]))
    assert similarity.scale == pytest.approx(1.5 * 640 / 6)
    assert similarity.apply(np.zeros((1, 3)))[0, :2] == pytest.approx((320 + 0.5 * 160, 240 - 0.25 * 160))


def test_a_head_behind_the_camera_does_not_divide_by_zero() -> None:
    assert np.isfinite(Camera(64, 64).to_similarity(np.zeros(3), np.zeros(3)).scale)
