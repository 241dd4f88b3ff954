"""`find_face`: however the photo lies, however small the face is, whichever of several; and why there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fakes import encoded
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from calibration.enroll import enroll, face_of
from calibration.face import FoundFace, find_face
from calibration.photo import open_photo
from calibration.usable import check_tilt, poor_light_or_focus, require_whole_face, sharpness, upright_face
from engines.errors import PhotoError

U8 = NDArray[np.uint8]
PERSON: U8 = data.astronaut()
HEAD: U8 = np.ascontiguousarray(PERSON[0:232, 110:342])
SCENE: U8 = data.coffee()


def turned(image: U8, quarter_turns: int) -> U8:
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def nose(found: FoundFace) -> NDArray[np.float32]:
    return found.face.points_px[4, :2]


def scene(width: int, height: int, head: U8, left: int, top: int) -> U8:
    """A photo of something else, with a head in it."""
    wide = cv2.resize(SCENE, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    wide[top : top + head.shape[0], left : left + head.shape[1]] = head
    return wide


def shrunk(image: U8, scale: float) -> U8:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


# how the photo lies


def test_an_upright_photo_is_left_alone() -> None:
    found = find_face(PERSON)
    assert (found.image == PERSON).all()
    assert found.notices == ()
    assert found.others == ()


@pytest.mark.parametrize(
    ("lies", "says"), [(1, "lay on its side"), (2, "stood on its head"), (3, "lay on its side")]
)
def test_a_scan_that_lies_is_turned_upright_and_said(lies: int, says: str) -> None:
    found = find_face(turned(PERSON, lies))
    assert (found.image == PERSON).all()
    assert found.notices == (f"the photo {says}: turned upright",)
    assert np.linalg.norm(nose(found) - nose(find_face(PERSON))) < 3


@pytest.mark.parametrize("roll_deg", [-75, -30, 30, 60, 150])
def test_whatever_the_tilt_what_is_left_is_less_than_half_a_right_angle(roll_deg: float) -> None:
    to_centre = cv2.getRotationMatrix2D((228, 118), -roll_deg, 1.0)
    to_centre[:, 2] += np.array([256 - 228, 256 - 118])
    tilted = cv2.warpAffine(PERSON, to_centre, (512, 512), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
    found = find_face(tilted)
    down = found.face.points_px[152] - found.face.points_px[10]
    left_deg = float(np.degrees(np.arctan2(-down[0], down[1])))
    assert abs(left_deg) < 50
    assert abs((roll_deg + 3 - 90 * found.quarter_turns - left_deg + 180) % 360 - 180) < 10


@pytest.mark.slow
def test_what_is_kept_of_a_scan_on_its_head_is_upright() -> None:
    e = enroll(encoded(turned(PERSON, 2)))
    assert e.notices == ("the photo stood on its head: turned upright",)
    assert (e.photo == PERSON).all()
    assert e.landmarks_px[10, 1] < e.landmarks_px[152, 1]
    assert e.matte[40, 230] > 250, "the hair is above the face"


def test_a_tilt_that_looks_like_a_mistake_is_said() -> None:
    assert check_tilt(-31) is None
    assert check_tilt(40.4) == "the head is tilted by 40°: a photo with the head upright animates better"


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [3, 6, 8])
def test_a_wrong_tag_is_undone(wrong: int) -> None:
    """The pixels are upright and the tag turns them."""
    exif = Image.Exif()
    exif[0x0112] = wrong
    e = enroll(encoded(PERSON, exif=exif.tobytes()))
    assert (e.photo == PERSON).all()
    assert len(e.notices) == 1
    assert e.notices[0].endswith("turned upright")


# how small it is, and whose it is


@pytest.mark.parametrize(("left", "top"), [(1300, 700), (60, 1200)])
def test_a_face_of_90_px_in_a_large_photo_is_found(left: int, top: int) -> None:
    found = find_face(scene(2048, 1536, shrunk(HEAD, 0.88), left, top))
    assert np.ptp(found.face.points_px[:, 1]) == pytest.approx(92, abs=6)
    assert nose(found) == pytest.approx([left + 104, top + 104], abs=8)
    assert found.notices == ()


def test_a_face_that_scaling_makes_too_small_says_crop() -> None:
    photo = open_photo(encoded(scene(4000, 3000, shrunk(HEAD, 0.88), 2600, 1400), "JPEG", quality=92))
    found = face_of(photo)
    height, width = found.image.shape[:2]
    with pytest.raises(
        PhotoError, match=r"the face is only (8|9)\d px high .* \(to 4\d px, 60 needed\); crop"
    ):
        require_whole_face(found.face.points_px, width, height, 4000 / 2048)


def beside(*heads: U8) -> U8:
    tall = max(head.shape[0] for head in heads)
    return np.hstack([np.pad(h, ((tall - h.shape[0], 0), (0, 0), (0, 0)), mode="edge") for h in heads])


def test_of_two_alike_it_is_said_which_was_taken() -> None:
    both = beside(shrunk(HEAD, 0.97), HEAD)
    found = find_face(both)
    said = "2 faces found, 2 of about one size: took the {} one; crop the photo to take another"
    assert found.notices == (said.format("right"),)
    assert nose(found)[0] > 225
    assert find_face(turned(turned(both, 1), 3)).notices == (said.format("right"),)
    assert find_face(beside(HEAD, shrunk(HEAD, 0.97))).notices == (said.format("left"),)
    above = np.vstack([HEAD, cv2.resize(shrunk(HEAD, 0.97), (232, 225))]).astype(np.uint8)
    assert find_face(above).notices == (said.format("upper"),)


def test_of_three_the_one_in_the_middle() -> None:
    found = find_face(beside(shrunk(HEAD, 0.95), HEAD, shrunk(HEAD, 0.6), shrunk(HEAD, 0.95)))
    assert found.notices == (
        "4 faces found, 3 of about one size: took the middle one; crop the photo to take another",
    )


def test_two_that_are_far_apart_are_both_seen() -> None:
    """One large detection does not hide the other."""
    wide = np.full((512, 1100, 3), 90, np.uint8)
    wide[140:372, 20:252] = HEAD
    wide[140:372, 840:1072] = HEAD[:, ::-1]
    assert len(find_face(wide).others) == 1


# why it is not usable: the truest reason


def light_or_focus(image: U8) -> str | None:
    face = find_face(PERSON).face
    return poor_light_or_focus(*upright_face(image, face.points_px))


def test_blur_is_measured() -> None:
    face = find_face(PERSON).face
    sharp = [
        sharpness(*upright_face(cv2.GaussianBlur(PERSON, (0, 0), s).astype(np.uint8), face.points_px))
        for s in (0.3, 1, 2, 4)
    ]
    assert sharp == sorted(sharp, reverse=True)
    assert sharp[0] > 0.3 > 0.2 > sharp[2]


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("down", [False, True])
def test_a_face_that_moved_is_blurred(down: bool, turns: int) -> None:
    """Along one way: across it all is sharp."""
    size = (1, 41) if down else (41, 1)
    moved = turned(cv2.blur(PERSON, size).astype(np.uint8), turns)
    points = find_face(turned(PERSON, turns)).face.points_px
    assert poor_light_or_focus(*upright_face(turned(PERSON, turns), points)) is None
    assert "blurred" in (poor_light_or_focus(*upright_face(moved, points)) or "")


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (PERSON, None),
        (cv2.GaussianBlur(PERSON, (0, 0), 4).astype(np.uint8), "blurred"),
        ((PERSON * 0.1).astype(np.uint8), "very dark"),
        (np.clip(PERSON * 3.5, 0, 255).astype(np.uint8), "overexposed"),
        ((150 + PERSON * 0.05).astype(np.uint8), "hardly any contrast"),
        (shrunk(shrunk(PERSON, 0.6), 1 / 0.6)[:512, :512], None),
    ],
    ids=["as it is", "blurred", "dark", "bright", "faint", "small"],
)
def test_what_is_wrong_with_light_or_focus(image: U8, says: str | None) -> None:
    told = light_or_focus(image)
    assert told == says or (says is not None and told is not None and says in told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "says"),
    [
        (cv2.GaussianBlur(PERSON, (0, 0), 5).astype(np.uint8), "the photo is blurred"),
        ((PERSON * 0.1).astype(np.uint8), "the photo is very dark"),
        (turned(cv2.GaussianBlur(PERSON, (0, 0), 3).astype(np.uint8), 2), "the photo is blurred"),
    ],
    ids=["blurred", "dark", "blurred and on its head"],
)
def test_nobody_is_said_to_have_their_mouth_covered_who_cannot_be_seen(image: U8, says: str) -> None:
    notices = enroll(encoded(image)).notices
    assert any(notice.startswith(says) for notice in notices)
    assert not any("mouth" in notice or "glasses" in notice for notice in notices)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (
            cv2.GaussianBlur(PERSON, (0, 0), 12).astype(np.uint8),
            "no face found, as the photo is blurred; use",
        ),
        ((PERSON * 0.02).astype(np.uint8), "no face found, as the photo is very dark; use"),
        (np.full((300, 300, 3), 128, np.uint8), "no face found; use"),
        (SCENE, "no face found; use"),
    ],
    ids=["blurred", "dark", "nothing", "coffee"],
)
def test_why_there_is_no_face(image: U8, says: str) -> None:
    with pytest.raises(PhotoError, match=says):
        find_face(image)


# animations


def animation(*pictures: U8, kind: str = "GIF") -> bytes:
    first, *others = (Image.fromarray(picture) for picture in pictures)
    return encoded(first, kind, save_all=True, append_images=others, duration=100)


BLANK = np.full(PERSON.shape, 255, np.uint8)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_animation_that_begins_empty_gives_a_later_picture(kind: str) -> None:
    what = "page 3 taken" if kind == "TIFF" else "animated: picture 3 taken"
    photo = open_photo(animation(BLANK, BLANK // 2, PERSON, PERSON[::-1], kind=kind))
    assert photo.notices == (f"{what}, as nothing is in those before",)
    assert np.abs(photo.image.astype(int) - PERSON).mean() < 12


def test_an_animation_that_begins_transparent_gives_a_later_picture() -> None:
    clear = Image.fromarray(np.dstack([PERSON, np.zeros(PERSON.shape[:2], np.uint8)]))
    shown = Image.fromarray(np.dstack([PERSON, np.full(PERSON.shape[:2], 255, np.uint8)]))
    for kind in ("WEBP", "PNG"):
        photo = open_photo(encoded(clear, kind, save_all=True, append_images=[shown], lossless=True))
        assert photo.notices == ("animated: picture 2 taken, as nothing is in those before",)
        assert (photo.image == PERSON).all()


def test_an_animation_of_nothing_gives_its_first_picture() -> None:
    assert open_photo(animation(BLANK, BLANK // 2)).notices == ("animated: first picture taken",)


def test_an_animation_that_breaks_off_gives_what_came_before() -> None:
    data_ = animation(BLANK, PERSON, PERSON[::-1])
    assert "animated" in open_photo(data_[: len(data_) // 2]).notices[0]


def test_without_a_face_it_is_said_which_picture_was_looked_at() -> None:
    with pytest.raises(PhotoError, match=r"no face found; .*\(animated: first picture taken\)"):
        face_of(open_photo(animation(SCENE, PERSON[:400, :400])))
