"""Smooth fields on a surface: exact at their points, bounded between, nothing far away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import bumpy
from numpy.typing import NDArray

from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_INNER, LIPS_OUTER
from engines.head.model import EYEBALL_RADIUS_HU, Part, load_head_model
from engines.head.surface import SURFACE, Spread, laplacian, spread_delta, spread_of

F64 = NDArray[np.float64]
MODEL = load_head_model()
seeds = st.integers(0, 2**32 - 1)


def smooth_field(seed: int) -> F64:
    """(468, 3): a displacement as one face differs from another: low-order in place, millimetres."""
    rng = np.random.default_rng(seed)
    p = MODEL.landmarks(MODEL.mean_hu)[:SURFACE].astype(np.float64)
    waves = np.sin(p @ rng.normal(size=(3, 4)) * 2 + rng.uniform(0, 6, 4))
    return 0.02 * waves @ rng.normal(size=(4, 3))


def at_landmarks(field: NDArray[np.floating]) -> NDArray[np.floating]:
    return MODEL.landmarks(field)[:SURFACE]


@given(seeds)
@settings(max_examples=10)
def test_exact_at_the_points(seed: int) -> None:
    values = smooth_field(seed)
    assert (
        np.abs(at_landmarks(spread_delta(MODEL, values)) - values).max() < 1e-3 * np.abs(values).max() + 1e-5
    )


@given(seeds)
@settings(max_examples=10)
def test_bounded_between(seed: int) -> None:
    values = smooth_field(seed)
    assert np.abs(spread_delta(MODEL, values)).max() < 1.5 * np.abs(values).max()


def test_even_noise_swings_little_between() -> None:
    """Each landmark on its own: where two nearly touch (the mouth's corners) the field is steep, no wider."""
    values = np.random.default_rng(0).normal(size=(SURFACE, 3)) * 0.01
    size = np.linalg.norm(spread_delta(MODEL, values), axis=1)
    largest = np.linalg.norm(values, axis=1).max()
    assert np.percentile(size, 98) < largest
    assert size.max() < 6 * largest


def test_zero_far_away() -> None:
    field = spread_delta(MODEL, np.full((SURFACE, 3), 0.05))
    marks = MODEL.landmarks(MODEL.mean_hu)[:SURFACE]
    skin = np.unique(MODEL.triangles[MODEL.part == Part.SKIN])
    distance = np.linalg.norm(MODEL.mean_hu[skin, None] - marks[None], axis=-1).min(1)
    size = np.linalg.norm(field[skin], axis=1)
    assert distance.max() > 0.8
    whole = np.linalg.norm([0.05] * 3)
    assert size[distance > 0.8].max() < 0.35 * whole
    assert size[distance > 0.8].mean() < 0.1 * whole
    assert size[distance > 1.2].max() < 0.2 * whole
    # and it fades on the way, no step
    near, middle, far = (
        size[(distance > a) & (distance <= b)].mean() for a, b in ((0, 0.1), (0.3, 0.5), (0.8, 9))
    )
    assert near > middle > far


def test_nothing_in_nothing_out_and_it_is_linear() -> None:
    assert (spread_delta(MODEL, np.zeros((SURFACE, 3))) == 0).all()
    a, b = smooth_field(1), smooth_field(2)
    both = spread_delta(MODEL, 2 * a - b)
    assert np.abs(both - (2 * spread_delta(MODEL, a) - spread_delta(MODEL, b))).max() < 1e-5


def test_seams_share_their_value() -> None:
    field = spread_delta(MODEL, smooth_field(3))
    assert np.abs(field - field[MODEL.weld]).max() < 1e-6


def test_eyeballs_teeth_and_tongue_go_along_unbent() -> None:
    values = smooth_field(4)
    field = spread_delta(MODEL, values)
    for own, contour in ((1, EYE_RIGHT), (2, EYE_LEFT)):
        moved = field[MODEL.eye_side == own]
        assert np.abs(moved - values[list(contour)].mean(0)).max() < 1e-6
        ball = (MODEL.mean_hu + field)[MODEL.eye_side == own] - MODEL.joints_of(MODEL.mean_hu + field).eyes[
            own - 1
        ]
        assert np.allclose(np.linalg.norm(ball, axis=1), EYEBALL_RADIUS_HU, atol=1e-4)
    inside = np.unique(MODEL.triangles[np.isin(MODEL.part, (Part.TEETH, Part.TONGUE))])
    assert np.abs(field[inside] - values[list(LIPS_INNER + LIPS_OUTER)].mean(0)).max() < 1e-6


def test_irises_have_no_say() -> None:
    values = np.zeros((478, 3))
    values[SURFACE:] = 7
    assert (spread_delta(MODEL, values) == 0).all()


def test_a_model_is_factored_once() -> None:
    assert spread_of(MODEL) is spread_of(MODEL)


# --- on a mesh without a model


def test_points_anywhere_in_a_triangle_are_met() -> None:
    head = bumpy(24, 24)
    rng = np.random.default_rng(0)
    weld = np.arange(len(head.vertices))
    corners = head.triangles[rng.choice(len(head.triangles), 20, replace=False)]
    weights = rng.dirichlet(np.ones(3), 20)
    values = rng.normal(size=(20, 2))
    field = Spread(head.vertices.astype(np.float64), head.triangles, weld, corners, weights)(values)
    assert field.shape == (len(head.vertices), 2)
    assert np.abs((field[corners] * weights[..., None]).sum(1) - values).max() < 0.02
    assert np.isfinite(field).all()


@pytest.mark.parametrize("value", [0.0, -3.5])
def test_a_constant_has_no_curvature(value: float) -> None:
    head = bumpy(24, 24)
    smooth = laplacian(head.vertices.astype(np.float64), head.triangles, np.arange(len(head.vertices)))
    assert np.abs(smooth @ np.full(len(head.vertices), value)).max() < 1e-9
    # and a bump has: its top sticks out
    bump = np.zeros(len(head.vertices))
    bump[300] = 1
    assert (smooth @ bump)[300] == pytest.approx(1)
    assert (smooth @ bump).min() < 0
