"""Triangle meshes: nearest points, islands of an atlas, distances along the surface. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

from engines.geometry import F64

I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
UvBox = tuple[float, float, float, float]  # left, top, right, bottom in the atlas, 0 … 1, y down

_NEAR_VERTICES = 16
EYE_FRONT_DEG = 110.0  # of an eyeball only what can ever be seen is kept


class Surface:
    """Triangles (T, 3) over vertices (n, D), made ready for many nearest-point queries; D is 3 or more.

    Only the triangles around the `near` nearest vertices are looked at: exact unless they are long and thin.
    """

    def __init__(self, vertices: F64, triangles: I64, near: int = _NEAR_VERTICES) -> None:
        self.vertices, self.triangles = vertices, triangles
        self._used = np.unique(triangles)
        self._tree = KDTree(vertices[self._used])
        self._near = min(near, len(self._used))
        corner = np.searchsorted(self._used, triangles.ravel())
        order = np.argsort(corner, kind="stable")
        self._owner = (order // 3).astype(np.int64)
        self._start = np.searchsorted(corner[order], np.arange(len(self._used) + 1))

    def nearest(self, points: F64) -> tuple[I64, F64]:
        """The nearest surface point of each of `points` (P, D): triangle (P,) and barycentric weights (P, 3)."""
        near = np.asarray(self._tree.query(points, k=self._near)[1], np.int64).reshape(len(points), -1)
        counts = self._start[near + 1] - self._start[near]
        flat = counts.ravel()
        point = np.repeat(np.arange(len(points)), counts.sum(1))
        first = np.repeat(self._start[near].ravel(), flat)
        within = np.arange(len(first)) - np.repeat(np.cumsum(flat) - flat, flat)
        triangle = self._owner[first + within]
        weights, distance = _closest(points[point], self.vertices[self.triangles[triangle]])
        order = np.lexsort((distance, point))
        best = order[np.searchsorted(point[order], np.arange(len(points)))]
        return triangle[best], weights[best]

    def at(self, triangle: I64, weights: F64) -> F64:
        """Points (P, D) on the surface."""
        return (self.vertices[self.triangles[triangle]] * weights[..., None]).sum(1)

    def normals(self, triangle: I64) -> F64:
        """Unit normals (P, 3) of triangles (P,), D being 3."""
        v = self.vertices[self.triangles[triangle]]
        out = np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _closest(p: F64, corners: F64) -> tuple[F64, F64]:
    """Barycentric weights (P, 3) of the closest point of each triangle (P, 3, D) to each p, squared distances."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-20)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    options = [np.stack([1 - v - w, v, w], 1)]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, j] - corners[:, i]
        along = ((p - corners[:, i]) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-20)
        weights = np.zeros((len(p), 3))
        weights[:, j] = np.clip(along, 0, 1)
        weights[:, i] = 1 - weights[:, j]
        options.append(weights)
    stack = np.stack(options)
    distance = (((stack[..., None] * corners).sum(2) - p) ** 2).sum(2)
    distance[0, ~inside] = np.inf
    best = distance.argmin(0)
    rows = np.arange(len(p))
    return stack[best, rows], distance[best, rows]


def components(triangles: I64, count: int) -> I64:
    """The connected component (count,) of every index that `triangles` join."""
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def distance_along(vertices: F64, triangles: I64, start: I64, weights: F64, limit: F64) -> F64:
    """Distance (P, n) along the edges from P surface points, given by corners `start` (P, 3) and `weights` (P, 3).

    Beyond `limit` (P,) it is infinite. A field that follows the surface does not jump from lip to lip.
    """
    ends = np.unique(
        np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1), axis=0
    )
    ends = ends[ends[:, 0] != ends[:, 1]]
    length = np.maximum(np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1), 1e-9)
    graph = csr_array((length, (ends[:, 0], ends[:, 1])), shape=(len(vertices), len(vertices)))
    points = (vertices[start] * weights[..., None]).sum(1)
    out = np.full((len(start), len(vertices)), np.inf)
    for i, (corners, point) in enumerate(zip(start, points, strict=True)):
        offset = np.linalg.norm(vertices[corners] - point, axis=1)
        from_corners = dijkstra(graph, directed=False, indices=corners, limit=float(limit[i]))
        out[i] = (np.asarray(from_corners) + offset[:, None]).min(0)
        # around the point itself the straight line is the truth, edges zigzag
        out[i, corners] = offset
    return out


def eye_uv(vertices: F64, triangles: I64, box: UvBox) -> tuple[F64, Bool]:
    """Corner uv (T, 3, 2) of one eyeball seen from the front (azimuthal equidistant), and what to keep (T,)."""
    own = vertices[np.unique(triangles)]
    direction = vertices[triangles] - (own.min(0) + own.max(0)) / 2
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    angle = np.degrees(np.arccos(np.clip(-direction[..., 2], -1, 1)))
    around = direction[..., :2] / np.maximum(np.linalg.norm(direction[..., :2], axis=-1, keepdims=True), 1e-9)
    uv = 0.5 + 0.5 * around * (angle / EYE_FRONT_DEG)[..., None]
    return into_box(uv, box), (angle <= EYE_FRONT_DEG).all(1)


def cylinder_uv(vertices: F64, triangles: I64, box: UvBox) -> F64:
    """Corner uv (T, 3, 2) of a head or face unrolled about the vertical through its middle, the seam behind.

    It cannot tell apart what lies behind one another as seen from the axis: ears, the inside of lips.
    """
    own = vertices[np.unique(triangles)]
    low, high = own.min(0), own.max(0)
    # a mask that ends before the ears is unrolled as if the rest of the head were there
    axis_z = low[2] + max((high[2] - low[2]) / 2, 0.45 * (high[0] - low[0]))
    corner = vertices[triangles]
    turn = np.arctan2(corner[..., 0] - (low[0] + high[0]) / 2, axis_z - corner[..., 2]) / np.pi  # −1 … 1
    across_seam = np.ptp(turn, axis=1) > 1
    turn[across_seam] += np.where(turn[across_seam] < 0, 2.0, 0.0)
    # the face gets most of the texels
    u = turn * 1.6 / (1 + 0.6 * np.abs(turn))
    u = (u - u.min()) / max(float(np.ptp(u)), 1e-9)
    v = (corner[..., 1] - low[1]) / max(float(high[1] - low[1]), 1e-9)
    return into_box(np.stack([u, v], -1), box)


def into_box(uv: F64, box: UvBox) -> F64:
    """`uv` (…, 2) in 0 … 1 moved into a box of the atlas."""
    low, high = np.array(box[:2]), np.array(box[2:])
    return low + np.clip(uv, 0, 1) * (high - low)


def split_at_seams(triangles: I64, corner_uv: F64) -> tuple[I64, I64, F64, I64]:
    """Vertices with one uv each: `(source (N,), triangles (T, 3), uv (N, 2), weld (N,))`; unused ones go.

    `weld` is the first new vertex that has the same source.
    """
    key = np.round(corner_uv.reshape(-1, 2) * 65536).astype(np.int64)
    whole = (triangles.ravel() * 65537 + key[:, 0]) * 65537 + key[:, 1]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    source = triangles.ravel()[first]
    # `whole` sorts by source vertex, so equal sources are neighbours
    weld = np.searchsorted(source, source)
    return source, inverse.reshape(-1, 3), corner_uv.reshape(-1, 2)[first], weld
