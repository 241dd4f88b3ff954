"""The two layers of a picture: the head, warped by its G-buffer, and the body behind it (shoulders, long hair).

The body is the photo without the head, filled smoothly where the head was, so that a turning head uncovers
neck and hair instead of a second jaw. Near the head it moves along, further out it stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.geometric.limits import (
    FIXED_POINT_ROUNDS,
    HEAD_FROM,
    RIM_MOVES,
    RIM_SIGMA_PX,
    RIM_STILL,
)
from engines.generators.geometric.masks import pixel_grid, planar_map
from engines.geometry import F64, Similarity
from engines.head.model import HeadModel
from engines.picture.push_pull import push_pull
from engines.raster.gbuffer import GBuffer, HeadMesh, Viewport, extend, rasterise

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

BODY_GRID_PX = 48
_BODY_DEPTH_HU = 0.3  # the body's own plane, behind the face: about where the ears are
_FOLLOW_HU = 0.9  # how far from the head the body still moves along


@dataclass(frozen=True, slots=True)
class Body:
    """`canvas` (Hc, Wc, 4) premultiplied RGBA without the head; `follow` (g, g) 0 … 1: how far each place of
    the photo moves with the head; `pose` of the photo in viewport pixels."""

    canvas: U8
    follow: F32
    pose: Similarity
    below_px: int  # where the body's canvas begins when it lies below the photo's
    width_px: int  # of the viewport
    head: F32  # (h, w) 0 … 1 on the G-buffer's grid: where the photo's head is


def make_body(
    model: HeadModel, mesh: HeadMesh, viewport: Viewport, canvas: U8, margin_px: int, grid_px: int
) -> Body:
    """Take the head out of the canvas and fill behind it; see how far each place follows the head."""
    gbuffer = rasterise(model, mesh, viewport, grid_px)
    width, height = viewport.width_px, viewport.height_px
    covered = (gbuffer.part > 0).astype(np.uint8)
    full = cv2.resize(covered * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    inside = np.zeros(canvas.shape[:2], np.uint8)
    inside[margin_px : margin_px + height, margin_px : margin_px + width] = full
    # the rim stays: at the photo's own pose both layers must agree along it
    rim = max(1, round(max(width, height) / 256))
    hole = cv2.erode((inside > 200).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=rim)
    filled = push_pull(canvas.astype(np.float32), (1 - hole).astype(np.float32))
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), max(1.0, rim))[..., None] * hole[..., None]
    body = np.clip(canvas * (1 - soft) + filled * soft + 0.5, 0, 255).astype(np.uint8)
    return Body(
        body, _follow(model, gbuffer, mesh), mesh.pose, canvas.shape[0], width, covered.astype(np.float32)
    )


def _follow(model: HeadModel, gbuffer: GBuffer, mesh: HeadMesh) -> F32:
    height, width = gbuffer.part.shape
    size = (
        max(2, round(BODY_GRID_PX * width / max(width, height))),
        max(2, round(BODY_GRID_PX * height / max(width, height))),
    )
    # rigidity drawn by points: every vertex's own, where it is seen
    points = mesh.vertices_px[:, :2] * (
        width / gbuffer.viewport.width_px,
        height / gbuffer.viewport.height_px,
    )
    x, y = points[:, 0].astype(int), points[:, 1].astype(int)
    ok = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    total, count = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    np.add.at(total, (y[ok], x[ok]), model.rigidity[ok])
    np.add.at(count, (y[ok], x[ok]), 1)
    known = (count > 0) & (gbuffer.part > 0)
    if not known.any():
        return np.zeros(size[::-1], np.float32)
    mean = np.asarray(total / np.maximum(count, 1), np.float32)
    value = extend(mean[..., None], known)[..., 0]
    distance = cv2.distanceTransform((gbuffer.part == 0).astype(np.uint8), cv2.DIST_L2, 5)
    reach = _FOLLOW_HU * mesh.pose.scale * width / gbuffer.viewport.width_px
    fall = np.clip(1 - distance / max(reach, 1e-3), 0, 1)
    follow = value * fall * fall * (3 - 2 * fall)
    return cv2.resize(cv2.GaussianBlur(follow, (0, 0), 2.0), size, interpolation=cv2.INTER_AREA).astype(
        np.float32
    )


def body_flow(body: Body, pose: Similarity, viewport: Viewport) -> F32:
    """(g, g, 2): where each place of the picture comes from in the body canvas, minus where it is.

    The body at `s` is drawn at `t = s + w(s) · (M s − s)`, M the motion of the head's middle plane; a few
    fixed-point steps turn that round.
    """
    rows, columns = body.follow.shape
    step = np.array([viewport.width_px / columns, viewport.height_px / rows])
    y, x = np.mgrid[0:rows, 0:columns]
    target = np.stack([(x + 0.5) * step[0], (y + 0.5) * step[1]], -1)
    linear, shift = plane_motion(body.pose, pose)
    source = target
    for _ in range(FIXED_POINT_ROUNDS):
        at = (source / step - 0.5).astype(np.float32)
        weight = cv2.remap(
            body.follow, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        source = target - weight[..., None] * (source @ linear.T + shift - source)
    return (source - target).astype(np.float32)


def rim_flow(body: Body, flow: F32, seen: F32, behind: F32) -> F32:
    """`behind` (h, w, 2), but along the head's contour the head's own `flow` (h, w, 2), fading outwards.

    What lies right beside the head in the photo (stray hair, the edge's mixed pixels) goes with its contour
    when expressions move it. `seen` (h, w) weighs where the flow is known and the photo shows the head; what
    would fetch head from beyond the contour (a cheek that has turned away) is left alone.
    """
    height, width = seen.shape
    half = (max(1, width // 2), max(1, height // 2))  # smooth as it is, half the grid will do
    known = cv2.merge([*cv2.split(flow * seen[..., None]), seen])
    small = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
    total = cv2.GaussianBlur(small, (0, 0), RIM_SIGMA_PX / 2)
    near = total[..., 2]
    own = total[..., :2] / np.maximum(near, 1e-4)[..., None]
    place = pixel_grid(*half) + own * np.float32(half[0] / body.width_px)
    there = cv2.resize(body.head, half, interpolation=cv2.INTER_AREA)
    outside = 1 - cv2.remap(there, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
    weight = np.minimum(near * 4, 1) * outside
    # as the head would have it, minus what the body does, by the weight
    apart = own - cv2.resize(behind, half, interpolation=cv2.INTER_AREA)
    # at rest the flow is nothing only as nearly as texels can tell
    far = cv2.magnitude(apart[..., 0], apart[..., 1]) / body.width_px
    weight *= np.clip((far - RIM_STILL) / (RIM_MOVES - RIM_STILL), 0, 1)
    extra = np.asarray(weight[..., None] * apart, np.float32)
    return np.asarray(
        cv2.add(behind, cv2.resize(extra, (width, height), interpolation=cv2.INTER_LINEAR)), np.float32
    )


def plane_motion(photo_pose: Similarity, pose: Similarity) -> tuple[F64, F64]:
    """The motion in the picture of the head's middle plane: `M s = linear s + shift`."""
    linear = np.asarray(np.linalg.inv(planar_map(photo_pose, pose)), np.float64)
    middle = np.array([[0.0, 0.0, _BODY_DEPTH_HU]])
    before, after = photo_pose.apply(middle)[0, :2], pose.apply(middle)[0, :2]
    return linear, after - linear @ before


def head_mask(covered: U8, size: tuple[int, int]) -> U8:
    """(H, W) 255 where the head is drawn: the grid's coverage (h, w) with a smooth contour at the picture's size."""
    soft = cv2.GaussianBlur(covered * np.uint8(255), (3, 3), 0.7).astype(np.float32)
    full = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.threshold(full, HEAD_FROM, 255, cv2.THRESH_BINARY)[1], np.uint8)
