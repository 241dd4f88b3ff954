"""The driver's neutral: waited for until calm, not for ever; revised by later evidence; eased when re-taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.calm import CALIBRATION_S, sample_of
from calibration.later import APART_S
from calibration.neutral import DriverNeutral, NeutralReport
from calibration.neutral_estimator import EASE_S, LENIENT_S, PATIENCE_S, NeutralEstimator
from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.head.fit import ExpressionFit
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
MODEL = load_head_model()
FPS = 25.0
LIPS = ((82, 87), (13, 14), (312, 317))


def with_shut_lips(mesh: F64) -> F64:
    """The mean head's lips are a little apart."""
    out = mesh.copy()
    for pair in LIPS:
        out[list(pair), :2] = mesh[list(pair), :2].mean(0)
    return out


PERSON = with_shut_lips(
    MODEL.landmarks(MODEL.mean_hu).astype(np.float64) * np.array([1.05, 0.97, 1.0]) + 0.01
)


def scores(**values: float) -> F32:
    beta = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        beta[ARKIT_INDEX[name]] = value
    return beta


JAW, SMILE = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthSmileLeft"]
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
    e.add(sample_of(time_s, unposed, beta, rotation_from_degrees(yaw, 0, 0), np.array([x, 0, 7.0]), gaze))
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
    # an open mouth is movement from the first frame on, and shows
    assert first.expression[JAW] <= 0.06
    assert first.expression[ARKIT_INDEX["mouthFunnel"]] <= 0.11


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


def test_retaking_eases_over_and_does_not_jump(estimator: NeutralEstimator) -> None:
    run(estimator, 0, 3)
    estimator.restart()
    assert estimator.collecting
    during = run(estimator, 3, CALIBRATION_S, yaw=10, x=0.1, wide=1.02)
    assert all(abs(yaw_pitch_roll_deg(m.rotation_rad)[0]) < 0.01 for m in during)  # the old one serves
    after = run(estimator, 3 + CALIBRATION_S, 2 * EASE_S, yaw=10, x=0.1, wide=1.02)
    yaws = [yaw_pitch_roll_deg(m.rotation_rad)[0] for m in after]
    assert yaws == sorted(yaws)
    assert max(np.diff(yaws)) < 1.5  # of 10°: not to be seen as a jump
    assert yaws[-1] == pytest.approx(10, abs=0.01)
    assert after[-1].translation_hu[0] == pytest.approx(0.1)
    assert np.allclose(after[-1].gaze_rad, 0.1)
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


# --- a first second that was not calm ------------------------------------------------------------


def frames(
    e: NeutralEstimator, start_s: float, seconds: float, see: Callable[[int], Seen]
) -> list[DriverNeutral]:
    """`see(k)` says what frame k shows; the neutrals that served."""
    out: list[DriverNeutral] = []
    for k in range(round(seconds * FPS)):
        seen = see(k)
        e.add(
            sample_of(
                start_s + k / FPS,
                shaped(seen.person, seen.beta),
                seen.beta,
                rotation_from_degrees(seen.yaw, seen.pitch, 0),
                np.array([0, 0, 7.0]),
                np.full((2, 2), seen.gaze, np.float32),
                seen.cut_off,
            )
        )
        current = e.current
        assert current is not None
        out.append(current)
    return out


@dataclass(frozen=True)
class Seen:
    beta: F32 = field(default_factory=REST.copy)
    yaw: float = 0.0
    pitch: float = 0.0
    gaze: float = -0.19
    cut_off: bool = False
    person: F64 = field(default_factory=PERSON.copy)


def talking(k: int) -> Seen:
    """Five syllables a second; the lips never rest."""
    return Seen(
        scores(browDownLeft=0.1, jawOpen=0.3 + 0.25 * float(np.sin(2 * np.pi * 5 * k / FPS)), mouthFunnel=0.1)
    )


LIVELY: list[tuple[str, Seen | Callable[[int], Seen]]] = [
    ("talking", talking),
    ("mouth_open", Seen(scores(jawOpen=0.5))),
    ("smiling", Seen(scores(mouthSmileLeft=0.9, mouthSmileRight=0.9))),
    ("eyes_shut", Seen(scores(eyeBlinkLeft=0.95, eyeBlinkRight=0.95))),
    ("brows_up", Seen(scores(browInnerUp=0.9))),
    ("brows_up", Seen(scores(eyeWideLeft=0.6, eyeWideRight=0.6))),
    ("turned", Seen(yaw=-32)),
    ("turned", Seen(pitch=-24)),
    ("turned", Seen(gaze=-0.5)),
    ("looking_down", Seen(pitch=24)),
    ("looking_down", Seen(gaze=0.2)),
    ("moving", lambda k: Seen(yaw=14 * float(np.sin(2 * np.pi * k / FPS)))),
    ("cut_off", Seen(cut_off=True)),
]


@pytest.mark.parametrize(("why", "lively"), LIVELY)
def test_what_is_not_calm_is_waited_out_and_said(
    estimator: NeutralEstimator, why: str, lively: Seen | Callable[[int], Seen]
) -> None:
    see = lively if callable(lively) else lambda _: lively
    frames(estimator, 0, 1.6, see)
    assert estimator.report.state == "waiting"
    assert why in estimator.report.why
    assert estimator.report.revision == 0
    frames(estimator, 1.6, 1.6, lambda _: Seen())
    assert estimator.report == NeutralReport("taken", (), 1)
    last = frames(estimator, 3.2, 0.6, lambda _: Seen())[-1]
    assert_person(last, PERSON, REST)
    assert np.abs(yaw_pitch_roll_deg(last.motion.rotation_rad)).max() < 1


@pytest.mark.parametrize(("why", "lively"), LIVELY)
def test_nobody_is_waited_for_for_ever(
    estimator: NeutralEstimator, why: str, lively: Seen | Callable[[int], Seen]
) -> None:
    frames(estimator, 0, PATIENCE_S + 0.5, lively if callable(lively) else lambda _: lively)
    assert estimator.report == NeutralReport("taken", (), 1)


def test_nobody_who_is_lost_again_and_again_is_waited_for_for_ever(estimator: NeutralEstimator) -> None:
    for start_s in (0.0, 5.5, 11.0):
        assert estimator.report == NeutralReport("waiting", estimator.report.why, 0)
        frames(estimator, start_s, 4, talking)
    assert estimator.report == NeutralReport("taken", (), 1)


def test_an_open_mouth_is_shown_from_the_first_frame_and_no_rest(estimator: NeutralEstimator) -> None:
    """Whatever of it the model takes for expression, the avatar opens its mouth: nothing is stretched meanwhile."""
    fit = ExpressionFit(MODEL)
    served = frames(estimator, 0, PATIENCE_S + 4, talking)
    for neutral in served:
        shut = fit.solve(PERSON, neutral.mesh_hu, scores())
        assert (neutral.motion.expression - shut)[JAW] < 0.2
        open_ = fit.solve(shaped(PERSON, TALK), neutral.mesh_hu, TALK)
        assert (open_ - neutral.motion.expression)[JAW] > 0.3


def test_a_natural_smile_or_parted_lips_are_a_rest_after_a_few_seconds(estimator: NeutralEstimator) -> None:
    own = scores(mouthSmileLeft=0.5, mouthSmileRight=0.5, jawOpen=0.05)
    frames(estimator, 0, LENIENT_S + 0.5, lambda _: Seen(own))
    assert estimator.report == NeutralReport("taken", (), 1)
    last = frames(estimator, LENIENT_S + 0.5, 15, lambda _: Seen(own))[-1]
    assert_person(last, PERSON, own)
    assert estimator.report.revision == 1, "the same face, again and again, is no evidence"


# --- later evidence -------------------------------------------------------------------------------


def test_who_talked_all_the_time_gets_the_neutral_of_the_first_calm_second_after(
    estimator: NeutralEstimator,
) -> None:
    frames(estimator, 0, 12, talking)
    assert estimator.report.revision == 1
    served = frames(estimator, 12, 3, lambda _: Seen())
    assert estimator.report == NeutralReport("taken", (), 2)
    assert_person(served[-1], PERSON, REST)
    jumps = [float(np.abs(b.mesh_hu - a.mesh_hu).max()) for a, b in pairwise(served)]
    assert max(jumps) <= 1.2 / (EASE_S * FPS) * np.abs(served[-1].mesh_hu - served[0].mesh_hu).max() + 1e-6
    frames(estimator, 15, 15, lambda k: talking(k) if k % 100 < 50 else Seen())
    assert estimator.report.revision == 2


def test_a_smile_held_for_the_camera_is_revised_once_it_is_gone(estimator: NeutralEstimator) -> None:
    smile = scores(mouthSmileLeft=0.6, mouthSmileRight=0.6)
    frames(estimator, 0, 5, lambda _: Seen(smile))
    assert estimator.report.state == "taken"
    last = frames(estimator, 5, 4, lambda _: Seen())[-1]
    assert estimator.report.revision == 2
    assert last.motion.expression[SMILE] < 0.1


def test_a_livelier_face_never_revises(estimator: NeutralEstimator) -> None:
    frames(estimator, 0, 2, lambda _: Seen())
    rest = estimator.current
    for n, (_, lively) in enumerate(LIVELY):
        frames(estimator, 2 + 4 * n, 4, lively if callable(lively) else lambda _, s=lively: s)
    assert estimator.report.revision == 1
    assert estimator.current is rest


def test_revisions_are_far_apart(estimator: NeutralEstimator) -> None:
    """Whoever's calm goes on getting calmer is followed, but not at each step."""
    for step in range(8):
        smile, brow = 0.34 - 0.04 * step, 0.6 - 0.08 * step
        less = scores(mouthSmileLeft=smile, mouthSmileRight=smile, browInnerUp=brow)
        frames(estimator, 3 * step, 3, lambda _, s=less: Seen(s))
    assert estimator.report.revision <= 1 + 24 // APART_S


def test_who_looked_down_at_first_is_turned_to_where_they_mostly_look(estimator: NeutralEstimator) -> None:
    """A head bent within what a camera's place may do is a rest; where the person looks from then on counts more."""
    frames(estimator, 0, 3, lambda _: Seen(pitch=14))
    assert estimator.report == NeutralReport("taken", (), 1)
    last = frames(estimator, 3, 12, lambda _: Seen(pitch=1))[-1]
    assert estimator.report.revision == 2
    assert yaw_pitch_roll_deg(last.motion.rotation_rad)[1] == pytest.approx(1, abs=0.5)
    assert_person(last, PERSON, REST)
    frames(estimator, 15, 10, lambda _: Seen(pitch=14))
    assert estimator.report.revision == 2, "never away from the camera again"


def test_another_person_after_an_absence_gets_a_neutral_too(estimator: NeutralEstimator) -> None:
    other = with_shut_lips(PERSON * np.array([0.9, 1.12, 1.05]))
    frames(estimator, 0, 4, lambda _: Seen())
    frames(estimator, 20, 4, lambda _: Seen())
    assert estimator.report.revision == 1, "the same person back"
    first = frames(estimator, 40, 1.2, lambda _: Seen(TALK, person=other))
    assert first[0].mesh_hu is not None
    assert estimator.report.state == "waiting"
    assert "new_person" in estimator.report.why
    last = frames(estimator, 41.2, 3, lambda _: Seen(person=other))[-1]
    assert estimator.report == NeutralReport("taken", (), 3)
    assert np.linalg.norm(last.mesh_hu - other, axis=1).mean() < 0.01


def test_by_hand_it_is_taken_from_the_coming_calm_second_and_bounded(estimator: NeutralEstimator) -> None:
    frames(estimator, 0, 3, lambda _: Seen())
    old = estimator.current
    estimator.restart()
    assert estimator.report == NeutralReport("waiting", (), 1)
    during = frames(estimator, 3, 4, talking)
    assert all(n is old for n in during), "the old one serves"
    assert "talking" in estimator.report.why
    frames(estimator, 7, PATIENCE_S, talking)
    assert estimator.report.state == "taken"


def test_a_given_neutral_is_kept_and_watched(estimator: NeutralEstimator) -> None:
    given = DriverNeutral(PERSON, Motion(expression=REST))
    estimator.adopt(given)
    frames(estimator, 0, 20, talking)
    assert estimator.report == NeutralReport("taken", (), 1)
    assert estimator.current is given


def test_a_given_neutral_ends_the_wait_for_another_person(estimator: NeutralEstimator) -> None:
    other = with_shut_lips(PERSON * np.array([0.9, 1.12, 1.05]))
    frames(estimator, 0, 4, lambda _: Seen())
    frames(estimator, 40, 1.2, lambda _: Seen(TALK, person=other))
    assert "new_person" in estimator.report.why
    estimator.adopt(DriverNeutral(PERSON, Motion(expression=REST)))
    estimator.restart()
    frames(estimator, 41.2, 2, talking)
    assert "talking" in estimator.report.why
    assert "new_person" not in estimator.report.why


def test_a_neutral_for_good_is_revised_by_nothing_but_a_wish(estimator: NeutralEstimator) -> None:
    """A recorded motion has one."""
    given = DriverNeutral(PERSON, Motion(expression=scores(jawOpen=0.8, mouthSmileLeft=0.9)))
    estimator.adopt(given, for_good=True)
    frames(estimator, 0, 6, lambda _: Seen())
    assert estimator.current is given
    estimator.restart()
    frames(estimator, 6, 1.1, lambda _: Seen())
    assert estimator.report == NeutralReport("taken", (), 2)
