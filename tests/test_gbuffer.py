"""The G-buffer: what is covered, in which order, and that a lookup brings back what was drawn."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.geometry import Camera, rotation_from_degrees
from engines.head.landmark_names import IRIS_LEFT, IRIS_RIGHT, LOWER_LIP, UPPER_LIP
from engines.head.model import Part, load_head_model
from engines.motion import ARKIT_INDEX
from engines.raster.conditioning import lookup_map
from engines.raster.gbuffer import (
    GBuffer,
    HeadMesh,
    Viewport,
    draw_in_uv,
    draw_triangles,
    extend,
    front_facing,
    grid_size,
    rasterise,
)
from engines.raster.pose import head_viewport, photo_viewport, pose_head
from tests.ears import on_ears

F32 = NDArray[np.float32]
MODEL = load_head_model()


def posed(
    yaw: float = 0, pitch: float = 0, roll: float = 0, *, side: int = 512, z: float = 7.0, jaw: float = 0
) -> HeadMesh:
    """The mean head, whole (the neck turns along), with its jaw open."""
    pose = Camera(side, side).to_similarity(rotation_from_degrees(yaw, pitch, roll), np.array([0, 0.2, z]))
    beta = np.zeros(52, np.float32)
    beta[ARKIT_INDEX["jawOpen"]] = jaw
    vertices = pose.apply(MODEL.decode(MODEL.mean_hu, beta)).astype(np.float32)
    return HeadMesh(vertices, pose, MODEL.landmarks(vertices).astype(np.float32))


def pixel_centres(g: GBuffer) -> F32:
    h, w = g.part.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    step = np.array([g.viewport.width_px / w, g.viewport.height_px / h], np.float32)
    return (np.stack([x, y], -1) + np.float32(0.5)) * step


def quad(low: tuple[float, float], high: tuple[float, float], z: tuple[float, float, float, float]) -> F32:
    """Two triangles; `z` at top-left, top-right, bottom-right, bottom-left."""
    (x0, y0), (x1, y1) = low, high
    a, b, c, d = (x0, y0, z[0]), (x1, y0, z[1]), (x1, y1, z[2]), (x0, y1, z[3])
    return np.array([a, b, c, a, c, d], np.float32)


def flat(colour: float, corners: F32) -> F32:
    return np.full_like(corners, colour)


def test_coverage_is_the_silhouette() -> None:
    mesh = posed()
    g = rasterise(MODEL, mesh, Viewport(0, 0, 1, 512, 512), grid_px=512)
    inside = np.zeros((512, 512), np.uint8)
    for triangle in np.rint((mesh.vertices_px[MODEL.triangles, :2] - 0.5) * 16).astype(np.int32):
        cv2.fillConvexPoly(inside, triangle, 1, cv2.LINE_8, 4)
    covered = g.part > 0
    assert covered.sum() > 30_000
    assert (covered & (cv2.dilate(inside, np.ones((3, 3), np.uint8)) == 0)).sum() == 0
    # no hole in it down to the chin, though only what faces the camera is drawn
    chin = int(mesh.landmarks_px[152, 1])
    assert (~covered & (cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0))[:chin].sum() == 0
    opened = rasterise(MODEL, posed(jaw=1), Viewport(0, 0, 1, 512, 512), grid_px=512)
    assert {Part.NONE, Part.SKIN, Part.EYE, Part.MOUTH, Part.TEETH, Part.TONGUE} <= set(
        np.unique(opened.part)
    )
    assert set(np.unique(opened.part)) <= {*Part} - {Part.BODY}
    assert g.uv.min() >= 0
    assert g.uv.max() <= 1


def test_eyes_and_mouth_are_where_the_landmarks_are() -> None:
    mesh = posed(jaw=0.5)
    g = rasterise(MODEL, mesh, Viewport(0, 0, 1, 512, 512), grid_px=512)
    for part, landmarks in ((Part.EYE, (IRIS_RIGHT, IRIS_LEFT)), (Part.SKIN, (4, 50, 280, 151))):
        for k in landmarks:
            x, y = mesh.landmarks_px[k, :2].astype(int)
            assert part in g.part[y - 2 : y + 3, x - 2 : x + 3]
    x, y = mesh.landmarks_px[[UPPER_LIP, LOWER_LIP], :2].mean(0).astype(int)
    assert g.part[y, x] in (Part.MOUTH, Part.TEETH, Part.TONGUE)


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 10, 5), (-50, -10, 0)])
def test_what_faces_away_is_hidden_anyhow(angles: tuple[float, float, float]) -> None:
    mesh = posed(*angles, jaw=0.6)
    g = rasterise(MODEL, mesh, Viewport(0, 0, 1, 512, 512), grid_px=512)
    facing = front_facing(mesh.vertices_px, MODEL.triangles)
    assert 0.4 < facing.mean() < 0.8
    corners = MODEL.triangles.reshape(-1)
    colours = np.zeros((len(corners), 3), np.float32)
    colours[:, 0] = MODEL.rigidity[corners]
    colours[:, 2] = np.repeat(MODEL.part / np.float32(8), 3)
    image, _ = draw_triangles(mesh.vertices_px[corners], colours, 512, 512)
    # the neck is open below: its inside, which nobody shall see, is left out
    head = image[..., 0] > 0.999
    differ = (np.rint(image[..., 2] * 8) != g.part) & head
    assert head.sum() > 20_000
    assert differ.sum() < 0.001 * head.sum()
    # the winding agrees with the normals
    towards = MODEL.normals(mesh.vertices_px)[MODEL.triangles].mean(1)[:, 2] < 0
    assert (towards == facing).mean() > 0.93


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (-25, 10, 5), (0, -20, 30)])
@pytest.mark.parametrize("grid_px", [256, 512])
def test_the_lookup_of_positions_is_exact_at_visible_points(
    angles: tuple[float, float, float], grid_px: int
) -> None:
    mesh = posed(*angles)
    g = rasterise(MODEL, mesh, Viewport(0, 0, 1, 512, 512), grid_px=grid_px)
    position = draw_in_uv(MODEL, np.ascontiguousarray(mesh.vertices_px[:, :2]), 512)
    error = np.linalg.norm(lookup_map(position, g.uv) - pixel_centres(g), axis=-1)
    # where parts meet a texel straddles two surfaces; the mouth's interior is painted, not looked up
    for part in (Part.SKIN, Part.EYE):
        assert np.percentile(error[g.part == part], 99) < 0.5
        assert np.median(error[g.part == part]) < 0.1


def test_the_nearer_surface_wins_whatever_the_order() -> None:
    near, far = quad((4, 4), (28, 28), (-5, -5, -5, -5)), quad((4, 4), (28, 28), (5, 5, 5, 5))
    for order in (((near, 0.25), (far, 0.75)), ((far, 0.75), (near, 0.25))):
        corners = np.concatenate([c for c, _ in order])
        colours = np.concatenate([flat(v, c) for c, v in order])
        image, depth = draw_triangles(corners, colours, 32, 32)
        assert image[16, 16, 0] == pytest.approx(0.25, abs=1e-5)
        assert depth[16, 16] < depth[0, 0]


def test_crossing_surfaces_are_cut_at_their_crossing() -> None:
    a = quad((0, 0), (64, 64), (-20, 20, 20, -20))  # nearer at the left
    b = quad((0, 0), (64, 64), (0, 0, 0, 0))
    image, _ = draw_triangles(np.concatenate([a, b]), np.concatenate([flat(0.25, a), flat(0.75, b)]), 64, 64)
    assert np.abs(image[:, :30, 0] - 0.25).max() < 1e-4
    assert np.abs(image[:, 34:, 0] - 0.75).max() < 1e-4


def test_both_faces_of_a_triangle_are_drawn() -> None:
    front = np.array([[2, 2, 0], [30, 2, 0], [2, 30, 0]], np.float32)
    for corners in (front, front[::-1].copy()):
        image, _ = draw_triangles(corners, flat(1, corners), 32, 32)
        assert image[8, 8, 0] == 1


fractions = st.floats(0, 0.99).filter(lambda x: abs(x - 0.5) > 0.01)


@given(fractions, fractions, st.tuples(*[st.floats(-60, 60)] * 4))
def test_an_edge_lands_on_its_pixel_at_any_depth(
    fx: float, fy: float, z: tuple[float, float, float, float]
) -> None:
    corners = quad((20 + fx, 30 + fy), (100, 110), z)
    image, _ = draw_triangles(corners, flat(1, corners), 128, 128)
    covered = image[..., 0] > 0.5
    # a pixel is covered when its centre is: edges between centres move the border by whole pixels
    first_x, first_y = int(np.ceil(20 + fx - 0.5)), int(np.ceil(30 + fy - 0.5))
    rows, columns = np.flatnonzero(covered[:, 60]), np.flatnonzero(covered[60])
    assert (columns.min(), rows.min()) == (first_x, first_y)
    assert (columns.max(), rows.max()) == (99, 109)


@given(st.tuples(*[st.floats(-12, 12)] * 3))
def test_colours_run_straight_over_a_slanted_triangle(z: tuple[float, float, float]) -> None:
    """Orthographic: a surface slanted as cheeks are shows each point within a tenth of a pixel."""
    xy = np.array([[10.3, 12.1], [58.7, 20.4], [25.2, 60.9]], np.float32)
    corners = np.column_stack([xy, np.array(z, np.float32)])
    colours = np.column_stack([xy / 128, np.ones(3, np.float32)]).astype(np.float32)
    image, _ = draw_triangles(corners, colours, 128, 128)
    y, x = np.nonzero(image[..., 2] > 0.5)
    assert len(x) > 500
    assert np.abs(image[y, x, 0] * 128 - (x + 0.5)).max() < 0.1
    assert np.abs(image[y, x, 1] * 128 - (y + 0.5)).max() < 0.1


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, 5, 3)])
def test_a_vertex_lands_where_it_should(angles: tuple[float, float, float]) -> None:
    mesh = posed(*angles)
    corners = mesh.vertices_px[MODEL.triangles.reshape(-1)]
    colours = np.ones_like(corners)
    colours[:, :2] = corners[:, :2] / 512
    image, _ = draw_triangles(corners, colours, 512, 512)
    y, x = np.nonzero(image[..., 2] > 0.5)
    error = np.hypot(image[y, x, 0] * 512 - (x + 0.5), image[y, x, 1] * 512 - (y + 0.5))
    assert error.max() < 0.1


def test_a_uv_map_of_uv_is_the_identity() -> None:
    size = 256
    image = draw_in_uv(MODEL, MODEL.uv, size)
    y, x = np.mgrid[0:size, 0:size]
    own = np.stack([(x + 0.5) / size, (y + 0.5) / size], -1)
    corners = MODEL.uv[MODEL.triangles.reshape(-1)] * size
    drawn, _ = draw_triangles(
        np.column_stack([corners, np.zeros(len(corners))]).astype(np.float32),
        np.ones((len(corners), 3), np.float32),
        size,
        size,
    )
    on_atlas = drawn[..., 0] > 0.5
    assert on_atlas.mean() > 0.4
    assert np.abs(image - own)[on_atlas].max() < 0.01 / size


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]))
@settings(max_examples=20)
def test_what_is_drawn_in_uv_is_looked_up_at_the_vertices(seed: int, channels: int) -> None:
    # a smooth function of the surface, of any size and sign
    rng = np.random.default_rng(seed)
    values = (
        MODEL.uv @ rng.normal(size=(2, channels)) * rng.uniform(0.1, 1000) + rng.normal(size=channels)
    ).astype(np.float32)
    image = draw_in_uv(MODEL, values, 256)
    assert image.shape == (256, 256, channels)
    used = np.unique(MODEL.triangles)
    back = lookup_map(image, MODEL.uv[None]).reshape(-1, channels)
    off = np.abs(back - values)[used]
    assert off.max() < 0.02 * np.ptp(values[used])


def test_a_constant_channel_stays_constant() -> None:
    values = np.full((MODEL.vertex_count, 2), 7.0, np.float32)
    assert (draw_in_uv(MODEL, values, 64) == 7).all()


def test_extending_takes_the_nearest_known_pixel() -> None:
    image = np.zeros((20, 20, 3), np.float32)
    known = np.zeros((20, 20), bool)
    image[2, 2], image[17, 17] = (1, 2, 3), (4, 5, 6)
    known[2, 2] = known[17, 17] = True
    out = extend(image, known)
    assert out[0, 0].tolist() == [1, 2, 3]
    assert out[19, 12].tolist() == [4, 5, 6]
    assert (out[known] == image[known]).all()


@pytest.mark.parametrize("known", [True, False])
def test_extending_all_or_nothing_changes_nothing(known: bool) -> None:
    image = np.random.default_rng(0).random((5, 6, 2)).astype(np.float32)
    assert (extend(image, np.full((5, 6), known)) == image).all()


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.1, 8))
def test_viewport_points_and_pictures_agree(left: float, top: float, scale: float) -> None:
    viewport = Viewport(left, top, scale, 64, 64)
    points = np.array([[10.5, 20.5, 3.0], [0.5, 0.5, -1.0]])
    moved = viewport.from_photo(points)
    # the affine maps centres, counted as cv2 does, half a pixel lower
    centres = np.column_stack([points[:, :2] - 0.5, np.ones(2)]) @ viewport.affine_from_photo().T
    assert np.allclose(moved[:, :2] - 0.5, centres)
    assert np.allclose(moved[:, 2], points[:, 2] * scale)


def test_a_wide_viewport_has_a_wide_grid() -> None:
    g = rasterise(MODEL, posed(), Viewport(0, 0, 1, 640, 320), grid_px=256)
    assert g.part.shape == (128, 256)
    small = rasterise(MODEL, posed(), Viewport(0, 0, 1, 100, 50), grid_px=256)
    assert small.part.shape == (50, 100)  # never finer than the picture


def test_a_head_outside_the_picture_covers_nothing() -> None:
    mesh = posed()
    away = replace(mesh, vertices_px=mesh.vertices_px + np.float32(5000))
    assert (rasterise(MODEL, away, Viewport(0, 0, 1, 512, 512)).part == 0).all()


def test_the_photo_is_where_the_mesh_of_its_own_motion_is(astronaut: Enrollment) -> None:
    mesh = pose_head(MODEL, astronaut, astronaut.motion, photo_viewport(astronaut))
    error = np.linalg.norm(mesh.landmarks_px[:468, :2] - astronaut.landmarks_px[:468, :2], axis=1)
    assert np.percentile(error, 95) < 0.1
    assert error.max() < 0.5
    # and the G-buffer shows each of them where the photo has it
    g = rasterise(MODEL, mesh, photo_viewport(astronaut), 512)
    position = draw_in_uv(MODEL, np.ascontiguousarray(mesh.vertices_px[:, :2]), 512)
    y, x = np.nonzero(g.part == Part.SKIN)
    seen = lookup_map(position, g.uv)[y, x]
    off = np.hypot(seen[:, 0] - x - 0.5, seen[:, 1] - y - 0.5)
    ears = on_ears(g.uv)[y, x]
    assert np.percentile(off[~ears], 99) < 0.2
    assert np.percentile(off[ears], 95) < 1


def test_the_grid_keeps_the_viewports_shape(astronaut: Enrollment) -> None:
    assert grid_size(head_viewport(astronaut, 512), 192) == (192, 192)
    assert grid_size(Viewport(0, 0, 1, 300, 600), 200) == (100, 200)
    assert grid_size(Viewport(0, 0, 1, 30, 60), 200) == (30, 60)
