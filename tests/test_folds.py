"""Folds of a smile: they stay while the face smiles as in the photo, and fade as it lets go; nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.edit import Edit, apply_edit
from engines.enrollment import Enrollment
from engines.generators.geometric.folds import make_folds, paint_folds, unfolded
from engines.generators.geometric.generator import GeometricCache, GeometricGenerator
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_INNER, LIPS_OUTER
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import GBuffer, rasterise
from engines.raster.pose import head_viewport, pose_head

U8 = NDArray[np.uint8]
MODEL = load_head_model()
GENERATOR = GeometricGenerator(MODEL)
SIZE = 256


@pytest.fixture(scope="module")
def cache(astronaut: Enrollment) -> GeometricCache:
    return GENERATOR.prepare(astronaut, head_viewport(astronaut, SIZE))


def gbuffer_of(e: Enrollment, motion: Motion) -> GBuffer:
    viewport = head_viewport(e, SIZE)
    return rasterise(MODEL, pose_head(MODEL, e, motion, viewport), viewport, GENERATOR.config.grid_px)


def smiling(e: Enrollment, share: float) -> Motion:
    """The photo's own smile, `share` of it."""
    expression = e.motion.expression.copy()
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        expression[ARKIT_INDEX[name]] *= share
    return replace(e.motion, expression=expression)


def test_folds_go_as_far_as_the_smile_has_gone(astronaut: Enrollment, cache: GeometricCache) -> None:
    folds = cache.folds
    assert folds.share == 1
    assert unfolded(folds, astronaut.motion) == 0
    assert unfolded(folds, smiling(astronaut, 1.5)) == 0, "a wider smile has them all the more"
    shares = [unfolded(folds, smiling(astronaut, s)) for s in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert shares == pytest.approx([0, 0.25, 0.5, 0.75, 1.0], abs=0.01)
    assert unfolded(folds, smiling(astronaut, -0.3)) == 1


def test_a_face_that_does_not_smile_has_none(cache: GeometricCache, astronaut: Enrollment) -> None:
    points = astronaut.landmarks_px[:, :2]
    folds = make_folds(cache.canvas, points, smiling(astronaut, 0.1), 100.0)
    assert (folds.share, int(folds.smooth.max())) == (0, 0)
    assert unfolded(folds, Motion()) == 0


def test_only_dark_lines_of_cheeks_are_filled(astronaut: Enrollment, cache: GeometricCache) -> None:
    neutral = apply_edit(astronaut.motion, Edit(neutral=True))
    gbuffer = gbuffer_of(astronaut, neutral)
    picture = GENERATOR.draw(cache, gbuffer, neutral).picture
    none = replace(cache, folds=replace(cache.folds, share=0.0))
    with_folds = GENERATOR.draw(none, gbuffer, neutral).picture
    change = picture.astype(int) - with_folds
    assert change.min() >= -1, "nothing gets darker than rounding"
    assert 6 < change[..., :3].max() < 40
    assert (change[..., 3] == 0).all()
    changed = (change > 1).max(-1)
    assert 0.002 < changed.mean() < 0.15
    points = gbuffer.mesh.landmarks_px[:, :2]
    for ring in (LIPS_INNER, LIPS_OUTER, EYE_LEFT, EYE_RIGHT):
        x, y = np.rint(points[list(ring)] - 0.5).astype(int).T
        assert not changed[y, x].any()


def test_at_rest_no_pixel_changes(astronaut: Enrollment, cache: GeometricCache) -> None:
    gbuffer = gbuffer_of(astronaut, astronaut.motion)
    own = GENERATOR.render(cache, gbuffer, MotionWindow.of(astronaut.motion))
    none = replace(cache, folds=replace(cache.folds, share=0.0))
    assert np.array_equal(own, GENERATOR.render(none, gbuffer, MotionWindow.of(astronaut.motion)))


def test_what_the_photo_hides_has_none_of_its_folds(astronaut: Enrollment, cache: GeometricCache) -> None:
    neutral = apply_edit(astronaut.motion, Edit(neutral=True))
    gbuffer = gbuffer_of(astronaut, neutral)
    picture = np.full((SIZE, SIZE, 4), 100, np.uint8)
    flow = np.zeros((*gbuffer.part.shape, 2), np.float32)
    hidden = np.zeros(gbuffer.part.shape, np.float32)
    before = picture.copy()
    paint_folds(picture, cache.folds, flow, hidden, cache.base_grid, gbuffer.mesh, neutral)
    assert np.array_equal(picture, before)
    paint_folds(picture, cache.folds, flow, hidden + 1, cache.base_grid, gbuffer.mesh, neutral)
    assert not np.array_equal(picture, before)
