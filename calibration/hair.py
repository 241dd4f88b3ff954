"""Hair: scalp and neck of the fitted head inflated until they fill the person's hair, so that it turns along."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu, spsolve
from scipy.spatial import KDTree

from engines.geometry import Similarity
from engines.head.landmark_names import SURFACE
from engines.head.model import HeadModel, Part
from engines.head.surface import laplacian
from engines.raster.gbuffer import HeadMesh, Viewport, rasterise

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

REACH_HU = 0.9  # no hair is inflated further than this
_STEP_HU = 0.02
_WITHIN = 128  # of the matte: beyond, a rounded contour would uncover much of what is no person
_OUTLINE, _OUTLINE_LOW = 0.75, 0.9  # normals this much across the view lie on the outline
_PULL = 2.0  # how much the outline counts against what is around


@lru_cache(maxsize=4)
def scalp_weight(model: HeadModel) -> F32:
    """(N,) 0 … 1: 1 where hair can grow (skull, temples, behind the ears), 0 on face, ears' fronts and neck."""
    far = _smoothstep(_from_face_hu(model), 0.06, 0.3)
    above = 1 - _smoothstep(model.mean_hu[:, 1], 0.1, 0.5)
    return (far * above * (model.rigidity > 0.99) * _skin(model)).astype(np.float32)


@lru_cache(maxsize=4)
def _from_face_hu(model: HeadModel) -> F32:
    """(N,) how far the mean head's vertices are from the nearest landmark of the face."""
    distance, _ = KDTree(model.landmarks(model.mean_hu)[:SURFACE]).query(model.mean_hu)
    return np.asarray(distance, np.float32)


@lru_cache(maxsize=4)
def _skin(model: HeadModel) -> NDArray[np.bool_]:
    """(N,) the vertices of skin, hair's own included."""
    skin = np.zeros(model.vertex_count, bool)
    skin[model.triangles[model.part == Part.SKIN]] = True
    return skin


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
    far = _smoothstep(_from_face_hu(model), *_FROM_FACE_HU)
    return (around * below * far * _skin(model)).astype(np.float32)


_AXIS_Z_HU = 0.45
_BESIDE = (0.55, 0.85)
_FROM_FACE_HU = (0.03, 0.15)


def inflate_hair(
    model: HeadModel, neutral_hu: F32, pose: Similarity, matte: U8, hair: U8 | None = None
) -> F32:
    """How far each vertex moves outwards (N, 3), in head units.

    Vertices on the head's outline in the photo march away from the skull's middle while they stay on the
    person in `matte` (H, W) uint8, or back to it; the others follow smoothly, the face stays. Ears that hair covers or
    hangs beside are flattened into it. Beside the neck they march over `hair` (H, W) uint8, where it is known: so long
    hair hangs from the head, as rigid as the neck is there. `pose` takes head units to photo pixels.
    """
    if matte.min() > 128:  # no background in sight: nothing tells where hair ends
        return np.zeros_like(neutral_hu)
    scalp = scalp_weight(model)
    curtain = curtain_weight(model) if hair is not None else np.zeros_like(scalp)
    flat = _without_ears(model, neutral_hu)
    outwards = flat - _SKULL_MIDDLE_HU
    if hair is not None:  # a capsule: beside the neck straight away from its axis
        outwards[:, 1] = np.minimum(outwards[:, 1], 0)
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    seen = outwards @ pose.rotation.T.astype(np.float32)
    across = np.linalg.norm(seen[:, :2], axis=1)
    most = _most(flat, outwards, pose, matte)
    low = _smoothstep(model.mean_hu[:, 1], -0.25, 0.15) if hair is not None else np.zeros_like(scalp)
    # on the outline: of the skull, or beside the neck and not before its axis
    outline = (across > _OUTLINE) & (scalp > 0.5) & (low < 0.5)
    outline |= (across > _OUTLINE_LOW) & (curtain + scalp > 0.8) & (low >= 0.5)
    if not outline.any():
        return np.zeros_like(neutral_hu)
    index = np.flatnonzero(outline)
    grown = np.zeros(len(neutral_hu))
    grown[index] = _march(flat[index], outwards[index], pose, matte)
    if hair is not None:
        head = _silhouette(model, flat, pose, hair.shape[1], hair.shape[0])
        hanging = _march_over_hair(flat[index], outwards[index], pose, hair, head)
        grown[index] = grown[index] * (1 - low[index]) + hanging * low[index]
    grown = np.minimum(grown, most)
    still = (scalp + curtain < 0.02) | _carries_landmarks(model)
    moved = _spread_out(model, outwards * grown[:, None], outline, still)
    thick = np.linalg.norm(moved, axis=1)
    covered = np.maximum(_smoothstep(thick, 0.04, 0.12), _hung_over(model, thick * curtain)) * _ears(model)
    grown_hu = (neutral_hu + moved).astype(np.float32)
    covered = np.where(still, 0.0, covered * _off_face(model))
    grown_hu += covered[:, None] * (_without_ears(model, grown_hu) - grown_hu)
    return grown_hu - neutral_hu


@lru_cache(maxsize=4)
def _carries_landmarks(model: HeadModel) -> NDArray[np.bool_]:
    """(N,) what a landmark of the face lies on: fitted to the photo, and nothing to be moved."""
    out = np.zeros(model.vertex_count, bool)
    out[model.weld[model.landmark_vertices[:SURFACE]]] = True
    return out[model.weld]


def drape_hair(model: HeadModel, grown_hu: F32, neutral_hu: F32, pose: Similarity) -> F32:
    """The head with its hair, `grown_hu` (N, 3), made ready to turn; `neutral_hu` (N, 3) is the same without hair.

    What the photo sees stays where it is in the picture; depth alone changes, `pose` taking head units to photo pixels.
    What lies behind the contour, which no photo shows, gets less deep: so a turn uncovers little that would have to be
    invented. Between face and contour depth rises evenly, so that hair is stretched and not torn.
    """
    thick = np.linalg.norm(grown_hu - neutral_hu, axis=1)
    hanging = curtain_weight(model) * _smoothstep(thick, 0.0, 0.1)
    return _draped(model, _flat_behind(model, grown_hu, pose), pose, hanging)


def _spread_out(model: HeadModel, moved: F32, known: NDArray[np.bool_], still: NDArray[np.bool_]) -> F32:
    """(N, 3) as `moved` says about where it is `known` (N,), 0 where `still` (N,), smooth in between."""
    ties = _ties(model)
    total = np.maximum(np.asarray(ties.sum(1)).ravel(), 1e-9)
    weld = model.weld
    pull = np.where(still[weld], 1e3, np.where(known[weld], _PULL, 1e-4)) * total
    told = np.where((known & ~still)[weld, None], moved[weld], 0)
    system = (sp.diags(total + pull) - ties).tocsc()
    out = np.asarray(splu(system).solve(pull[:, None] * told), np.float32)[weld]
    out[still] = 0
    return out


@lru_cache(maxsize=4)
def _ties(model: HeadModel) -> Any:
    """(N, N) sparse: how strongly neighbours on the head hold together; welded ones are their first."""
    corners = model.weld[model.triangles]
    one, other = (np.concatenate([corners[:, k] for k in order]) for order in ((0, 1, 2), (1, 2, 0)))
    length = np.linalg.norm(model.mean_hu[one] - model.mean_hu[other], axis=1)
    count = model.vertex_count
    half = sp.coo_matrix(
        (1 / np.maximum(length, 0.01) * (one != other), (one, other)), (count, count)
    ).tocsr()
    return half.maximum(half.T)


def _hung_over(model: HeadModel, hanging: NDArray[np.floating]) -> NDArray[np.floating]:
    """(N,) 0 … 1, alike on each side of the head: whether hair hangs there, `hanging` (N,) head units thick."""
    out = np.zeros(len(hanging))
    right = model.mean_hu[:, 0] > 0
    for side in (right, ~right):
        near = side & (curtain_weight(model) > 0.5) & (np.abs(model.mean_hu[:, 1] - 0.4) < 0.3)
        thick = np.percentile(hanging[near], [80]) if near.any() else np.zeros(1)
        out[side] = _smoothstep(thick, 0.06, 0.15)
    return out


def _draped(model: HeadModel, vertices_hu: F32, pose: Similarity, hanging: NDArray[np.floating]) -> F32:
    """The vertices (N, 3), the depth of what the photo sees beside the face smoothed: seen, all stay where they are.

    Between face and contour depth rises as evenly as a cloth that is stretched there, as seen in the picture: steep
    places would show as streaks once the head turns, and folds (ears, locks) as tears.
    """
    into = pose.rotation[2].astype(np.float64)
    seen = vertices_hu @ pose.rotation[:2].T
    depth = vertices_hu @ into
    corners = model.weld[model.triangles[model.part == Part.SKIN]]
    count = len(vertices_hu)
    ties, areas = sp.csr_matrix((count, count)), np.zeros(count)
    for k in range(3):
        at, one, other = corners[:, k], corners[:, k - 2], corners[:, k - 1]
        left, right = seen[one] - seen[at], seen[other] - seen[at]
        twice = np.abs(left[:, 0] * right[:, 1] - left[:, 1] * right[:, 0]) + _DRAPE_HU**2
        cotangent = np.maximum(np.sum(left * right, 1) / twice, 0.05)
        ties = ties + sp.coo_matrix((cotangent, (one, other)), (count, count))
        areas += np.bincount(at, twice / 6, count)
    ties = (ties + ties.T).tocsr()
    total = np.maximum(np.asarray(ties.sum(1)).ravel(), 1e-9)
    free = np.maximum(_off_face(model), hanging)
    anchor = total * (1 - free) / np.maximum(free, 1e-3) + areas / _DRAPE_REACH_HU**2
    system = sp.diags(total + anchor) - ties
    smooth = np.asarray(spsolve(system.tocsc(), anchor * depth[model.weld]))[model.weld]
    moved = np.where(free > 0, smooth - depth[model.weld], 0.0)
    return (vertices_hu + moved[:, None] * into).astype(np.float32)


def _flat_behind(model: HeadModel, vertices_hu: F32, pose: Similarity) -> F32:
    """The vertices (N, 3), what lies behind the skull's middle in the photo less deep: no photo shows it."""
    into = pose.rotation[2].astype(np.float64)
    depth = (vertices_hu - _SKULL_MIDDLE_HU) @ into - _FLAT_FROM_HU
    beyond = np.maximum(depth, 0) * _off_face(model)
    flat = _FLAT_SHARE * beyond + (1 - _FLAT_SHARE) * _FLAT_SOFT_HU * np.tanh(beyond / _FLAT_SOFT_HU)
    return (vertices_hu + (flat - beyond)[:, None] * into).astype(np.float32)


_DRAPE_HU, _DRAPE_REACH_HU = 0.02, 0.4
_FLAT_FROM_HU, _FLAT_SOFT_HU, _FLAT_SHARE = -0.3, 0.15, 0.15


@lru_cache(maxsize=4)
def _off_face(model: HeadModel) -> F32:
    """(N,) 0 … 1: 1 on skin that lies beside and behind the face."""
    off = (_smoothstep(_from_face_hu(model), 0.05, 0.35) * _skin(model)).astype(np.float32)
    return _without_ears(model, off[:, None])[:, 0]


def _outward_px(start_hu: F32, outwards: F32, pose: Similarity) -> NDArray[np.intp]:
    """(2, P, steps): column and row of the photo that each point comes to, step by step."""
    steps = np.arange(1, round(REACH_HU / _STEP_HU) + 1) * _STEP_HU
    spots = start_hu[:, None] + steps[None, :, None] * outwards[:, None]
    return np.moveaxis(
        pose.apply(spots.reshape(-1, 3))[:, :2].astype(np.intp).reshape(*spots.shape[:2], 2), -1, 0
    )


def _march(start_hu: F32, outwards: F32, pose: Similarity, matte: U8) -> NDArray[np.floating]:
    """(P,) how far each point can go outwards before it leaves the person, in head units."""
    soft = cv2.GaussianBlur(matte, (0, 0), 1.0)
    height, width = matte.shape
    x, y = _outward_px(start_hu, outwards, pose)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    on = inside & (soft[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > _WITHIN)
    # a point that never leaves is not on the outline after all, or the photo's edge cuts hair off
    count = np.where(on.all(1), 0, np.argmin(on, axis=1))
    return count * _STEP_HU


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
    return np.where(out > -_SHRINK_HU, out, 0.0)


_SHRINK_HU = 0.3


def _march_over_hair(
    start_hu: F32, outwards: F32, pose: Similarity, hair: U8, head: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """(P,) how far out the last hair lies that each point reaches over little that is none, in head units.

    `head` (h, w): what the bald head covers, behind which a point may start, on a grid of its own.
    """
    height, width = hair.shape
    x, y = _outward_px(start_hu, outwards, pose)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    on = inside & (hair[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > _WITHIN)
    rows, columns = head.shape
    behind = head[np.clip(y * rows // height, 0, rows - 1), np.clip(x * columns // width, 0, columns - 1)]
    off = np.cumsum(~on & ~behind, axis=1) * _STEP_HU
    last = np.where(on & (off < _GAP_HU), np.arange(1, x.shape[1] + 1), 0).max(1)
    return last * _STEP_HU


def _silhouette(
    model: HeadModel, vertices_hu: F32, pose: Similarity, width: int, height: int
) -> NDArray[np.bool_]:
    """What the head covers of a picture, on a grid of at most `_COVER_PX`."""
    view = Viewport(0.0, 0.0, 1.0, width, height)
    seen = rasterise(model, HeadMesh(pose.apply(vertices_hu).astype(np.float32), pose), view, _COVER_PX)
    return seen.part > 0


_GAP_HU, _COVER_PX = 0.25, 256
_SKULL_MIDDLE_HU = np.array([0, -0.2, 0.45], np.float32)
_EAR_BOX_HU = ((0.5, 1.2), (-0.6, 0.45), (0.1, 0.95))  # |x|, y, z of the mean head


@lru_cache(maxsize=4)
def ear_box(model: HeadModel) -> NDArray[np.bool_]:
    """(N,) what lies about the ears: ironed flat where hair hangs over them."""
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


def _without_ears(model: HeadModel, values: F32) -> F32:
    """Values (N, C) of the vertices, or their places, with the ears ironed flat: relaxed between what is around."""
    box = ear_box(model)[:, None]
    average = _averaging(model)
    out = values.astype(np.float64)
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
