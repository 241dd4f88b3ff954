"""`OpenMouth`: what shows between the lips of a posed head, as numbers and masks: all that drawing it needs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.generators.geometric.masks import planar_map, polygon_mask, region, smooth_lips
from engines.generators.geometric.mouth import MOUTH_CORNERS, Mouth, lit_share, share
from engines.geometry import F64, Similarity
from engines.head.landmark_names import LIPS_INNER, LOWER_LIP, UPPER_LIP
from engines.raster.gbuffer import HeadMesh

F32 = NDArray[np.float32]

_SEAM_HU = 0.018
_THREAD_HU = 0.05
_OWN_TEETH_ALONE_HU = 0.05  # lips this much further apart than in the photo: no drawn teeth beside its own
_DRAWN_BACK_HU = 0.15
_TEETH_SHOW_HU = 0.032  # the upper teeth show this far below the lip when the mouth opens
# The lower teeth reach this far above the lip, as lips part from … to: on a mesh the lip falls twice as far as they.
_LOWER_SHOW_HU, _LOWER_FROM_HU, _LOWER_TO_HU = 0.04, 0.02, 0.15
_TONGUE_DOWN_HU = 0.07  # it lies on the floor of an open mouth, behind the lower teeth


@dataclass(frozen=True, slots=True, eq=False)
class OpenMouth:
    """In `box` (x0, y0, x1, y1) of the picture; masks are (h, w, 1) 0 … 1 over it.

    - `seam`: where closed lips meet, of a photo whose own are apart. - `mask`: where the inside shows; None: nowhere.
    - `gap_hu`: how far apart the lips are. - `lip_px`: their depth. - `scale`: pixels per head unit.
    - `teeth_px`, `lower_teeth_px`, `tongue_px` (3,): how far the upper and lower teeth and the tongue are moved from
      where the mesh has them.
    - `hidden` 0 … 1: how far the drawn upper teeth give way to the photo's.
    - `lit` 0 … 1: how far teeth are out of the lips' shade; `own_lit` the same of the photo's, against the photo.
    - `sides_px`: the corners' x in the picture. - `affine` (2, 3): from pixels of the box to the photo's mouth.
    - `thread_px`: the side of the ellipse within which dark threads are closed.
    """

    box: tuple[int, int, int, int]
    seam: F32 | None
    mask: F32 | None
    gap_hu: float
    lip_px: float
    scale: float
    teeth_px: F32
    lower_teeth_px: F32
    tongue_px: F32
    hidden: float
    lit: float
    own_lit: float
    sides_px: tuple[float, float]
    affine: F64
    thread_px: int


def open_mouth(
    mouth: Mouth, mesh: HeadMesh, photo_pose: Similarity, width: int, height: int
) -> OpenMouth | None:
    """The mouth of a posed head in a picture; None where nothing of it is inside.

    The upper teeth hang on the skull, the lower ones and the tongue on the jaw.
    """
    points = mesh.landmarks_px[:, :2].astype(np.float64)
    inner, pose = smooth_lips(points[list(LIPS_INNER)]), mesh.pose
    upper_lip, lower_lip = points[UPPER_LIP], points[LOWER_LIP]
    gap_hu = float(np.linalg.norm(upper_lip - lower_lip)) / pose.scale
    shown = float(np.clip((gap_hu - 0.008) / 0.02, 0, 1))
    box = region(inner, 3, width, height)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    seam = _seam(inner, box, pose.scale, 1 - shown) if mouth.has_photo and shown < 1 else None
    mask = None
    if shown > 0:
        mask = polygon_mask(inner - (x0, y0), x1 - x0, y1 - y0)
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, pose.scale / 180))[..., None] * shown
    linear = planar_map(photo_pose, pose)
    anchor = _hang(mouth.photo_lip_hu, pose, upper_lip, gap_hu - mouth.photo_gap_hu)
    shift = mouth.photo_anchor_px - linear @ (anchor - (x0, y0))
    down = mesh.pose.rotation[:, 1] * mesh.pose.scale
    # a lip that an opening jaw pulls down hides the teeth on a mesh; on people it draws back over them
    lip_now = mesh.pose.invert(mesh.landmarks_px[UPPER_LIP][None])[0]
    lower = max(0.0, float(lip_now[1] - mouth.rest_lip_hu[1])) + _TEETH_SHOW_HU
    apart = float(np.linalg.norm(mesh.landmarks_px[UPPER_LIP, :2] - mesh.landmarks_px[LOWER_LIP, :2]))
    wider = apart / mesh.pose.scale - mouth.photo_gap_hu
    left, right = (mesh.landmarks_px[k].astype(np.float64) for k in MOUTH_CORNERS)
    lit = lit_share(gap_hu, float(np.linalg.norm(left - right)) / pose.scale / mouth.rest_width_hu)
    return OpenMouth(
        box,
        seam,
        None if mask is None else np.asarray(mask, np.float32),
        gap_hu,
        float(mesh.landmarks_px[[UPPER_LIP, LOWER_LIP], 2].mean()),
        pose.scale,
        (down * lower).astype(np.float32),
        (down * _lower_teeth_down_hu(mesh, mouth.lower_edge, gap_hu)).astype(np.float32),
        (down * _TONGUE_DOWN_HU).astype(np.float32),
        float(np.clip(wider / _OWN_TEETH_ALONE_HU, 0, 1)) if mouth.own_teeth else 0.0,
        lit,
        min(1.0, lit / max(mouth.photo_lit, 1e-3)),
        (float(inner[:, 0].min()), float(inner[:, 0].max())),
        np.column_stack([linear, shift - 0.5 + linear @ (0.5, 0.5)]),
        max(3, round(pose.scale * _THREAD_HU)) | 1,
    )


def _lower_teeth_down_hu(mesh: HeadMesh, edge: NDArray[np.intp], gap_hu: float) -> float:
    if not len(edge):
        return 0.0
    lip, teeth = (
        mesh.pose.invert(p)[:, 1] for p in (mesh.landmarks_px[LOWER_LIP][None], mesh.vertices_px[edge])
    )
    wanted = float(lip[0] - teeth.mean()) - _LOWER_SHOW_HU
    return wanted * share(gap_hu, _LOWER_FROM_HU, _LOWER_TO_HU)


def _seam(inner_px: F64, box: tuple[int, int, int, int], scale: float, weight: float) -> F32:
    """Where what is left of the photo's teeth is covered: along the line where its lips now meet."""
    x0, y0, x1, y1 = box
    line = np.zeros((y1 - y0, x1 - x0), np.uint8)
    around = np.rint((inner_px - (x0, y0) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(line, [around], 255, cv2.LINE_AA, 4)
    cv2.polylines(line, [around], True, 255, max(1, round(scale * _SEAM_HU)), cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(line, (0, 0), max(0.6, scale * _SEAM_HU / 3)).astype(np.float32)[..., None]
    share *= weight / 255
    return share


def _hang(lip_hu: F32, pose: Similarity, upper_lip_px: F64, wider_hu: float) -> F64:
    """Where teeth that hang on the skull at `lip_hu` are now; a lip that rises takes them half-way along.

    (Measured smiles show more tooth than the photo has: following a little hides the gap that would open.) A lip that
    falls covers them, but where the mouth opens wider than the photo's by `wider_hu`: there lips of people draw back.
    """
    skull = pose.apply(lip_hu[None])[0, :2]
    rise = upper_lip_px - skull
    falls = 0.15 + 0.85 * float(np.clip(wider_hu / _DRAWN_BACK_HU, 0, 1))
    return skull + rise * (0.5 if rise[1] < 0 else falls)
