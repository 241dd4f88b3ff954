"""Motions of many frames against one neutral, fitted at once: `fit_driver`, gaze and closure for a whole clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.calm import RESTLESS
from engines.geometry import F64, Camera, Similarity, rotation_vector
from engines.head.fit import ExpressionFit, closure_of_openings, measure_gaze, openings_of_many
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.motion_descriptor import CLOSURE, EXPRESSION, GAZE, ROTATION, SCALE, SHIFT

F32 = NDArray[np.float32]

MISFIT = 0.06  # landmarks missed by more of the face's size are no label
_ROUNDS = 3  # as `fit_driver`


def motion_of(descriptor: F32, camera: Camera) -> tuple[Motion, Similarity]:
    """Inverse of `describe`: the motion as told in `camera`, and its pose in the picture."""
    values = descriptor.astype(np.float64)
    scale, (x, y) = float(values[SCALE]), values[SHIFT]
    translation = [
        (x - camera.width_px / 2) / scale,
        (y - camera.height_px / 2) / scale,
        camera.focal_px / scale,
    ]
    motion = Motion(
        expression=descriptor[EXPRESSION],
        closure=descriptor[CLOSURE],
        gaze_rad=descriptor[GAZE].reshape(2, 2),
        rotation_rad=descriptor[ROTATION],
        translation_hu=np.array(translation, np.float32),
    )
    return motion, camera.to_similarity(motion.rotation_rad, motion.translation_hu)


@dataclass(frozen=True, slots=True)
class Track:
    """T frames of a clip: `number` (T,) ascending, landmarks `points_px` (T, 478, 3), `scores` (T, 52)."""

    number: NDArray[np.int32]
    points_px: F64
    scores: F32


@dataclass(frozen=True, slots=True)
class Poses:
    """T similarities: `scale` (T,), `rotation` (T, 3, 3), `shift` (T, 3)."""

    scale: F64
    rotation: F64
    shift: F64

    def apply(self, points: F64) -> F64:
        """Points (T, P, 3)."""
        return self.scale[:, None, None] * (points @ self.rotation.transpose(0, 2, 1)) + self.shift[:, None]

    def invert(self, points: F64) -> F64:
        """Points (T, P, 3) back."""
        return (points - self.shift[:, None]) @ self.rotation / self.scale[:, None, None]


def align_many(source: F64, target: F64, weights: F32 | F64) -> Poses:
    """`align_similarity` of T point sets (T, P, 3) each. Points on a line give a scale of nothing, not an error."""
    w = np.asarray(weights, np.float64)
    w = w / w.sum()
    mean_a, mean_b = np.einsum("p,tpc->tc", w, source), np.einsum("p,tpc->tc", w, target)
    da, db = source - mean_a[:, None], target - mean_b[:, None]
    u, s, vt = np.linalg.svd((db * w[:, None]).transpose(0, 2, 1) @ da)
    d = np.ones_like(s)
    d[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * d[:, None]) @ vt
    scale = (s * d).sum(1) / np.maximum(np.einsum("p,tpc->t", w, da**2), 1e-12)
    return Poses(scale, rotation, mean_b - scale[:, None] * (rotation @ mean_a[..., None])[..., 0])


def rest_openings(model: HeadModel, track: Track) -> F64:
    """(3,) how open mouth and eyes are in the calmest quarter of a clip."""
    mean = np.asarray(model.landmarks(model.mean_hu), np.float64)
    calm = np.argsort(track.scores[:, RESTLESS].sum(1), kind="stable")[: max(1, len(track.scores) // 4)]
    points = track.points_px[calm]
    poses = align_many(np.broadcast_to(mean, points.shape), points, model.fit_weight)
    return np.asarray(np.median(openings_of_many(poses.invert(points)), 0), np.float64)


def clip_motions(
    fit: ExpressionFit, neutral_hu: F32, track: Track, rest: F64
) -> tuple[F32, NDArray[np.bool_]]:
    """Every frame's motion against a photo's neutral landmarks (478, 3): descriptors (T, 65), and which are a face."""
    points, scores = track.points_px, track.scores
    basis = fit.basis.reshape(len(fit.basis), -1)
    neutral = np.asarray(neutral_hu, np.float64)

    def shaped(expression: F32) -> F64:
        return neutral + (expression.astype(np.float64) @ basis).reshape(len(points), -1, 3)

    expression = scores
    pose, unposed = align_many(shaped(expression), points, fit.model.fit_weight), points
    for k in range(_ROUNDS):
        if k:
            pose = align_many(shaped(expression), points, fit.model.fit_weight)
        unposed = pose.invert(points)
        expression = fit.solve_many(unposed, neutral, scores)
    missed = np.linalg.norm((pose.apply(shaped(expression)) - points)[:, :468, :2], axis=-1).mean(1)
    is_face = missed <= MISFIT * np.ptp(points[:, :, 1], axis=1)
    gaze = measure_gaze(unposed).reshape(-1, 4)
    closure = closure_of_openings(openings_of_many(unposed), rest)
    turned = np.stack([rotation_vector(r) for r in pose.rotation])
    parts = expression, closure, gaze, turned, pose.scale[:, None], pose.shift[:, :2]
    return np.concatenate(parts, 1).astype(np.float32), is_face
