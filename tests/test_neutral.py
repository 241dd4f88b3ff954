"""The driver's neutral: there at the first frame, from the calmest frames of a second, eased when re-taken."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.neutral import CALIBRATION_S, EASE_S, DriverNeutral, NeutralEstimator
from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
MODEL = load_head_model()
FPS = 25.0
PERSON = MODEL.landmarks(MODEL.mean_hu).astype(np.float64) * np.array([1.05, 0.97, 1.0]) + 0.01


def scores(**values: float) -> F32:
    beta = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        beta[ARKIT_INDEX[name]] = value
    return beta


REST, TALK = scores(browDownLeft=0.1), scores(browDownLeft=0.1, jawOpen=0.7, mouthFunnel=0.4)


def shaped(mesh: F64, beta: F32) -> F64:
    return mesh + MODEL.landmarks(np.tensordot(beta, MODEL.expression_hu, 1))


def assert_person(got: DriverNeutral, mesh: F64, beta: F32) -> None:
    """At rest the face is exactly what was seen; what of it is expression, the model can only judge."""
    assert np.allclose(shaped(got.mesh_hu, got.motion.expression), shaped(mesh, beta), atol=1e-5)
    assert np.abs(got.motion.expression - beta).max() < 0.15
    assert np.linalg.norm(got.mesh_hu - mesh, axis=1).mean() < 0.01


def feed(
    e: NeutralEstimator, time_s: float, beta: F32 = REST, yaw: float = 0, x: float = 0, wide: float = 1
) -> Motion:
    """One frame of the person; the neutral's motion after it."""
    unposed = shaped(PERSON * np.array([wide, 1, 1]), beta)
    gaze = np.full((2, 2), x, np.float32)
    e.add(time_s, unposed, beta, rotation_from_degrees(yaw, 0, 0), np.array([x, 0, 7.0]), gaze)
    current = e.current
    assert current is not None
    return current.motion


@pytest.fixture
def estimator() -> NeutralEstimator:
    return NeutralEstimator(MODEL)


def run(e: NeutralEstimator, start_s: float, seconds: float, **what: float) -> list[Motion]:
    return [feed(e, start_s + k / FPS, **what) for k in range(round(seconds * FPS))]  # pyright: ignore[reportArgumentType]


def test_there_is_none_before_a_face_and_a_provisional_one_at_the_first(estimator: NeutralEstimator) -> None:
    assert estimator.current is None
    assert estimator.collecting
    first = feed(estimator, 0.0, TALK, yaw=12)
    assert yaw_pitch_roll_deg(first.rotation_rad)[0] == pytest.approx(12, abs=0.01)
    assert estimator.collecting
    current = estimator.current
    assert current is not None
    assert_person(current, PERSON, TALK)


def test_the_provisional_one_stays_for_the_second(estimator: NeutralEstimator) -> None:
    got = run(estimator, 0, CALIBRATION_S)
    assert len({m.to_json() for m in got}) == 1
    assert estimator.collecting
    feed(estimator, CALIBRATION_S)
    assert not estimator.collecting


def test_the_calm_frames_make_it(estimator: NeutralEstimator) -> None:
    """Talking, blinking and looking away in half of the frames does not show in the neutral."""
    restless = [
        TALK,
        scores(eyeBlinkLeft=0.9, eyeBlinkRight=0.9),
        scores(mouthSmileLeft=0.8, mouthSmileRight=0.8),
    ]
    for k in range(27):
        calm = k % 2 == 0
        feed(
            estimator,
            k / FPS,
            REST if calm else restless[k % 3],
            yaw=2 if calm else 2 + 20 * (-1) ** (k // 2),
        )
    last = feed(estimator, 27 / FPS + EASE_S)
    assert yaw_pitch_roll_deg(last.rotation_rad)[0] == pytest.approx(2, abs=0.5)
    current = estimator.current
    assert current is not None
    assert_person(current, PERSON, REST)


def test_a_driver_who_never_rests_gets_a_neutral_too(estimator: NeutralEstimator) -> None:
    for k in range(60):
        feed(estimator, k / FPS, TALK)
    assert not estimator.collecting
    # what the model takes for expression is taken off the mesh
    current = estimator.current
    assert current is not None
    assert_person(current, PERSON, TALK)


def test_retaking_eases_over_and_does_not_jump(estimator: NeutralEstimator) -> None:
    run(estimator, 0, 3)
    estimator.restart()
    assert estimator.collecting
    during = run(estimator, 3, CALIBRATION_S, yaw=10, x=0.2, wide=1.02)
    assert all(abs(yaw_pitch_roll_deg(m.rotation_rad)[0]) < 0.01 for m in during)  # the old one serves
    after = run(estimator, 3 + CALIBRATION_S, 2 * EASE_S, yaw=10, x=0.2, wide=1.02)
    yaws = [yaw_pitch_roll_deg(m.rotation_rad)[0] for m in after]
    assert yaws == sorted(yaws)
    assert max(np.diff(yaws)) < 1.5  # of 10°: not to be seen as a jump
    assert yaws[-1] == pytest.approx(10, abs=0.01)
    assert after[-1].translation_hu[0] == pytest.approx(0.2)
    assert np.allclose(after[-1].gaze_rad, 0.2)
    current = estimator.current
    assert current is not None
    assert_person(current, PERSON * np.array([1.02, 1, 1]), REST)


def test_once_taken_it_does_not_follow(estimator: NeutralEstimator) -> None:
    run(estimator, 0, 2)
    rest = feed(estimator, 2.0)
    moved = run(estimator, 2.04, 2, yaw=25, x=0.5)
    assert {m.to_json() for m in moved} == {rest.to_json()}


def test_a_clock_that_goes_back_starts_the_second_anew(estimator: NeutralEstimator) -> None:
    run(estimator, 100, 0.9, yaw=20)
    run(estimator, 0, 0.9, yaw=-5)
    assert estimator.collecting
    run(estimator, 0.9, 1, yaw=-5)
    assert yaw_pitch_roll_deg(feed(estimator, 1.9, yaw=-5).rotation_rad)[0] == pytest.approx(-5, abs=0.01)


def test_a_face_that_was_away_starts_the_second_anew(estimator: NeutralEstimator) -> None:
    """One frame of a passer-by, then the driver: the second is the driver's."""
    feed(estimator, 0.0, TALK, yaw=30)
    run(estimator, 5, 0.9)
    assert estimator.collecting
    run(estimator, 5.9, 1)
    assert yaw_pitch_roll_deg(feed(estimator, 7.0).rotation_rad)[0] == pytest.approx(0, abs=0.01)


def test_a_slow_camera_calibrates_too(estimator: NeutralEstimator) -> None:
    for k in range(4):
        feed(estimator, k * 0.5)
    assert not estimator.collecting


def test_a_given_neutral_serves_at_once(estimator: NeutralEstimator) -> None:
    given = DriverNeutral(PERSON, Motion(expression=scores(jawOpen=0.25)))
    run(estimator, 0, 1.2)  # in the middle of easing
    estimator.adopt(given)
    assert estimator.current is given
    assert not estimator.collecting
    feed(estimator, 1.3, yaw=20)
    assert estimator.current is given
