"""A face laid onto a mesh of which nothing is known: iterative closest points, and similarities in a row."""

from __future__ import annotations

import numpy as np

from engines.geometry import F64, Similarity, align_similarity, rotation_matrix
from engines.head.others.mesh import I64, Surface

_FAR_HU = 0.06  # a mesh whose surface is farther from a face than this is none


def inverse(s: Similarity) -> Similarity:
    """What undoes `s`."""
    rotation = s.rotation.T
    return Similarity(1 / s.scale, rotation, -rotation @ s.shift / s.scale)


def approach(vertices_hu: F64, skin: I64, face: F64) -> Similarity:
    """Iterative closest points of a face (P, 3) on the skin (T, 3) of `vertices_hu` (n, 3): the similarity onto it.

    Raises ValueError when the skin stays too far away from the face.
    """
    surface = Surface(vertices_hu, skin, near=4)
    own = vertices_hu[np.unique(surface.triangles)]
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
            guess = after(Similarity(1.0, step_to.rotation, shift), guess)
        else:
            guess = after(_slide(moved, off, surface.normals(triangle), trust), guess)
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


def after(second: Similarity, first: Similarity) -> Similarity:
    """`first`, then `second`."""
    return Similarity(
        second.scale * first.scale,
        second.rotation @ first.rotation,
        second.scale * second.rotation @ first.shift + second.shift,
    )
