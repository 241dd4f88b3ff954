"""The G-buffer: one rasterisation of the posed head per frame; everything else is a lookup in UV space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, Similarity
from engines.head.model import HeadModel, Part
from engines.native.loader import kernels

F32 = NDArray[np.float32]

_PART_SCALE = 8.0  # parts ride in a colour channel, which must stay within 0 … 1


@dataclass(frozen=True, slots=True)
class Viewport:
    """The window of the photo that a generator draws: `out = (photo_px − origin_px) · scale`."""

    origin_x_px: float
    origin_y_px: float
    scale: float
    width_px: int
    height_px: int

    def from_photo(self, points: F32 | F64) -> F64:
        """Photo pixels (N, 2 or 3) → viewport pixels; a third column (depth) is scaled alike."""
        p = np.asarray(points, np.float64).copy()
        p[:, 0] -= self.origin_x_px
        p[:, 1] -= self.origin_y_px
        return p * self.scale

    def affine_from_photo(self) -> F64:
        """(2, 3) affine from photo pixel centres to viewport pixel centres, as `cv2.warpAffine` wants it."""
        # A pixel's centre is at +0.5; cv2 counts centres as whole numbers.
        s = self.scale
        return np.array(
            [
                [s, 0, (0.5 - self.origin_x_px) * s - 0.5],
                [0, s, (0.5 - self.origin_y_px) * s - 0.5],
            ]
        )


@dataclass(frozen=True, slots=True)
class HeadMesh:
    """A posed head: `vertices_px` (N, 3) and `landmarks_px` (478, 3) in viewport pixels (z away), and its pose."""

    vertices_px: F32
    pose: Similarity  # head units → viewport pixels, of the rigid head
    landmarks_px: F32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))

    def seen_in(self, there: Viewport, here: Viewport) -> HeadMesh:
        """The same head, told in the pixels of viewport `there` until now, in those of `here`."""
        scale = here.scale / there.scale
        shift = np.array(
            [
                (there.origin_x_px - here.origin_x_px) * here.scale,
                (there.origin_y_px - here.origin_y_px) * here.scale,
                0.0,
            ]
        )
        pose = Similarity(self.pose.scale * scale, self.pose.rotation, self.pose.shift * scale + shift)
        step, moved = np.float32(scale), shift.astype(np.float32)
        return HeadMesh(self.vertices_px * step + moved, pose, self.landmarks_px * step + moved)


@dataclass(frozen=True, slots=True)
class GBuffer:
    """`uv` (h, w, 2) in 0 … 1 and `part` (h, w) of `Part` (0 = not covered), on a grid over the viewport.

    `triangle` (h, w) int32, −1 = not covered: which one each pixel shows, where `rasterise_triangles` drew it.
    """

    uv: F32
    part: NDArray[np.uint8]
    depth_px: F32
    mesh: HeadMesh
    viewport: Viewport
    triangle: NDArray[np.int32] | None = None


def rasterise(
    model: HeadModel,
    mesh: HeadMesh,
    viewport: Viewport,
    grid_px: int = 256,
    chosen: NDArray[np.intp] | None = None,
) -> GBuffer:
    """Draw `mesh` once with z-buffering; `grid_px` is the longer side of the grid.

    `chosen` are the triangles worth drawing (`seen_triangles`), all by default.

    Only triangles that face the camera are drawn: the others are hidden behind them (a head is closed but
    for its neck), and leaving them out halves the time. The mouth's inside lies behind all skin: teeth that a wide
    jaw takes through lip or chin do not show there.
    """
    width, height = grid_size(viewport, grid_px)
    step_xy = np.array([width / viewport.width_px, height / viewport.height_px], np.float32)
    points = mesh.vertices_px.copy()
    points[:, :2] *= step_xy
    points[:, 2] *= float(step_xy.mean())
    push = BEHIND_HU * mesh.pose.scale * float(step_xy.mean())
    compiled = kernels()
    if compiled is not None:
        uv, part, depth = compiled.rasterise(
            points, *_drawable(model, chosen), push, model.uv, model.part, width, height
        )
    else:
        uv, part, depth = _rasterise(model, points, chosen, push, width, height)
    depth -= cv2.LUT(part, _INTERIOR) * np.float32(push)
    return GBuffer(uv, part, depth, mesh, viewport)


def _drawable(
    model: HeadModel, chosen: NDArray[np.intp] | None
) -> tuple[NDArray[np.int32], NDArray[np.int64] | None, NDArray[np.uint8]]:
    """Triangles, which of them, and which of them are the mouth's inside, as the compiled rasteriser takes them."""
    wanted = None if chosen is None else np.ascontiguousarray(chosen, np.int64)
    return model.triangles, wanted, _mouth_bytes(model)


@lru_cache(maxsize=4)
def _mouth_bytes(model: HeadModel) -> NDArray[np.uint8]:
    return mouth_interior(model).astype(np.uint8)


def _rasterise(
    model: HeadModel, points: F32, chosen: NDArray[np.intp] | None, push: float, width: int, height: int
) -> tuple[F32, NDArray[np.uint8], F32]:
    """(uv (h, w, 2), part (h, w), depth (h, w)) by OpenCV: as `raster.c`."""
    triangles = model.triangles if chosen is None else model.triangles[chosen]
    facing = np.flatnonzero(front_facing(points, triangles))
    kept = facing if chosen is None else chosen[facing]
    corners = points[triangles[facing].reshape(-1)]
    corners[:, 2] += np.repeat(mouth_interior(model)[kept], 3) * np.float32(push)
    colour, depth = draw_triangles(corners, _atlas_colours(model)[kept].reshape(-1, 3), width, height)
    part = np.asarray(cv2.convertScaleAbs(colour[..., 2], alpha=_PART_SCALE), np.uint8)
    return np.ascontiguousarray(colour[..., :2]), part, depth


def rasterise_triangles(
    model: HeadModel, mesh: HeadMesh, window: Viewport, chosen: NDArray[np.intp] | None = None
) -> GBuffer:
    """As `rasterise`, pixel for pixel of `window`, with the triangle that each pixel shows.

    What a pixel shows follows from its triangle and the triangle's corners, so that no value is interpolated here
    which a network's training would have to interpolate alike.
    """
    drawn, depth = draw_ids(
        model, mesh.vertices_px, mesh.pose.scale, window.width_px, window.height_px, chosen
    )
    covered = drawn >= 0
    part = np.where(covered, model.part[drawn], 0).astype(np.uint8)
    uv = np.zeros((*drawn.shape, 2), np.float32)
    rows, columns = np.nonzero(covered)
    corners = model.triangles[drawn[covered]]
    at = mesh.vertices_px[corners][..., :2] - np.stack([columns, rows], 1)[:, None] - np.float32(0.5)
    at = at.astype(np.float32)
    a, b, c = at[:, 0], at[:, 1], at[:, 2]
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)
    total = weights.sum(1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total)
    uv[covered] = (model.uv[corners] * weights[..., None]).sum(1)
    depth -= cv2.LUT(part, _INTERIOR) * np.float32(BEHIND_HU * mesh.pose.scale)
    return GBuffer(uv, part, depth, mesh, window, drawn)


def _cross(a: F32, b: F32) -> F32:
    return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).astype(np.float32)


def draw_ids(
    model: HeadModel,
    points: F32,
    scale: float,
    width: int,
    height: int,
    chosen: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.int32], F32]:
    """((h, w) int32 which triangle each pixel shows, −1 none; depth (h, w)) of a head of `scale` pixels a unit."""
    triangles = model.triangles if chosen is None else model.triangles[chosen]
    facing = np.flatnonzero(front_facing(points, triangles))
    kept = facing if chosen is None else chosen[facing]
    numbers = np.zeros((len(kept), 3, 3), np.float32)
    numbers[..., 0] = ((kept + 1) / _MOST_TRIANGLES)[:, None]
    corners = points[triangles[facing].reshape(-1)]
    corners[:, 2] += np.repeat(mouth_interior(model)[kept], 3) * np.float32(BEHIND_HU * scale)
    drawn, depth = draw_triangles(corners, numbers.reshape(-1, 3), width, height)
    return (np.rint(drawn[..., 0] * _MOST_TRIANGLES) - 1).astype(np.int32), depth


BEHIND_HU = 0.3  # further than teeth ever come through the skin
_INTERIOR = np.array([p in (Part.MOUTH, Part.TEETH, Part.TONGUE) for p in range(256)], np.float32)


@lru_cache(maxsize=4)
def mouth_interior(model: HeadModel) -> F32:
    """(T,) 1 for the triangles of the mouth's inside, else 0."""
    return _INTERIOR[model.part]


def grid_size(viewport: Viewport, grid_px: int) -> tuple[int, int]:
    """(width, height) of a grid over `viewport` whose longer side is at most `grid_px`."""
    step = min(1.0, grid_px / max(viewport.width_px, viewport.height_px))
    return round(viewport.width_px * step), round(viewport.height_px * step)


def front_facing(points: F32, triangles: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(T,) which triangles face the camera, by their winding on the picture."""
    x, y = points[:, 0], points[:, 1]
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    xa, ya = x[a], y[a]
    return (x[b] - xa) * (y[c] - ya) < (y[b] - ya) * (x[c] - xa)


@lru_cache(maxsize=4)
def _atlas_colours(model: HeadModel) -> F32:
    """(T, 3, 3): uv and part of every triangle's corners, as the rasteriser's colours."""
    colours = np.empty((len(model.triangles), 3, 3), np.float32)
    colours[..., :2] = model.uv[model.triangles]
    colours[..., 2] = model.part.astype(np.float32)[:, None] / _PART_SCALE
    return colours


def seen_triangles(model: HeadModel, meshes: Sequence[HeadMesh], viewport: Viewport) -> NDArray[np.intp]:
    """Indices of the triangles that show in any of `meshes`, and their neighbours.

    A third of the head never shows (sockets behind eyeballs, folds of the ears, the back of the mouth), and the
    rasteriser's time goes with the number of triangles.
    """
    seen = np.zeros(len(model.triangles), bool)
    scale = np.array([_SEEN_GRID_PX / viewport.width_px, _SEEN_GRID_PX / viewport.height_px, 1], np.float32)
    for mesh in meshes:
        points = (mesh.vertices_px * scale).astype(np.float32)
        found, _ = draw_ids(model, points, mesh.pose.scale, _SEEN_GRID_PX, _SEEN_GRID_PX)
        seen[np.unique(found[found >= 0])] = True
    near = np.zeros(model.vertex_count, bool)
    near[model.weld[model.triangles[seen]]] = True
    return np.flatnonzero(near[model.weld[model.triangles]].any(1)).astype(np.intp)


_SEEN_GRID_PX = 256
_MOST_TRIANGLES = 1 << 17


def draw_triangles(corners: F32, colours: F32, width: int, height: int) -> tuple[F32, F32]:
    """Triangles with their own corners (3T, 3: x, y in pixels, z away) → (colour (h, w, 3), depth (h, w)).

    OpenCV's rasteriser is perspective. Corners land exactly, for x and y are scaled by each one's own
    distance; between the corners of a slanted triangle colours are off by its depth over the camera's
    distance, which is therefore far away (64 picture heights) with a matching field of view.
    """
    far = 64.0 * height
    if not len(corners):  # a head that is not in the picture
        return np.zeros((height, width, 3), np.float32), np.full((height, width), far * 4.0, np.float32)
    z = far + (corners[:, 2] - corners[:, 2].mean())
    grow = z / far
    vertices = np.empty_like(corners)
    vertices[:, 0] = (corners[:, 0] - width / 2) * grow
    vertices[:, 1] = (height / 2 - corners[:, 1]) * grow
    vertices[:, 2] = -z
    colour = np.zeros((height, width, 3), np.float32)
    z_near, z_far = far * 0.25, far * 4.0
    depth = np.full((height, width), z_far, np.float32)
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    indices = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    world_to_camera = np.eye(4, dtype=np.float32)
    field_of_view_y = 2 * float(np.arctan2(0.5 * height, far))
    cv2.triangleRasterize(
        np.ascontiguousarray(vertices, np.float32), indices, np.ascontiguousarray(colours, np.float32),
        colour, depth, world_to_camera, field_of_view_y, z_near, z_far, settings,
    )  # fmt: skip
    return colour, depth


def draw_in_uv(model: HeadModel, values: F32, size_px: int) -> F32:
    """Per-vertex values (N, C ≤ 3) drawn into the UV atlas → (size, size, C); texels off the atlas extended.

    This makes the source-position map: its lookup by `GBuffer.uv` is the computed flow (papers 001, 002).
    """
    corners = model.triangles.reshape(-1)
    low, high = values.min(0), values.max(0)
    span = np.where(high > low, high - low, 1)
    colours = np.zeros((len(corners), 3), np.float32)
    colours[:, : values.shape[1]] = (values[corners] - low) / span
    flat = np.zeros((len(corners), 3), np.float32)
    flat[:, :2] = model.uv[corners] * size_px
    image, depth = draw_triangles(flat, colours, size_px, size_px)
    covered = depth < depth.max() if depth.min() < depth.max() else np.ones(depth.shape, bool)
    image = extend(image, covered)
    return (image[..., : values.shape[1]] * span + low).astype(np.float32)


def extend(image: F32, known: NDArray[np.bool_]) -> F32:
    """Each unknown pixel takes the value of the nearest known one; (h, w, C) float32."""
    if known.all() or not known.any():
        return image
    _, found = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = found.astype(np.int64)
    flat = np.zeros(int(labels.max()) + 1, np.int64)
    flat[labels[known]] = np.flatnonzero(known)
    return image.reshape(-1, image.shape[-1])[flat[labels]]
