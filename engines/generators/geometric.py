"""`geometric`: no learning. Computed flow moves the photo; eyes and mouth are plates behind their openings.

The floor that every learned generator must beat, and the fallback when no weights load.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.face_model import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    LIPS_INNER,
    LOWER_LIP,
    UPPER_LIP,
    FaceModel,
)
from engines.fit import EYEBALL_RADIUS_HU
from engines.gbuffer import GBuffer, Viewport, extend, lookup
from engines.generator import Generator, GeneratorConfig
from engines.generators.masks import planar_map, polygon_mask, region
from engines.generators.mouth import MouthTextures, paint_mouth
from engines.geometry import F64, Similarity
from engines.head import pose_head, pose_in_viewport
from engines.motion import Motion
from engines.resample import resample

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

MARGIN = (
    0.12  # the source canvas reaches beyond the viewport by this share, so that edges have something to show
)
# (contour, corners, row in Motion.gaze_rad) of the subject's right and left eye
_EYES = ((EYE_RIGHT, CORNERS_RIGHT, 0), (EYE_LEFT, CORNERS_LEFT, 1))
_CONTOUR_DEPTH = 0.05  # a depth step of this share of the grid's height is one surface before another
_CLOSING_RATIO = 0.10  # below this opening lashes begin to cover the eye
_LID_SHRINK = 0.14  # the plate stays this share inside the lids: lashes come with the warped skin


@dataclass(frozen=True, slots=True)
class EyePlate:
    """An eye as it would look without lids: `image` (h, w, 3) cut from the canvas at `origin_px`.

    `centre_px` is the middle of the corners in canvas pixels, `lash_rgb` (3,) what a closed eye shows.
    """

    image: F32
    origin_px: F64
    centre_px: F64
    lash_rgb: F32


@dataclass(frozen=True, slots=True)
class GeometricCache:
    """What `prepare` leaves for `render`; canvas = viewport with a margin around it."""

    canvas: U8  # (Hc, Wc, 4) premultiplied RGBA
    margin_px: int
    position_px: F32  # (S, S, 2) source-position map in canvas pixels
    base_grid: F32  # (H, W, 2) canvas position of each viewport pixel
    eyes: tuple[EyePlate, ...]
    mouth: MouthTextures
    pose: Similarity  # of the photo, in viewport pixels
    motion: Motion


class GeometricGenerator(Generator[GeometricCache]):
    """Flow by lookup of the source-position map; bilinear warp; eye and mouth plates."""

    def __init__(self, model: FaceModel) -> None:
        self._model = model
        self.config = GeneratorConfig("geometric", grid_px=192)

    def prepare(self, enrollment: Enrollment, viewport: Viewport) -> GeometricCache:
        margin = round(MARGIN * max(viewport.width_px, viewport.height_px))
        canvas = draw_canvas(enrollment, viewport, margin)
        position = (
            enrollment.uv_position_px - (viewport.origin_x_px, viewport.origin_y_px)
        ) * viewport.scale + margin
        mesh = pose_head(self._model, enrollment, enrollment.motion, viewport)
        points = mesh.vertices_px[:, :2] + margin
        pose = pose_in_viewport(enrollment, enrollment.motion, viewport)
        eyes = tuple(make_eye_plate(canvas, points, contour, corners) for contour, corners, _ in _EYES)
        return GeometricCache(
            canvas=canvas,
            margin_px=margin,
            position_px=position.astype(np.float32),
            base_grid=_grid(viewport.width_px, viewport.height_px, 1, 1, margin) - np.float32(0.5),
            eyes=eyes,
            mouth=MouthTextures.of_photo(canvas, points, pose.scale, enrollment, self._model),
            pose=pose,
            motion=enrollment.motion,
        )

    def render(self, cache: GeometricCache, gbuffer: GBuffer, motion: Motion) -> U8:
        image = warp(cache, gbuffer)
        points = gbuffer.mesh.vertices_px[:, :2].astype(np.float64)
        for plate, (contour, corners, row) in zip(cache.eyes, _EYES, strict=True):
            gaze = motion.gaze_rad[row] - cache.motion.gaze_rad[row]
            paint_eye(
                image,
                plate,
                points[list(contour)],
                points[list(corners)],
                cache.pose,
                gbuffer.mesh.pose,
                gaze,
            )
        paint_mouth(
            image,
            cache.mouth,
            inner_lips_px=points[list(LIPS_INNER)],
            upper_lip_px=points[UPPER_LIP],
            lower_lip_px=points[LOWER_LIP],
            photo_pose=cache.pose,
            pose=gbuffer.mesh.pose,
        )
        return image


def draw_canvas(enrollment: Enrollment, viewport: Viewport, margin_px: int) -> U8:
    """Photo and matte in the viewport with a margin: premultiplied RGBA (H + 2m, W + 2m, 4)."""
    size = (viewport.width_px + 2 * margin_px, viewport.height_px + 2 * margin_px)
    rgba = np.dstack([enrollment.photo, enrollment.matte])
    canvas = resample(rgba, viewport, margin_px, size)
    alpha = canvas[..., 3:].astype(np.uint16)
    canvas[..., :3] = ((canvas[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return canvas


@lru_cache(maxsize=8)
def _grid(width: int, height: int, step_x: float, step_y: float, offset: float) -> F32:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([(x + 0.5) * step_x + offset, (y + 0.5) * step_y + offset], -1).astype(np.float32)


def computed_flow(position_px: F32, gbuffer: GBuffer, margin_px: int) -> F32:
    """F_c (h, w, 2): where each G-buffer pixel comes from, minus where it is (paper 001, § 3.1); 0 uncovered."""
    height, width = gbuffer.part.shape
    step_x, step_y = gbuffer.viewport.width_px / width, gbuffer.viewport.height_px / height
    source = np.asarray(lookup(position_px, gbuffer.uv), np.float32)
    flow = source - _grid(width, height, step_x, step_y, margin_px)
    flow[gbuffer.part == 0] = 0
    return flow


def warp(cache: GeometricCache, gbuffer: GBuffer) -> U8:
    """The photo moved by the computed flow: premultiplied RGBA in the viewport."""
    flow = computed_flow(cache.position_px, gbuffer, cache.margin_px)
    height, width = cache.base_grid.shape[:2]
    if flow.shape[:2] != (height, width):
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    where = cv2.add(cache.base_grid, flow)
    image = cv2.remap(cache.canvas, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType]
    soften_contours(image, gbuffer)
    return image  # pyright: ignore[reportReturnType]


def soften_contours(image: U8, gbuffer: GBuffer) -> None:
    """Anti-alias, in place, where one surface occludes another: the grid is coarser than the picture.

    Only the few pixels along such contours are touched (3 × 3 mean), gathered by index.
    """
    covered = (gbuffer.part > 0).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    # 2 × 2: the two grid pixels on either side of a contour, no more
    step = cv2.morphologyEx(gbuffer.depth_px, cv2.MORPH_GRADIENT, kernel[:2, :2])
    # the mesh's own rim is no contour: there the flow is zero and the photo goes on
    jump = ((step > _CONTOUR_DEPTH * gbuffer.part.shape[0]) & (cv2.erode(covered, kernel) > 0)).astype(
        np.uint8
    )
    if not jump.any():
        return
    height, width = image.shape[:2]
    rows, columns = np.nonzero(cv2.resize(jump, (width, height), interpolation=cv2.INTER_NEAREST))
    total = np.zeros((len(rows), image.shape[2]), np.uint16)
    flat = image.reshape(-1, image.shape[2])
    for dy in (-1, 0, 1):
        row = np.clip(rows + dy, 0, height - 1) * width
        for dx in (-1, 0, 1):
            total += flat[row + np.clip(columns + dx, 0, width - 1)]
    flat[rows * width + columns] = (total + 4) // 9


def make_eye_plate(
    canvas: U8, points_px: F32, contour: tuple[int, ...], corners: tuple[int, int]
) -> EyePlate:
    """Cut an eye out and continue what lies between the lids beyond them, so that lids can move over it."""
    outline = points_px[list(contour)].astype(np.float64)
    centre = points_px[list(corners)].astype(np.float64).mean(0)
    width = float(np.ptp(outline[:, 0]))
    low = np.floor(outline.min(0) - width * 0.5).astype(int)
    high = np.ceil(outline.max(0) + width * 0.5).astype(int)
    low = np.maximum(low, 0)
    high = np.minimum(high, [canvas.shape[1], canvas.shape[0]])
    cut = canvas[low[1] : high[1], low[0] : high[0], :3].astype(np.float32)
    opening = polygon_mask(_shrink(outline, _LID_SHRINK) - low, cut.shape[1], cut.shape[0]) > 0.6
    rim = cut[np.clip(np.rint(outline[:, 1] - low[1]).astype(int), 0, cut.shape[0] - 1),
              np.clip(np.rint(outline[:, 0] - low[0]).astype(int), 0, cut.shape[1] - 1)]  # fmt: skip
    lash = rim[np.argsort(rim.sum(1))[: len(rim) // 3]].mean(0)
    if not opening.any():
        return EyePlate(cut, low.astype(np.float64), centre, lash)
    filled = extend(cut, opening)
    soft = cv2.GaussianBlur(filled, (0, 0), max(0.6, width / 24))
    plate = np.where(opening[..., None], cut, soft)
    return EyePlate(plate.astype(np.float32), low.astype(np.float64), centre, lash)


def _shrink(outline: F64, share: float) -> F64:
    centre = (outline.min(0) + outline.max(0)) / 2
    return centre + (outline - centre) * (1 - share / 2, 1 - share)


def paint_eye(
    image: U8,
    plate: EyePlate,
    outline_px: F64,
    corners_px: F64,
    photo_pose: Similarity,
    pose: Similarity,
    gaze_rad: F32,
) -> None:
    """Draw the eyeball behind the lids, turned by `gaze_rad` (yaw, pitch) against the photo's gaze, in place."""
    height, width = image.shape[:2]
    outline = _shrink(outline_px, _LID_SHRINK)
    box = region(outline_px, 2, width, height)
    if box is None:
        return
    x0, y0, x1, y1 = box
    linear = planar_map(photo_pose, pose)
    shift = photo_pose.scale * EYEBALL_RADIUS_HU * np.sin(gaze_rad.astype(np.float64))
    # target pixel → offset from the eye's centre → the photo's eye, minus the turn
    offset = plate.centre_px - plate.origin_px - shift - linear @ (corners_px.mean(0) - (x0, y0))
    affine = np.column_stack([linear, offset - 0.5 + linear @ (0.5, 0.5)])
    ball = cv2.warpAffine(
        plate.image, affine, (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    mask = polygon_mask(outline - (x0, y0), x1 - x0, y1 - y0)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, photo_pose.scale / 200))[..., None]
    under = image[y0:y1, x0:x1, :3]
    drawn = under * (1 - mask) + ball * mask
    close = float(np.clip(1 - opening_ratio(outline_px) / _CLOSING_RATIO, 0, 1))
    if close > 0:
        # the last sliver of white between closing lids is covered by lashes
        line = np.zeros((y1 - y0, x1 - x0), np.uint8)
        full = np.rint((outline_px - (x0, y0) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(line, [full], 255, cv2.LINE_AA, 4)
        weight = cv2.GaussianBlur(line, (0, 0), max(0.5, photo_pose.scale / 150)).astype(np.float32)[
            ..., None
        ]
        weight *= close / 255
        drawn = drawn * (1 - weight) + plate.lash_rgb * weight
    image[y0:y1, x0:x1, :3] = (drawn + 0.5).astype(np.uint8)


def opening_ratio(outline_px: F64) -> float:
    """How far an eye is open: area over squared width of its outline (16, 2)."""
    x, y = outline_px[:, 0], outline_px[:, 1]
    area = 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    return area / max(float(np.linalg.norm(outline_px[0] - outline_px[8])) ** 2, 1e-6)
