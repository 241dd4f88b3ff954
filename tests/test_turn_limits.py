"""A head turns as far as its photo bears: less where the far cheek was never seen, and never past a profile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.geometry import F64, rotation_from_degrees, rotation_matrix, rotation_vector, yaw_pitch_roll_deg
from engines.motion import Motion
from engines.retarget import Controls, retarget
from engines.turn_limits import FURTHEST_DEG, KNEE_DEG, LEAST_DEG, LIMIT_DEG, bears_deg, turn_limits_deg

YAWS = st.floats(-44, 44)


def turn(yaw: float, pitch: float = 0.0) -> F64:
    return rotation_from_degrees(yaw, pitch, 0.0)


def shown_yaw(own: float, asked: float, furthest: float = 1.0) -> float:
    """Yaw of a photo turned by `own` that a driver turns by `asked`."""
    photo = replace(Motion(), rotation_rad=turn(own).astype(np.float32))
    driver = replace(Motion(), rotation_rad=turn(asked).astype(np.float32))
    return yaw_pitch_roll_deg(retarget(driver, Motion(), photo, Controls(turn_reach=furthest)).rotation_rad)[
        0
    ]


@pytest.mark.parametrize("way", [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1)])
def test_a_frontal_photo_turns_alike_to_all_sides(way: tuple[int, int]) -> None:
    assert turn_limits_deg(turn(0), turn(10 * way[0], 10 * way[1])) == (KNEE_DEG, LIMIT_DEG)


def test_nothing_that_turns_has_the_widest_limits() -> None:
    assert turn_limits_deg(turn(30), np.zeros(3)) == (KNEE_DEG, LIMIT_DEG)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_turned_photo_turns_back_less_far(side: int) -> None:
    limits = [turn_limits_deg(turn(side * own), turn(-side * 10))[1] for own in (0, 10, 20, 30, 40)]
    assert limits[0] == LIMIT_DEG
    assert limits[0] > limits[1] > limits[2] > limits[3] == limits[4] == LIMIT_DEG / 2


@pytest.mark.parametrize("side", [-1, 1])
def test_a_turned_photo_never_turns_past_a_profile(side: int) -> None:
    for own in (0, 13, 20, 30, 35):
        _, limit = turn_limits_deg(turn(side * own), turn(side * 10))
        assert own + limit <= FURTHEST_DEG + 1e-9
    assert turn_limits_deg(turn(side * 44), turn(side * 10))[1] == pytest.approx(LEAST_DEG)


@pytest.mark.parametrize("own", [-30, -12, 12, 30])
def test_nods_are_as_of_a_frontal_photo(own: float) -> None:
    nod = rotation_vector(rotation_matrix(np.array([0.2, 0.0, 0.0])))
    assert turn_limits_deg(turn(own), nod) == pytest.approx((KNEE_DEG, LIMIT_DEG))


@given(YAWS, st.floats(-90, 90), st.floats(-60, 60))
def test_limits_are_never_wider_than_a_frontal_photos(own: float, yaw: float, pitch: float) -> None:
    knee, limit = turn_limits_deg(turn(own), turn(yaw, pitch))
    assert 0 < knee < limit <= LIMIT_DEG
    assert knee / limit == pytest.approx(KNEE_DEG / LIMIT_DEG)


@given(YAWS)
def test_what_a_photo_bears_is_the_same_to_both_sides(own: float) -> None:
    assert bears_deg(own) == pytest.approx(bears_deg(-own))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_user_says_how_far_it_may_turn(share: float) -> None:
    """The furthest turn is that share of it, and a slight one is as it was."""
    asked = [shown_yaw(0.0, yaw, share) for yaw in (5.0, 90.0)]
    assert asked[1] == pytest.approx(share * LIMIT_DEG, abs=0.7)
    assert asked[0] == pytest.approx(5.0 if share else 0.0, abs=0.01)


@pytest.mark.parametrize("own", [-30.0, 0.0, 30.0])
def test_a_driver_who_turns_more_never_turns_the_head_less(own: float) -> None:
    shown = np.array([shown_yaw(own, asked) for asked in np.arange(-60.0, 61.0, 2.0)])
    assert (np.diff(shown) >= -1e-3).all()
    back, further = bears_deg(own)
    reach = (own - back, own + further) if own > 0 else (own - further, own + back)
    assert reach[0] - 0.01 <= shown[0] <= reach[0] + 1
    assert reach[1] - 1 <= shown[-1] <= reach[1] + 0.01


@pytest.mark.parametrize("own", [-30.0, 30.0])
def test_small_turns_are_as_told(own: float) -> None:
    for asked in (-8.0, -3.0, 3.0, 8.0):
        assert shown_yaw(own, asked) == pytest.approx(own + asked, abs=1e-3)
