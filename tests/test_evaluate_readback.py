"""Lips and lids read back from landmarks whose movement is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.head.landmark_names import CORNERS_LEFT, CORNERS_RIGHT
from engines.head.model import load_head_model
from scripts.evaluation.readback import LEAST_SHOTS, follow, read_back, readings

F64 = NDArray[np.float64]
LIP_PAIRS = ((82, 87), (13, 14), (312, 317))
RIGHT_LIDS = ((160, 144), (159, 145), (158, 153))


def rest() -> F64:
    model = load_head_model()
    return np.asarray(model.landmarks(model.mean_hu), np.float64)


def moved(neutral: F64, gap_hu: float = 0.0, right_lids: float = 1.0) -> F64:
    """Lips `gap_hu` apart, the right eye open by a share of its rest."""
    out = neutral.copy()
    for upper, lower in LIP_PAIRS:
        out[lower] = out[upper] + [0, gap_hu, 0]
    for upper, lower in RIGHT_LIDS:
        out[lower] = out[upper] + right_lids * (neutral[lower] - neutral[upper])
    return out


def test_readings_are_on_the_own_scale() -> None:
    neutral = rest()
    eyes = float(np.linalg.norm(neutral[CORNERS_RIGHT[0], :2] - neutral[CORNERS_LEFT[0], :2]))
    assert readings(neutral, neutral)[1:] == pytest.approx([1, 1, 1])
    got = readings(moved(neutral, 0.1, 0.25), neutral)
    assert got == pytest.approx([0.1 / eyes, 1, 0.25, 1])
    # a larger face with the same expression reads the same
    assert readings(3 * moved(neutral, 0.1, 0.25), 3 * neutral) == pytest.approx(got)
    wide = neutral * [1.2, 1, 1]
    assert readings(wide, neutral)[1] == pytest.approx(1.2)


def test_a_line_is_found_whatever_its_offset() -> None:
    driver = np.random.default_rng(0).normal(size=30)
    assert follow(0.8 * driver + 5, driver, 0.1) == pytest.approx((1, 0.8))
    assert follow(-driver, driver, 0.1) == pytest.approx((-1, -1))
    noisy = driver + np.random.default_rng(1).normal(size=30)
    r, slope = follow(noisy, driver, 0.1)
    assert r == pytest.approx(np.corrcoef(noisy, driver)[0, 1])
    assert slope == pytest.approx(np.polyfit(driver, noisy, 1)[0])


def test_what_stands_still_follows_nothing_and_a_still_driver_asks_nothing() -> None:
    driver = np.random.default_rng(0).normal(size=30)
    assert follow(np.full(30, 0.3), driver, 0.1) == (0, 0)
    assert np.isnan(follow(driver, 0.01 * driver, 0.1)).all()
    few = driver[: LEAST_SHOTS - 1]
    assert np.isnan(follow(few, few, 0.1)).all()


def test_a_take_has_blink_of_the_eyes_that_move_and_leaves_lost_faces_out() -> None:
    neutral = rest()
    rng = np.random.default_rng(2)
    gaps, lids = rng.uniform(0, 0.3, 20), rng.uniform(0.2, 1, 20)
    driver: list[F64 | None] = [
        readings(moved(neutral, g, e), neutral) for g, e in zip(gaps, lids, strict=True)
    ]
    drawn: list[F64 | None] = [
        readings(moved(neutral, 0.5 * g, 0.4 + 0.6 * e), neutral) for g, e in zip(gaps, lids, strict=True)
    ]
    found = read_back(drawn, driver)
    assert found["opening_r"] == pytest.approx(1)
    assert found["opening_slope"] == pytest.approx(0.5)
    assert found["blink_slope"] == pytest.approx(0.6)  # of the right eye: the left one stays open
    assert np.isnan([found["width_r"], found["width_slope"]]).all()  # the corners stay where they are
    driver[3], drawn[7] = None, None
    assert read_back(drawn, driver)["opening_slope"] == pytest.approx(0.5)
    lost = read_back([None] * 20, driver)
    assert np.isnan(list(lost.values())).all()
