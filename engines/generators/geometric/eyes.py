"""The eyes: eyeballs that turn behind the lids, skin for a lid that falls, lashes for an eye that closes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from engines.generators.geometric.masks import planar_map, polygon_mask, region
from engines.generators.geometric.patch import Box, Patch
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
from engines.picture.push_pull import push_pull
from engines.raster.gbuffer import HeadMesh, extend

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# (contour, corners, row in Motion.gaze_rad) of the subject's right and left eye
EYES = ((EYE_RIGHT, CORNERS_RIGHT, 0), (EYE_LEFT, CORNERS_LEFT, 1))
LID_SKIN = (LID_SKIN_RIGHT, LID_SKIN_LEFT)
_CLOSING_RATIO = 0.10  # below this opening lashes begin to cover the eye
_LASH_HU = 0.015
_LID_SHRINK = 0.14  # the plate stays this share inside the lids: lashes come with the warped skin


@dataclass(frozen=True, slots=True)
class EyePlate:
    """An eye as it would look without lids: `image` (h, w, 3) cut from the canvas at `origin_px`; and `lid` (h, w, 3),
    as if it were closed and had no lashes.

    `centre_px` is the middle of the corners in canvas pixels, `lash_rgb` (3,) what a closed eye shows,
    `rest_ratio` how open the eye is in the photo.
    """

    image: F32
    lid: F32
    origin_px: F64
    centre_px: F64
    lash_rgb: F32
    rest_ratio: float


def make_eyes(canvas: U8, points_px: F32) -> tuple[EyePlate, EyePlate]:
    """The subject's right and left eye; `points_px` (478, 2) in canvas pixels."""
    right, left = (
        make_eye_plate(canvas, points_px, contour, corners, skin)
        for (contour, corners, _), skin in zip(EYES, LID_SKIN, strict=True)
    )
    return right, left


def eye_shapes(
    plates: tuple[EyePlate, EyePlate],
    mesh: HeadMesh,
    photo_pose: Similarity,
    turned_rad: F32,
    size_px: tuple[int, int],
) -> list[tuple[FallingLid | None, OpenEye | None]]:
    """What is painted of the right and of the left eye of `mesh` in a picture of `size_px` (width, height), gazes
    turned by `turned_rad` (2, 2) against the photo's: a lid that falls, then the ball."""
    points = mesh.landmarks_px[:, :2].astype(np.float64)
    found: list[tuple[FallingLid | None, OpenEye | None]] = []
    for plate, (contour, corners, row), skin in zip(plates, EYES, LID_SKIN, strict=True):
        outline, at = points[list(contour)], points[list(corners)]
        rings = [points[list(ring)] for ring in skin]
        lid = falling_lid(plate, rings, outline, at, photo_pose, mesh.pose, size_px)
        fallen = 0.0 if lid is None else lid.weight
        eye = open_eye(plate, outline, at, photo_pose, mesh.pose, turned_rad[row], size_px, fallen)
        found.append((lid, eye))
    return found


def eye_patches(
    plates: tuple[EyePlate, EyePlate],
    mesh: HeadMesh,
    photo_pose: Similarity,
    turned_rad: F32,
    size_px: tuple[int, int],
) -> tuple[list[Patch], list[Patch]]:
    """The same as patches: skin of a lid, for what lies there in the photo, stretched, would draw its lashes out into a
    blotch; then the ball."""
    found: list[list[Patch]] = []
    shapes = eye_shapes(plates, mesh, photo_pose, turned_rad, size_px)
    for plate, (lid, eye) in zip(plates, shapes, strict=True):
        found.append([])
        if lid is not None:
            found[-1].append(_patch(plate, lid.box, plate.lid, lid.affine, lid.mask, lid.line))
        if eye is not None:
            found[-1].append(_patch(plate, eye.box, plate.image, eye.affine, eye.mask, eye.lashes))
    return found[0], found[1]


def make_eye_plate(
    canvas: U8,
    points_px: F32,
    contour: tuple[int, ...],
    corners: tuple[int, int],
    lid_skin: tuple[tuple[int, ...], ...],
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
    rings = [points_px[list(ring)].astype(np.float64) - low for ring in lid_skin]
    lid = _lid_skin(cut, rings, outline - low, width)
    opening = polygon_mask(_shrink(outline, _LID_SHRINK) - low, cut.shape[1], cut.shape[0]) > 0.6
    rim = cut[np.clip(np.rint(outline[:, 1] - low[1]).astype(int), 0, cut.shape[0] - 1),
              np.clip(np.rint(outline[:, 0] - low[0]).astype(int), 0, cut.shape[1] - 1)]  # fmt: skip
    # the rim may show an iris where it is darkest: lashes have the hue of the skin
    skin, dark = lid.reshape(-1, 3).mean(0), float(rim[np.argsort(rim.sum(1))[: len(rim) // 3]].mean())
    lash = skin * np.float32(min(dark / max(float(skin.mean()), 1.0), _LASH_SHARE))
    if not opening.any():
        return EyePlate(cut, lid, low.astype(np.float64), centre, lash, opening_ratio(outline))
    filled = extend(cut, opening)
    soft = cv2.GaussianBlur(filled, (0, 0), max(0.6, width / 24))
    plate = np.where(opening[..., None], cut, soft)
    ball = plate.astype(np.float32)
    return EyePlate(ball, lid, low.astype(np.float64), centre, lash, opening_ratio(outline))


def _lid_skin(cut: F32, rings_px: Sequence[F64], outline_px: F64, width_px: float) -> F32:
    """The skin around an eye, continued over it: what a closed lid shows (h, w, 3), without lashes.

    From the lid itself, as far as it shows above its lashes, from what is between its fold and the brow, and a little
    from below the eye.
    """
    high, wide = cut.shape[:2]
    edge, fold, over = (_SMOOTH @ ring for ring in rings_px)

    def between(upper: F64, lower: F64) -> F32:
        return polygon_mask(np.concatenate([upper, lower[::-1]]), wide, high)

    known = np.maximum(between(over, fold), between(fold, edge + (fold - edge) * _LASHES_OF_LID))
    eye = polygon_mask(outline_px, wide, high) > 0
    reach = cv2.distanceTransform((~eye).astype(np.uint8), cv2.DIST_L2, 5) / width_px
    rows = np.arange(high)[:, None] > outline_px[:, 1].mean()
    known = np.maximum(known, _FROM_BELOW * ((reach > 0.15) & (reach < 0.35) & rows))
    known *= reach > _LASHES
    light = cut.mean(2)
    if not (known > 0.5).any():
        return cut
    known *= light > _NO_LASH * np.median(light[known > 0.5])
    skin = push_pull(cut, np.asarray(known, np.float32))
    return np.asarray(cv2.GaussianBlur(skin, (0, 0), max(0.6, width_px / 14)), np.float32)


# of the lid's height from its edge, and of the eye's width around it: lashes; darker than this share of the skin too
_LASHES_OF_LID, _LASHES, _NO_LASH = 0.5, 0.05, 0.75
_FROM_BELOW = 0.1
_LASH_SHARE = 0.38  # of the skin's light: lashes have no more


def _shrink(outline: F64, share: float) -> F64:
    centre = (outline.min(0) + outline.max(0)) / 2
    return centre + (outline - centre) * (1 - share / 2, 1 - share)


# share of the photo's own opening: from the first value down, the lid's skin covers the eye
_COVER_FROM, _COVER_FULL = 0.7, 0.3


@dataclass(frozen=True, slots=True, eq=False)
class FallingLid:
    """What a falling upper lid covers: in `box` (x0, y0, x1, y1) of the picture skin by `affine` (2, 3: from pixels of
    the box to the plate's), as far as `mask` (h, w, 1) 0 … 1 says, then lashes along its edge, `line` (h, w, 1).
    `weight` 0 … 1: how far it has fallen."""

    weight: float
    box: Box
    affine: F64
    mask: F32
    line: F32


def falling_lid(
    plate: EyePlate,
    rings_px: Sequence[F64],
    outline_px: F64,
    corners_px: F64,
    photo_pose: Similarity,
    pose: Similarity,
    size_px: tuple[int, int],
) -> FallingLid | None:
    """How the lid of an eye has fallen in a picture of `size_px`; None where it is as open as in the photo.

    `rings_px`: the lid's edge and its fold, (9, 2) each, and what follows.
    """
    share = opening_ratio(outline_px) / max(plate.rest_ratio, 1e-3)
    weight = float(np.clip((_COVER_FROM - share) / (_COVER_FROM - _COVER_FULL), 0, 1))
    edge, fold = (_SMOOTH @ ring for ring in rings_px[:2])
    # lids that are nearly closed close: what the mesh leaves open is no slit
    close = _closed(outline_px)
    edge += (_SMOOTH @ outline_px[:9] - edge) * (_MEETS * close)
    box = region(np.concatenate([edge, fold]), _ROUND_LID * pose.scale, *size_px)
    if weight <= 0 or box is None:
        return None
    x0, y0, x1, y1 = box
    up = fold - edge
    mask = np.zeros((y1 - y0, x1 - x0), np.float32)
    # soft at the fold, which is the photo's own
    for low, high in pairwise(np.linspace(0, 1, _STEPS + 1)):
        part = np.concatenate([edge + up * (1 - _SOFT * low), edge[::-1]]) - (x0, y0)
        ease = [t * t * (3 - 2 * t) for t in (low, high)]
        mask += np.float32(ease[1] - ease[0]) * polygon_mask(part, x1 - x0, y1 - y0)
    line = np.zeros((y1 - y0, x1 - x0), np.uint8)
    along = np.rint((edge - (x0, y0) - 0.5) * 16).astype(np.int32)
    cv2.polylines(
        line, [along], False, 255, max(1, round(pose.scale * _LASH_HU * (1 + close))), cv2.LINE_AA, 4
    )
    soft = cv2.GaussianBlur(line, (0, 0), max(0.6, pose.scale * _LINE_BLUR)).astype(np.float32)
    linear = planar_map(photo_pose, pose)
    offset = plate.centre_px - plate.origin_px - linear @ (corners_px.mean(0) - (x0, y0))
    return FallingLid(
        weight,
        box,
        np.column_stack([linear, offset - 0.5 + linear @ (0.5, 0.5)]),
        np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.7) * weight, np.float32)[..., None],
        (soft * np.float32(_LINE * weight / 255))[..., None],
    )


# of a head unit: the room around a lid for its soft rim
_ROUND_LID = 0.05
_MEETS = 0.7  # of the way from one lid to the other
_STEPS, _SOFT = 6, 0.3
_LINE, _LINE_BLUR = 0.85, 0.01  # how dark lashes are, and in head units how soft
_SMOOTH = CubicSpline(np.arange(9), np.eye(9))(np.linspace(0, 8, 33))


@dataclass(frozen=True, slots=True, eq=False)
class OpenEye:
    """What is painted of an eye: in `box` (x0, y0, x1, y1) of the picture the ball by `affine` (2, 3: from pixels of
    the box to the plate's), as far as `mask` (h, w, 1) 0 … 1 says, then `lashes` (h, w, 1), where lids close."""

    box: Box
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
    size_px: tuple[int, int],
    fallen: float,
) -> OpenEye | None:
    """An eye between its lids, turned by `gaze_rad` (yaw, pitch) against the photo's gaze; None: not in the picture.

    `fallen`: the weight of its lid, which closes it."""
    outline = _shrink(outline_px, _LID_SHRINK)
    box = region(outline_px, max(2.0, _ROUND_LID * photo_pose.scale), *size_px)
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
    close = _closed(outline_px)
    mask *= np.float32(1 - close * fallen)
    close *= 1 - fallen
    if close <= 0:
        return OpenEye(box, affine, mask, None)
    # the last sliver of white between closing lids is covered by lashes
    line = np.zeros((y1 - y0, x1 - x0), np.uint8)
    full = np.rint((outline_px - (x0, y0) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(line, [full], 255, cv2.LINE_AA, 4)
    # closed lids: what the photo has of white along their edges goes under the lashes too
    thick = max(1, round(photo_pose.scale * _LASH_HU * close))
    cv2.polylines(line, [full], True, 255, thick, cv2.LINE_AA, 4)
    lashes = cv2.GaussianBlur(line, (0, 0), max(0.5, photo_pose.scale * _LINE_BLUR)).astype(np.float32)[
        ..., None
    ]
    lashes *= _LINE * close / 255
    return OpenEye(box, affine, mask, lashes)


def _patch(plate: EyePlate, box: Box, over: F32, affine: F64, mask: F32, lashes: F32 | None) -> Patch:
    """A plate in `box` by `affine`, as far as `mask` says, and `lashes` on it."""
    x0, y0, x1, y1 = box
    moved = cv2.warpAffine(
        over, affine, (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    colour = np.asarray(moved * mask, np.float32)
    if lashes is None:
        return Patch(box, colour, mask)
    clear = 1 - lashes
    return Patch(box, np.asarray(colour * clear + plate.lash_rgb * lashes, np.float32), mask * clear + lashes)


def _closed(outline_px: F64) -> float:
    """0 … 1: how far lids are so near to one another that they meet."""
    return float(np.clip(1 - opening_ratio(outline_px) / _CLOSING_RATIO, 0, 1))


def opening_ratio(outline_px: F64) -> float:
    """How far an eye is open: area over squared width of its outline (16, 2)."""
    area = float(cv2.contourArea(outline_px.astype(np.float32)))
    return area / max(float(np.linalg.norm(outline_px[0] - outline_px[8])) ** 2, 1e-6)
