"""From the registered head to the model's tensors: eyeballs, neck, dense bases, closing fields, joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from engines.geometry import F64
from engines.head.landmark_names import (
    EYE_LEFT,
    EYE_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LIDS_LEFT,
    LIDS_RIGHT,
    LIPS_INNER,
    LIPS_OUTER,
)
from engines.head.model import EYEBALL_RADIUS_HU, Part, eye_centre
from engines.head.others import fields
from engines.head.surface import Spread
from scripts.head.anny import RawHead
from scripts.head.register import SURFACE, Embedding, Registered, nearest_on_surface

I64 = NDArray[np.int64]

NECK_HALF_WIDTH_HU = 0.66
NECK_END_HU = 1.3  # where the neck is cut; shoulders are the photo's own
NECK_FIXED_HU = 1.22  # from here down the neck stays with the shoulders
NECK_SMOOTH_ROUNDS = 30
NECK_EASE_HU = 0.3  # from the cut upwards it is let go over this length
NECK_FREE_HU = 0.62  # above, it goes with the head
EYE_RINGS, EYE_SEGMENTS, EYE_REACH_DEG = 10, 24, 85.0
EYE_BOXES = {1: (0.84, 0.64, 0.99, 0.79), 2: (0.84, 0.82, 0.99, 0.97)}


@dataclass(frozen=True, slots=True)
class Head:
    """The registered head with our eyeballs: the arrays of `HeadModel` before bases are learned."""

    vertices: F64
    triangles: I64
    part: NDArray[np.uint8]
    uv: F64
    weld: I64
    eye_side: NDArray[np.uint8]
    embedding: Embedding
    kept: I64  # for each vertex its number in the raw head, -1 on eyeballs
    follows: NDArray[np.uint8]  # 0 skin (spread), 1 right eye, 2 left eye, 3 teeth and tongue


def with_eyeballs(raw: RawHead, registered: Registered) -> Head:
    """Swap the coarse eyeballs for spheres that fit behind the lids, cut the neck, renumber."""
    placed = registered.vertices_hu
    eyes = np.isin(raw.island, ("left_eye", "right_eye"))
    below = (placed[:, 1] > NECK_END_HU) | (np.abs(placed[:, 0]) > NECK_HALF_WIDTH_HU)
    low = (raw.island == "neck") & below
    keep = ~(eyes | low)[raw.triangles].any(1)
    triangles, part = raw.triangles[keep], raw.part[keep]
    used = np.unique(triangles)
    number = np.full(len(placed), -1)
    number[used] = np.arange(len(used))
    # a vertex is welded to the first one at the same place that is still there
    first: dict[int, int] = {}
    weld = np.array([first.setdefault(int(raw.weld[v]), k) for k, v in enumerate(used)])
    landmark_vertices = registered.embedding.vertices.copy()
    landmark_vertices[:SURFACE] = _renumbered(landmark_vertices[:SURFACE], raw.weld, used, number)
    vertices, tri = placed[used], number[triangles]
    uv, side = raw.uv[used], np.zeros(len(used), np.uint8)
    follows = np.where(np.isin(raw.island[used], ("upper_teeth", "lower_teeth", "tongue")), 3, 0).astype(
        np.uint8
    )
    landmarks = registered.embedding.at(placed)
    weights = registered.embedding.weights.copy()
    for which, (contour, lids, iris) in {
        1: (EYE_RIGHT, LIDS_RIGHT, IRIS_RIGHT),
        2: (EYE_LEFT, LIDS_LEFT, IRIS_LEFT),
    }.items():
        centre = eye_centre(landmarks[list(contour)], landmarks[list(lids)])
        ball, faces, ball_uv = _ball(centre, EYE_BOXES[which])
        start = len(vertices)
        vertices, uv = np.concatenate([vertices, ball]), np.concatenate([uv, ball_uv])
        tri = np.concatenate([tri, faces + start])
        part = np.concatenate([part, np.full(len(faces), Part.EYE, np.uint8)])
        weld = np.concatenate([weld, start + np.arange(len(ball))])
        side = np.concatenate([side, np.full(len(ball), which, np.uint8)])
        follows = np.concatenate([follows, np.full(len(ball), which, np.uint8)])
        rim = np.array([[0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]]) * IRIS_RADIUS_HU
        spots = centre + np.column_stack([rim, -np.sqrt(EYEBALL_RADIUS_HU**2 - (rim**2).sum(1))])
        corners, w = nearest_on_surface(spots, vertices, faces + start)
        landmark_vertices[iris : iris + 5], weights[iris : iris + 5] = corners, w
    return Head(
        vertices, tri, part, uv, weld, side, Embedding(landmark_vertices, weights),
        np.concatenate([used, np.full(len(vertices) - len(used), -1)]), follows,
    )  # fmt: skip


IRIS_RADIUS_HU = 0.0585


def _renumbered(vertices: I64, raw_weld: I64, used: I64, number: I64) -> I64:
    """New numbers of raw vertices, taking a welded twin where the vertex itself went."""
    twin: dict[int, int] = {}
    for v in used:
        twin.setdefault(int(raw_weld[v]), int(number[v]))
    return np.vectorize(lambda v: number[v] if number[v] >= 0 else twin[int(raw_weld[v])])(vertices)


def _ball(centre: F64, box: tuple[float, float, float, float]) -> tuple[F64, I64, F64]:
    """Front of a sphere: vertices, triangles wound outwards, and their azimuthal-equidistant uv in `box`."""
    angle = np.radians(np.linspace(0, EYE_REACH_DEG, EYE_RINGS + 1))[1:]
    around = np.arange(EYE_SEGMENTS) * 2 * np.pi / EYE_SEGMENTS
    ring = np.stack(
        [
            np.sin(angle)[:, None] * np.cos(around),
            np.sin(angle)[:, None] * np.sin(around),
            np.broadcast_to(-np.cos(angle)[:, None], (EYE_RINGS, EYE_SEGMENTS)),
        ],
        -1,
    ).reshape(-1, 3)
    vertices = centre + EYEBALL_RADIUS_HU * np.concatenate([[[0, 0, -1]], ring])
    flat = (np.arange(1, EYE_RINGS + 1) / EYE_RINGS)[:, None, None] * np.stack(
        [np.cos(around), np.sin(around)], -1
    )
    unit = 0.5 + 0.5 * np.concatenate([[[0, 0]], flat.reshape(-1, 2)])
    low, high = np.array(box[:2]), np.array(box[2:])
    faces: list[tuple[int, int, int]] = []
    for s in range(EYE_SEGMENTS):
        n = (s + 1) % EYE_SEGMENTS
        faces.append((0, 1 + n, 1 + s))
        for r in range(EYE_RINGS - 1):
            a, b = 1 + r * EYE_SEGMENTS, 1 + (r + 1) * EYE_SEGMENTS
            faces += [(a + s, a + n, b + s), (a + n, b + n, b + s)]
    return vertices, np.array(faces), low + unit * (high - low)


def spread_of_head(head: Head) -> Spread:
    """The smooth spread over this head's skin."""
    skin = np.isin(head.part, (Part.SKIN, Part.MOUTH, Part.SOCKET))
    return Spread(
        head.vertices,
        head.triangles[skin],
        head.weld,
        head.embedding.vertices[:SURFACE],
        head.embedding.weights[:SURFACE],
    )


def spread_all(head: Head, spread: Spread, delta: F64) -> F64:
    """Displacements (468, 3) at landmarks → (N, 3); eyeballs, teeth and tongue go with their surroundings."""
    out = spread(delta)
    for which, contour in ((1, EYE_RIGHT), (2, EYE_LEFT), (3, LIPS_INNER + LIPS_OUTER)):
        out[head.follows == which] = delta[list(contour)].mean(0)
    return out


def dense_expressions(head: Head, raw: RawHead, registered: Registered, basis: F64) -> F64:
    """(52, N, 3): the CC0 unit scaled to what was learned, plus the smooth spread of what it lacks."""
    spread = spread_of_head(head)
    turn = registered.similarity
    out: list[F64] = []
    for unit, learned in zip(raw.units, basis, strict=True):
        dense = np.zeros_like(head.vertices)
        own = head.kept >= 0
        dense[own] = unit[head.kept[own]] @ turn.rotation.T * turn.scale
        at = head.embedding.at(dense)[:SURFACE]
        size = float((at**2).sum())
        gain = float((at * learned[:SURFACE]).sum()) / size if size > 1e-6 else 1.0
        gain = float(np.clip(gain, 0.3, 3.0))
        rest = spread(learned[:SURFACE] - gain * at)
        rest[head.follows > 0] = 0
        out.append(np.where((head.eye_side > 0)[:, None], 0.0, gain * dense + rest))
    return np.stack(out)


def rigidity(head: Head, raw: RawHead) -> F64:
    """(N,) 1 on the head, smoothly 0 at the base of the neck."""
    neck = np.zeros(len(head.vertices), bool)
    own = head.kept >= 0
    neck[own] = raw.island[head.kept[own]] == "neck"
    neck |= neck[head.weld]
    x = np.clip((head.vertices[:, 1] - NECK_FREE_HU) / (NECK_FIXED_HU - NECK_FREE_HU), 0, 1)
    out = np.where(neck, 1 - x * x * (3 - 2 * x), 1.0)
    near = [set[int]() for _ in out]
    for a, b, c in head.weld[head.triangles]:
        near[a] |= {int(b), int(c)}
        near[b] |= {int(a), int(c)}
        near[c] |= {int(a), int(b)}
    # the jaw's underside is where the two meet: no step there
    # at the cut the neck stays with the shoulders, wherever the cut runs
    rim = _rim(head)
    to_rim, _ = KDTree(head.vertices[rim]).query(head.vertices)
    y = np.clip(to_rim / NECK_EASE_HU, 0, 1)
    out = np.where(neck, out * y * y * (3 - 2 * y), out)
    free = neck.copy()
    free[np.isin(head.weld, head.weld[rim])] = False
    for _ in range(NECK_SMOOTH_ROUNDS):
        mean = np.array([np.mean(out[list(s)]) if s else 1.0 for s in near])[head.weld]
        out = np.where(free, mean, out)
    return out[head.weld]


def _rim(head: Head) -> I64:
    """Vertices of the neck's open edge: of edges with one triangle only, those below the face."""
    skin = head.weld[head.triangles[head.part == Part.SKIN]]
    edges = np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    open_ = np.unique(edges[count == 1])
    return open_[head.vertices[open_, 1] > NECK_FREE_HU]


def closing_fields(head: Head) -> tuple[I64, NDArray[np.float32]]:
    """(vertices (M,), weights (46, M)): each MEETING landmark's own field, on split vertices."""
    moved, weights = fields.closing_fields(
        head.vertices, head.weld[head.triangles], head.weld[head.embedding.vertices], head.embedding.weights
    )
    column = np.full(len(head.vertices), -1)
    column[moved] = np.arange(len(moved))
    vertices = np.flatnonzero((column[head.weld] >= 0) & (head.follows == 0))
    return vertices, weights[:, column[head.weld[vertices]]]


def jaw_joint(head: Head, expressions: F64, jaw_open: int) -> F64:
    """The axis about which jawOpen turns the lower teeth, as a point on the middle plane."""
    moved = (head.follows == 3) & (np.abs(expressions[jaw_open]).max(1) > 0.05)
    p, d = head.vertices[moved], expressions[jaw_open][moved]
    # d = ω × (p − c) with ω along x: d_y = −ω (p_z − c_z), d_z = ω (p_y − c_y)
    slope_y, at_y = np.polyfit(p[:, 2], d[:, 1], 1)
    slope_z, at_z = np.polyfit(p[:, 1], d[:, 2], 1)
    return np.array([0.0, -at_z / slope_z, -at_y / slope_y])


def eye_joints(head: Head) -> F64:
    """(2, 3) centres of the right and left eyeball."""
    poles = [head.vertices[head.eye_side == side][0] for side in (1, 2)]
    return np.stack([p + np.array([0, 0, EYEBALL_RADIUS_HU]) for p in poles])
