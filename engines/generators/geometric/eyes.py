"""The eyes: eyeballs that turn behind the lids, skin for a lid that falls, lashes for an eye that closes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.geometric.limits import LID_FROM_ABOVE
from engines.generators.geometric.masks import planar_map, polygon_mask, region
from engines.geometry import F64, Similarity
from engines.head.landmark_names import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    LID_SKIN_LEFT,
    LID_SKIN_RIGHT,
)
from engines.head.model import EYEBALL_RADIUS_HU
from engines.raster.gbuffer import HeadMesh, extend

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# (contour, corners, row in Motion.gaze_rad) of the subject's right and left eye
EYES = ((EYE_RIGHT, CORNERS_RIGHT, 0), (EYE_LEFT, CORNERS_LEFT, 1))
LID_SKIN = (LID_SKIN_RIGHT, LID_SKIN_LEFT)
_CLOSING_RATIO = 0.10  # below this opening lashes begin to cover the eye
_LASH_HU = 0.012
_LID_SHRINK = 0.14  # the plate stays this share inside the lids: lashes come with the warped skin


@dataclass(frozen=True, slots=True)
class EyePlate:
    """An eye as it would look without lids: `image` (h, w, 3) cut from the canvas at `origin_px`.

    `centre_px` is the middle of the corners in canvas pixels, `lash_rgb` (3,) what a closed eye shows,
    `rest_ratio` how open the eye is in the photo.
    """

    image: F32
    origin_px: F64
    centre_px: F64
    lash_rgb: F32
    rest_ratio: float


def make_eyes(canvas: U8, points_px: F32) -> tuple[EyePlate, EyePlate]:
    """The subject's right and left eye; `points_px` (478, 2) in canvas pixels."""
    right, left = (make_eye_plate(canvas, points_px, contour, corners) for contour, corners, _ in EYES)
    return right, left


def paint_eyes(
    image: U8, plates: tuple[EyePlate, EyePlate], mesh: HeadMesh, photo_pose: Similarity, turned_rad: F32
) -> None:
    """Draw both eyes of `mesh`, in place, gazes turned by `turned_rad` (2, 2) against the photo's."""
    points = mesh.landmarks_px[:, :2].astype(np.float64)
    for plate, (contour, corners, row), skin in zip(plates, EYES, LID_SKIN, strict=True):
        outline = points[list(contour)]
        cover_lid(image, plate, [points[list(ring)] for ring in skin], outline)
        paint_eye(image, plate, outline, points[list(corners)], photo_pose, mesh.pose, turned_rad[row])


def make_eye_plate(
    canvas: U8, points_px: F32, contour: tuple[int, ...], corners: tuple[int, int]
) -> EyePlate:
    """Cut an eye out and continue what lies between the lids beyond them, so that lids can move over it."""
    outline = points_px[list(contour)].astype(np.float64)
    centre = points_px[list(corners)].astype(np.float64).mean(0)
    width = float(np.ptp(outline[:, 0]))
    low = np.floor(outline.min(0) - width * 0.5).astype(int)
    high = np.ceil(outline.max(0) + width * 0.5).astype(int)
    size = np.array([canvas.shape[1], canvas.shape[0]])
    low = np.clip(low, 0, size - 1)  # an eye outside the picture is a pixel of its edge
    high = np.clip(high, low + 1, size)
    cut = canvas[low[1] : high[1], low[0] : high[0], :3].astype(np.float32)
    opening = polygon_mask(_shrink(outline, _LID_SHRINK) - low, cut.shape[1], cut.shape[0]) > 0.6
    rim = cut[np.clip(np.rint(outline[:, 1] - low[1]).astype(int), 0, cut.shape[0] - 1),
              np.clip(np.rint(outline[:, 0] - low[0]).astype(int), 0, cut.shape[1] - 1)]  # fmt: skip
    lash = rim[np.argsort(rim.sum(1))[: len(rim) // 3]].mean(0)
    if not opening.any():
        return EyePlate(cut, low.astype(np.float64), centre, lash, opening_ratio(outline))
    filled = extend(cut, opening)
    soft = cv2.GaussianBlur(filled, (0, 0), max(0.6, width / 24))
    plate = np.where(opening[..., None], cut, soft)
    return EyePlate(plate.astype(np.float32), low.astype(np.float64), centre, lash, opening_ratio(outline))


def _shrink(outline: F64, share: float) -> F64:
    centre = (outline.min(0) + outline.max(0)) / 2
    return centre + (outline - centre) * (1 - share / 2, 1 - share)


# share of the photo's own opening: from the first value down, skin from above the fold covers the lid
_COVER_FROM, _COVER_FULL = 0.7, 0.3


@dataclass(frozen=True, slots=True, eq=False)
class FallingLid:
    """What a falling upper lid covers: in `box` (x0, y0, x1, y1) of the picture, of each of its columns the heights of
    the lid's edge, its fold and the skin over it; `sides_px`: between which columns; `weight` 0 … 1."""

    box: tuple[int, int, int, int]
    curves: tuple[F64, F64, F64]
    sides_px: tuple[float, float]
    weight: float


def falling_lid(
    plate: EyePlate, rings_px: list[F64], outline_px: F64, width: int, height: int
) -> FallingLid | None:
    """How the lid of an eye has fallen in a picture; None where it is as open as in the photo.

    `rings_px`: the lid's edge, its fold and the skin over it, (9, 2) each.
    """
    share = opening_ratio(outline_px) / max(plate.rest_ratio, 1e-3)
    weight = float(np.clip((_COVER_FROM - share) / (_COVER_FROM - _COVER_FULL), 0, 1))
    box = region(np.concatenate(rings_px), 2, width, height)
    if weight <= 0 or box is None:
        return None
    columns = np.arange(box[0], box[2], dtype=np.float64) + 0.5
    edge, fold, over = (_curve(ring, columns) for ring in rings_px)
    sides = float(rings_px[0][:, 0].min()), float(rings_px[0][:, 0].max())
    return FallingLid(box, (edge, fold, over), sides, weight)


def cover_lid(image: U8, plate: EyePlate, rings_px: list[F64], outline_px: F64) -> None:
    """A falling upper lid takes skin from above, in place: between its fold and its edge the picture is drawn
    anew from the skin over the fold. Stretching what lies there would draw the lashes out into a blotch.
    """
    height, width = image.shape[:2]
    lid = falling_lid(plate, rings_px, outline_px, width, height)
    if lid is None:
        return
    x0, y0, x1, y1 = lid.box
    columns = np.arange(x0, x1, dtype=np.float64) + 0.5
    edge, fold, over = lid.curves
    rows = (np.arange(y0, y1) + 0.5)[:, None]
    tall = np.maximum(edge - fold, 1e-3)
    down = (rows - fold) / tall  # 0 at the fold … 1 at the edge
    source = fold - (fold - over) * LID_FROM_ABOVE * (1 - np.clip(down, 0, 1))
    at_x = np.broadcast_to((columns - x0 - 0.5).astype(np.float32), down.shape)
    at_y = (source - y0 - 0.5).astype(np.float32)
    window = image[y0:y1, x0:x1]
    skin = cv2.remap(
        window, np.ascontiguousarray(at_x), at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    soft = np.clip(down / 0.25, 0, 1) * np.clip((edge - rows) / 1.5 + 0.5, 0, 1) * (tall > 1)
    inside = np.clip(np.minimum(columns - lid.sides_px[0], lid.sides_px[1] - columns) / 3, 0, 1)
    share_of = (soft * inside * lid.weight)[..., None].astype(np.float32)
    image[y0:y1, x0:x1] = (window * (1 - share_of) + skin * share_of + 0.5).astype(np.uint8)


def _curve(ring_px: F64, columns: F64) -> F64:
    """Height of a chain of landmarks (9, 2) at each column."""
    order = np.argsort(ring_px[:, 0])
    return np.interp(columns, ring_px[order, 0], ring_px[order, 1])


@dataclass(frozen=True, slots=True, eq=False)
class OpenEye:
    """What is painted of an eye: in `box` (x0, y0, x1, y1) of the picture the ball by `affine` (2, 3: from pixels of
    the box to the plate's), as far as `mask` (h, w, 1) 0 … 1 says, then `lashes` (h, w, 1), where lids close."""

    box: tuple[int, int, int, int]
    affine: F64
    mask: F32
    lashes: F32 | None


def open_eye(
    plate: EyePlate,
    outline_px: F64,
    corners_px: F64,
    photo_pose: Similarity,
    pose: Similarity,
    gaze_rad: F32,
    width: int,
    height: int,
) -> OpenEye | None:
    """An eye between its lids, turned by `gaze_rad` (yaw, pitch) against the photo's gaze; None: not in the picture."""
    outline = _shrink(outline_px, _LID_SHRINK)
    box = region(outline_px, 2, width, height)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    linear = planar_map(photo_pose, pose)
    shift = photo_pose.scale * EYEBALL_RADIUS_HU * np.sin(gaze_rad.astype(np.float64))
    # target pixel → offset from the eye's centre → the photo's eye, minus the turn
    offset = plate.centre_px - plate.origin_px - shift - linear @ (corners_px.mean(0) - (x0, y0))
    affine = np.column_stack([linear, offset - 0.5 + linear @ (0.5, 0.5)])
    mask = polygon_mask(outline - (x0, y0), x1 - x0, y1 - y0)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, photo_pose.scale / 200))[..., None].astype(np.float32)
    close = float(np.clip(1 - opening_ratio(outline_px) / _CLOSING_RATIO, 0, 1))
    if close <= 0:
        return OpenEye(box, affine, mask, None)
    # the last sliver of white between closing lids is covered by lashes
    line = np.zeros((y1 - y0, x1 - x0), np.uint8)
    full = np.rint((outline_px - (x0, y0) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(line, [full], 255, cv2.LINE_AA, 4)
    # closed lids: what the photo has of white along their edges goes under the lashes too
    thick = max(1, round(photo_pose.scale * _LASH_HU * close))
    cv2.polylines(line, [full], True, 255, thick, cv2.LINE_AA, 4)
    lashes = cv2.GaussianBlur(line, (0, 0), max(0.5, photo_pose.scale / 150)).astype(np.float32)[..., None]
    lashes *= close / 255
    return OpenEye(box, affine, mask, lashes)


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
    eye = open_eye(plate, outline_px, corners_px, photo_pose, pose, gaze_rad, width, height)
    if eye is None:
        return
    x0, y0, x1, y1 = eye.box
    ball = cv2.warpAffine(
        plate.image, eye.affine, (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    under = image[y0:y1, x0:x1, :3]
    drawn = under * (1 - eye.mask) + ball * eye.mask
    if eye.lashes is not None:
        drawn = drawn * (1 - eye.lashes) + plate.lash_rgb * eye.lashes
    image[y0:y1, x0:x1, :3] = (drawn + 0.5).astype(np.uint8)


def opening_ratio(outline_px: F64) -> float:
    """How far an eye is open: area over squared width of its outline (16, 2)."""
    area = float(cv2.contourArea(outline_px.astype(np.float32)))
    return area / max(float(np.linalg.norm(outline_px[0] - outline_px[8])) ** 2, 1e-6)
