"""Heads that wear something, a face behind hair, somebody beside it, no background, oil: each looks right turned.

All are made from one public-domain portrait, as those of test_bad_photos are.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_bad_photos import (
    PERSON,
    TWO_EYES,
    Shown,
    area,
    assert_comes_alive,
    enrolled,
    eye_of,
    noticed,
    painted,
    shut,
    turned,
    with_scores,
)

from calibration.enroll import enroll
from engines.enrollment import Enrollment
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER, OVAL

pytestmark = pytest.mark.slow  # every one draws or enrolls

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

PURPLE, WHITE = np.array([120, 40, 130]), np.array([225, 225, 232])


@pytest.fixture(scope="module")
def points(astronaut: Enrollment) -> F64:
    """The astronaut's landmarks (478, 2) in the photo."""
    return astronaut.landmarks_px[:, :2].astype(np.float64)


def around(points: F64, grow: float, up: float = 0.0) -> F64:
    """The face's oval, grown about its middle and moved up by a share of its height."""
    oval = points[list(OVAL)]
    return oval.mean(0) + (oval - oval.mean(0)) * grow - [0, up * np.ptp(oval[:, 1])]


def headscarf(points: F64) -> U8:
    """A cloth around the face and over the shoulders."""
    middle, high = points[list(OVAL)].mean(0), float(np.ptp(points[:, 1]))
    x, y = middle
    shoulders = np.array(
        [
            [x - 1.3 * high, 511],
            [x - 0.9 * high, y + 0.4 * high],
            [x + 0.9 * high, y + 0.4 * high],
            [x + 1.3 * high, 511],
        ]
    )
    cloth = np.maximum(area(around(points, 1.75, 0.15)), area(shoulders))
    cloth[area(around(points, 1.0)) > 0] = 0
    return painted(PERSON, cv2.GaussianBlur(cloth, (0, 0), 1.5).astype(np.float32), PURPLE)


def helmet(points: F64) -> U8:
    shell = area(around(points, 1.9, 0.1))
    shell[area(around(points, 1.25)) > 0] = 0
    return painted(PERSON, cv2.GaussianBlur(shell, (0, 0), 1.2).astype(np.float32), WHITE)


def hair_over_an_eye(points: F64) -> U8:
    """Dark strands over the eye at the picture's left."""
    image, rng = PERSON.copy(), np.random.default_rng(3)
    eye, width = eye_of(points, TWO_EYES[0])
    for _ in range(220):
        x = eye[0] + rng.uniform(-0.9, 0.9) * width
        path = np.array(
            [
                [x, eye[1] - rng.uniform(1.6, 2.6) * width],
                [x + 0.1 * width, eye[1]],
                [x - rng.uniform(-0.1, 0.5) * width, eye[1] + rng.uniform(1, 2.4) * width],
            ]
        )
        shade = float(rng.integers(50, 110))
        strand = np.rint(path * 16).astype(np.int32)
        cv2.polylines(image, [strand], False, (shade, 0.8 * shade, 0.5 * shade), 2, cv2.LINE_AA, 4)
    return image


def share_of(picture: U8, colour: NDArray[np.integer]) -> float:
    """How much of a picture (H, W, 3) has nearly that colour."""
    return float((np.abs(picture.astype(int) - colour).max(2) < 30).mean())


@pytest.mark.parametrize("yaw_deg", [-18.0, 18.0])
@pytest.mark.parametrize("what", ["headscarf", "helmet"])
def test_what_a_head_wears_stays_whole(points: F64, what: str, yaw_deg: float) -> None:
    """No less of it shows, and no hair grows through it, when the head turns."""
    worn, colour = (headscarf, PURPLE) if what == "headscarf" else (helmet, WHITE)
    e = enrolled(worn(points))
    shown = Shown(e)
    rest = share_of(shown.rest.astype(np.uint8), colour)
    assert rest > 0.08
    picture = shown.renderer.render(turned(shown.motion, yaw_deg))[..., :3]
    assert share_of(picture, colour) == pytest.approx(rest, rel=0.12)
    assert_comes_alive(e)


def test_an_eye_behind_hair_stays_behind_it(points: F64) -> None:
    """The other one closes; strands are no lids."""
    e = enrolled(hair_over_an_eye(points))
    shown = Shown(e)
    behind, free = (shown.moved(shut(shown.motion), eye) for eye in (EYE_RIGHT, EYE_LEFT))
    assert free > 12
    assert behind < 0.7 * free


@pytest.mark.parametrize("yaw_deg", [-18.0, 18.0])
def test_who_stands_beside_stays_where_they_are(yaw_deg: float) -> None:
    """Somebody who looks over the shoulder is background: they do not turn along."""
    photo = PERSON.copy()
    other = cv2.resize(PERSON[0:230, 110:340], (120, 120), interpolation=cv2.INTER_AREA)[:, ::-1]
    photo[40:160, 270:390] = other
    e = enrolled(photo)
    assert noticed(e, "2 faces found")
    shown = Shown(e)
    theirs = shown.renderer.viewport.from_photo(np.array([[310.0, 80.0], [330.0, 110.0]])).astype(int)
    (x0, y0), (x1, y1) = theirs
    picture = shown.renderer.render(turned(shown.motion, yaw_deg))[..., :3].astype(int)
    assert x1 - x0 > 10
    assert np.abs(picture - shown.rest)[y0:y1, x0:x1].mean() < 3
    assert_comes_alive(e)


def test_a_transparent_picture_stands_on_grey(astronaut: Enrollment) -> None:
    out = io.BytesIO()
    assert astronaut.matte is not None
    Image.fromarray(np.dstack([PERSON, astronaut.matte])).save(out, "PNG")
    e = enroll(out.getvalue())
    assert noticed(e, "transparent parts put on light grey")
    assert_comes_alive(e)
    corner = Shown(e).renderer.render(turned(e.motion, 18))[:8, :8, :3].astype(int)
    assert np.ptp(corner) < 12


def test_no_background_in_sight_is_said(points: F64) -> None:
    """A face that fills the picture: the hair that left it is missed."""
    low, high = points.min(0), points.max(0)
    reach = 0.02 * np.ptp(points[:, 1])
    x0, y0 = (np.maximum(low - reach - [0, 6 * reach], 0)).astype(int)
    x1, y1 = (high + reach).astype(int)
    close = cv2.resize(PERSON[y0:y1, x0:x1], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    e = enrolled(np.asarray(close, np.uint8))
    assert noticed(e, "the top of the head is cut off")
    shown = Shown(e)
    assert shown.moved(with_scores(shown.motion, jawOpen=0.6), LIPS_OUTER) > 12
    assert shown.moved(shut(shown.motion), (*EYE_LEFT, *EYE_RIGHT)) > 12
    for yaw_deg in (-18, 18):
        picture = shown.renderer.render(turned(shown.motion, yaw_deg))[..., :3]
        # nothing black where the photo has nothing
        assert float((picture.max(2) < 12).mean()) < 0.02 + float((shown.rest.max(2) < 12).mean())


def test_a_portrait_in_oil_comes_alive() -> None:
    """Four levels of light and no hair finer than a brush."""
    soft = cv2.edgePreservingFilter(PERSON, flags=1, sigma_s=40, sigma_r=0.45)
    oil = (np.round(soft / 20.0) * 20).clip(0, 255).astype(np.uint8)
    assert_comes_alive(enrolled(oil))
