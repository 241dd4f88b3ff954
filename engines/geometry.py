"""Rotations, similarity alignment and the camera: pure functions on arrays.

Axes everywhere: x right, y down, z away from the camera (OpenCV). One head unit (hu) is 10 cm on
MediaPipe's canonical face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Focal length of the standard camera, in units of the longer side of the picture (about 37° across).
# Any value gives an exact round trip between pixels and head units; this one is near a webcam's.
FOCAL_PER_SIDE = 1.5


def rotation_matrix(rotation_rad: F32 | F64) -> F64:
    """Rodrigues: rotation vector (3,) in radians → matrix (3, 3)."""
    v = np.asarray(rotation_rad, np.float64)
    angle = float(np.linalg.norm(v))
    if angle < 1e-9:
        x, y, z = v
        return np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]], np.float64)
    x, y, z = v / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def rotation_vector(matrix: F32 | F64) -> F64:
    """Rotation matrix (3, 3) → rotation vector (3,) in radians, |v| ≤ π."""
    m = np.asarray(matrix, np.float64)
    cos = np.clip((np.trace(m) - 1) / 2, -1, 1)
    angle = float(np.arccos(cos))
    axis = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    if angle < 1e-6:
        return axis / 2
    if np.pi - angle < 1e-4:
        # near a half turn the antisymmetric part vanishes: read the axis off the symmetric part
        symmetric = (m + m.T) / 2 - cos * np.eye(3)
        column = symmetric[:, int(np.argmax(np.diag(m)))]
        return column / np.linalg.norm(column) * (angle if column @ axis >= 0 else -angle)
    return axis / (2 * np.sin(angle)) * angle


def yaw_pitch_roll_deg(rotation_rad: F32 | F64) -> tuple[float, float, float]:
    """Head angles in degrees: yaw > 0 turns to the picture's right, pitch > 0 looks down, roll clockwise."""
    m = rotation_matrix(rotation_rad)
    yaw = np.degrees(np.arctan2(-m[0, 2], m[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(-m[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(m[1, 0], m[1, 1]))
    return float(yaw), float(pitch), float(roll)


def rotation_from_degrees(yaw_deg: float, pitch_deg: float, roll_deg: float) -> F64:
    """Inverse of `yaw_pitch_roll_deg`: rotation vector (3,) in radians."""
    y, p, r = -np.radians(yaw_deg), np.radians(pitch_deg), np.radians(roll_deg)
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rx = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rz = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return rotation_vector(ry @ rx @ rz)


@dataclass(frozen=True, slots=True)
class Similarity:
    """`x ↦ scale · R x + shift`; here from head units to pixels (z in pixels too)."""

    scale: float
    rotation: F64  # (3, 3)
    shift: F64  # (3,)

    def apply(self, points: F32 | F64) -> F64:
        """Points (N, 3) → (N, 3)."""
        return self.scale * (np.asarray(points, np.float64) @ self.rotation.T) + self.shift

    def invert(self, points: F32 | F64) -> F64:
        """Points (N, 3) back: the un-posed points."""
        return (np.asarray(points, np.float64) - self.shift) @ self.rotation / self.scale


def align_similarity(source: F32 | F64, target: F32 | F64, weights: F32 | F64 | None = None) -> Similarity:
    """Weighted Procrustes (Umeyama 1991): the similarity with least Σ w |target − S(source)|².

    `source`, `target`: (N, 3); `weights`: (N,). Raises ValueError when the points do not span a plane or
    are not finite.
    """
    a = np.asarray(source, np.float64)
    b = np.asarray(target, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("cannot align points that are not finite")
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    mean_a, mean_b = w @ a, w @ b
    da, db = a - mean_a, b - mean_b
    u, s, vt = np.linalg.svd((db * w[:, None]).T @ da)
    if s[1] <= 1e-12 * max(1.0, float(s[0])):  # what rounding leaves grows with the points
        raise ValueError("cannot align points that lie on a line")
    d = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * d) @ vt
    scale = float((s * d).sum() / (w @ (da**2).sum(1)))
    return Similarity(scale, rotation, mean_b - scale * rotation @ mean_a)


@dataclass(frozen=True, slots=True)
class Camera:
    """Weak-perspective camera over a picture of `width_px` × `height_px`.

    A head at `translation_hu` (x, y, z) is drawn at `centre + f/z · (x, y)` with `f/z` pixels per head
    unit, `f = FOCAL_PER_SIDE · max(width, height)`. The map to and from `Similarity` is exact.
    """

    width_px: int
    height_px: int

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return FOCAL_PER_SIDE * max(self.width_px, self.height_px)

    def to_similarity(self, rotation_rad: F32 | F64, translation_hu: F32 | F64) -> Similarity:
        """Pose in head units → the similarity from head units to this picture's pixels."""
        x, y, z = (float(v) for v in translation_hu)
        scale = self.focal_px / max(z, 1e-3)
        shift = np.array([self.width_px / 2 + x * scale, self.height_px / 2 + y * scale, 0.0])
        return Similarity(scale, rotation_matrix(rotation_rad), shift)

    def from_similarity(self, similarity: Similarity) -> tuple[F64, F64]:
        """The similarity from head units to pixels → `(rotation_rad, translation_hu)`."""
        s = similarity.scale
        x = (similarity.shift[0] - self.width_px / 2) / s
        y = (similarity.shift[1] - self.height_px / 2) / s
        return rotation_vector(similarity.rotation), np.array([x, y, self.focal_px / s])
