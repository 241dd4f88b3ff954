"""Fields over a head's surface: what follows the lips and lids, and what follows the head's pose."""

from __future__ import annotations

import numpy as np

from engines.geometry import F32, F64
from engines.head.landmark_names import MEETING
from engines.head.others.mesh import I64, distance_along

LIP_REACH_HU, LID_REACH_HU, MOUTH_WIDTH_HU = 0.35, 0.18, 0.4
NECK_PER_FACE = 0.24  # from the chin to the neck's base, of the way from forehead to chin
NECK_WIDEST = 0.92  # of half the face's width


def closing_fields(
    vertices_hu: F64, triangles: I64, landmark_corners: I64, landmark_weights: F64
) -> tuple[I64, F32]:
    """The fields of `HeadModel.closing_*` on an unsplit mesh: vertices (M,), weights (46, M).

    Along the surface each vertex follows the landmarks around it by inverse distance (Franke and Little's
    weights, which stay in 0 … 1), fading out within `*_REACH_HU`. The fields are then combined so that each
    is 1 at its own landmark and 0 at the 45 others: moving all of `MEETING` closes lips and lids exactly. On
    a mesh so coarse that landmarks share vertices this holds in the least-squares sense.
    """
    meeting = np.array([u for u, _ in MEETING] + [low for _, low in MEETING])
    corners, weights = landmark_corners[meeting], landmark_weights[meeting]
    lips = (vertices_hu[corners[14:23]] * weights[14:23, :, None]).sum(1)
    # as wide as the mouth, so that small heads and large have fields alike
    scale = max(float(np.ptp(lips[:, 0])), 0.1) / MOUTH_WIDTH_HU
    reach = np.array([LID_REACH_HU] * 14 + [LIP_REACH_HU] * 9) * scale
    reach = np.concatenate([reach, reach])
    r = distance_along(vertices_hu, triangles, corners, weights, reach) / reach[:, None]
    r = np.clip(np.where(np.isfinite(r), r, 1.0), 1e-3, 1.0)
    pull = ((1 - r) / r) ** 2
    fade = 1 - r.min(0)
    follow = pull / np.maximum(pull.sum(0), 1e-9) * (fade * fade * (3 - 2 * fade))
    at_landmarks = (follow[:, corners] * weights).sum(2)  # [j, i]: field j at landmark i
    fields = np.linalg.pinv(at_landmarks, rcond=0.1) @ follow
    moved = np.flatnonzero((np.abs(fields) > 1e-4).any(0))
    return moved, fields[:, moved].astype(np.float32)


def rigidity(vertices_hu: F64, landmarks_hu: F64) -> F64:
    """1 on the head, falling smoothly from below the chin to 0 at the base of the neck and on shoulders; (n,)."""
    chin, brow = landmarks_hu[152, 1], landmarks_hu[10, 1]
    left, right = landmarks_hu[:, 0].max(), landmarks_hu[:, 0].min()
    bottom = float(vertices_hu[:, 1].max())
    height = chin - brow
    start = chin + 0.06 * height
    if bottom - chin < 0.25 * height:  # no neck
        return np.ones(len(vertices_hu))
    # meshes with shoulders go on below the neck, and beside it
    end = min(bottom, chin + NECK_PER_FACE * height)
    down = np.clip((end - vertices_hu[:, 1]) / (end - start), 0, 1)
    aside = np.abs(vertices_hu[:, 0] - (left + right) / 2) / max((left - right) / 2, 1e-6)
    near = np.where(vertices_hu[:, 1] > start, np.clip((NECK_WIDEST - aside) / 0.2, 0, 1), 1)
    return _eased(down) * _eased(near)


def _eased(t: F64) -> F64:
    return np.asarray(t * t * (3 - 2 * t), np.float64)
