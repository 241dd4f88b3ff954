"""`Driver`: an answer for every frame, whatever the tracker does; and the real tracker on broken landmarks."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeTracker
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral, NeutralReport
from engines.enrollment import Enrollment
from engines.geometry import Camera, rotation_matrix, rotation_vector
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.motion import ARKIT_INDEX, Motion
from streamer.drive.driver import Drive, Driver, Heard
from streamer.drive.trackers.mediapipe import MediaPipeTracker
from streamer.drive.trackers.tracker import NoTracker, Track
from streamer.frame import Frame, Moment

FPS = 25.0
FACE = Motion(expression=np.full(52, 0.5, np.float32), translation_hu=np.array([0, 0, 8], np.float32))
BROKEN = replace(FACE, rotation_rad=np.array([0, np.nan, 0], np.float32))


def frame(k: int, image: NDArray[np.uint8] | None = None) -> Frame:
    return Frame(k / FPS, k, sequence=k, image=np.zeros((8, 8, 3), np.uint8) if image is None else image)


def play(
    tracker: FakeTracker, count: int, faults: list[BaseException] | None = None, *, smooth: bool = False
) -> list[Drive]:
    driver = Driver(tracker, smooth=smooth, on_fault=(faults if faults is not None else []).append)
    return [driver.drive(frame(k)) for k in range(count)]


def states(drives: Sequence[Drive]) -> list[str]:
    return [d.state for d in drives]


def test_what_is_heard_needs_no_tracker_and_no_smoothing() -> None:
    tracker = FakeTracker([None])
    driver = Driver(tracker)
    drives = [driver.drive(Heard(k / FPS, k, sequence=k, motion=FACE)) for k in range(5)]
    assert tracker.calls == 0
    assert states(drives) == ["tracking"] * 5
    jaw = ARKIT_INDEX["jawOpen"]
    assert [d.motion.expression[jaw] for d in drives] == [FACE.expression[jaw]] * 5
    assert [d.motion.time_s for d in drives] == pytest.approx([k / FPS for k in range(5)])


def test_a_moment_that_shows_and_says_nothing_is_no_face() -> None:
    tracker = FakeTracker([FACE])
    drive = Driver(tracker).drive(Moment(1.0, 0))
    assert tracker.calls == 0
    assert not drive.face


def test_a_tracked_face_passes_with_its_neutral() -> None:
    neutral = replace(FACE, time_s=0)
    drives = play(FakeTracker([FACE], neutral=neutral), 5)
    assert states(drives) == ["tracking"] * 5
    assert all(d.face and d.neutral is neutral for d in drives)
    assert np.allclose(drives[4].motion.expression, 0.5)
    assert drives[4].motion.time_s == pytest.approx(0.16)


def test_calibrating_is_told_while_there_is_a_face() -> None:
    tracker = FakeTracker([Track(FACE, calibrating=True), Track(None, calibrating=True)])
    assert states(play(tracker, 2)) == ["calibrating", "holding"]


def test_a_tracker_that_raises_is_reported_and_motion_still_comes() -> None:
    faults: list[BaseException] = []
    error = RuntimeError("the graph has died")
    drives = play(FakeTracker([FACE, error, error, FACE, FACE, FACE, FACE]), 7, faults)
    assert faults == [error, error]
    assert states(drives) == ["tracking", "fault", "fault", "tracking", "tracking", "tracking", "tracking"]
    assert all(d.motion.is_finite() for d in drives)
    assert [d.face for d in drives[:4]] == [True, False, False, True]
    assert np.allclose(drives[2].motion.expression, 0.5)


def test_a_tracker_that_only_raises_gives_idle_life() -> None:
    drives = play(FakeTracker([ValueError("no")]), 200)
    assert set(states(drives)) == {"fault"}
    assert all(d.motion.is_finite() for d in drives)
    assert len({d.motion.to_json() for d in drives}) == 200


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        play(FakeTracker([KeyboardInterrupt()]), 1)


def test_motion_that_is_not_finite_counts_as_no_face() -> None:
    drives = play(FakeTracker([FACE, BROKEN, BROKEN, FACE, FACE, FACE]), 6, smooth=True)
    assert states(drives)[1:3] == ["holding", "holding"]
    assert all(d.motion.is_finite() for d in drives)
    # the filter has not swallowed the NaN: the face is back whole in three frames
    assert np.allclose(drives[5].motion.expression, 0.5, atol=1e-5)


def test_landmarks_that_are_not_finite_reach_no_preview() -> None:
    good, bad = np.ones((478, 3), np.float32), np.full((478, 3), np.nan, np.float32)
    drives = play(FakeTracker([Track(FACE, good), Track(FACE, bad)]), 2)
    assert drives[0].landmarks_px is good
    assert drives[1].landmarks_px is None
    assert drives[1].face


def test_smoothing_steadies_and_can_be_left_out() -> None:
    rng = np.random.default_rng(0)
    script = [
        replace(FACE, expression=(0.5 + rng.normal(size=52) * 0.01).astype(np.float32)) for _ in range(100)
    ]

    def jitter(drives: list[Drive]) -> float:
        return float(np.abs(np.diff([d.motion.expression for d in drives], axis=0)).mean())

    raw, smooth = play(FakeTracker(script), 100), play(FakeTracker(script), 100, smooth=True)
    assert jitter(smooth) < 0.5 * jitter(raw)
    assert np.allclose(raw[7].motion.expression, script[7].expression)


def test_a_face_that_returns_elsewhere_is_not_dragged_by_the_filter() -> None:
    there = replace(FACE, expression=np.zeros(52, np.float32))
    drives = play(FakeTracker([*[FACE] * 10, *[None] * 60, there]), 74, smooth=True)
    assert np.allclose(drives[72].motion.expression, 0, atol=1e-5)


def test_a_vanished_camera_idles_and_recovers() -> None:
    driver = Driver(FakeTracker([FACE], neutral=Motion()), smooth=False)
    shown = [driver.drive(frame(k)) for k in range(5)]
    idle = [driver.idle(k / FPS) for k in range(5, 80)]
    back = [driver.drive(frame(k)) for k in range(80, 85)]
    assert idle[0].state == "holding"
    assert idle[-1].state == "idle"
    assert not idle[-1].face
    assert np.allclose(idle[0].motion.expression, shown[-1].motion.expression)
    assert np.allclose(np.delete(idle[-1].motion.expression, [8, 9]), 0)
    assert states(back) == ["tracking"] * 5
    assert np.allclose(back[2].motion.expression, 0.5)


def test_idling_before_any_face_has_a_neutral_to_stand_on() -> None:
    drive = Driver(FakeTracker([None])).idle(1.0)
    assert drive.motion.is_finite()
    assert drive.neutral.is_finite()


def test_recalibrate_and_close_reach_the_tracker() -> None:
    tracker = FakeTracker()
    driver = Driver(tracker)
    driver.recalibrate()
    assert tracker.retakes == 0, "the thread that tracks does it, with its next frame"
    for k in range(3):
        driver.drive(frame(k))
    assert tracker.retakes == 1
    driver.close()
    assert tracker.closed


def test_the_newest_wish_for_a_neutral_is_done_by_the_thread_that_tracks() -> None:
    """A kept neutral comes with the offer, a recalibration from a button: whichever was asked last."""
    tracker = FakeTracker()
    driver = Driver(tracker)
    kept = DriverNeutral(np.zeros((478, 3)), FACE)
    driver.use_neutral(kept)
    assert tracker.given == []
    driver.drive(frame(0))
    driver.drive(frame(1))
    assert tracker.given == [kept]
    assert driver.driver_neutral is kept
    driver.use_neutral(kept)
    driver.recalibrate()
    driver.drive(frame(2))
    assert (len(tracker.given), tracker.retakes) == (1, 1)
    driver.recalibrate()
    driver.use_neutral(kept)
    driver.drive(frame(3))
    assert (len(tracker.given), tracker.retakes) == (2, 1)


def test_the_tracker_says_how_its_neutral_stands() -> None:
    tracker = FakeTracker()
    driver = Driver(tracker)
    tracker.report = NeutralReport("waiting", ("talking",), 3)
    assert driver.neutral_report == NeutralReport("waiting", ("talking",), 3)
    assert Driver(NoTracker()).neutral_report == NeutralReport("waiting", (), 0)


# --- the real tracker


@pytest.fixture
def tracker() -> Iterator[MediaPipeTracker]:
    with MediaPipeTracker() as tracker:
        yield tracker


def test_a_real_face_is_tracked(tracker: MediaPipeTracker, astronaut: Enrollment) -> None:
    driver = Driver(tracker)
    drives = [driver.drive(frame(k, astronaut.photo)) for k in range(3)]
    assert states(drives) == ["calibrating"] * 3
    assert tracker.neutral is not None
    motion = drives[2].motion
    turn = rotation_vector(
        rotation_matrix(motion.rotation_rad) @ rotation_matrix(astronaut.motion.rotation_rad).T
    )
    assert np.degrees(np.linalg.norm(turn)) < 5
    assert motion.translation_hu[2] == pytest.approx(astronaut.motion.translation_hu[2], rel=0.1)
    landmarks = drives[2].landmarks_px
    assert landmarks is not None
    assert np.linalg.norm(landmarks - astronaut.landmarks_px, axis=1).mean() < 4
    driver.close()
    driver.close()  # twice is harmless


def test_a_detector_that_nobody_closed_is_closed_when_dropped_and_at_exit() -> None:
    """MediaPipe's graph, found open while the interpreter is torn down, makes the process wait for ever."""
    detector = LandmarkDetector(video=False)
    closing = detector._close
    assert closing.alive
    assert closing.atexit
    del detector
    gc.collect()
    assert not closing.alive


def size_of(enrollment: Enrollment) -> tuple[int, int]:
    height, width = enrollment.photo.shape[:2]
    return width, height


def test_an_empty_picture_is_no_face(tracker: MediaPipeTracker) -> None:
    track = tracker.track(frame(0, np.zeros((120, 160, 3), np.uint8)))
    assert track.motion is None
    assert track.landmarks_px is None
    assert tracker.neutral is None


def test_the_gaze_is_held_through_a_blink(tracker: MediaPipeTracker, astronaut: Enrollment) -> None:
    scores = np.zeros(52, np.float32)
    open_eyes = tracker.fit(FaceLandmarks(astronaut.landmarks_px, scores), size_of(astronaut), 0 / FPS).motion
    blinking = scores.copy()
    blinking[[8, 9]] = 0.9
    dragged = astronaut.landmarks_px.copy()
    dragged[468:, 1] += 3
    blink = tracker.fit(FaceLandmarks(dragged, blinking), size_of(astronaut), 1 / FPS).motion
    assert open_eyes is not None
    assert blink is not None
    assert np.allclose(blink.gaze_rad, open_eyes.gaze_rad)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["one", "all"])
def test_broken_landmarks_are_no_face(
    tracker: MediaPipeTracker, astronaut: Enrollment, bad: float, where: str
) -> None:
    points = astronaut.landmarks_px.copy()
    points[slice(None) if where == "all" else slice(7, 8)] = bad
    face = FaceLandmarks(astronaut.landmarks_px, np.zeros(52, np.float32))
    assert tracker.fit(FaceLandmarks(points, face.scores), size_of(astronaut), 0 / FPS).motion is None
    collapsed = FaceLandmarks(np.zeros((478, 3), np.float32), face.scores)
    assert tracker.fit(collapsed, size_of(astronaut), 1 / FPS).motion is None
    # and the neutral has not been spoilt by them
    good = tracker.fit(face, size_of(astronaut), 2 / FPS).motion
    assert good is not None
    assert good.is_finite()
    neutral = tracker.neutral
    assert neutral is not None
    assert neutral.is_finite()


def test_scores_that_are_not_finite_are_no_face_and_spoil_nothing(
    tracker: MediaPipeTracker, astronaut: Enrollment
) -> None:
    good = FaceLandmarks(astronaut.landmarks_px, np.zeros(52, np.float32))
    bad = FaceLandmarks(astronaut.landmarks_px, np.full(52, np.nan, np.float32))
    assert tracker.fit(bad, size_of(astronaut), 0 / FPS).motion is None
    track = tracker.fit(good, size_of(astronaut), 1 / FPS)
    assert track.motion is not None
    assert track.motion.is_finite()


def test_the_fitted_pose_puts_the_model_on_the_face(tracker: MediaPipeTracker, astronaut: Enrollment) -> None:
    track = tracker.track(frame(0, astronaut.photo))
    neutral = tracker.driver_neutral
    assert track.motion is not None
    assert track.landmarks_px is not None
    assert neutral is not None
    height, width = astronaut.photo.shape[:2]
    pose = Camera(width, height).to_similarity(track.motion.rotation_rad, track.motion.translation_hu)
    placed = pose.apply(neutral.mesh_hu)
    assert np.linalg.norm((placed - track.landmarks_px)[:, :2], axis=1).mean() < 4
