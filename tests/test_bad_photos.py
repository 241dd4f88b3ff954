"""Photos that people send although they should not: each works visibly, or is refused with a reason and advice.

All are made from one public-domain portrait: drawn over it, or rendered from its own avatar.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from calibration.enroll import enroll
from calibration.usable import (
    BEHIND_GLASS,
    check_turn,
    glass_brightness,
    head_is_cut,
    mouth_is_covered,
    upright_face,
)
from engines.enrollment import Enrollment
from engines.errors import PhotoError
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from engines.motion import ARKIT_INDEX, Motion
from engines.renderer import Renderer
from engines.retarget import Controls, retarget

pytestmark = pytest.mark.slow  # every one draws or enrolls

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
Colour = tuple[float, float, float]
PERSON: U8 = data.astronaut()

JAW = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454)
UNDER_THE_EYES = (454, 425, 423, 327, 2, 98, 203, 205, 234)
TWO_EYES = (EYE_RIGHT, EYE_LEFT)


def enrolled(image: U8) -> Enrollment:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return enroll(out.getvalue())


def refused(image: U8, says: str) -> None:
    with pytest.raises(PhotoError, match=says) as caught:
        enrolled(image)
    assert "; use a photo" in str(caught.value)  # what is wrong; what would work
    assert "\n" not in str(caught.value)


def noticed(e: Enrollment, says: str) -> bool:
    return any(says in notice for notice in e.notices)


# what is drawn


def whole(point: F64) -> tuple[int, int]:
    x, y = np.rint(point).astype(int)
    return int(x), int(y)


def dot(image: U8, at: F64, axes: tuple[float, float], colour: Colour, thickness: int = -1) -> None:
    cv2.ellipse(
        image, whole(at), (int(axes[0]), int(axes[1])), 0, 0, 360, colour, thickness, cv2.LINE_AA
    )  # fmt: skip


def stroke(image: U8, a: F64, b: F64, colour: Colour, width: float) -> None:
    cv2.line(image, whole(a), whole(b), colour, max(1, round(width)), cv2.LINE_AA)


def area(polygon: F64) -> NDArray[np.float32]:
    mask = np.zeros(PERSON.shape[:2], np.float32)
    cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32)], 1.0)
    return mask


def painted(image: U8, mask: NDArray[np.float32], colour: NDArray[np.integer] | F64) -> U8:
    weight = mask[..., None]
    return np.clip(image * (1 - weight) + colour * weight, 0, 255).astype(np.uint8)


def eye_of(points: F64, contour: Iterable[int]) -> tuple[F64, float]:
    eye = points[list(contour)]
    return eye.mean(0), float(np.linalg.norm(eye[0] - eye[8]))


def skin_rgb(points: F64) -> F64:
    return np.median([PERSON[whole(points[i])[::-1]] for i in (50, 280, 151, 205, 425)], 0)


def glasses(points: F64, lens: Colour, thickness: int = -1, gleam: bool = False) -> U8:
    image = PERSON.copy()
    for contour in TWO_EYES:
        centre, width = eye_of(points, contour)
        centre += np.array([0, 0.15 * width])
        dot(image, centre, (0.95 * width, 0.72 * width), lens, thickness)
        if gleam:
            dot(image, centre - 0.3 * width, (0.3 * width, 0.1 * width), (150, 160, 175))
    stroke(image, points[133], points[362], lens, 2)
    return image


def hand(points: F64) -> U8:
    """Four fingers across the face, one on the lips, rounded by shading, with dark seams between them."""
    image = PERSON.astype(np.float32)
    mouth = points[[61, 291, 13, 14]].mean(0)
    width = float(np.linalg.norm(points[61] - points[291]))
    thick = 0.4 * width
    for k in range(4):
        y = mouth[1] + (k - 1) * 0.95 * thick
        tip = np.array([mouth[0] - (1.1 - 0.12 * abs(k - 1)) * width, y + 0.1 * width])
        knuckle = np.array([mouth[0] + 2.2 * width, y - 0.25 * width])
        for shade, share in ((0.62, 1.0), (0.85, 0.8), (1.0, 0.55)):
            r, g, b = (float(v) for v in skin_rgb(points) * shade)
            cv2.line(image, whole(tip), whole(knuckle), (r, g, b), max(1, int(share * thick)), cv2.LINE_AA)
    image += np.random.default_rng(0).normal(0, 2, image.shape).astype(np.float32)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7), 0, 255).astype(np.uint8)


def mask(points: F64) -> U8:
    return painted(PERSON, area(points[[*JAW, 6]]), np.array([170, 205, 225]))


def beard(points: F64) -> U8:
    mouth = points[[61, 291]].mean(0)
    grows = area(np.concatenate([mouth + 1.05 * (points[list(JAW)] - mouth), points[list(UNDER_THE_EYES)]]))
    grows[area(mouth + 1.05 * (points[list(LIPS_OUTER)] - mouth)) > 0] = 0
    strands = np.random.default_rng(1).normal(0, 1, PERSON.shape[:2])
    strands = cv2.GaussianBlur(strands, (0, 0), 0.8)
    hair = np.array([50, 38, 30]) + 16 * (strands / strands.std())[..., None]
    return painted(PERSON, 0.93 * cv2.GaussianBlur(grows, (0, 0), 2).astype(np.float32), hair)


def hat(points: F64) -> U8:
    image = PERSON.copy()
    height, width = float(np.ptp(points[:, 1])), float(np.linalg.norm(points[127] - points[356]))
    at = np.array([points[[127, 356], 0].mean(), points[[105, 334], 1].mean() - 0.1 * height])
    cv2.ellipse(
        image, whole(at), (int(0.72 * width), int(0.6 * height)), 0, 180, 360, (40, 60, 120), -1, cv2.LINE_AA
    )
    dot(image, at, (1.05 * width, 0.1 * height), (28, 42, 84))
    return image


def lids_drawn(points: F64, eyes: Iterable[tuple[int, ...]]) -> U8:
    """Eyes painted over with lid and closed by a line of lashes."""
    image = PERSON.copy()
    for contour in eyes:
        eye = points[list(contour)]
        centre, width = eye_of(points, contour)
        lid = cv2.GaussianBlur(area(centre + (eye - centre) * (1.15, 1.5)), (0, 0), 0.05 * width)
        image = painted(image, lid.astype(np.float32), 0.88 * skin_rgb(points))
        lashes = np.rint((eye[:9] + np.array([0, 0.06 * width])) * 16).astype(np.int32)
        cv2.polylines(image, [lashes], False, (60, 35, 30), max(1, round(0.08 * width)), cv2.LINE_AA, 4)
    return image


def childs_drawing() -> U8:
    rng = np.random.default_rng(0)
    image = np.full((512, 512, 3), 250, np.uint8)
    ink, centre = (30, 30, 40), np.array([256.0, 260])
    dot(image, centre, (150, 150), (255, 225, 190))
    dot(image, centre, (150, 150), ink, 4)
    for x in (200.0, 312.0):
        eye = np.array([x, 225])
        dot(image, eye, (20, 20), (255, 255, 255))
        dot(image, eye, (20, 20), ink, 3)
        dot(image, eye, (7, 7), ink)
        stroke(image, eye - (25, 35), eye - (-25, 37), ink, 4)
    stroke(image, centre - (0, 15), centre - (11, -25), ink, 4)
    cv2.ellipse(image, (256, 315), (60, 35), 0, 20, 160, (200, 30, 40), 5, cv2.LINE_AA)
    for x in range(130, 396, 19):
        stroke(image, np.array([x, 150.0]), np.array([x + rng.integers(-15, 15), 80.0]), (120, 70, 20), 5)
    return image


# what the avatar does


def with_scores(motion: Motion, **scores: float) -> Motion:
    expression = motion.expression.copy()
    for name, score in scores.items():
        expression[ARKIT_INDEX[name]] = np.clip(expression[ARKIT_INDEX[name]] + score, 0, 1)
    return replace(motion, expression=expression)


def turned(motion: Motion, yaw_deg: float, pitch_deg: float = 0) -> Motion:
    turn = rotation_matrix(rotation_from_degrees(yaw_deg, pitch_deg, 0))
    rotation = rotation_vector(turn @ rotation_matrix(motion.rotation_rad))
    return replace(motion, rotation_rad=rotation.astype(np.float32))


def shut(motion: Motion) -> Motion:
    motion = with_scores(motion, eyeBlinkLeft=1, eyeBlinkRight=1)
    return replace(motion, closure=np.array([0, 1, 1], np.float32))


class Shown:
    """The avatar of one photo and how much its face changes (mean of |difference|, 0 … 255) in a region."""

    def __init__(self, e: Enrollment) -> None:
        self.renderer, self.motion = Renderer(e, generator="geometric", size_px=256), e.motion
        self.rest = self.renderer.render(e.motion).astype(int)
        self.points = self.renderer.viewport.from_photo(e.landmarks_px[:, :2]).astype(np.float64)

    def moved(self, motion: Motion, landmarks: Iterable[int]) -> float:
        picture = self.renderer.render(motion)
        spots = self.points[list(landmarks)]
        low = np.maximum(np.floor(spots.min(0) - 3).astype(int), 0)
        high = np.ceil(spots.max(0) + 4).astype(int)
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        return float(np.abs(picture[box].astype(int) - self.rest[box]).mean())


def assert_comes_alive(e: Enrollment, eyes: bool = True) -> None:
    """Mouth opens, lids close, gaze and head turn, each to be seen, and nothing turns black."""
    shown = Shown(e)
    both = (*EYE_RIGHT, *EYE_LEFT)
    assert shown.moved(with_scores(shown.motion, jawOpen=0.6), LIPS_OUTER) > 12
    if eyes:
        assert shown.moved(shut(shown.motion), both) > 12
        right = replace(shown.motion, gaze_rad=(shown.motion.gaze_rad - (-0.35, 0)).astype(np.float32))
        assert shown.moved(right, both) > 2
    for yaw_deg in (-20, 20):
        assert shown.moved(turned(shown.motion, yaw_deg), (105, 334, *LIPS_OUTER)) > 4
        face = shown.renderer.render(turned(shown.motion, yaw_deg))
        x, y = whole(shown.points[[50, 280, 1]].mean(0))
        assert (
            face[y - 8 : y + 9, x - 8 : x + 9].mean() > 0.7 * shown.rest[y - 8 : y + 9, x - 8 : x + 9].mean()
        )


@pytest.fixture(scope="module")
def points(astronaut: Enrollment) -> F64:
    """The astronaut's landmarks (478, 2) in the photo."""
    return astronaut.landmarks_px[:, :2].astype(np.float64)


@pytest.fixture(scope="module")
def studio(astronaut: Enrollment) -> Renderer:
    """Takes other photos of the astronaut."""
    return Renderer(astronaut, size_px=512)


def test_the_portrait_itself_has_nothing_wrong(astronaut: Enrollment) -> None:
    assert astronaut.notices == ()
    assert astronaut.controls is None
    assert_comes_alive(astronaut)


# sunglasses


@pytest.mark.parametrize("gleam", [False, True])
def test_dark_glasses_stay_still(points: F64, gleam: bool) -> None:
    e = enrolled(glasses(points, (45, 35, 30) if gleam else (12, 12, 14), gleam=gleam))
    assert noticed(e, "dark glasses")
    assert e.controls is not None
    assert e.controls == replace(BEHIND_GLASS, rest=e.controls.rest)
    assert_comes_alive(e, eyes=False)
    # a driver who looks aside and blinks moves nothing behind the glass, where the usual controls would
    neutral, both = Motion(), (*EYE_RIGHT, *EYE_LEFT)
    driver = replace(shut(neutral), gaze_rad=np.full((2, 2), 0.3, np.float32))
    shown = Shown(e)
    assert shown.moved(retarget(driver, neutral, e.motion, BEHIND_GLASS), both) < 0.1
    assert shown.moved(retarget(driver, neutral, e.motion, Controls()), both) > 1
    spoken = retarget(with_scores(neutral, jawOpen=0.6), neutral, e.motion, e.controls)
    assert shown.moved(spoken, LIPS_OUTER) > 12


def test_glasses_that_one_sees_through_are_nothing_special(points: F64) -> None:
    e = enrolled(glasses(points, (20, 20, 22), thickness=2))
    assert e.notices == ()
    assert e.controls is not None
    assert replace(e.controls, rest=1.0) == Controls(), "she smiles"
    assert_comes_alive(e)


def test_dark_glass_is_told_by_how_dark_it_is(astronaut: Enrollment, points: F64) -> None:
    """Tinted glass keeps living eyes, as long as they can be made out."""
    shares = [
        glass_brightness(*upright_face(glasses(points, (v, v, v)), astronaut.landmarks_px))
        for v in (15, 60, 140)
    ]
    assert shares[0] < shares[1] < 0.42 < shares[2]
    # the photo's own exposure has nothing to do with it
    dark = (PERSON * 0.3).astype(np.uint8)
    assert glass_brightness(*upright_face(dark, astronaut.landmarks_px)) > 0.7


# hand, mask, beard, hat


@pytest.mark.parametrize("cover", [hand, mask])
def test_a_covered_mouth_is_said(points: F64, cover: Callable[[F64], U8]) -> None:
    e = enrolled(cover(points))
    assert noticed(e, "the mouth seems covered")
    assert_comes_alive(e)


@pytest.mark.parametrize("brightness", [1.0, 0.4])
def test_lips_are_lips_in_any_light(astronaut: Enrollment, brightness: float) -> None:
    photo = (PERSON * brightness).astype(np.uint8)
    for image in (photo, cv2.GaussianBlur(photo, (0, 0), 1.5).astype(np.uint8)):
        assert not mouth_is_covered(*upright_face(image, astronaut.landmarks_px))
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8)
    assert not mouth_is_covered(*upright_face(grey, astronaut.landmarks_px))


def test_a_beard_is_fine(points: F64) -> None:
    e = enrolled(beard(points))
    assert e.notices == ()
    assert_comes_alive(e)


def test_a_hat_is_fine_and_turns_with_the_head(points: F64) -> None:
    e = enrolled(hat(points))
    assert e.notices == ()
    x, y = whole(points[10] - (0, 20))
    assert e.matte[y, x] > 250
    assert_comes_alive(e)


def test_hair_that_leaves_the_photo_is_said() -> None:
    e = enrolled(np.ascontiguousarray(PERSON[28:]))
    assert noticed(e, "the top of the head is cut off")
    alpha = np.zeros((100, 100), np.uint8)
    face = np.array([[20, 30], [80, 90]], np.float32)
    assert not head_is_cut(alpha, face)
    alpha[:, 40:50] = 255  # a strand
    assert not head_is_cut(alpha, face)
    alpha[:, 25:75] = 255
    assert head_is_cut(alpha, face)


# mouth and eyes


def test_an_open_mouth_works_and_is_said(astronaut: Enrollment, studio: Renderer) -> None:
    e = enrolled(studio.render(with_scores(astronaut.motion, jawOpen=0.8)))
    assert noticed(e, "the mouth is wide open")
    assert e.motion.jaw > 0.3
    shown = Shown(e)
    closed = with_scores(e.motion, jawOpen=-1)
    assert shown.moved(replace(closed, closure=np.array([1, 0, 0], np.float32)), LIPS_OUTER) > 12
    for yaw_deg in (-20, 20):
        assert shown.moved(turned(e.motion, yaw_deg), LIPS_OUTER) > 5


def test_closed_eyes_are_refused(points: F64) -> None:
    refused(lids_drawn(points, TWO_EYES), "the eyes are closed")


def test_the_avatars_own_closed_eyes_are_refused(astronaut: Enrollment, studio: Renderer) -> None:
    refused(studio.render(shut(astronaut.motion)), "the eyes are closed")


@pytest.mark.parametrize("eye", TWO_EYES)
def test_one_closed_eye_is_said(points: F64, eye: tuple[int, ...]) -> None:
    assert noticed(enrolled(lids_drawn(points, [eye])), "one eye is closed")


@pytest.mark.parametrize("how", [0.3, 0.5])
def test_narrow_eyes_are_not_closed(astronaut: Enrollment, studio: Renderer, how: float) -> None:
    e = enrolled(studio.render(with_scores(astronaut.motion, eyeBlinkLeft=how, eyeBlinkRight=how)))
    assert not any("eye" in notice for notice in e.notices)


# turned heads


@pytest.mark.parametrize("yaw_deg", [-65, 65])
def test_a_profile_is_refused(astronaut: Enrollment, studio: Renderer, yaw_deg: float) -> None:
    refused(studio.render(turned(astronaut.motion, yaw_deg)), r"turned too far away \(\d\d°\)|no face found")


@pytest.mark.parametrize("yaw_deg", [-35, 35])
def test_a_turned_head_works_and_is_said(
    astronaut: Enrollment, studio: Renderer, yaw_deg: float
) -> None:  # fmt: skip
    e = enrolled(studio.render(turned(astronaut.motion, yaw_deg)))
    assert noticed(e, "a frontal photo animates better")
    assert_comes_alive(e)


def test_how_far_a_head_may_be_turned() -> None:
    assert check_turn(15, -15) is None
    assert check_turn(0, 30) == "the face is turned 30°: a frontal photo animates better"
    for yaw in (-30, 30):
        assert (
            check_turn(yaw, 0)
            == "the face is turned 30°: a frontal photo animates better, and turns back by 16° at most"
        )
    for yaw, pitch in ((46, 0), (-46, 0), (0, 39), (0, -39)):
        with pytest.raises(PhotoError, match="turned too far"):
            check_turn(yaw, pitch)


# no photo at all


def test_a_childs_drawing_comes_alive() -> None:
    e = enrolled(childs_drawing())
    assert noticed(e, "no person found around the face (a drawing?)")
    assert (e.matte == 255).all()
    assert_comes_alive(e)


def test_a_drawing_without_a_face_is_refused() -> None:
    house = np.full((400, 400, 3), 250, np.uint8)
    cv2.rectangle(house, (100, 180), (300, 350), (180, 60, 40), -1)
    cv2.fillPoly(house, [np.array([[80, 180], [200, 70], [320, 180]])], (120, 40, 30))
    refused(house, "no face found")
