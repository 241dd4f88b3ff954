"""Where one surface passes before another: told though they touch, softened where they move apart, else left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_generator import moved

from engines.enrollment import Enrollment
from engines.generators.geometric.contours import soften_contours, steps_between
from engines.generators.geometric.generator import GeometricGenerator, draw_layers, moved_share
from engines.generators.geometric.limits import CONTOUR_BEHIND
from engines.head.model import load_head_model
from engines.raster.gbuffer import rasterise
from engines.raster.pose import head_viewport, pose_head

F32 = NDArray[np.float32]
GRID_PX = 40
MODEL = load_head_model()
SKIN = np.ones((GRID_PX, GRID_PX), np.uint8)
LOWER = slice(20, None)  # rows of the grid, where the neck is


def touching(behind: float) -> F32:
    """A chin that lies on the neck, which is so far from following the head."""
    depth = np.full((GRID_PX, GRID_PX), 900, np.float32)
    depth[LOWER] += 1 + behind * CONTOUR_BEHIND * GRID_PX
    return depth


def dropping(by_px: float) -> F32:
    flow = np.zeros((GRID_PX, GRID_PX, 2), np.float32)
    flow[: LOWER.start, :, 1] = by_px
    return flow


def test_a_chin_that_touches_the_neck_passes_before_it() -> None:
    assert not steps_between(touching(0), dropping(-30), SKIN).any()
    found = steps_between(touching(0.8), dropping(-30), SKIN)
    assert found[LOWER.start].all()
    assert found.sum() == GRID_PX
    assert not steps_between(touching(0.8), dropping(-1), SKIN).any()  # at rest they are one picture


def test_contours_are_softened_where_both_sides_move_apart() -> None:
    """Two pixels on either side of the contour, which lies between two of the grid, and nothing at rest."""
    image = np.zeros((4 * GRID_PX, 4 * GRID_PX, 4), np.uint8)
    image[4 * LOWER.start :] = 200
    behind = np.zeros((GRID_PX, GRID_PX, 2), np.float32)
    for by_px, changed in ((0, []), (-30, [4 * LOWER.start - 1, 4 * LOWER.start])):
        drawn = image.copy()
        soften_contours(drawn, touching(0.8), SKIN, dropping(by_px), behind, 0)
        inner = np.s_[:, 8:-8]  # the picture's own rim is another matter
        assert np.flatnonzero((drawn[inner] != image[inner]).any((1, 2))).tolist() == changed


def test_what_has_moved_counts_as_turned() -> None:
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = [0, 2, -4, 20]
    assert np.allclose(moved_share(flow, 500, 0), [[0, 0, 0.5, 1]])
    assert np.allclose(moved_share(flow, 500, 0.7), [[0.7, 0.7, 0.7, 1]])


@pytest.mark.slow
def test_a_wide_jaw_has_no_dark_line_below_it(astronaut: Enrollment) -> None:
    """What lies between chin and neck in the photo, the shadow, is not drawn along their contour."""
    viewport = head_viewport(astronaut, 512)
    cache = GeometricGenerator(MODEL).prepare(astronaut, viewport)
    mesh = pose_head(MODEL, astronaut, moved(astronaut.motion, jawOpen=0.9), viewport)
    gbuffer = rasterise(MODEL, mesh, viewport, 160)
    grey = draw_layers(cache, gbuffer).picture[..., :3].mean(-1)
    neck = (gbuffer.part == 1) & (gbuffer.uv[..., 1] > 0.62)
    darker: list[float] = []
    for column in range(150, 360):
        rows = np.flatnonzero(neck[:, column * 160 // 512])
        if len(rows) >= 3:
            first = int(rows[0] * 3.2)
            across = grey[first - 10 : first + 11, column]
            darker.append(min(across[:5].min(), across[-5:].min()) - across[6:-6].min())
    assert len(darker) > 60
    assert np.percentile(darker, 90) < 20  # 27 where chin and neck count as one surface


@pytest.mark.slow
def test_beside_the_head_the_body_is_still_to_the_bit(astronaut: Enrollment) -> None:
    """At the photo's own motion what is not the head is the photo."""
    viewport = head_viewport(astronaut, 512)
    cache = GeometricGenerator(MODEL).prepare(astronaut, viewport)
    gbuffer = rasterise(MODEL, pose_head(MODEL, astronaut, astronaut.motion, viewport), viewport, 160)
    drawn = draw_layers(cache, gbuffer).picture
    head = cv2.dilate(np.asarray(gbuffer.part > 0, np.uint8), np.ones((5, 5), np.uint8))
    beside = cv2.resize(head, (512, 512), interpolation=cv2.INTER_NEAREST) == 0
    place = slice(cache.margin_px, cache.margin_px + 512)
    assert beside.sum() > 100_000
    assert np.array_equal(drawn[beside], cache.canvas[place, place][beside])


@pytest.mark.slow
@pytest.mark.parametrize("yaw", [-18, 18])
def test_nothing_is_left_transparent_beside_the_texture(astronaut: Enrollment, yaw: float) -> None:
    """Where the head turns what the photo hides into view, its old contour is no pale streak."""
    viewport = head_viewport(astronaut, 512)
    cache = GeometricGenerator(MODEL).prepare(astronaut, viewport)
    mesh = pose_head(MODEL, astronaut, moved(astronaut.motion, yaw=yaw), viewport)
    gbuffer = rasterise(MODEL, mesh, viewport, 160)
    layers = draw_layers(cache, gbuffer)
    covered = np.asarray(gbuffer.part > 0, np.uint8)
    hidden = np.asarray((gbuffer.part == 1) & (layers.seen < 0.5), np.uint8)
    beside, inside = (
        cv2.dilate(hidden, np.ones((7, 7), np.uint8)),
        cv2.erode(covered, np.ones((3, 3), np.uint8)),
    )
    near = np.minimum(beside, inside) > 0
    alpha = cv2.resize(layers.picture[..., 3], (160, 160), interpolation=cv2.INTER_AREA)
    assert near.sum() > 500
    assert alpha[near].min() > 150
