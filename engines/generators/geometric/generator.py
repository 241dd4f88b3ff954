"""`geometric`: no learning. Computed flow moves the photo; what the photo hides comes from the UV texture.

The floor that every learned generator must beat, and the fallback when no weights load.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.generator import Generator, GeneratorConfig
from engines.generators.geometric.contours import grow, part_sides, soften_contours, steps_between
from engines.generators.geometric.eyes import EyePlate, eye_patches, make_eyes
from engines.generators.geometric.folds import Folds, make_folds, paint_folds
from engines.generators.geometric.layers import (
    Body,
    body_flow,
    head_mask,
    make_body,
    plane_motion,
    rim_flow,
)
from engines.generators.geometric.limits import (
    BESIDE_CLEAR,
    BESIDE_PX,
    CONTOUR_BEHIND,
    GRID_PX,
    LEAST_WEIGHT,
    MARGIN,
    MOVED_FROM,
    MOVED_FULL,
    RIM_PX,
)
from engines.generators.geometric.masks import pixel_grid
from engines.generators.geometric.mouth import Mouth, make_mouth
from engines.generators.geometric.mouth_inside import mouth_inside
from engines.geometry import Similarity, rotation_vector
from engines.head.model import HeadModel, Part
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.native.kernels import Kernels, Shape
from engines.native.loader import kernels
from engines.picture.composite import still_person
from engines.raster.conditioning import PreparedMap, lookup_map, prepare_map
from engines.raster.gbuffer import GBuffer, Viewport, draw_in_uv
from engines.raster.pose import pose_head

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GeometricCache:
    """What `prepare` leaves for `render`; canvas = viewport with a margin around it."""

    canvas: U8  # (2 Hc, Wc, 4) premultiplied RGBA: the photo, below it the photo without the head
    margin_px: int
    source: PreparedMap  # source positions in canvas pixels (2), visibility (1), how far from following the head (1)
    colour: PreparedMap
    base_grid: F32  # (H, W, 2) canvas position of each viewport pixel
    body: Body
    eyes: tuple[EyePlate, EyePlate]
    mouth: Mouth
    folds: Folds
    pose: Similarity  # of the photo, in viewport pixels
    motion: Motion


class GeometricGenerator(Generator[GeometricCache]):
    """Flow by lookup of the source-position map; bilinear warp; body layer; eyeballs and the mouth's inside."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self.config = GeneratorConfig("geometric", grid_px=GRID_PX)

    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> GeometricCache:
        margin = round(MARGIN * max(viewport.width_px, viewport.height_px))
        canvas = still_person(enrollment, viewport, margin)
        position = (
            enrollment.uv_position_px - (viewport.origin_x_px, viewport.origin_y_px)
        ) * viewport.scale + margin
        apart = draw_in_uv(self.model, 1 - self.model.rigidity[:, None], len(position))
        mesh = pose_head(self.model, enrollment, enrollment.motion, viewport)
        points = mesh.landmarks_px[:, :2] + margin
        body = make_body(self.model, mesh, viewport, canvas, margin, self.config.grid_px)
        mouth = make_mouth(self.model, enrollment, canvas, points, mesh.pose)
        return GeometricCache(
            canvas=np.concatenate([canvas, body.canvas]),
            margin_px=margin,
            source=prepare_map(
                np.dstack([position, enrollment.uv_visibility / 255, apart]).astype(np.float32)
            ),
            colour=prepare_map(enrollment.uv_colour),
            base_grid=pixel_grid(viewport.width_px, viewport.height_px) + np.float32(margin),
            body=replace(body, canvas=canvas[:0]),
            eyes=make_eyes(canvas, points),
            mouth=mouth,
            folds=make_folds(canvas, points, enrollment.motion, mesh.pose.scale),
            pose=mesh.pose,
            motion=enrollment.motion,
        )

    def render(self, cache: GeometricCache, gbuffer: GBuffer, motions: MotionWindow) -> U8:
        return self.draw(cache, gbuffer, motions.now).picture

    def draw(self, cache: GeometricCache, gbuffer: GBuffer, motion: Motion) -> Layers:
        """As `render`, with what a learned generator is guided by."""
        layers = draw_layers(cache, gbuffer)
        mesh = gbuffer.mesh
        paint_folds(layers.picture, cache.folds, layers.flow, layers.seen, cache.base_grid, mesh, motion)
        turned_rad = motion.gaze_rad - cache.motion.gaze_rad
        size = (layers.picture.shape[1], layers.picture.shape[0])
        right, left = eye_patches(cache.eyes, mesh, cache.pose, turned_rad, size)
        mouth = mouth_inside(cache.mouth, self.model, mesh, cache.pose, size)
        for patch in (*right, *left, *([] if mouth is None else [mouth])):
            patch.over(layers.picture)
        return layers


@lru_cache(maxsize=8)
def source_grid(viewport: Viewport, columns: int, rows: int, margin_px: int) -> F32:
    """Canvas position of the middle of each pixel of a G-buffer (h, w, 4), the last two channels 0."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) + np.float32(0.5)
    x, y = x * viewport.width_px / columns + margin_px, y * viewport.height_px / rows + margin_px
    return np.dstack([x, y, np.zeros_like(x), np.zeros_like(x)]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Layers:
    """Head over body: `picture` (H, W, 4) premultiplied RGBA; on the G-buffer's grid `flow` (h, w, 2), where each
    pixel comes from in the photo minus where it is, in viewport pixels, and `seen` (h, w) 0 … 1, O_c."""

    picture: U8
    flow: F32
    seen: F32


def draw_layers(cache: GeometricCache, gbuffer: GBuffer) -> Layers:
    """The photo moved by the computed flow, head over body.

    Both layers lie in one canvas, one above the other, so that a single lookup per pixel draws them.
    """
    turned = turn_weight(cache.pose, gbuffer.mesh.pose)
    compiled = kernels()
    if compiled is not None and min(cache.canvas.shape[:2]) > 1:
        return _draw_compiled(compiled, cache, gbuffer, turned)
    height, width = cache.base_grid.shape[:2]
    size = (width, height)
    covered = np.asarray(cv2.min(gbuffer.part, 1), np.uint8)
    flow, seen, apart = flow_and_occlusion(cache, gbuffer, covered)
    apart *= np.float32(CONTOUR_BEHIND * len(apart))
    depth = np.add(gbuffer.depth_px, apart, dtype=np.float32)
    rows, columns = covered.shape
    behind = body_flow(cache.body, gbuffer.mesh.pose, gbuffer.viewport)
    behind = cv2.resize(behind, (columns, rows), interpolation=cv2.INTER_LINEAR)
    behind = rim_flow(cache.body, flow, seen, np.asarray(behind, np.float32))
    both = behind.copy()
    cv2.copyTo(flow, covered, both)
    behind[..., 1] += cache.body.below_px
    # the mouth's inside is painted afterwards: up to the lips' edge, and a little beyond, all is lip
    skin = np.asarray(cv2.LUT(gbuffer.part, OUTSIDE), np.uint8)
    flow = np.asarray(cv2.copyTo(flow, skin), np.float32)
    grow(flow, skin)
    steps = steps_between(depth, flow, skin)
    head = np.asarray(cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR), np.float32)
    part_sides(head, flow, depth, steps, skin, seen)
    where = cv2.resize(behind, size, interpolation=cv2.INTER_LINEAR)
    cv2.copyTo(head, head_mask(covered, size), where)
    where = cv2.add(where, cache.base_grid)
    image = cv2.remap(cache.canvas, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
    picture = np.asarray(image, np.uint8)
    _draw_hidden(cache, gbuffer, covered, seen, picture, moved_share(flow, height, turned))
    soften_contours(picture, depth, covered, flow, behind, cache.body.below_px)
    return Layers(picture, both, seen)


def _draw_compiled(compiled: Kernels, cache: GeometricCache, gbuffer: GBuffer, turned: float) -> Layers:
    """`draw_layers` in one call."""
    height, width = cache.base_grid.shape[:2]
    rows, columns = gbuffer.part.shape
    body, canvas = cache.body, cache.canvas
    linear, shift = plane_motion(body.pose, gbuffer.mesh.pose)
    shape = Shape(
        columns, rows, width, height, canvas.shape[1], canvas.shape[0], cache.margin_px, body.below_px,
        cache.source.pieces[0].shape[0], body.follow.shape[1], body.follow.shape[0],
        body.head.shape[1], body.head.shape[0], turned,
        tuple(linear.ravel()), tuple(shift),
    )  # fmt: skip
    picture = np.empty((height, width, 4), np.uint8)
    flow, seen = np.empty((rows, columns, 2), np.float32), np.empty((rows, columns), np.float32)
    compiled.layers(
        shape, uv=gbuffer.uv, part=gbuffer.part, depth=gbuffer.depth_px, source=cache.source.pieces[0],
        colour=cache.colour.pieces[0], canvas=canvas, follow=body.follow, head=body.head, outside=OUTSIDE,
        painted=PAINTED, picture=picture, both=flow, seen=seen,
    )  # fmt: skip
    return Layers(picture, flow, seen)


def flow_and_occlusion(cache: GeometricCache, gbuffer: GBuffer, covered: U8) -> tuple[F32, F32, F32]:
    """By one lookup F_c (h, w, 2) in canvas pixels and O_c (h, w) (paper 001, eqs. 3 and 4), and (h, w) how far from
    following the head, 0 … 1; all 0 uncovered."""
    found = lookup_map(cache.source, gbuffer.uv)
    rows, columns = covered.shape
    found = cv2.subtract(found, source_grid(gbuffer.viewport, columns, rows, cache.margin_px))
    found = np.asarray(cv2.copyTo(found, covered), np.float32)
    first, second, third = (np.ascontiguousarray(x) for x in (found[..., :2], found[..., 2], found[..., 3]))
    return first, second, third


# eyes and the mouth's inside are painted afterwards: there the texture must not show through
_OWN_PAINT = (int(Part.EYE), int(Part.MOUTH), int(Part.TEETH), int(Part.TONGUE))
PAINTED = np.array([0 if part in _OWN_PAINT else 1 for part in range(256)], np.uint8)


OUTSIDE = np.array(
    [0 if p in (Part.NONE, Part.MOUTH, Part.TEETH, Part.TONGUE) else 1 for p in range(256)], np.uint8
)

# below the first angle from the photo's pose the photo is all there is; from the second on, what it hides is drawn
_TURN_FROM_DEG, _TURN_FULL_DEG = 2.0, 9.0


def turn_weight(photo_pose: Similarity, pose: Similarity) -> float:
    """0 at the photo's own pose … 1 once the head has turned: at rest the picture is the photo, pixel for pixel."""
    angle = float(np.degrees(np.linalg.norm(rotation_vector(pose.rotation @ photo_pose.rotation.T))))
    return float(np.clip((angle - _TURN_FROM_DEG) / (_TURN_FULL_DEG - _TURN_FROM_DEG), 0, 1))


def moved_share(flow: F32, height_px: int, turned: float) -> F32:
    """(h, w) 0 where the head is as in the photo … 1: it has turned, or what is here has moved (a cheek that a falling
    jaw draws in uncovers what is behind it)."""
    across, down = cv2.split(flow)
    far = np.asarray(cv2.magnitude(across, down), np.float32)
    far *= np.float32(1 / ((MOVED_FULL - MOVED_FROM) * height_px))
    far -= np.float32(MOVED_FROM / (MOVED_FULL - MOVED_FROM))
    return np.asarray(np.clip(far, turned, 1), np.float32)


def _draw_hidden(
    cache: GeometricCache, gbuffer: GBuffer, covered: U8, seen: F32, picture: U8, moved: F32
) -> None:
    """Where the photo does not show what the pose does (O_c = 0), draw the filled UV colour I_r, in place, as far as
    the head has `moved` there (h, w).

    So it is done where the warped photo is transparent though the head's contour is far, or what lies beside it is
    drawn so: there the rim, which was the contour in the photo, now lies before the rest of the head.
    """
    height, width = picture.shape[:2]
    rows, columns = covered.shape
    hidden = covered - seen
    hidden *= cv2.LUT(gbuffer.part, PAINTED)
    inner = cv2.erode(covered, np.ones((RIM_PX, RIM_PX), np.uint8), borderValue=1).astype(np.float32)
    beside = cv2.dilate(hidden, np.ones((BESIDE_PX, BESIDE_PX), np.uint8))
    inner = cv2.blur(inner, (RIM_PX, RIM_PX)) * covered
    alpha = cv2.resize(picture[..., 3], (columns, rows), interpolation=cv2.INTER_AREA)
    clear = 1 - alpha * np.float32(1 / 255)
    beside *= covered * np.minimum(clear * np.float32(1 / BESIDE_CLEAR), 1)
    hidden = cv2.max(hidden, cv2.max(inner * clear, beside))
    hidden = cv2.GaussianBlur(hidden * moved, (0, 0), 0.8)
    # only the box that holds what is hidden
    x0, y0, wide, high = cv2.boundingRect((hidden > LEAST_WEIGHT).astype(np.uint8))
    if wide == 0:
        return
    y1, x1 = y0 + high, x0 + wide
    box = np.s_[y0:y1, x0:x1]
    colour = lookup_map(cache.colour, gbuffer.uv[box]) * np.float32(255)
    here = np.ascontiguousarray(covered[box])
    colour *= here[..., None]
    # the rim takes a neighbour's colour, so that none of the emptiness beside it blends in
    cv2.copyTo(cv2.dilate(colour, np.ones((3, 3), np.uint8)), (here == 0).astype(np.uint8), colour)
    # premultiplied by its weight while it is small; the picture then only gives way and adds
    weight = hidden[box]
    filled = np.empty((*colour.shape[:2], 4), np.uint8)
    filled[..., :3] = colour * weight[..., None]
    filled[..., 3] = weight * np.float32(255)
    ty, tx = height / rows, width / columns
    top, bottom, left, right = round(y0 * ty), round(y1 * ty), round(x0 * tx), round(x1 * tx)
    size = (right - left, bottom - top)
    over = cv2.resize(filled, size, interpolation=cv2.INTER_LINEAR)
    gives_way = cv2.bitwise_not(cv2.extractChannel(over, 3))
    under = cv2.multiply(picture[top:bottom, left:right], cv2.merge([gives_way] * 4), scale=1 / 255)
    picture[top:bottom, left:right] = cv2.add(under, over)
