"""Compositing: premultiplied arithmetic, and a background that only gives way where the head may move."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.picture.composite import RIM, composite, make_background
from engines.raster.pose import head_viewport, photo_viewport

U8 = NDArray[np.uint8]


@given(st.integers(0, 2**32 - 1))
def test_over_is_premultiplied_over(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alpha = rng.integers(0, 256, (8, 9, 1))
    colour = rng.integers(0, 256, (8, 9, 3))
    rgba = np.dstack([colour * alpha // 255, alpha]).astype(np.uint8)
    background = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    exact = rgba[..., :3] + background * (1 - alpha / 255)
    got = composite(rgba, background)
    assert got.dtype == np.uint8
    assert np.abs(got - np.minimum(exact, 255)).max() <= 0.51


def test_opaque_and_clear_are_exact() -> None:
    rng = np.random.default_rng(1)
    person, background = (rng.integers(0, 256, (8, 9, 3)).astype(np.uint8) for _ in range(2))
    solid = np.dstack([person, np.full((8, 9), 255, np.uint8)])
    assert (composite(solid, background) == person).all()
    assert (composite(np.zeros_like(solid), background) == background).all()


def test_too_bright_is_cut_off_and_does_not_wrap() -> None:
    glare = np.full((2, 2, 4), 255, np.uint8)
    glare[..., 3] = 0
    assert (composite(glare, np.full((2, 2, 3), 200, np.uint8)) == 255).all()


def test_inputs_stay_as_they_are() -> None:
    rgba, background = np.full((4, 4, 4), 100, np.uint8), np.full((4, 4, 3), 50, np.uint8)
    composite(rgba, background)
    assert (rgba == 100).all()
    assert (background == 50).all()


def test_the_background_has_no_head_in_it(astronaut: Enrollment) -> None:
    """Where her face and hair were there is wall: grey, neither skin nor the brown of hair."""
    background = make_background(astronaut, photo_viewport(astronaut))
    assert background.shape == astronaut.photo.shape
    wall = background[10:40, 110:140].reshape(-1, 3).mean(0)
    for y, x in ((118, 228), (40, 230), (80, 180)):
        assert np.abs(background[y, x] - wall).max() < 40
        assert np.ptp(background[y, x].astype(int)) < 25 < np.ptp(astronaut.photo[y, x].astype(int))


def test_the_background_is_the_photo_wherever_nobody_is(astronaut: Enrollment) -> None:
    background = make_background(astronaut, photo_viewport(astronaut))
    off = np.abs(background.astype(int) - astronaut.photo.astype(int)).max(-1)
    rim = 2 * round(1.2 * RIM * astronaut.crop_px[2]) + 1
    free = cv2.dilate(astronaut.matte, np.ones((rim, rim), np.uint8)) == 0
    assert free.mean() > 0.2
    assert off[free].max() == 0
    assert off[10:40, 10:100].max() == 0  # the flag
    assert off[astronaut.matte == 255].mean() > 30


def test_a_matte_of_nobody_leaves_the_photo(astronaut: Enrollment) -> None:
    alone = replace(astronaut, matte=np.zeros_like(astronaut.matte))
    assert (make_background(alone, photo_viewport(alone)) == alone.photo).all()


@pytest.mark.parametrize("size", [64, 512, 1024])
def test_the_background_fills_any_viewport(astronaut: Enrollment, size: int) -> None:
    assert make_background(astronaut, head_viewport(astronaut, size)).shape == (size, size, 3)
