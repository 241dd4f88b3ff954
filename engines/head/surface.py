"""Smooth fields on the head's surface: what is known at the landmarks, spread over all vertices."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from engines.geometry import F64
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_INNER, LIPS_OUTER, SURFACE
from engines.head.model import HeadModel, Part

_BEND = 1.0  # thin plate: smooth across landmarks
_STRETCH = 0.06  # membrane: no linear growth where landmarks end
_DECAY = 0.0015  # back to zero far away
_EXACT = 1e4


def laplacian(vertices: F64, triangles: NDArray[np.integer[Any]], weld: NDArray[np.integer[Any]]) -> Any:
    """Normalised graph Laplacian (N, N) sparse with inverse edge lengths as weights, seams welded."""
    n = len(vertices)
    t = weld[triangles]
    a = np.concatenate([t[:, 0], t[:, 1], t[:, 2]])
    b = np.concatenate([t[:, 1], t[:, 2], t[:, 0]])
    keep = a != b
    a, b = a[keep], b[keep]
    w = 1 / np.maximum(np.linalg.norm(vertices[a] - vertices[b], axis=1), 1e-4)
    adjacency = sp.coo_matrix((w, (a, b)), (n, n)).tocsr()
    adjacency = adjacency.maximum(adjacency.T)
    degree = np.asarray(adjacency.sum(1)).ravel()
    inverse = sp.diags(1 / np.maximum(degree, 1e-9))
    return sp.identity(n) - inverse @ adjacency


class Spread:
    """Solves `min |L x|² + μ |∇x|² + ε |x|²` with `E x = r`: r (P, C) at surface points → x (N, C).

    `point_vertices` (P, 3) and `point_weights` (P, 3) are the points' barycentric places. The system is
    factored once, so that many right-hand sides are cheap. N counts all vertices; welded ones share a value.
    """

    def __init__(
        self,
        vertices: F64,
        triangles: NDArray[np.integer[Any]],
        weld: NDArray[np.integer[Any]],
        point_vertices: NDArray[np.integer[Any]],
        point_weights: F64,
    ) -> None:
        n, p = len(vertices), len(point_vertices)
        self._weld = weld
        smooth = laplacian(vertices, triangles, weld)
        rows = np.repeat(np.arange(p), 3)
        columns = weld[point_vertices].ravel()
        self._at = sp.coo_matrix((point_weights.ravel(), (rows, columns)), (p, n)).tocsr()
        system = (
            _BEND * (smooth.T @ smooth)
            + _STRETCH * 0.5 * (smooth + smooth.T)
            + _DECAY * sp.identity(n)
            + _EXACT * (self._at.T @ self._at)
        )
        self._factor = splu(sp.csc_matrix(system))

    def __call__(self, values: F64) -> F64:
        """Values (P, C) → (N, C)."""
        right = _EXACT * (self._at.T @ np.asarray(values, np.float64))
        return self._factor.solve(right)[self._weld]


@lru_cache(maxsize=4)
def spread_of(model: HeadModel) -> Spread:
    """The spread of the 468 surface landmarks over a model's skin; factored once per model."""
    skin = np.isin(model.part, (Part.SKIN, Part.MOUTH, Part.SOCKET))  # what hangs together
    return Spread(
        model.mean_hu.astype(np.float64),
        model.triangles[skin],
        model.weld,
        model.landmark_vertices[:SURFACE],
        model.landmark_weights[:SURFACE].astype(np.float64),
    )


def spread_delta(model: HeadModel, delta_hu: F64) -> NDArray[np.float32]:
    """The corrective δ (N, 3) of landmark displacements (≥ 468, 3): exact at the landmarks, smooth between.

    Eyeballs go with their lids, teeth and tongue with the lips.
    """
    delta = np.asarray(delta_hu, np.float64)[:SURFACE]
    out = spread_of(model)(delta)
    inside = np.zeros(model.vertex_count, bool)
    inside[model.triangles[np.isin(model.part, (Part.TEETH, Part.TONGUE))]] = True
    for own, contour in (
        (model.eye_side == 1, EYE_RIGHT),
        (model.eye_side == 2, EYE_LEFT),
        (inside, LIPS_INNER + LIPS_OUTER),
    ):
        out[own] = delta[list(contour)].mean(0)
    return out.astype(np.float32)
