"""What a person hides: continued by patches of what is beside them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.fill import fill
from engines.picture.push_pull import push_pull

U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def striped(height: int = 120, width: int = 160) -> U8:
    """Slanting stripes, 12 pixels to a period."""
    y, x = np.mgrid[:height, :width]
    light = ((x + y // 2) % 12 < 6) * 160 + 40
    return np.repeat(light[..., None], 3, 2).astype(np.uint8)


def hole_in(photo: U8) -> Mask:
    """A head's ellipse in the middle."""
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.ellipse(mask, (photo.shape[1] // 2, photo.shape[0] // 2), (22, 28), 0, 0, 360, 1, -1)
    return mask > 0


def test_stripes_go_on() -> None:
    """A smooth fill is grey there: patches come nearer to the stripes, and as dark and as light as these."""
    photo = striped()
    hole = hole_in(photo)
    filled = fill(np.where(hole[..., None], 255, photo).astype(np.uint8), hole)
    smooth = push_pull(photo.astype(np.float32), (~hole).astype(np.float32))

    def off(picture: NDArray[np.floating] | U8) -> float:
        return float(np.abs(picture.astype(float) - photo)[hole].mean())

    assert off(filled) < 0.5 * off(smooth)
    assert filled[hole].std() > 0.8 * photo[hole].std()


def test_what_is_shown_stays() -> None:
    photo = striped()
    hole = hole_in(photo)
    filled = fill(photo, hole)
    assert (filled[~hole] == photo[~hole]).all()
    assert (fill(photo, hole) == filled).all()  # the same always


def test_nothing_is_copied_from_what_is_barred() -> None:
    """A red person beside the hole, who is not to come again in it."""
    photo = striped()
    hole = hole_in(photo)
    beside = np.zeros_like(hole)
    beside[20:100, 5:80] = True
    beside &= ~hole
    photo[beside] = (255, 0, 0)
    free = fill(photo, hole)[hole]
    told = fill(photo, hole, beside)[hole]

    def red(pixels: U8) -> int:
        return int((pixels[:, 0].astype(int) - pixels[:, 1] > 60).sum())

    assert red(told) < 0.02 * len(told)
    assert red(free) > red(told)


@pytest.mark.parametrize("shown", [0, 3])
def test_too_little_to_copy_from_is_smooth(shown: int) -> None:
    photo = striped(60, 60)
    hole = np.ones(photo.shape[:2], bool)
    hole[:shown] = False
    filled = fill(photo, hole)
    assert filled.shape == photo.shape
    assert (filled[~hole] == photo[~hole]).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (41, 300)])
def test_no_hole_and_small_pictures(size: tuple[int, int]) -> None:
    photo = striped(*size)
    assert (fill(photo, np.zeros(size, bool)) == photo).all()
    hole = np.zeros(size, bool)
    hole[0, 0] = True
    filled = fill(photo, hole)
    assert (filled[~hole] == photo[~hole]).all()
