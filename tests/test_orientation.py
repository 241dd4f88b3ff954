"""Videos and cameras that lie: which way is up, by what is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import DemoClip, pictures_of
from fakes import picture, set_display_matrix, write_video
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import rotation_from_degrees, yaw_pitch_roll_deg
from engines.motion import Motion, read_motion
from streamer.animate import Done, Job, animate
from streamer.drive.posture import Posture
from streamer.sources.open import open_source
from streamer.sources.orientation import Look, Rolls, decided_turn, quarter_turned, rolls_of, upright_turn
from streamer.sources.video import VideoSource, turned_notice

U8 = NDArray[np.uint8]

NOBODY: Rolls = (None, None, None, None)
UPRIGHT: Rolls = (3.0, None, None, None)
LEFT: Rolls = (-87.0, 2.0, None, None)  # lies counter-clockwise
OVER: Rolls = (None, 88.0, -4.0, -91.0)
RIGHT: Rolls = (92.0, None, None, 1.0)


def test_the_turn_in_which_most_faces_stand_is_taken() -> None:
    for turn, rolls in enumerate((UPRIGHT, LEFT, OVER, RIGHT)):
        assert decided_turn([rolls] * 3) is None, "not yet"
        assert decided_turn([rolls] * 4) == turn
        assert decided_turn([NOBODY] * 9 + [rolls] * 4) == turn
        assert decided_turn([rolls] * 2, last=True) == turn, "a short one"
        assert decided_turn([rolls], last=True) == turn, "a single picture"
        assert decided_turn([NOBODY] * 20 + [rolls], last=True) == 0, "one in many is a mistake"
    assert decided_turn([]) is None
    assert decided_turn([], last=True) == 0
    assert decided_turn([NOBODY] * 30, last=True) == 0
    assert decided_turn([UPRIGHT, OVER] * 4) is None
    assert decided_turn([UPRIGHT, OVER] * 4, last=True) == 0, "where both are seen nothing is turned"
    leaning: Rolls = (52.0, None, None, -38.0)
    assert decided_turn([UPRIGHT] * 4 + [leaning] * 2) == 0, "a head may lean for a while"


def test_turns_are_looked_at_only_where_the_face_does_not_stand() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    looked: list[tuple[int, ...]] = []

    def roll_of(seen: U8) -> float | None:
        looked.append(seen.shape)
        return 5.0 if np.array_equal(seen, image) else None

    assert rolls_of(image, roll_of) == (5.0, None, None, None)
    assert len(looked) == 1
    lying = quarter_turned(image, 1)
    assert rolls_of(lying, roll_of) == (None, None, None, 5.0)
    assert np.array_equal(quarter_turned(lying, 3), image)
    assert quarter_turned(image, 0) is image


def test_a_video_is_read_until_it_is_clear_which_way_is_up(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [picture(k % 3) for k in range(90)])
    found: list[bool] = []
    judged: list[bool] = []

    def nobody(_: U8) -> None:
        found.append(False)

    def late(_: U8) -> float | None:
        judged.append(len(judged) >= 4 * 7)  # somebody comes after the seventh look
        return 2.0 if judged[-1] else None

    assert upright_turn(path, Look(nobody, late)) == 0
    assert len(found) == 5
    assert len(judged) == 4 * 7 + 4
    assert upright_turn(path, Look(nobody, nobody)) == 0
    both = Look(nobody, lambda image: 0.0 if image.shape[0] > image.shape[1] else 90.0)
    assert upright_turn(path, both) == 0, "where two turns are as good nothing is turned"


def test_a_face_that_stands_plainly_needs_no_judge(tmp_path: Path) -> None:
    pictures = [np.tile(np.linspace(20, 230, 48, dtype=np.uint8)[:, None, None], (1, 64, 3))] * 60
    path = write_video(tmp_path / "a.mp4", pictures)  # dark above, light below
    looks = 0

    def never(_: U8) -> float | None:
        raise AssertionError("the judge was asked")

    def finder(roll_deg: float, misfit_over: float | None) -> Look:
        def find(image: U8) -> tuple[float, float] | None:
            nonlocal looks
            looks += 1
            if image[0].mean() < image[-1].mean():
                return roll_deg, 0.05
            return None if misfit_over is None else (roll_deg, misfit_over)

        return Look(find, never)

    for plain in (finder(4.0, None), finder(-4.0, 0.08)):
        looks = 0
        assert upright_turn(path, plain) == 0
        assert looks == 3 * 2
    for doubtful in (finder(4.0, 0.04), finder(4.0, 0.052), finder(25.0, None)):
        with pytest.raises(AssertionError, match="the judge was asked"):
            upright_turn(path, doubtful)


def test_a_turned_video_is_turned_on_top_of_its_tag(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [picture(k) for k in range(3)])
    with VideoSource(path) as source:
        plain = source.read()
    set_display_matrix(path, 0, 1, -1, 0)  # clockwise
    with VideoSource(path, quarter_turns=3) as source:
        assert source.info.size_px == (64, 48)
        back = source.read()
        assert source.notices == (turned_notice("a.mp4", 3),)
    assert plain is not None
    assert back is not None
    assert np.array_equal(plain.image, back.image)
    assert turned_notice("a.mp4", 0) is None
    assert turned_notice("a.mp4", 2) == "the face in a.mp4 is upside down; the video was turned by 180°"


def turned(clip: Path, folder: Path, turns: int) -> Path:
    return write_video(
        folder / f"turned{turns}.mp4", [quarter_turned(i, turns) for i in pictures_of(clip)], fps=25
    )


@pytest.mark.slow
def test_faces_that_lie_are_found_in_every_turn(demo_clip: DemoClip, tmp_path: Path) -> None:
    clip = demo_clip(seconds=1.2, size=256)
    for turns in range(4):
        assert upright_turn(turned(clip, tmp_path, turns)) == (-turns) % 4
    with open_source(str(turned(clip, tmp_path, 1)), loop=True) as source:
        assert source.notices == (turned_notice("turned1.mp4", 3),)


@pytest.mark.slow
def test_a_nod_stays_a_nod_when_the_video_lies(
    demo_clip: DemoClip, tmp_path: Path, astronaut: Enrollment
) -> None:
    clip = demo_clip(seconds=1.2, size=256)

    def driven(path: Path) -> tuple[NDArray[np.float64], Done]:
        motion = tmp_path / f"{path.stem}.jsonl"
        job = Job(path, tmp_path / "out.mp4", motion_output=motion, generator="geometric", size_px=64)
        done = animate(astronaut, job)
        return np.array([yaw_pitch_roll_deg(m.rotation_rad) for m in read_motion(motion).motions]), done

    plain, done = driven(clip)
    assert done.notices == ()
    for turns in (1, 2):
        angles, done = driven(turned(clip, tmp_path, turns))
        assert done.frames == len(plain)
        assert len(done.notices) == 1
        assert "the video was turned by" in done.notices[0]
        assert np.abs(angles - plain).mean() < 1.0


def lying(roll_deg: float) -> Motion:
    return replace(Motion(), rotation_rad=rotation_from_degrees(0, 0, roll_deg).astype(np.float32))


def after(*motions: Motion | None, step_s: float = 1 / 30) -> Posture:
    posture = Posture()
    for k, motion in enumerate(motions):
        posture = posture.after(motion, k * step_s)
    return posture


def test_a_camera_that_lies_is_told_by_its_first_faces_and_never_taken_back() -> None:
    assert after(*[lying(88)] * 44).notice is None
    said = after(*[lying(88)] * 45).notice
    assert said is not None
    assert "lies on its side" in said
    assert after(*[None] * 100, *[lying(-91)] * 45).notice == said
    assert after(*[lying(88)] * 45, *[lying(0)] * 200).notice == said, "it does not flip"
    assert after(*[lying(0)] * 45, *[lying(88)] * 200).notice is None, "who lies down later has a reason"
    assert after(*[lying(0), lying(88)] * 40).notice is None
    assert after(*[lying(40)] * 100).notice is None, "a head that leans"


def test_a_camera_that_shows_nobody_is_told_once_it_is_clear() -> None:
    assert after(*[None] * 290).notice is None
    assert "shows no face" in (after(*[None] * 310).notice or "")
    assert after(lying(0), *[None] * 900).notice is None, "who was there and left"
