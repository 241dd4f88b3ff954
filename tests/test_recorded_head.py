"""The pose of one driver with the expression of another: from a recording, eased in, nothing else of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import FakeTracker

from engines.enrollment import Enrollment
from engines.motion import ARKIT_INDEX, Motion, MotionTrack, write_motion
from engines.retarget import Controls, retarget
from streamer.animate import Job, animate
from streamer.avatar import Avatar
from streamer.cli.controls import moved_by
from streamer.drive.driver import Drive, Driver
from streamer.drive.recorded_head import FADE_S, RecordedHead
from streamer.drive.share import Share
from streamer.frame import LatencyTrace, Moment
from streamer.options import AvatarOptions

JAW = ARKIT_INDEX["jawOpen"]
RECORDED = Controls(head_from="recording")


def motion(time_s: float = 0.0, yaw_rad: float = 0.0, jaw: float = 0.0) -> Motion:
    expression = np.zeros(52, np.float32)
    expression[JAW] = jaw
    return Motion(
        time_s=time_s,
        expression=expression,
        rotation_rad=np.array([0, yaw_rad, 0], np.float32),
        translation_hu=np.array([0.1 * yaw_rad, 0, 6], np.float32),
    )


# turns further and further, its mouth open all the while
TRACK = MotionTrack(25.0, [motion(k / 25, 0.004 * k, 0.9) for k in range(100)], motion())
DRIVER = motion(yaw_rad=-0.2, jaw=0.4)


def posed(share: float, controls: Controls = RECORDED, time_s: float = 2.0) -> Motion:
    asked = retarget(DRIVER, motion(), motion(), controls)
    return RecordedHead(TRACK, Share(FADE_S, share)).posed(asked, time_s, motion(), controls)


def test_the_head_is_the_recordings_and_the_face_the_drivers() -> None:
    theirs, own = TRACK.at(2.0), retarget(DRIVER, motion(), motion(), RECORDED)
    found = posed(1.0)
    np.testing.assert_allclose(found.rotation_rad, theirs.rotation_rad, atol=1e-5)
    np.testing.assert_allclose(found.translation_hu, theirs.translation_hu, atol=1e-5)
    assert np.array_equal(found.expression, own.expression)
    assert np.array_equal(found.gaze_rad, own.gaze_rad)
    assert found.time_s == own.time_s


def test_without_a_share_nothing_changes_and_half_is_between() -> None:
    own = retarget(DRIVER, motion(), motion(), RECORDED)
    assert posed(0.0).to_json() == own.to_json()
    half = posed(0.5)
    assert half.rotation_rad[1] == pytest.approx(
        (own.rotation_rad[1] + posed(1.0).rotation_rad[1]) / 2, abs=1e-3
    )
    np.testing.assert_allclose(half.expression, own.expression, atol=1e-6)


def test_strengths_count_and_regions_do_not() -> None:
    whole = posed(1.0).rotation_rad[1]
    assert posed(1.0, Controls(head_from="recording", head=0.5)).rotation_rad[1] == pytest.approx(whole / 2)
    assert posed(1.0, Controls(head_from="recording", region="lip")).rotation_rad[1] == whole


def test_an_emotion_is_shown_once() -> None:
    """What the recording brings has none: it is in what the driver asks for."""
    controls = Controls(head_from="recording", preset="happy")
    own = retarget(DRIVER, motion(), motion(), controls)
    assert np.array_equal(posed(1.0, controls).expression, own.expression)


def test_a_recording_is_repeated() -> None:
    assert posed(1.0, time_s=2.0 + 7 * (TRACK.duration_s - FADE_S)).rotation_rad[1] == pytest.approx(
        posed(1.0).rotation_rad[1], abs=1e-4
    )


def test_a_change_during_a_call_does_not_jump(astronaut: Enrollment, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Motion] = []
    still = Driver(FakeTracker([motion()], neutral=motion()))
    avatar = Avatar(astronaut, still, AvatarOptions(size_px=64, head_motion=TRACK, controls=Controls()))

    def render(wanted: Motion, *_: object) -> object:
        asked.append(wanted)
        return avatar._figure.rest_picture

    monkeypatch.setattr(avatar._figure.renderer, "render", render)

    def yaw(index: int) -> float:
        moment = Moment(index / 25, 0, LatencyTrace({}), index)
        avatar.show_drive(Drive(motion(), motion(), "tracking", face=True), moment)
        return float(asked[-1].rotation_rad[1])

    before = [yaw(k) for k in range(50, 55)]
    avatar.controls = RECORDED
    turning = [yaw(k) for k in range(55, 80)]
    avatar.controls = Controls()
    back = [yaw(k) for k in range(80, 100)]
    assert np.ptp(before) == 0
    assert turning[-1] - before[0] == pytest.approx(0.004 * 79, abs=0.01)
    assert back[-1] == pytest.approx(before[0], abs=1e-6)
    steps = np.abs(np.diff([*before, *turning, *back]))
    assert steps.max() < 1.5 * 0.32 / (FADE_S * 25)
    avatar.close()


def test_a_file_that_moves_the_head_is_meant_to() -> None:
    assert moved_by(None, {"lips": 1}) == {"lips": 1}
    assert moved_by(Path("x.jsonl"), {"lips": 1}) == {"lips": 1, "head_from": "recording"}
    assert moved_by(Path("x.jsonl"), {"head_from": "driver"}) == {"head_from": "driver"}


@pytest.mark.slow
def test_a_film_has_one_motions_face_and_anothers_head(astronaut: Enrollment, tmp_path: Path) -> None:
    face = tmp_path / "face.jsonl"
    write_motion(face, [motion(k / 25, -0.2, 0.4) for k in range(6)], 25.0, motion())
    films: dict[str, bytes] = {}
    for name, head in (("own", None), ("recorded", TRACK)):
        output = tmp_path / f"{name}.mp4"
        controls = Controls.from_dict({"head_from": "driver" if head is None else "recording"})
        job = Job(
            driver=face, output=output, size_px=64, generator="geometric", controls=controls, head_motion=head
        )
        assert animate(astronaut, job).frames == 6
        films[name] = output.read_bytes()
    assert films["own"] != films["recorded"]
