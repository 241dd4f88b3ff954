"""Head and body as layers: at rest both are the photo; the body follows near the head and stays far from it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.geometric.generator import draw_canvas
from engines.generators.geometric.layers import BODY_GRID_PX, Body, body_flow, head_mask, make_body
from engines.geometry import Similarity, rotation_from_degrees, rotation_matrix
from engines.head.model import load_head_model
from engines.raster.gbuffer import HeadMesh, Viewport, rasterise
from engines.raster.pose import head_viewport, photo_viewport, pose_head

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
MODEL = load_head_model()
MARGIN, GRID = 20, 192


@dataclass(frozen=True)
class Scene:
    """One person's layers in a viewport."""

    view: Viewport
    mesh: HeadMesh
    canvas: U8
    body: Body

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(H, W) where the photo's head is, in viewport pixels."""
        size = max(self.view.width_px, self.view.height_px)
        return rasterise(MODEL, self.mesh, self.view, size).part > 0

    def moved(
        self, *, yaw: float = 0, shift_px: tuple[float, float] = (0, 0), scale: float = 1
    ) -> Similarity:
        """The photo's pose, turned about the head's own middle, moved, or nearer."""
        turn = rotation_matrix(rotation_from_degrees(yaw, 0, 0))
        pose = self.mesh.pose
        return Similarity(pose.scale * scale, turn @ pose.rotation, pose.shift + np.array([*shift_px, 0]))


def scene(e: Enrollment, view: Viewport) -> Scene:
    mesh = pose_head(MODEL, e, e.motion, view)
    canvas = draw_canvas(e, view, MARGIN)
    return Scene(view, mesh, canvas, make_body(MODEL, mesh, view, canvas, MARGIN, GRID))


@pytest.fixture(scope="module")
def head(astronaut: Enrollment) -> Scene:
    return scene(astronaut, head_viewport(astronaut, 256))


@pytest.fixture(scope="module")
def photo(astronaut: Enrollment) -> Scene:
    return scene(astronaut, photo_viewport(astronaut))


def at_grid(body: Body, mask: NDArray[np.bool_]) -> F32:
    """Share of a picture's mask in each cell of the body's grid."""
    rows, columns = body.follow.shape
    return np.asarray(
        cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA), np.float32
    )


def test_the_body_is_the_photo_beside_the_head(head: Scene) -> None:
    inner = head.canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    body = head.body.canvas[MARGIN:-MARGIN, MARGIN:-MARGIN]
    away = cv2.dilate(head.covered.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    assert (body[away] == inner[away]).all()
    assert head.body.canvas.shape == head.canvas.shape
    # the rim of the head is still there, so that at rest no gap shows
    edge = head.covered & (cv2.erode(head.covered.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    assert np.percentile(np.abs(body.astype(int) - inner).max(-1)[edge], 90) <= 2


def test_the_body_has_no_face_in_it(head: Scene) -> None:
    inner = head.canvas[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(float)
    body = head.body.canvas[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(float)
    x, y = head.mesh.landmarks_px[4, :2].astype(int)
    # eyes, nose and mouth are gone: what is left is smooth
    window = np.s_[y - 30 : y + 30, x - 25 : x + 25, :3]
    assert body[window].std((0, 1)).max() < 0.5 * inner[window].std((0, 1)).max()
    assert (body[..., :3].max(-1) <= body[..., 3] + 2).mean() > 0.999  # still premultiplied


def test_at_rest_nothing_flows(head: Scene) -> None:
    flow = body_flow(head.body, head.mesh.pose, head.view)
    assert flow.shape == (BODY_GRID_PX, BODY_GRID_PX, 2)
    assert flow.dtype == np.float32
    assert np.abs(flow).max() < 1e-3


def test_near_the_head_the_body_follows_and_far_away_it_stays(photo: Scene) -> None:
    follow = photo.body.follow
    assert follow.min() >= 0
    assert follow.max() <= 1
    free = ~photo.covered
    distance_px = np.asarray(cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    distance_hu = distance_px / np.float32(photo.mesh.pose.scale)
    rows, columns = follow.shape
    distance = cv2.resize(distance_hu, (columns, rows), interpolation=cv2.INTER_AREA)
    assert (follow[distance > 1.4] < 0.01).all()
    nose = photo.mesh.landmarks_px[4, :2] / (photo.view.width_px / columns)
    assert follow[int(nose[1]), int(nose[0])] > 0.95
    by_distance = [float(follow[(distance >= a) & (distance < a + 0.3)].mean()) for a in (0.0, 0.3, 0.6, 0.9)]
    assert by_distance == sorted(by_distance, reverse=True)


def test_a_shifted_head_shifts_the_body_beneath_it(photo: Scene) -> None:
    flow = body_flow(photo.body, photo.moved(shift_px=(12, -5)), photo.view)
    inside = at_grid(photo.body, photo.covered) > 0.99
    inside &= photo.body.follow > 0.98
    inside = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert inside.sum() > 10
    # where a pixel comes from: against the motion
    assert np.abs(flow[inside] - (-12, 5)).max() < 1.5
    far = photo.body.follow < 1e-4
    assert np.abs(flow[far]).max() < 0.6


@pytest.mark.parametrize("yaw", [-25, 25])
def test_the_flow_turns_the_motion_round(photo: Scene, yaw: float) -> None:
    """`t = s + w(s) · (M s − s)`: following the flow back and the motion forth ends where one began."""
    pose = photo.moved(yaw=yaw, shift_px=(4, 2))
    body, view = photo.body, photo.view
    flow = body_flow(body, pose, view)
    rows, columns = body.follow.shape
    step = np.array([view.width_px / columns, view.height_px / rows])
    y, x = np.mgrid[0:rows, 0:columns]
    target = np.stack([(x + 0.5) * step[0], (y + 0.5) * step[1]], -1)
    source = target + flow
    at = (source / step - 0.5).astype(np.float32)
    weight = cv2.remap(body.follow, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # M: how the head's middle plane, behind the face, moves in the picture
    plane = body.pose
    depth = np.array([0.0, 0.0, 0.3])
    flat = plane.rotation[:2, :2] * plane.scale
    shift = plane.apply(depth[None])[0, :2]
    on_head = (source - shift) @ np.linalg.inv(flat).T
    moved = on_head @ (pose.rotation[:2, :2] * pose.scale).T + pose.apply(depth[None])[0, :2]
    ends = source + weight[..., None] * (moved - source)
    assert np.percentile(np.linalg.norm(ends - target, axis=-1), 99) < 1.0
    assert np.abs(flow).max() > 3


def test_nearer_grows_the_body_with_the_head(photo: Scene) -> None:
    flow = body_flow(photo.body, photo.moved(scale=1.1), photo.view)
    rows, columns = photo.body.follow.shape
    x = (np.arange(columns) + 0.5) * photo.view.width_px / columns
    row = int(photo.mesh.landmarks_px[4, 1] / photo.view.height_px * rows)
    own = photo.body.follow[row] > 0.9
    slope = np.polyfit(x[own], flow[row, own, 0], 1)[0]
    assert slope == pytest.approx(1 / 1.1 - 1, abs=0.03)


def test_the_flow_has_no_folds_within_twenty_degrees(photo: Scene) -> None:
    for yaw in (-20, 20):
        flow = body_flow(photo.body, photo.moved(yaw=yaw), photo.view)
        columns = photo.body.follow.shape[1]
        x = (np.arange(columns) + 0.5) * photo.view.width_px / columns
        assert np.diff(x + flow[..., 0], axis=1).min() > 0


def test_a_head_outside_leaves_the_body_alone(head: Scene) -> None:
    away = HeadMesh(head.mesh.vertices_px + np.float32(5000), head.mesh.pose, head.mesh.landmarks_px)
    body = make_body(MODEL, away, head.view, head.canvas, MARGIN, GRID)
    assert (body.canvas == head.canvas).all()
    assert (body.follow == 0).all()
    assert np.abs(body_flow(body, head.moved(yaw=20), head.view)).max() == 0


@pytest.mark.parametrize("size", [(97, 97), (256, 128), (512, 512)])
def test_the_heads_mask_has_a_clean_contour_at_any_size(size: tuple[int, int]) -> None:
    grid = np.zeros((64, 64), np.uint8)
    cv2.circle(grid, (32, 32), 20, 1, -1)
    mask = head_mask(grid, size)
    assert mask.shape == size[::-1]
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0).mean() == pytest.approx(grid.mean(), rel=0.06)
    # one piece without holes
    assert cv2.connectedComponents(mask)[0] == 2
    assert cv2.connectedComponents(cv2.bitwise_not(mask))[0] == 2


def test_nothing_covered_is_no_mask() -> None:
    assert (head_mask(np.zeros((32, 32), np.uint8), (64, 64)) == 0).all()
    assert (head_mask(np.ones((32, 32), np.uint8), (64, 64)) == 255).all()
