"""Lips keep their thickness: an expression that goes further than anybody's must not turn a lip inside out.

B_exp is linear and was learned from moderate mouths. Beyond them jawOpen takes the outer contour of the upper lip past
the inner one: the lip's skin faces away, and what lies behind it is drawn over it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.head.landmark_names import LIPS_INNER, LIPS_OUTER, MEETING
from engines.head.model import HeadModel
from engines.motion import ARKIT_INDEX

F32 = NDArray[np.float32]

_LEAST_SHARE, _KNEE_SHARE = 0.6, 0.12  # of a lip's own thickness
_ROLLED_SHARE = 0.3  # lips that roll in on purpose may be as thin as this before they are held
_ROLLS = [
    ARKIT_INDEX[name] for name in ("mouthRollUpper", "mouthRollLower", "mouthPressLeft", "mouthPressRight")
]
_LIPS = range(14, len(MEETING))  # the lips' pairs; the others are lids
# where in the rings stand the landmarks that a closing field moves, and their fields: uppers, then lowers
_FIELDS = [*_LIPS, *(len(MEETING) + k for k in _LIPS)]
_HELD = [LIPS_INNER.index(MEETING[k][0]) for k in _LIPS] + [LIPS_INNER.index(MEETING[k][1]) for k in _LIPS]


@dataclass(frozen=True, slots=True, eq=False)
class _LipField:
    """`vertices` (M,) and `weights` (18, M): each moves one inner landmark by 1 and the outer contour not at all;
    `on_rings` (40, 18) is the same for both contours, `effect` (52, 40, 2) what each coefficient does to them, x and y.
    """

    vertices: NDArray[np.int32]
    weights: F32
    on_rings: F32
    effect: F32


def hold_lips(
    model: HeadModel, shape_hu: F32, neutral_hu: F32, expression: F32, rest_expression: F32
) -> None:
    """Move the inner contour of un-posed `shape_hu` (N, 3), in place, where a lip is thinner than a good half of its
    own thickness in `neutral_hu`; one that is thinner in the photo, whose β is `rest_expression` (52,), may be so thin.

    `expression` (52,) is β of `shape_hu`. Within a face's usual range nothing moves.
    """
    rings = _rings(model, shape_hu)[:, :2]
    thick, normal = _thickness(rings)
    own_rings = _rings(model, neutral_hu)[:, :2]
    own, own_normal = _thickness(own_rings)
    own = np.maximum(own, 1e-4)
    if (thick >= own * (_LEAST_SHARE + _KNEE_SHARE))[_HELD].all():
        return
    field = _lip_field(model)
    rolled, _ = _split(np.tensordot(np.maximum(expression[_ROLLS], 0), field.effect[_ROLLS], 1))
    thinner = np.minimum((rolled * own_normal).sum(1), 0)
    least = _LEAST_SHARE * np.maximum(own + thinner, _ROLLED_SHARE * own)
    knee = _KNEE_SHARE * own
    at_rest, _ = _thickness(
        np.asarray(own_rings + np.tensordot(rest_expression, field.effect, 1), np.float32)
    )
    least = np.minimum(least, at_rest - knee)
    # a smooth max(thick, least): no lip jumps when it begins to be held
    lack = np.clip(least - thick + knee, 0, None)
    wanted = thick + np.where(lack < 2 * knee, lack * lack / (4 * knee), lack - knee)
    if not (wanted > thick)[_HELD].any():
        return
    lift = np.zeros((len(_HELD), 2), np.float32)
    for _ in range(_ROUNDS):  # the contour turns as it moves
        lift += np.asarray((np.maximum(wanted - thick, 0)[:, None] * normal)[_HELD], np.float32)
        thick, normal = _thickness(np.asarray(rings + field.on_rings @ lift, np.float32))
    shape_hu[field.vertices, :2] += field.weights.T @ lift


_ROUNDS = 3
_RINGS = np.array([*LIPS_INNER, *LIPS_OUTER])


def _rings(model: HeadModel, vertices: F32) -> F32:
    """(40, C): the inner, then the outer contour."""
    corners = vertices[model.landmark_vertices[_RINGS]]
    return (corners * model.landmark_weights[_RINGS][..., None]).sum(1)


def _split(rings: F32) -> tuple[F32, F32]:
    """(20, 2) from the outer to the inner contour, and the inner contour."""
    inner = rings[: len(LIPS_INNER)]
    return inner - rings[len(LIPS_INNER) :], inner


def _thickness(rings: F32) -> tuple[F32, F32]:
    """(20,) how far the inner contour lies inside the outer one, and (20, 2) the inner one's normal, inwards."""
    across, inner = _split(rings)
    along = np.roll(inner, -1, 0) - np.roll(inner, 1, 0)
    normal = np.stack([along[:, 1], -along[:, 0]], 1)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    return (across * normal).sum(1), normal


@lru_cache(maxsize=4)
def _lip_field(model: HeadModel) -> _LipField:
    mean = model.mean_hu[model.closing_vertices]
    rings = _rings(model, model.mean_hu)
    inner, outer = rings[: len(LIPS_INNER)], rings[len(LIPS_INNER) :]
    to_inner, nearest = _distance(mean, inner)
    to_outer, _ = _distance(mean, outer)
    between = to_outer / np.maximum(to_outer + to_inner, 1e-6)
    contour = outer[:, None, :2].astype(np.float32)
    inside = np.array([cv2.pointPolygonTest(contour, (float(p[0]), float(p[1])), False) >= 0 for p in mean])
    between = np.where(inside, between, 0)
    # what turns in behind the inner contour, and the mouth's own wall, go all the way along
    hole = inner[:, None, :2].astype(np.float32)
    within = np.array([cv2.pointPolygonTest(hole, (float(p[0]), float(p[1])), False) >= 0 for p in mean])
    behind = mean[:, 2] > nearest[:, 2] + _BEHIND_HU
    between = np.where(within | (inside & behind), 1, between)
    weights = model.closing_weights[_FIELDS] * between
    # a landmark lies within a triangle whose corners are not all on the contour: let it move by 1 nevertheless
    full = np.zeros((model.vertex_count, len(weights)), np.float32)
    full[model.closing_vertices] = weights.T
    moved = _rings(model, full)[_HELD]
    weights = np.linalg.pinv(moved.T).T @ weights if np.linalg.matrix_rank(moved) == len(moved) else weights
    effect = np.stack([_rings(model, one)[:, :2] for one in model.expression_hu])
    full[model.closing_vertices] = weights.T
    weights, on_rings = weights.astype(np.float32), _rings(model, full)
    return _LipField(model.closing_vertices, weights, on_rings, effect.astype(np.float32))


_BEHIND_HU = 0.006


def _distance(points: F32, ring: F32) -> tuple[F32, F32]:
    """Distance of each point (M,) to a closed line through `ring` (R, 3), and the nearest place on it (M, 3)."""
    start, step = ring, np.roll(ring, -1, 0) - ring
    along = ((points[:, None] - start) * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-9)
    places = start + np.clip(along, 0, 1)[..., None] * step
    far = np.linalg.norm(points[:, None] - places, axis=-1)
    best = far.argmin(1)
    rows = np.arange(len(points))
    return far[rows, best], places[rows, best]
