"""The CC0 head brought to the average real face, and MediaPipe's landmarks found on its surface.

Lips and lids are matched loop to loop by arc length; every other landmark is where the fitted surface is
nearest to the average face's own landmark. A last smooth step makes the surface pass through all of them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from engines.geometry import F64, Similarity, align_similarity
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LANDMARK_COUNT, LIPS_INNER, LIPS_OUTER, SURFACE
from engines.head.surface import Spread
from scripts.head.anny import RawHead

I64 = NDArray[np.int64]

# rings of vertices around the mouth, counted outwards from where its cavity begins
CONTACT_RING, VERMILION_RING = 2, 7
SLIDER_RIDGE = 0.004
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Embedding:
    """Landmarks on the surface: `vertices` (478, 3) and barycentric `weights` (478, 3)."""

    vertices: I64
    weights: F64

    def at(self, values: F64) -> F64:
        """Per-vertex (N, C) → per-landmark (478, C)."""
        return (values[self.vertices] * self.weights[..., None]).sum(1)


def _edges(head: RawHead, island: str) -> set[tuple[int, int]]:
    out: set[tuple[int, int]] = set()
    for a, b, c in head.weld[head.triangles[head.island[head.triangles[:, 0]] == island]]:
        out |= {(min(e), max(e)) for e in ((a, b), (b, c), (c, a))}
    return out


def _neighbours(edges: set[tuple[int, int]]) -> dict[int, set[int]]:
    near: dict[int, set[int]] = defaultdict(set)
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    return near


def seam(head: RawHead, inner: str) -> list[int]:
    """Vertices of the loop where the head's skin meets `inner`, in order."""
    edges = _edges(head, "head") & _edges(head, inner)
    return _in_order(edges)


def _in_order(edges: set[tuple[int, int]]) -> list[int]:
    near = _neighbours(edges)
    loop = [min(near)]
    before = -1
    while True:
        ahead = [n for n in near[loop[-1]] if n != before and n not in loop[1:]]
        if not ahead or (ahead[0] == loop[0] and len(loop) > 2):
            return loop
        before = loop[-1]
        loop.append(ahead[0])
        if len(loop) > len(near):
            return loop[:-1]


def mouth_ring(head: RawHead, number: int) -> list[int]:
    """The `number`-th closed ring of skin vertices around the mouth (0 is the cavity's seam), in order."""
    edges = _edges(head, "head")
    near = _neighbours(edges)
    ring = set(seam(head, "cavity"))
    seen = set(ring)
    for _ in range(number):
        ring = {n for v in ring for n in near[v]} - seen
        seen |= ring
    return _in_order({e for e in edges if e[0] in ring and e[1] in ring and _is_step(e, near, ring)})


def _is_step(edge: tuple[int, int], near: dict[int, set[int]], ring: set[int]) -> bool:
    """Quads were cut by diagonals, but those leave the ring: an edge inside it is a step along it."""
    return edge[1] in near[edge[0]] and edge[0] in ring


def _split(loop: list[int], x: F64) -> tuple[list[int], list[int], bool]:
    """A loop cut at its leftmost and rightmost vertex: two chains from left to right."""
    left, right = int(np.argmin(x[loop])), int(np.argmax(x[loop]))
    turned = loop[left:] + loop[:left]
    k = (right - left) % len(loop)
    return turned[: k + 1], [turned[0], *reversed(turned[k:])], True


def _chains(contour: tuple[int, ...], left: int, right: int) -> tuple[list[int], list[int]]:
    c = list(contour)
    i = c.index(left)
    c = c[i:] + c[:i]
    k = c.index(right)
    return c[: k + 1], [c[0], *reversed(c[k:])]


def match_loop(
    loop: list[int], vertices: F64, contour: tuple[int, ...], template: F64
) -> dict[int, tuple[int, int, float]]:
    """Landmark → (vertex a, vertex b, weight of b) along the loop, by share of the arc from corner to corner."""
    points = template[list(contour)]
    left = contour[int(np.argmin(points[:, 0]))]
    right = contour[int(np.argmax(points[:, 0]))]
    marks = sorted(_chains(contour, left, right), key=lambda c: template[c, 1].mean())  # upper first
    own_a, own_b, _ = _split(loop, vertices[:, 0])
    chains = sorted((own_a, own_b), key=lambda c: vertices[c, 1].mean())
    out: dict[int, tuple[int, int, float]] = {}
    for mark, chain in zip(marks, chains, strict=True):
        goal = _shares(template[mark])
        have = _shares(vertices[chain])
        for landmark, share in zip(mark, goal, strict=True):
            k = int(np.clip(np.searchsorted(have, share) - 1, 0, len(chain) - 2))
            w = float(np.clip((share - have[k]) / max(have[k + 1] - have[k], 1e-9), 0, 1))
            out[landmark] = (chain[k], chain[k + 1], w)
    return out


def _shares(points: F64) -> F64:
    # the arc as seen from the front: depth is where landmarks are least sure
    step = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1)
    return np.concatenate([[0], np.cumsum(step)]) / max(float(step.sum()), 1e-9)


def nearest_on_surface(points: F64, vertices: F64, triangles: I64) -> tuple[I64, F64]:
    """(triangle vertices (P, 3), barycentric weights (P, 3)) of the surface point nearest to each of `points`."""
    tree = KDTree(vertices[triangles].mean(1))
    _, near = tree.query(points, k=24)
    corners = triangles[near]  # (P, 24, 3)
    a, b, c = (vertices[corners[..., k]] for k in range(3))
    weights = closest_weights(points[:, None], a, b, c)
    spot = weights[..., :1] * a + weights[..., 1:2] * b + weights[..., 2:] * c
    best = np.linalg.norm(spot - points[:, None], axis=-1).argmin(1)
    rows = np.arange(len(points))
    return corners[rows, best], weights[rows, best]


def closest_weights(p: F64, a: F64, b: F64, c: F64) -> F64:
    """Barycentric weights (..., 3) of the point of triangle abc nearest to p (Ericson 2005, § 5.1.5)."""
    ab, ac = b - a, c - a
    n = np.cross(ab, ac)
    area = np.maximum((n * n).sum(-1), 1e-20)
    w = (np.cross(ab, p - a) * n).sum(-1) / area
    v = (np.cross(p - a, ac) * n).sum(-1) / area
    inside = np.stack([1 - v - w, v, w], -1)
    best, distance = inside, np.where((inside >= 0).all(-1), 0.0, np.inf)

    def edge(p0: F64, p1: F64, i: int, j: int) -> None:
        nonlocal best, distance
        d = p1 - p0
        t = np.clip(((p - p0) * d).sum(-1) / np.maximum((d * d).sum(-1), 1e-20), 0, 1)
        gap = np.linalg.norm(p0 + t[..., None] * d - p, axis=-1)
        weights = np.zeros_like(inside)
        weights[..., i], weights[..., j] = 1 - t, t
        nearer = gap < distance
        best = np.where(nearer[..., None], weights, best)
        distance = np.where(nearer, gap, distance)

    edge(a, b, 0, 1)
    edge(b, c, 1, 2)
    edge(a, c, 0, 2)
    return best


@dataclass(frozen=True, slots=True)
class Registered:
    """The head at the average face: vertices in head units, the similarity that took it there, landmarks."""

    vertices_hu: F64
    similarity: Similarity
    embedding: Embedding
    misfit_hu: F64  # (468,) how far the last smooth step had to move the surface


def loops_of(head: RawHead) -> list[tuple[list[int], tuple[int, ...]]]:
    """Every loop of vertices with the landmark contour that lies on it."""
    return [
        (mouth_ring(head, CONTACT_RING), LIPS_INNER),
        (mouth_ring(head, VERMILION_RING), LIPS_OUTER),
        (seam(head, "right_socket"), EYE_RIGHT),
        (seam(head, "left_socket"), EYE_LEFT),
    ]


def register(head: RawHead, template_hu: F64) -> Registered:
    """Sliders, similarity and landmarks in turn, then the smooth rest."""
    skin = head.island[head.triangles[:, 0]] == "head"
    triangles = head.weld[head.triangles[skin]]
    loops = loops_of(head)
    vertices = head.vertices.copy()
    embedding = Embedding(np.zeros((LANDMARK_COUNT, 3), np.int64), np.zeros((LANDMARK_COUNT, 3)))
    similarity = Similarity(1.0, np.eye(3), np.zeros(3))
    fixed: set[int] = set()
    for turn in range(ROUNDS):
        for loop, contour in loops:
            for landmark, (a, b, w) in match_loop(loop, vertices, contour, template_hu).items():
                embedding.vertices[landmark] = (a, b, b)
                embedding.weights[landmark] = (1 - w, w, 0)
                fixed.add(landmark)
        known = sorted(fixed) if turn == 0 else list(range(SURFACE))
        similarity = align_similarity(embedding.at(vertices)[known], template_hu[known])
        free = [j for j in range(SURFACE) if j not in fixed]
        corners, weights = nearest_on_surface(similarity.invert(template_hu[free]), vertices, triangles)
        embedding.vertices[free], embedding.weights[free] = corners, weights
        # ridge least squares in the sliders, all of them at once
        at = np.stack([embedding.at(s)[:SURFACE] for s in head.sliders]).reshape(len(head.sliders), -1)
        goal = (similarity.invert(template_hu)[:SURFACE] - embedding.at(head.vertices)[:SURFACE]).ravel()
        gram = at @ at.T + SLIDER_RIDGE * len(goal) / 100 * np.eye(len(at))
        alpha = np.clip(np.linalg.solve(gram, at @ goal), -1, 1)
        vertices = head.vertices + np.tensordot(alpha, head.sliders, 1)
    placed = similarity.apply(vertices)
    left = template_hu[:SURFACE] - embedding.at(placed)[:SURFACE]
    hangs = ~np.isin(head.island, ("upper_teeth", "lower_teeth", "tongue", "left_eye", "right_eye"))
    spread = Spread(
        placed,
        head.triangles[hangs[head.triangles[:, 0]]],
        head.weld,
        embedding.vertices[:SURFACE],
        embedding.weights[:SURFACE],
    )
    placed = placed + spread(left)
    return Registered(placed, similarity, embedding, np.linalg.norm(left, axis=1))
