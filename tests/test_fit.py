"""Fitting: pose and expression of synthetic faces come back, in a box, in well under a millisecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.geometry import Camera, Similarity, rotation_from_degrees, rotation_vector
from engines.head.fit import (
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
from engines.head.landmark_names import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LANDMARK_COUNT,
    MEETING,
)
from engines.head.model import EYEBALL_RADIUS_HU, load_head_model
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


def turned_deg(found: Similarity, truth: Similarity) -> float:
    return float(np.degrees(np.linalg.norm(rotation_vector(found.rotation @ truth.rotation.T))))


@pytest.mark.parametrize("name", ["mouthSmileLeft", "eyeBlinkLeft", "mouthPucker", "browInnerUp"])
def test_an_expression_hardly_turns_the_head(name: str) -> None:
    beta = NONE.copy()
    beta[ARKIT_INDEX[name]] = 1
    truth = pose(10, 5, 0)
    found = fit_pose(MODEL, MEAN, truth.apply(shaped(MEAN, beta)))
    assert turned_deg(found, truth) < 3
    assert found.scale == pytest.approx(truth.scale, rel=0.03)


@pytest.mark.parametrize("helped", [True, False])
@pytest.mark.parametrize("name", ["jawOpen", "mouthSmileLeft", "eyeBlinkLeft", "mouthPucker", "browInnerUp"])
def test_a_drivers_expression_does_not_turn_the_head(name: str, helped: bool) -> None:
    """The pose is taken against the expressive shape: an open jaw must not pitch the head."""
    truth, last = pose(10, 5, 0), None
    for step in range(9):  # opens over 8 frames of a camera, and holds
        beta = NONE.copy()
        beta[ARKIT_INDEX[name]] = min(step / 7, 1)
        points = truth.apply(shaped(MEAN, beta)).astype(np.float32)
        frame = fit_driver(FIT, MEAN, points, beta if helped else NONE, last)
        last = frame.expression
        assert turned_deg(frame.pose, truth) < 1.5
        assert frame.pose.scale == pytest.approx(truth.scale, rel=0.02)
        assert np.allclose(frame.unposed_hu, frame.pose.invert(points))
    if helped:
        assert last is not None
        assert last[ARKIT_INDEX[name]] == pytest.approx(1, abs=0.05)


@settings(max_examples=15)
@given(seeds, st.floats(-35, 35), st.floats(-25, 25))
def test_a_photo_is_taken_apart_without_a_rest(seed: int, yaw: float, pitch: float) -> None:
    """`S(V̄ + B_id α + B_exp β + left)` is every landmark, whatever face it is."""
    rng = np.random.default_rng(seed)
    beta = (rng.uniform(0, 1, EXPRESSION_COUNT) * (rng.random(EXPRESSION_COUNT) < 0.2)).astype(np.float32)
    points = pose(yaw, pitch, 3).apply(shaped(person(seed), beta))
    found = fit_source(MODEL, points, beta)
    shape = MODEL.landmarks(MODEL.decode(MODEL.shape(found.identity), found.expression)) + found.left_hu
    assert np.abs(found.pose.apply(shape) - points).max() < 0.01
    assert found.expression.min() >= 0
    assert found.expression.max() <= 1
    assert found.identity.shape == (len(MODEL.identity_hu),)


@settings(max_examples=15)
@given(seeds)
def test_a_head_of_the_model_is_explained_by_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alpha = rng.normal(size=len(MODEL.identity_hu)).astype(np.float32)
    beta = (rng.uniform(0, 0.8, EXPRESSION_COUNT) * (rng.random(EXPRESSION_COUNT) < 0.2)).astype(np.float32)
    truth = pose(12, -6, 4)
    points = truth.apply(MODEL.landmarks(MODEL.decode(MODEL.shape(alpha), beta)))
    found = fit_source(MODEL, points, beta)
    assert turned_deg(found.pose, truth) < 1
    assert found.pose.scale == pytest.approx(truth.scale, rel=0.02)
    left = np.linalg.norm(found.left_hu[:468], axis=1)
    from_mean = np.linalg.norm(MODEL.landmarks(MODEL.shape(alpha) - MODEL.mean_hu)[:468], axis=1)
    assert left.mean() < 0.2 * from_mean.mean()
    assert np.abs(found.expression - beta).mean() < 0.05


def test_landmarks_of_a_driver_that_are_not_finite_are_refused() -> None:
    broken = pose(0, 0, 0).apply(person(0)).astype(np.float32)
    broken[3] = np.inf
    with pytest.raises(ValueError, match="finite"):
        fit_driver(FIT, MEAN, broken, NONE)


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


def narrowed(share: float, *, eyes: bool, lips: bool) -> NDArray[np.float64]:
    """The mean face with its lids or lips brought together: 0 as they are, 1 meeting."""
    face = MEAN.copy()
    for number, (upper, lower) in enumerate(MEETING):
        if lips if number >= 14 else eyes:
            gap = face[lower] - face[upper]
            face[upper] += gap * share / 2
            face[lower] -= gap * share / 2
    return face


def test_closure_is_measured_against_the_persons_own_rest() -> None:
    rest = openings(MEAN)
    assert rest.min() > 0
    assert measure_closure(MEAN, rest)[1:].tolist() == [0, 0]
    shut = measure_closure(narrowed(1, eyes=True, lips=True), rest)
    assert shut.tolist() == [1, 1, 1]
    assert shut.dtype == np.float32
    # eyes and lips are told apart, and right from left
    assert measure_closure(narrowed(1, eyes=False, lips=True), rest).tolist() == [1, 0, 0]
    wink = MEAN.copy()
    for upper, lower in MEETING[:7]:
        wink[upper] = wink[lower]
    assert measure_closure(wink, rest)[1:].tolist() == [1, 0]
    # eyes that are narrow by nature are not half shut
    slit = narrowed(0.5, eyes=True, lips=False)
    assert measure_closure(slit, rest)[1] > 0
    assert measure_closure(slit, openings(slit))[1:].tolist() == [0, 0]


def test_closure_rises_as_lids_and_lips_close() -> None:
    rest = openings(MEAN)
    got = [measure_closure(narrowed(s, eyes=True, lips=True), rest) for s in np.linspace(0, 1, 21)]
    assert (np.diff(got, axis=0) >= 0).all()
    assert np.abs(np.diff(got, axis=0)).max() < 0.35  # no switch


def test_openings_do_not_depend_on_size_or_roll() -> None:
    assert np.allclose(openings(MEAN * 137), openings(MEAN))
    assert np.allclose(openings(pose(0, 0, 30).apply(MEAN)), openings(MEAN))


def test_gaze_of_an_iris_gone_astray_is_bounded() -> None:
    face = MEAN.copy()
    face[IRIS_LEFT] += 100
    assert np.isfinite(measure_gaze(face)).all()
    assert np.abs(measure_gaze(face)).max() < np.pi / 2
