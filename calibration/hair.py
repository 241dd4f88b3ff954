"""Hair: the scalp of the fitted head inflated until it fills the person's matte, so that hair has parallax."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import KDTree

from engines.geometry import Similarity
from engines.head.model import HeadModel, Part
from engines.head.surface import laplacian

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

REACH_HU = 0.9  # no hair is inflated further than this
_STEP_HU = 0.02
_WITHIN = 200
_MARGIN_HU = -0.02  # within the matte: all of the mesh shows the person, its soft edge goes along behind
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


@lru_cache(maxsize=4)
def curtain_weight(model: HeadModel) -> F32:
    """(N,) 0 … 1: 1 where hair can hang that grows higher up (beside and behind the neck), 0 on face and throat."""
    mean = model.mean_hu
    beside = np.abs(mean[:, 0]) / np.maximum(np.hypot(mean[:, 0], mean[:, 2] - _AXIS_Z_HU), 1e-6)
    around = np.where(mean[:, 2] > _AXIS_Z_HU, 1.0, _smoothstep(beside, *_BESIDE))
    below = _smoothstep(mean[:, 1], 0.0, 0.4)
    skin = np.zeros(len(mean), bool)
    skin[model.triangles[model.part == Part.SKIN]] = True
    marks = model.landmarks(mean)[:468]
    distance, _ = KDTree(marks).query(mean)
    far = _smoothstep(distance, *_FROM_FACE_HU)
    return (around * below * far * skin).astype(np.float32)


_AXIS_Z_HU = 0.45
_BESIDE = (0.55, 0.85)
_FROM_FACE_HU = (0.03, 0.15)


def inflate_hair(
    model: HeadModel, neutral_hu: F32, pose: Similarity, matte: U8, hair: U8 | None = None
) -> F32:
    """How far each vertex moves outwards (N, 3), in head units.

    Vertices on the head's outline in the photo march away from the skull's middle while they stay on the
    person in `matte` (H, W) uint8; the others take a smooth mean of them. Ears that hair covers are flattened
    into it. Beside the neck they march over `hair` (H, W) uint8, where it is known: so long hair hangs from the
    head, as rigid as the neck is there. `pose` takes head units to photo pixels.
    """
    scalp = scalp_weight(model)
    curtain = curtain_weight(model) if hair is not None else np.zeros_like(scalp)
    weight = np.minimum(scalp + curtain, 1)
    flat = _without_ears(model, neutral_hu)
    outwards = flat - _SKULL_MIDDLE_HU
    if hair is not None:  # a capsule: beside the neck straight away from its axis
        outwards[:, 1] = np.minimum(outwards[:, 1], 0)
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    seen = outwards @ pose.rotation.T.astype(np.float32)
    outline = (np.linalg.norm(seen[:, :2], axis=1) > _OUTLINE) & (weight > 0.05)
    if not outline.any() or matte.min() > 128:  # no background in sight: nothing tells where hair ends
        return np.zeros_like(neutral_hu)
    index = np.flatnonzero(outline)
    grown = np.zeros(len(neutral_hu))
    grown[index] = _march(neutral_hu[index], outwards[index], pose, matte)
    if hair is not None:
        hanging = _march_over_hair(neutral_hu[index], outwards[index], pose, hair)
        low = _smoothstep(model.mean_hu[index, 1], -0.25, 0.15)
        grown[index] = grown[index] * (1 - low) + hanging * low
    known = weight < 0.02
    pull = np.where(outline, 0.35, np.where(known, 1.0, 0.0))
    target = np.where(outline, grown, 0.0)
    average = _averaging(model)
    field = np.where(outline, grown, float(np.median(grown[index])) * weight)
    most = _most(neutral_hu, outwards, pose, matte)
    for _ in range(_SMOOTH_ROUNDS):
        field = np.minimum(pull * target + (1 - pull) * (average @ field), most)
    field = np.where(weight > 0, field, 0)
    # how deep hair is behind the head no photo tells: less than it is wide
    field *= 1 - _FLATTER_BEHIND * np.clip(seen[:, 2], 0, 1)
    covered = _smoothstep(field, 0.04, 0.12) * _ears(model)
    moved = outwards * (field * weight)[:, None] + (flat - neutral_hu) * covered[:, None]
    grown_hu = neutral_hu + moved
    if hair is not None:
        grown_hu = _smooth_depth(model, grown_hu, curtain * _smoothstep(field, 0.0, 0.1), pose)
    return (_flat_behind(model, grown_hu, pose) - neutral_hu).astype(np.float32)


def _smooth_depth(model: HeadModel, vertices_hu: F32, weight: NDArray[np.floating], pose: Similarity) -> F32:
    """The vertices (N, 3), their depth in the photo relaxed by `weight` (N,) to what is around; seen they stay."""
    into = pose.rotation[2].astype(np.float64)
    depth = vertices_hu @ into
    average = _averaging(model)
    smooth = depth.copy()
    for _ in range(_DEPTH_ROUNDS):
        smooth += weight * (average @ smooth - smooth)
    return (vertices_hu + (smooth - depth)[:, None] * into).astype(np.float32)


def _flat_behind(model: HeadModel, vertices_hu: F32, pose: Similarity) -> F32:
    """The vertices (N, 3), what lies behind the skull's middle in the photo less deep: no photo shows it."""
    into = pose.rotation[2].astype(np.float64)
    depth = (vertices_hu - _SKULL_MIDDLE_HU) @ into - _FLAT_FROM_HU
    beyond = np.maximum(depth, 0) * _off_face(model)
    flat = _FLAT_SHARE * beyond + (1 - _FLAT_SHARE) * _FLAT_SOFT_HU * np.tanh(beyond / _FLAT_SOFT_HU)
    return (vertices_hu + (flat - beyond)[:, None] * into).astype(np.float32)


_DEPTH_ROUNDS = 100
_FLAT_FROM_HU, _FLAT_SOFT_HU, _FLAT_SHARE = -0.5, 0.25, 0.15


@lru_cache(maxsize=4)
def _off_face(model: HeadModel) -> F32:
    """(N,) 0 … 1: 1 on skin that lies beside and behind the face."""
    mean = model.mean_hu
    skin = np.zeros(len(mean), bool)
    skin[model.triangles[model.part == Part.SKIN]] = True
    distance, _ = KDTree(model.landmarks(mean)[:468]).query(mean)
    return (_smoothstep(distance, 0.05, 0.35) * skin).astype(np.float32)



def _march(start_hu: F32, outwards: F32, pose: Similarity, matte: U8) -> NDArray[np.floating]:
    """(P,) how far each point can go outwards before it leaves the person, in head units."""
    soft = cv2.GaussianBlur(matte, (0, 0), 1.0)
    height, width = matte.shape
    steps = np.arange(1, round(REACH_HU / _STEP_HU) + 1) * _STEP_HU
    spots = start_hu[:, None] + steps[None, :, None] * outwards[:, None]
    pixels = pose.apply(spots.reshape(-1, 3))[:, :2].astype(int).reshape(*spots.shape[:2], 2)
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    on = inside & (soft[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > _WITHIN)
    # a point that never leaves is not on the outline after all, or the photo's edge cuts hair off
    count = np.where(on.all(1), 0, np.argmin(on, axis=1))
    return count * _STEP_HU + np.where(count > 0, _MARGIN_HU, 0.0)


def _most(start_hu: F32, outwards: F32, pose: Similarity, matte: U8) -> NDArray[np.floating]:
    """(N,) how far out each point is still before the person, in head units; below 0 where it starts beside them.

    What lies beyond the photo's edge is as its edge.
    """
    soft = cv2.GaussianBlur(matte, (0, 0), 1.0)
    height, width = matte.shape
    out = np.full(len(start_hu), -_SHRINK_HU)
    for step in np.arange(-round(_SHRINK_HU / _STEP_HU), round(REACH_HU / _STEP_HU) + 1) * _STEP_HU:
        x, y = pose.apply(start_hu + step * outwards)[:, :2].astype(int).T
        on = soft[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > _WITHIN
        out = np.where(on, step, out)
    return np.where(out > -_SHRINK_HU, out + _MARGIN_HU, 0.0)


_SHRINK_HU = 0.3


def _march_over_hair(
    start_hu: F32, outwards: F32, pose: Similarity, hair: U8
) -> NDArray[np.floating]:
    """(P,) how far out the last hair lies that each point reaches over little that is none, in head units."""
    height, width = hair.shape
    steps = np.arange(1, round(REACH_HU / _STEP_HU) + 1) * _STEP_HU
    spots = start_hu[:, None] + steps[None, :, None] * outwards[:, None]
    pixels = pose.apply(spots.reshape(-1, 3))[:, :2].astype(int).reshape(*spots.shape[:2], 2)
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    on = inside & (hair[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > _WITHIN)
    off = np.cumsum(~on, axis=1) * _STEP_HU
    last = np.where(on & (off < _GAP_HU), np.arange(1, len(steps) + 1), 0).max(1)
    return last * _STEP_HU + np.where(last > 0, _MARGIN_HU, 0.0)


_GAP_HU = 0.25
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
