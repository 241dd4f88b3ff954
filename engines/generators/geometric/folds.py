"""Folds of a smile: what the photo shows of them fades as the face lets go of its smile."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.geometric.masks import region
from engines.motion import ARKIT_INDEX, Motion
from engines.raster.gbuffer import HeadMesh

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# by landmarks, right and left: from the nose's wing along the cheek to the chin's side; and at the eye's outer corner
_CHEEKS = (
    (129, 203, 206, 216, 212, 202, 211, 170, 169, 135, 138, 215, 177, 137, 123, 50, 36),
    (358, 423, 426, 436, 432, 422, 431, 395, 394, 364, 367, 435, 401, 366, 352, 280, 266),
)
_EYE_CORNERS = ((130, 226, 35, 143, 34, 227, 116, 111, 31), (359, 446, 265, 372, 264, 447, 345, 340, 261))
FOLDED = np.array(sorted({k for ring in (*_CHEEKS, *_EYE_CORNERS) for k in ring}))
_SMILE = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]
_SMILE_FROM, _SMILE_FULL = 0.25, 0.5  # a photo's own smile: below the first it has no folds to lose

# A fold is a dark line: finer than the second, broader than the first. Pores are finer, cheeks broader.
_FINE_HU, _BROAD_HU = 0.006, 0.055
_MOST = 34.0  # of 255: what is darker is hair, or a shadow
_EDGE_HU = 0.045
_HAIR = 5.0  # of 255: where the finest detail is stronger there is a beard
_ERODE_HU = 0.03
_STEPS = 64


@dataclass(frozen=True, slots=True)
class Folds:
    """`smooth` (Hc, Wc, 4): the photo's canvas with its folds filled, in the last channel where that counts, 0 … 255;
    `smile`: how much the photo smiles, the mean of both coefficients; `share` 0 … 1: how far it has folds to lose."""

    smooth: U8
    smile: float
    share: float


def make_folds(canvas: U8, points_px: F32, motion: Motion, scale: float) -> Folds:
    """Of a photo's `canvas` (Hc, Wc, 4) with landmarks (478, 2) in it, `scale` pixels a head unit."""
    smile = float(motion.expression[_SMILE].mean())
    share = float(np.clip((smile - _SMILE_FROM) / (_SMILE_FULL - _SMILE_FROM), 0, 1))
    height, width = canvas.shape[:2]
    smooth = np.zeros_like(canvas)
    points = points_px.astype(np.float64)
    box = region(points[FOLDED], 3 * _BROAD_HU * scale, width, height)
    if share <= 0 or box is None:
        return Folds(smooth, smile, 0.0)
    x0, y0, x1, y1 = box
    cut = canvas[y0:y1, x0:x1, :3].astype(np.float32)
    fine = cv2.GaussianBlur(cut, (0, 0), max(0.5, _FINE_HU * scale))
    broad = cv2.GaussianBlur(cut, (0, 0), _BROAD_HU * scale)
    # filled, never darkened, and by one number for all colours: skin keeps its hue
    dark = np.clip((broad - fine).mean(2), 0, None)
    fill = _MOST * np.tanh(dark / _MOST)
    detail = cv2.GaussianBlur(np.abs(cut - fine).mean(2), (0, 0), _BROAD_HU * scale / 2)
    mask = np.zeros(cut.shape[:2], np.uint8)
    for ring in (*_CHEEKS, *_EYE_CORNERS):
        outline = np.rint((points[list(ring)] - (x0, y0) - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, 4)
    side = 2 * max(1, round(_ERODE_HU * scale)) + 1
    mask = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), _EDGE_HU * scale / 2)
    soft *= np.clip(2 - detail / _HAIR, 0, 1)
    tint = cut / np.maximum(cut.mean(2, keepdims=True), 1)
    out = smooth[y0:y1, x0:x1]
    out[..., :3] = np.clip(cut + fill[..., None] * tint + 0.5, 0, 255).astype(np.uint8)
    out[..., 3] = np.clip(soft + 0.5, 0, 255).astype(np.uint8)
    return Folds(smooth, smile, share)


def unfolded(folds: Folds, motion: Motion) -> float:
    """How far the photo's folds are gone, 0 … 1, when the head shows `motion`."""
    if folds.share <= 0:
        return 0.0
    now = float(motion.expression[_SMILE].mean())
    # in steps too small to be seen, so that the last digit of a coefficient changes no pixel
    return round(_STEPS * folds.share * float(np.clip(1 - now / folds.smile, 0, 1))) / _STEPS


def paint_folds(
    picture: U8, folds: Folds, flow: F32, seen: F32, base_grid: F32, mesh: HeadMesh, motion: Motion
) -> None:
    """Let the folds of `picture` (H, W, 4) go as far as `motion` has let go of the smile, in place.

    `flow` (h, w, 2): from where in the canvas pixels come, minus `base_grid` (H, W, 2); `seen` (h, w) 0 … 1, O_c: what
    the photo hides comes from elsewhere and has none of its folds.
    """
    share = unfolded(folds, motion)
    height, width = picture.shape[:2]
    box = region(mesh.landmarks_px[FOLDED, :2].astype(np.float64), 2, width, height) if share > 0 else None
    if box is None:
        return
    x0, y0, x1, y1 = box
    here = np.s_[y0:y1, x0:x1]
    full = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    shown = cv2.resize(seen, (width, height), interpolation=cv2.INTER_LINEAR)
    where = np.asarray(full[here] + base_grid[here], np.float32)
    filled = cv2.remap(folds.smooth, where, None, cv2.INTER_LINEAR)  # pyright: ignore[reportCallIssue, reportArgumentType]
    filled = np.asarray(filled, np.float32)
    under = picture[y0:y1, x0:x1, :3]
    weight = filled[..., 3:] * (shown[y0:y1, x0:x1, None] * np.float32(share / 255))
    under[:] = (under + weight * (filled[..., :3] - under) + np.float32(0.5)).astype(np.uint8)
