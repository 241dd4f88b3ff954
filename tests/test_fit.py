"""Fitting: pose and expression of synthetic faces come back, in a box, in well under a millisecond."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.fit import (
    EXPRESSION_HIGH,
    EXPRESSION_LOW,
    ExpressionFit,
    fit_driver,
    fit_pose,
    fit_source,
    measure_closure,
    measure_gaze,
    openings,
)
from engines.geometry import Camera, Similarity, rotation_from_degrees, rotation_vector
from engines.head_model import EYEBALL_RADIUS_HU, load_head_model
from engines.landmark_names import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LANDMARK_COUNT,
    LIDS_LEFT,
    LIDS_RIGHT,
)
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT

F32 = NDArray[np.float32]
MODEL = load_head_model()
FIT = ExpressionFit(MODEL)
MEAN = MODEL.landmarks(MODEL.mean_hu).astype(np.float64)
NONE = np.zeros(EXPRESSION_COUNT, np.float32)
seeds = st.integers(0, 2**32 - 1)


def person(seed: int) -> NDArray[np.float64]:
    """A neutral (478, 3) that is nobody's mean."""
    rng = np.random.default_rng(seed)
    stretch = rng.uniform(0.9, 1.1, 3)
    return MEAN * stretch + rng.normal(size=(LANDMARK_COUNT, 3)) * 0.005


def shaped(neutral: NDArray[np.float64], beta: F32) -> NDArray[np.float64]:
    return neutral + MODEL.landmarks(np.tensordot(beta, MODEL.expression_hu, 1))


def pose(yaw: float, pitch: float, roll: float) -> Similarity:
    return Camera(640, 480).to_similarity(rotation_from_degrees(yaw, pitch, roll), np.array([0.4, -0.3, 8.0]))


@given(st.floats(-40, 40), st.floats(-30, 30), st.floats(-40, 40), seeds)
def test_the_pose_comes_back(yaw: float, pitch: float, roll: float, seed: int) -> None:
    truth, neutral = pose(yaw, pitch, roll), person(seed)
    found = fit_pose(MODEL, neutral, truth.apply(neutral))
    assert found.scale == pytest.approx(truth.scale)
    assert np.allclose(found.rotation, truth.rotation, atol=1e-6)
    assert np.allclose(found.shift, truth.shift, atol=1e-4)


@pytest.mark.parametrize("name", ["jawOpen", "mouthSmileLeft", "eyeBlinkLeft", "mouthPucker", "browInnerUp"])
def test_an_expression_hardly_turns_the_head(name: str) -> None:
    beta = NONE.copy()
    beta[ARKIT_INDEX[name]] = 1
    truth, neutral = pose(10, 5, 0), MEAN
    found = fit_pose(MODEL, neutral, truth.apply(shaped(neutral, beta)))
    turn_deg = np.degrees(np.linalg.norm(rotation_vector(found.rotation @ truth.rotation.T)))
    assert turn_deg < 3
    assert found.scale == pytest.approx(truth.scale, rel=0.03)


@given(seeds)
def test_the_expression_comes_back_as_a_shape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    beta = (rng.uniform(0, 1, EXPRESSION_COUNT) * (rng.random(EXPRESSION_COUNT) < 0.3)).astype(np.float32)
    neutral = person(seed)
    target = shaped(neutral, beta)
    # scores as they come: right in tendency
    scores = np.clip(beta + rng.normal(size=EXPRESSION_COUNT) * 0.1, 0, 1).astype(np.float32)
    found = FIT.solve(target, neutral, scores)
    left = np.linalg.norm(shaped(neutral, found) - target, axis=1)
    given_ = np.linalg.norm(shaped(neutral, scores) - target, axis=1)
    moved = np.linalg.norm(target - neutral, axis=1)
    assert left.mean() < 0.1 * moved.mean() + 1e-4
    assert left.mean() < given_.mean()


@pytest.mark.parametrize(
    "name", ["jawOpen", "mouthSmileLeft", "eyeBlinkRight", "mouthPucker", "browInnerUp", "mouthFunnel"]
)
def test_the_shape_is_found_with_no_help_from_scores(name: str) -> None:
    beta = NONE.copy()
    beta[ARKIT_INDEX[name]] = 0.8
    neutral = person(3)
    found = FIT.solve(shaped(neutral, beta), neutral, NONE)
    left = np.linalg.norm(shaped(neutral, found) - shaped(neutral, beta), axis=1).mean()
    assert left < 0.25 * np.linalg.norm(shaped(neutral, beta) - neutral, axis=1).mean()


def test_a_resting_face_has_no_expression() -> None:
    assert np.abs(FIT.solve(person(1), person(1), NONE)).max() < 1e-6


@given(seeds, st.floats(0.1, 10))
def test_coefficients_stay_in_their_box_whatever_comes(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    neutral = person(seed)
    beta = FIT.solve(
        neutral + rng.normal(size=neutral.shape) * size, neutral, rng.uniform(-3, 3, 52).astype(np.float32)
    )
    assert beta.dtype == np.float32
    assert beta.min() >= EXPRESSION_LOW
    assert beta.max() <= EXPRESSION_HIGH


def test_the_box_is_reached_when_the_face_goes_beyond() -> None:
    beta = NONE.copy()
    beta[ARKIT_INDEX["jawOpen"]] = 3
    neutral = person(2)
    assert FIT.solve(shaped(neutral, beta), neutral, beta)[ARKIT_INDEX["jawOpen"]] == pytest.approx(
        EXPRESSION_HIGH
    )


def test_the_solution_is_the_boxed_minimum() -> None:
    """ADMM against a general solver."""
    from scipy.optimize import lsq_linear

    rng = np.random.default_rng(5)
    neutral = person(5)
    target = (
        shaped(neutral, rng.uniform(-0.4, 1.4, 52).astype(np.float32))
        + rng.normal(size=neutral.shape) * 0.003
    )
    prior = rng.uniform(0, 1, 52).astype(np.float32)
    basis, strength, _, _ = FIT._system
    a = np.vstack([basis.T, np.diag(np.sqrt(strength))])
    b = np.concatenate([(target - neutral).reshape(-1) * FIT._root_weight, np.sqrt(strength) * prior])
    best = lsq_linear(a, b, (EXPRESSION_LOW, EXPRESSION_HIGH)).x
    found = FIT.solve(target, neutral, prior)

    def cost(x: NDArray[np.float64]) -> float:
        return float(((a @ x - b) ** 2).sum())

    assert cost(found.astype(np.float64)) < 1.02 * cost(best)


def test_a_solve_takes_less_than_a_millisecond() -> None:
    neutral = person(0)
    target = shaped(neutral, np.full(52, 0.3, np.float32))
    FIT.solve(target, neutral, NONE)
    best_ms = np.inf
    for _ in range(5):  # the best of five means: a busy computer is no slow solver
        start = time.perf_counter()
        for _ in range(100):
            FIT.solve(target, neutral, NONE)
        best_ms = min(best_ms, (time.perf_counter() - start) * 10)
    print(f"expression fit: {best_ms:.3f} ms")
    assert best_ms < 1


def test_landmarks_that_are_not_finite_are_refused() -> None:
    broken = pose(0, 0, 0).apply(person(0))
    broken[100] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_pose(MODEL, MEAN, broken)


@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_gaze_is_read_off_the_irises(yaw: float, pitch: float) -> None:
    face = MEAN.copy()
    for iris, corners in ((IRIS_RIGHT, CORNERS_RIGHT), (IRIS_LEFT, CORNERS_LEFT)):
        face[iris, :2] = face[list(corners), :2].mean(0) + EYEBALL_RADIUS_HU * np.sin([yaw, pitch])
    assert np.allclose(measure_gaze(face), [[yaw, pitch]] * 2, atol=1e-5)


def test_gaze_of_an_iris_gone_astray_is_bounded() -> None:
    face = MEAN.copy()
    face[IRIS_LEFT] += 100
    assert np.isfinite(measure_gaze(face)).all()
    assert np.abs(measure_gaze(face)).max() < np.pi / 2
