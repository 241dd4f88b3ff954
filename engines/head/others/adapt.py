"""From somebody's mesh and bases to a `HeadModel`: our place, 478 landmarks, 52 expressions, closing fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from engines.digest import digest_of
from engines.errors import ModelError
from engines.geometry import F32, F64, Similarity, align_similarity, rotation_matrix
from engines.head.landmark_names import LANDMARK_COUNT, LIPS_INNER, MEETING
from engines.head.model import HeadModel, Part, build_model
from engines.head.others.fields import closing_fields, rigidity
from engines.head.others.files import Array
from engines.head.others.mesh import (
    I64,
    Surface,
    UvBox,
    cylinder_uv,
    eye_uv,
    split_at_seams,
)
from engines.motion import ARKIT_INDEX

_FAR_HU = 0.06  # a mesh whose surface is farther from a face than this is none
IDENTITY_MODES = 100  # more are finer than a photo tells and only cost memory
JAW_OPEN = ARKIT_INDEX["jawOpen"]
FACE_COUNT = 468  # the landmarks after these are the irises
TO_OUR_AXES = np.array([1.0, -1.0, -1.0])  # y up, z to the viewer → y down, z away; winding is kept
RIDGE = 1e-3  # of the native modes' mean energy at the landmarks
SKIN_BOX: UvBox = (0.005, 0.005, 0.995, 0.80)
EYE_BOXES: tuple[UvBox, UvBox] = ((0.005, 0.81, 0.19, 0.995), (0.2, 0.81, 0.385, 0.995))  # right, left
WHOLE_BOX: UvBox = (0.005, 0.005, 0.995, 0.995)

# iBUG's 68 points 17 … 67 (brows, nose, eyes, lips) as MediaPipe landmarks: what many models know by number.
IBUG_FROM = 17
IBUG_TO_MEDIAPIPE: tuple[int, ...] = (
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Embedding:
    """Landmarks `ids` (A,) on the surface: corners (A, 3) and barycentric weights (A, 3)."""

    ids: I64
    corners: I64
    weights: F64

    def of(self, values: NDArray[np.floating]) -> F64:
        """Values (n, C) at the landmarks: (A, C)."""
        return (values[self.corners].astype(np.float64) * self.weights[..., None]).sum(1)


def at_vertices(ids: I64, vertices: I64) -> Embedding:
    """Landmarks that are vertices."""
    weights = np.zeros((len(ids), 3))
    weights[:, 0] = 1
    return Embedding(ids, np.repeat(vertices[:, None], 3, 1), weights)


@dataclass(frozen=True, slots=True)
class RawHead:
    """A head as a loader reads it, in our axes and head units, at any place; n vertices, T triangles.

    - `identity_hu` (K, n, 3) and `modes_hu` (Q, n, 3): one standard deviation each. With `is_arkit` the modes
      are the 52 expressions themselves, else a basis from which they are made.
    - `corner_uv` (T, 3, 2) in the atlas, or None for a cylinder; eyeballs are unrolled here in any case.
    - `embedding`: all 478 landmarks when the file knows them; `anchors`: some.
    - `content`: the file's arrays as they were read, for the model's digest.
    - `eyes_hu` (2, 3) right and left, `jaw_hu` (3,), `neck_hu` (3,): None where the file does not tell.
    """

    name: str
    path: Path
    vertices_hu: F64
    triangles: I64
    part: NDArray[np.uint8]
    eye_side: NDArray[np.uint8]
    identity_hu: F32
    modes_hu: F32
    content: Mapping[str, Array]
    is_arkit: bool = False
    corner_uv: F64 | None = None
    eye_boxes: tuple[UvBox, UvBox] = EYE_BOXES
    embedding: Embedding | None = None
    anchors: Embedding | None = None
    landmark_trust: F64 | None = None
    eyes_hu: F64 | None = None
    jaw_hu: F64 | None = None
    neck_hu: F64 | None = None


def assemble(raw: RawHead, reference: HeadModel) -> HeadModel:
    """The raw head in the place, with the landmarks, expressions and fields that `reference` has.

    Raises ModelError when the mesh does not look like a face that looks at the camera.
    """
    placed, to_mesh = place(raw, reference)
    embedding = embed(placed, to_mesh, reference)
    wanted = reference_fields(reference) * to_mesh.scale
    expression = _expression(placed, embedding, wanted)
    embedding = part_lips(
        placed, embedding, to_mesh.apply(reference_landmarks(reference)), expression, wanted
    )
    if not placed.is_arkit:
        expression = _expression(placed, embedding, wanted)
    expression = np.where((placed.eye_side > 0)[None, :, None], np.float32(0), expression)

    follows = rigidity(placed.vertices_hu, embedding.of(placed.vertices_hu))
    triangles, part, uv = _atlas(placed)
    # shoulders stay as the photo has them, and a mesh over them would only be in the way
    moves = (follows[triangles] > 0).all(1)
    follows[triangles[~moves]] = 0  # along the cut the neck stays with them
    triangles, part, uv = triangles[moves], part[moves], uv[moves]
    if not _faces_camera(placed, triangles, embedding):
        triangles, uv = triangles[:, ::-1], uv[:, ::-1]
    closing_vertices, closing_weights = closing_fields(
        placed.vertices_hu, placed.triangles, embedding.corners, embedding.weights
    )
    source, split, uv, weld = split_at_seams(triangles, uv)
    number = np.full(len(placed.vertices_hu), -1)
    number[source[::-1]] = np.arange(len(source))[::-1]  # the first of those at one place
    if (number[embedding.corners] < 0).any():
        raise ModelError(f"{raw.path}: landmarks lie on triangles that are not part of the head")
    field = np.zeros((2 * len(MEETING), len(number)), np.float32)
    field[:, closing_vertices] = closing_weights
    moved = np.flatnonzero(field[:, source].any(0))
    fit_weight = reference.fit_weight
    if placed.landmark_trust is not None:
        fit_weight = fit_weight * placed.landmark_trust
    tensors: dict[str, NDArray[np.generic]] = {
        "mean_hu": placed.vertices_hu[source],
        "identity_hu": placed.identity_hu[:, source],
        "expression_hu": expression[:, source],
        "triangles": split,
        "part": part,
        "uv": uv,
        "weld": weld,
        "landmark_vertices": number[embedding.corners],
        "landmark_weights": embedding.weights,
        "fit_weight": fit_weight,
        "rigidity": follows[source],
        "eye_side": placed.eye_side[source],
        "closing_vertices": moved,
        "closing_weights": field[:, source[moved]],
        "joints_hu": _joints(placed, embedding, to_mesh, reference),
    }
    # picking vertices leaves an order in memory that every decode would pay for
    contiguous = {n: np.ascontiguousarray(t) for n, t in tensors.items()}
    return build_model(raw.name, contiguous, raw.path, _digest(raw, reference))


def _digest(raw: RawHead, reference: HeadModel) -> str:
    """Of what was read and of whole numbers: what least squares gives differs in its last bits between computers."""
    known = raw.embedding or raw.anchors
    arrays: dict[str, Array] = {f"file/{name}": array for name, array in raw.content.items()}
    arrays |= {"triangles": raw.triangles, "part": raw.part, "eye_side": raw.eye_side}
    if raw.corner_uv is not None:
        arrays["corner_uv"] = raw.corner_uv
    if known is not None:
        arrays |= {"landmarks": known.ids, "landmark_corners": known.corners}
    return digest_of(arrays, raw.name, reference.digest)


def reference_landmarks(reference: HeadModel) -> F64:
    """The reference's mean landmarks (478, 3)."""
    return reference.landmarks(reference.mean_hu).astype(np.float64)


def reference_fields(reference: HeadModel) -> F64:
    """What each of the reference's expressions does to its landmarks: (52, 478, 3)."""
    return np.stack([reference.landmarks(e) for e in reference.expression_hu]).astype(np.float64)


def place(raw: RawHead, reference: HeadModel) -> tuple[RawHead, Similarity]:
    """The raw head turned and moved, its size kept, to where the reference is; a motion fits either then.

    Also the similarity from the reference's face to the head so placed.
    """
    target = reference_landmarks(reference)
    known = raw.embedding or raw.anchors
    try:
        if known is not None:
            trust = reference.fit_weight[known.ids] / max(float(reference.fit_weight.max()), 1e-9) + 0.1
            to_reference = align_similarity(known.of(raw.vertices_hu), target[known.ids], trust)
        else:
            to_reference = _inverse(_approach(raw, target[:FACE_COUNT]))
    except ValueError as error:
        raise ModelError(f"{raw.path} does not look like a face: {error}") from error
    # the size is the user's head's own: only turn and move
    centre = raw.vertices_hu.mean(0) if known is None else known.of(raw.vertices_hu).mean(0)
    rotation = to_reference.rotation
    shift = to_reference.apply(centre[None])[0] - rotation @ centre
    turn = rotation.T.astype(np.float32)
    placed = replace(
        raw,
        vertices_hu=raw.vertices_hu @ rotation.T + shift,
        identity_hu=raw.identity_hu @ turn,
        modes_hu=raw.modes_hu @ turn,
        eyes_hu=None if raw.eyes_hu is None else raw.eyes_hu @ rotation.T + shift,
        jaw_hu=None if raw.jaw_hu is None else raw.jaw_hu @ rotation.T + shift,
        neck_hu=None if raw.neck_hu is None else raw.neck_hu @ rotation.T + shift,
    )
    return placed, _after(Similarity(1.0, rotation, shift), _inverse(to_reference))


def _inverse(s: Similarity) -> Similarity:
    rotation = s.rotation.T
    return Similarity(1 / s.scale, rotation, -rotation @ s.shift / s.scale)


def _approach(raw: RawHead, face: F64) -> Similarity:
    """Iterative closest points of the reference's face (P, 3) on the raw skin: the similarity onto it."""
    surface = Surface(raw.vertices_hu, raw.triangles[raw.part == Part.SKIN], near=4)
    own = raw.vertices_hu[np.unique(surface.triangles)]
    # the middle of the box across, the tip of the nose (what is nearest to the camera) down and away
    middle = (own[:, 0].min() + own[:, 0].max()) / 2
    near_middle = own[np.abs(own[:, 0] - middle) < 0.15 * np.ptp(own[:, 0])]
    tip = near_middle[near_middle[:, 2].argmin()]
    nose = face[face[:, 2].argmin()]
    guess = Similarity(1.0, np.eye(3), np.array([middle, tip[1], tip[2]]) - nose)
    best, best_error = guess, np.inf
    for step in range(30):
        moved = guess.apply(face)
        triangle, weights = surface.nearest(moved)
        off = surface.at(triangle, weights) - moved
        distance = np.linalg.norm(off, axis=1)
        error = float(np.median(distance))
        if error < best_error:
            best, best_error = guess, error
        trust = 1 / (1 + (distance / (1.5 * error + 1e-6)) ** 2)
        if step < 10:
            # no size yet: fitted too early it shrinks the face into the nearest bump
            step_to = align_similarity(moved, moved + off, trust)
            centre = trust @ moved / trust.sum()
            shift = centre + trust @ off / trust.sum() - step_to.rotation @ centre
            guess = _after(Similarity(1.0, step_to.rotation, shift), guess)
        else:
            guess = _after(_slide(moved, off, surface.normals(triangle), trust), guess)
        if not 0.75 < guess.scale < 1.3:
            break
    if best_error > _FAR_HU:
        raise ValueError(f"its surface stays {10 * best_error:.1f} cm away from one")
    return best


def _slide(points: F64, off: F64, normals: F64, trust: F64) -> Similarity:
    """The small similarity that brings `points` (P, 3) onto planes: least squares of what is left along normals."""
    centre = points.mean(0)
    arm = points - centre
    rows = np.concatenate([np.cross(arm, normals), normals, (arm * normals).sum(1, keepdims=True)], 1)
    gram = rows.T @ (rows * trust[:, None])
    damping = 1e-3 * float(np.trace(gram)) / len(gram)  # what the shape does not tell stays
    x = np.linalg.solve(gram + damping * np.eye(len(gram)), rows.T @ (trust * (off * normals).sum(1)))
    rotation, scale = rotation_matrix(x[:3]), 1 + float(x[6])
    return Similarity(scale, rotation, centre + x[3:6] - scale * rotation @ centre)


def _after(second: Similarity, first: Similarity) -> Similarity:
    return Similarity(
        second.scale * first.scale,
        second.rotation @ first.rotation,
        second.scale * second.rotation @ first.shift + second.shift,
    )


def embed(head: RawHead, to_mesh: Similarity, reference: HeadModel) -> Embedding:
    """All 478 landmarks on the placed head: those the file knows, the others at the nearest surface point.

    Anchors bend the reference's face to this head's proportions before it is laid on.
    """
    if head.embedding is not None:
        return head.embedding
    target = to_mesh.apply(reference_landmarks(reference))
    if head.anchors is not None and len(head.anchors.ids) >= 8:
        ids, first = np.unique(head.anchors.ids, return_index=True)
        residual = head.anchors.of(head.vertices_hu)[first] - target[ids]
        bend = RBFInterpolator(target[ids], residual, kernel="linear", degree=1, smoothing=1e-3)
        target = target + bend(target)
    corners = np.zeros((LANDMARK_COUNT, 3), np.int64)
    weights = np.zeros((LANDMARK_COUNT, 3))
    is_iris = np.arange(LANDMARK_COUNT) >= FACE_COUNT
    for ids, wanted in ((~is_iris, Part.SKIN), (is_iris, Part.EYE)):
        own = head.triangles[head.part == wanted]
        # a head without eyeballs has its irises on the skin
        surface = Surface(head.vertices_hu, own if len(own) else head.triangles)
        triangle, weights[ids] = surface.nearest(target[ids])
        corners[ids] = surface.triangles[triangle]
    if head.anchors is not None:
        corners[head.anchors.ids], weights[head.anchors.ids] = head.anchors.corners, head.anchors.weights
    return Embedding(np.arange(LANDMARK_COUNT), corners, weights)


def _expression(head: RawHead, embedding: Embedding, wanted: F64) -> F32:
    """The 52 expressions (52, n, 3): the head's own, or those of its modes that come nearest to `wanted`."""
    if head.is_arkit:
        return head.modes_hu
    mix = mix_modes(np.stack([embedding.of(m) for m in head.modes_hu]), wanted)
    return np.tensordot(mix.astype(np.float32), head.modes_hu, 1)


def part_lips(head: RawHead, embedding: Embedding, target: F64, expression: F32, wanted: F64) -> Embedding:
    """The embedding with the inner lips each on their own lip.

    Where closed lips touch, the nearest point of a lower landmark may be on the upper lip. What tells them
    apart is how they move when the jaw opens: the nearest point is taken in place and movement at once.
    """
    known = head.embedding or head.anchors
    ids = np.setdiff1d(
        LIPS_INNER, [] if head.anchors is None or head.embedding is not None else head.anchors.ids
    )
    opening = np.asarray(expression[JAW_OPEN], np.float64)
    face = np.arange(FACE_COUNT)
    own, theirs = embedding.of(opening)[face], wanted[JAW_OPEN][face]
    # half a movement counts as much as a whole way: enough to tell lips apart, too little to shift along one
    gain = float((own * theirs).sum() / max((theirs * theirs).sum(), 1e-12)) / 2
    surface = Surface(
        np.hstack([head.vertices_hu, opening / 2]), head.triangles[head.part == Part.SKIN], near=32
    )
    at = target[ids] if known is None else embedding.of(head.vertices_hu)[ids]
    triangle, weights = surface.nearest(np.hstack([at, gain * wanted[JAW_OPEN][ids]]))
    out = Embedding(embedding.ids, embedding.corners.copy(), embedding.weights.copy())
    out.corners[ids], out.weights[ids] = surface.triangles[triangle], weights
    return out


def mix_modes(modes: F64, wanted: F64, ridge: float = RIDGE) -> F64:
    """How much of each native mode makes each expression, by ridge least squares at the landmarks.

    `modes` (Q, 478, 3) one standard deviation each, `wanted` (E, 478, 3) → (E, Q). Irises do not count: they
    follow the gaze.
    """
    a = modes[:, :FACE_COUNT].reshape(len(modes), -1)
    d = wanted[:, :FACE_COUNT].reshape(len(wanted), -1)
    gram = a @ a.T
    damping = ridge * max(float(np.trace(gram)) / max(len(gram), 1), 1e-12)
    return np.asarray(np.linalg.solve(gram + damping * np.eye(len(gram)), a @ d.T).T, np.float64)


def _atlas(head: RawHead) -> tuple[I64, NDArray[np.uint8], F64]:
    """Kept triangles, their parts and their corner uv."""
    has_eyes = bool((head.eye_side > 0).any())
    is_eye = head.part == Part.EYE
    if head.corner_uv is not None:
        uv = head.corner_uv.copy()
    else:
        uv = np.zeros((len(head.triangles), 3, 2))
        uv[~is_eye] = cylinder_uv(
            head.vertices_hu, head.triangles[~is_eye], SKIN_BOX if has_eyes else WHOLE_BOX
        )
    keep = np.ones(len(head.triangles), bool)
    for side in (1, 2):
        own = is_eye & (head.eye_side[head.triangles[:, 0]] == side)
        if own.any():
            uv[own], keep[own] = eye_uv(head.vertices_hu, head.triangles[own], head.eye_boxes[side - 1])
    return head.triangles[keep], head.part[keep], uv[keep]


def _faces_camera(head: RawHead, triangles: I64, embedding: Embedding) -> bool:
    """Whether the face's normals point to the camera, as ours do."""
    face = np.zeros(len(head.vertices_hu), bool)
    face[embedding.corners[:FACE_COUNT]] = True
    v = head.vertices_hu[triangles[face[triangles].all(1)]]
    return float(np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])[:, 2].sum()) <= 0


def _joints(head: RawHead, embedding: Embedding, to_mesh: Similarity, reference: HeadModel) -> F64:
    """Eyes, jaw and neck (4, 3): the file's own, else the reference's carried over."""
    other = to_mesh.apply(
        np.concatenate([reference.joints.eyes, [reference.joints.jaw, reference.joints.neck]])
    )
    if head.eyes_hu is not None:
        other[:2] = head.eyes_hu
    if head.jaw_hu is not None:
        other[2] = head.jaw_hu
    if head.neck_hu is not None:
        other[3] = head.neck_hu
    return other
