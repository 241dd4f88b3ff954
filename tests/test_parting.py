"""The photo parted in two: person over what is behind them is the photo again, to the bit."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.picture.composite import RIM, composite, make_background, parted, rejoined, still_person
from engines.picture.parting import Behind, over, part, premultiplied, settle
from engines.raster.resample import resample
from engines.renderer import Renderer

U8 = NDArray[np.uint8]


@given(st.integers(0, 2**32 - 1))
def test_the_two_layers_are_the_photo(seed: int) -> None:
    """Also where matte and guess are plainly wrong."""
    rng = np.random.default_rng(seed)
    photo, guess = (rng.integers(0, 256, (24, 20, 3)).astype(np.uint8) for _ in range(2))
    extremes = rng.random((24, 20, 1)) < 0.3
    photo = np.where(extremes, rng.choice([0, 255], (24, 20, 1)), photo).astype(np.uint8)
    matte = rng.integers(0, 256, (24, 20)).astype(np.uint8)
    matte[:4], matte[-4:] = 0, 255
    layers = part(photo, matte, guess, 0)
    assert (layers.behind[matte == 0] == photo[matte == 0]).all()
    assert (layers.behind[matte == 255] == guess[matte == 255]).all()
    assert (layers.person[matte == 255] == photo[matte == 255]).all()
    assert ((layers.matte == 0) == (matte == 0)).all()
    assert (layers.matte >= matte).all()
    alpha = layers.matte[..., None] / 255
    assert np.abs(layers.person * alpha + layers.behind * (1 - alpha) - photo).max() <= 0.51
    for behind in (layers.behind, guess):
        person = premultiplied(photo, matte, behind)
        assert (person[..., :3] <= person[..., 3:]).all()
        assert (over(person, behind) == composite(person, behind)).all()
        assert (composite(person, settle(photo, person, behind)) == photo).all()


def soft_disc() -> tuple[U8, U8, U8]:
    """A red disc with a soft edge over a blue ground: (photo, matte, ground)."""
    matte = np.zeros((120, 120), np.uint8)
    cv2.circle(matte, (60, 60), 35, 255, -1)
    matte = np.asarray(cv2.GaussianBlur(matte, (0, 0), 4), np.uint8)
    alpha = matte[..., None] / 255
    ground = np.empty((120, 120, 3), np.uint8)
    ground[:] = (20, 40, 220)
    return (np.array([200, 30, 30]) * alpha + ground * (1 - alpha) + 0.5).astype(np.uint8), matte, ground


def test_the_soft_edge_is_parted_into_its_two_colours() -> None:
    photo, matte, ground = soft_disc()
    layers = part(photo, matte, ground, 0)
    soft = (matte > 20) & (matte < 235)
    assert soft.sum() > 300
    assert np.abs(photo[soft].astype(int) - (200, 30, 30)).max() > 100
    assert np.abs(layers.person[soft].astype(int) - (200, 30, 30)).max() <= 12
    assert np.abs(layers.behind.astype(int) - ground).max() <= 12


def test_a_wrong_guess_counts_little_where_the_photo_shows_the_ground() -> None:
    photo, matte, ground = soft_disc()
    wrong = np.full_like(ground, 255)
    layers = part(photo, matte, wrong, 0)
    off = np.abs(layers.behind.astype(int) - ground).max(-1)
    thin = (matte > 0) & (matte < 26)
    assert off[thin].mean() < 0.2 * np.abs(wrong.astype(int) - ground).max()
    assert off[thin].mean() < off[matte > 200].mean()


def test_a_matte_of_nobody_and_one_of_all() -> None:
    photo, matte, ground = soft_disc()
    nobody = part(photo, np.zeros_like(matte), ground, 3)
    assert (nobody.behind == photo).all()
    everything = part(photo, np.full_like(matte, 255), ground, 3)
    assert (everything.person == photo).all()
    assert (everything.behind == ground).all()


def test_at_rest_the_photo_is_the_photo(astronaut: Enrollment) -> None:
    layers = parted(astronaut)
    assert (rejoined(layers) == astronaut.photo).all()
    assert (Renderer(astronaut, generator="geometric", framing="photo").still == astronaut.photo).all()
    nobody = layers.matte == 0
    assert (layers.plate[nobody] == astronaut.photo[nobody]).all()
    rim = (astronaut.matte == 0) & ~nobody
    away = cv2.distanceTransform((astronaut.matte == 0).astype(np.uint8), cv2.DIST_L2, 5)
    assert away[rim].max() <= RIM * astronaut.crop_px[2]


@pytest.mark.parametrize("size", [200, 512, 720])
def test_so_it_is_in_a_call_of_any_size(astronaut: Enrollment, size: int) -> None:
    renderer = Renderer(astronaut, generator="geometric", size_px=size)
    frame = renderer.viewport
    photo = resample(astronaut.photo, frame, 0, (size, size))
    matte = resample(astronaut.matte, frame, 0, (size, size))
    assert (renderer.still == photo).all(), "hair included"
    drawn = renderer.render(astronaut.motion)
    # a pixel beside the matte may still be reached by what is drawn
    rim = 2 * round(1.2 * RIM * astronaut.crop_px[2] * frame.scale) + 5
    outside = cv2.dilate(matte, np.ones((rim, rim), np.uint8)) == 0
    assert outside.mean() > 0.1
    assert (drawn[outside] == photo[outside]).all()


def test_in_motion_the_photo_shows_wherever_it_can(astronaut: Enrollment) -> None:
    """What a turned head leaves is filled; beyond, the wall and the flag are the photo's pixels."""
    renderer = Renderer(astronaut, generator="geometric", framing="photo")
    turned = replace(
        astronaut.motion, rotation_rad=astronaut.motion.rotation_rad + np.array([0, 0.3, 0], np.float32)
    )
    drawn = renderer.render(turned)
    changed = np.abs(drawn.astype(int) - astronaut.photo).max(-1) > 0
    reach = cv2.dilate((astronaut.matte > 0).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=40) > 0
    assert changed.sum() > 5000
    assert not (changed & ~reach).any()


@pytest.mark.parametrize("yaw_deg", [-14.0, 14.0])
def test_a_head_that_moves_bares_no_odd_pixels(astronaut: Enrollment, yaw_deg: float) -> None:
    """What makes up, at rest, for colours that no person can have is not left standing in the background."""
    renderer = Renderer(astronaut, generator="geometric", size_px=384)
    layers, view = parted(astronaut), renderer.viewport
    plain = make_background(layers, view)
    person = still_person(layers, view)
    shown = resample(astronaut.photo, view, 0, (384, 384))
    settled = settle(shown, person, plain).astype(int)
    far = np.abs(settled - plain).max(2) > 60
    assert far.sum() > 3
    turn = rotation_from_degrees(yaw_deg, 0, 0)
    rotation = rotation_vector(rotation_matrix(turn) @ rotation_matrix(astronaut.motion.rotation_rad))
    picture = renderer.render(replace(astronaut.motion, rotation_rad=rotation.astype(np.float32)))
    picture = np.ascontiguousarray(picture[..., :3])
    assert np.abs(picture.astype(int) - cv2.medianBlur(picture, 5)).max(2)[far].max() < 90
    assert np.array_equal(renderer.render(astronaut.motion)[..., :3][far], shown[far])


def test_odd_pixels_count_where_the_person_is_as_at_rest() -> None:
    plain, settled = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    settled[1, 1:3] = 250
    person = np.zeros((4, 4, 4), np.uint8)
    person[..., 3] = 180
    behind = Behind(plain, settled, person[..., 3].copy())
    assert (behind.under(person) == settled).all()
    moved = person.copy()
    moved[1, 1, 3] = 90
    seen = behind.under(moved)
    assert (seen[1, 1] == 100).all()
    assert (seen[1, 2] == 250).all()
    assert (behind.under(person) == settled).all()
    assert (plain == 100).all()


def test_what_makes_up_for_an_impossible_colour_goes_by_degrees() -> None:
    """A level more or less of opacity, as an engine of 8 bits may be off by, is no step that the eye sees."""
    plain, settled = np.full((1, 1, 3), 100, np.uint8), np.full((1, 1, 3), 255, np.uint8)
    behind = Behind(plain, settled, np.full((1, 1), 120, np.uint8))
    seen = [int(behind.under(np.full((1, 1, 4), a, np.uint8))[0, 0, 0]) for a in range(80, 121)]
    assert seen[0] == 100
    assert seen[-1] == 255
    assert 0 <= min(np.diff(seen)) <= max(np.diff(seen)) <= 7
