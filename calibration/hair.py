"""Hair: the scalp of the fitted head inflated until it fills the person's matte, so that hair has parallax."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from engines.geometry import Similarity
from engines.head.model import HeadModel, Part
from engines.head.surface import laplacian

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

REACH_HU = 0.9  # no hair is inflated further than this
_STEP_HU = 0.02
_MARGIN_HU = 0.03  # beyond the matte, so that its soft edge lies on the mesh
_OUTLINE = 0.75  # normals this much across the view lie on the outline
_SMOOTH_ROUNDS = 40
_FLATTER_BEHIND = 0.6


@lru_cache(maxsize=4)
def scalp_weight(model: HeadModel) -> F32:
    """(N,) 0 … 1: 1 where hair can grow (skull, temples, behind the ears), 0 on face, ears' fronts and neck."""
    mean = model.mean_hu
    marks = model.landmarks(mean)[:468]
    distance = np.full(len(mean), np.inf, np.float32)
    for start in range(0, len(mean), 512):
        part = mean[start : start + 512]
        distance[start : start + 512] = np.linalg.norm(part[:, None] - marks[None], axis=-1).min(1)
    far = _smoothstep(distance, 0.06, 0.3)
    above = 1 - _smoothstep(mean[:, 1], 0.1, 0.5)
    weight = (far * above * (model.rigidity > 0.99)).astype(np.float32)
    skin = np.zeros(len(mean), bool)
    skin[model.triangles[model.part == Part.SKIN]] = True
    weight[~skin] = 0
    return weight


def _smoothstep(x: NDArray[np.floating], low: float, high: float) -> NDArray[np.floating]:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def inflate_hair(model: HeadModel, neutral_hu: F32, pose: Similarity, matte: U8) -> F32:
    """How far each vertex moves outwards (N, 3), in head units.

    Vertices on the head's outline in the photo march away from the skull's middle while they stay on the
    person in `matte` (H, W) uint8; the others take a smooth mean of them. Ears that hair covers are flattened
    into it. `pose` takes head units to photo pixels.
    """
    weight = scalp_weight(model)
    flat = _without_ears(model, neutral_hu)
    outwards = flat - _SKULL_MIDDLE_HU
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    seen = outwards @ pose.rotation.T.astype(np.float32)
    outline = (np.linalg.norm(seen[:, :2], axis=1) > _OUTLINE) & (weight > 0.05)
    if not outline.any() or matte.min() > 128:  # no background in sight: nothing tells where hair ends
        return np.zeros_like(neutral_hu)
    index = np.flatnonzero(outline)
    grown = np.zeros(len(neutral_hu))
    grown[index] = _march(neutral_hu[index], outwards[index], pose, matte)
    known = weight < 0.02
    pull = np.where(outline, 0.35, np.where(known, 1.0, 0.0))
    target = np.where(outline, grown, 0.0)
    average = _averaging(model)
    field = np.where(outline, grown, float(np.median(grown[index])) * weight)
    for _ in range(_SMOOTH_ROUNDS):
        field = pull * target + (1 - pull) * (average @ field)
    # how deep hair is behind the head no photo tells: less than it is wide
    field *= 1 - _FLATTER_BEHIND * np.clip(seen[:, 2], 0, 1)
    covered = _smoothstep(field, 0.04, 0.12) * _ears(model)
    moved = outwards * (field * weight)[:, None] + (flat - neutral_hu) * covered[:, None]
    return moved.astype(np.float32)


def _march(start_hu: F32, outwards: F32, pose: Similarity, matte: U8) -> NDArray[np.floating]:
    """(P,) how far each point can go outwards before it leaves the person, in head units."""
    soft = cv2.GaussianBlur(matte, (0, 0), 1.0)
    height, width = matte.shape
    steps = np.arange(1, round(REACH_HU / _STEP_HU) + 1) * _STEP_HU
    spots = start_hu[:, None] + steps[None, :, None] * outwards[:, None]
    pixels = pose.apply(spots.reshape(-1, 3))[:, :2].astype(int).reshape(*spots.shape[:2], 2)
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    on = inside & (soft[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > 64)
    # a point that never leaves is not on the outline after all, or the photo's edge cuts hair off
    count = np.where(on.all(1), 0, np.argmin(on, axis=1))
    return count * _STEP_HU + np.where(count > 0, _MARGIN_HU, 0.0)


_SKULL_MIDDLE_HU = np.array([0, -0.2, 0.45], np.float32)
_EAR_BOX_HU = ((0.5, 1.2), (-0.6, 0.45), (0.1, 0.95))  # |x|, y, z of the mean head


@lru_cache(maxsize=4)
def _ear_box(model: HeadModel) -> NDArray[np.bool_]:
    p = np.abs(model.mean_hu) * (1, 0, 0) + model.mean_hu * (0, 1, 1)
    box = np.ones(len(p), bool)
    for axis, (low, high) in enumerate(_EAR_BOX_HU):
        box &= (p[:, axis] > low) & (p[:, axis] < high)
    return box


@lru_cache(maxsize=4)
def _ears(model: HeadModel) -> F32:
    """(N,) 1 on the ears: where smoothing takes the surface away."""
    gone = np.linalg.norm(_without_ears(model, model.mean_hu) - model.mean_hu, axis=1)
    return np.asarray(_smoothstep(gone, 0.01, 0.04), np.float32)


def _without_ears(model: HeadModel, vertices_hu: F32) -> F32:
    """The head with its ears ironed flat: the region relaxed between its surroundings."""
    box = _ear_box(model)[:, None]
    average = _averaging(model)
    out = vertices_hu.astype(np.float64)
    for _ in range(_FLATTEN_ROUNDS):
        out = np.where(box, average @ out, out)
    return out.astype(np.float32)


_FLATTEN_ROUNDS = 120


@lru_cache(maxsize=4)
def _averaging(model: HeadModel) -> Any:
    smooth = laplacian(model.mean_hu.astype(np.float64), model.triangles, model.weld)
    gather = sp.csr_matrix(
        (np.ones(model.vertex_count), (np.arange(model.vertex_count), model.weld)),
        (model.vertex_count, model.vertex_count),
    )
    return (gather @ (sp.identity(model.vertex_count) - smooth)).tocsr()
