"""The measures, each a pure function of pictures, landmarks or parameters; pictures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from engines.geometry import F64, yaw_pitch_roll_deg
from engines.head.landmark_names import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    LID_SKIN_LEFT,
    LID_SKIN_RIGHT,
    LIPS_OUTER,
    OVAL,
    SURFACE,
)

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

REFERENCE_PX = 256.0  # landmark distances are told at this picture size
# how far the regions reach beyond their landmarks, over the distance of the outer eye corners
MOUTH_REACH, EYE_REACH, HEAD_REACH = 0.10, 0.06, 0.35


def l1(a: U8, b: U8, mask: Mask | None = None) -> float:
    """Mean |a − b| over pixels (of `mask` (H, W)) and channels, on the scale 0 … 255; NaN for an empty mask.

    As "Geometry Driven Progressive Warping", table 2, counts it (there around 12).
    """
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    if mask is not None:
        difference = difference[mask]
    return float(difference.mean()) if difference.size else float("nan")


def psnr_db(a: U8, b: U8, mask: Mask | None = None) -> float:
    """10 log₁₀(255² / MSE) in dB (over `mask` (H, W)); capped at 100 for equal pictures; NaN for an empty mask."""
    squares = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    if mask is not None:
        squares = squares[mask]
    if not squares.size:
        return float("nan")
    error = float(np.mean(squares))
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-10)))


def ssim(a: U8, b: U8) -> float:
    """Structural similarity, Wang et al. 2004, eq. 13: Gaussian windows σ = 1.5, mean over channels."""
    value: Any = structural_similarity(
        a, b, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(value)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of a set of feature vectors."""

    mean: F64
    covariance: F64

    @staticmethod
    def of(vectors: F64 | F32) -> Gaussian:
        """Of vectors (N, D), N ≥ 2; raises ValueError for fewer."""
        if len(vectors) < 2:
            raise ValueError("a covariance needs two vectors or more")
        x = np.asarray(vectors, np.float64)
        return Gaussian(x.mean(0), np.atleast_2d(np.cov(x, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½): Heusel et al. 2017, eq. 6 (Fréchet 1957).

    The trace of the root is taken from the eigenvalues of Σ_a^½ Σ_b Σ_a^½, which are those of Σ_a Σ_b and
    stay real however few the vectors are.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ b.covariance @ root)
    apart = float(np.sum((a.mean - b.mean) ** 2))
    traces = float(np.trace(a.covariance) + np.trace(b.covariance))
    return max(0.0, apart + traces - 2 * float(np.sqrt(np.maximum(shared, 0)).sum()))


def akd_px(a: F32 | F64, b: F32 | F64, size_px: int) -> float:
    """Average keypoint distance: mean |Δ| over 468 landmarks and both axes, in pixels of a 256² picture.

    "Geometry Driven Progressive Warping", supplement: the L1 distance of the landmarks, there of a 68-point
    detector, here of MediaPipe's. `a`, `b`: (478, ≥ 2) in pictures of `size_px`.
    """
    apart = np.abs(np.asarray(a, np.float64)[:SURFACE, :2] - np.asarray(b, np.float64)[:SURFACE, :2])
    return float(apart.mean() * REFERENCE_PX / size_px)


def aed(a: F32 | F64, b: F32 | F64) -> float:
    """Average expression distance: mean |Δβ| over the 52 coefficients of our own fit.

    The same supplement takes the L1 distance of FLAME's expression; ours are ARKit's coefficients (52,), so the
    numbers cannot be compared across models.
    """
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())


def aed_shape_percent(offset: F64, true_offset: F64, neutral_hu: F64) -> float:
    """The same in space: mean distance of the 468 landmarks that two expressions make, in % of the eye distance.

    ARKit's coefficients overlap, unlike FLAME's, so that two sets far apart may make one and the same face; what
    they do to the landmarks is what a viewer sees. `offset`, `true_offset` (478, 3) are `B β` in head units, told
    on one face with the landmarks `neutral_hu` (478, 3).
    """
    apart = np.linalg.norm((offset - true_offset)[:SURFACE], axis=1)
    return float(100 * apart.mean() / eye_distance_px(neutral_hu))


def apd_deg(a: F64, b: F64) -> float:
    """Average pose distance: mean |Δ| of yaw, pitch and roll in degrees (the same supplement).

    `a`, `b`: rotation vectors (3,). Angles are compared the short way round.
    """
    difference = np.subtract(yaw_pitch_roll_deg(a), yaw_pitch_roll_deg(b))
    return float(np.abs((difference + 180) % 360 - 180).mean())


def eye_distance_px(points: F32 | F64) -> float:
    """Distance of the outer eye corners of landmarks (478, ≥ 2): the face's own scale."""
    a, b = (np.asarray(points, np.float64)[k[0], :2] for k in (CORNERS_RIGHT, CORNERS_LEFT))
    return float(np.linalg.norm(a - b))


def second_difference(values: F64) -> F64:
    """x[t + 1] − 2 x[t] + x[t − 1] of (T, …) → (T − 2, …): what is left of a smooth motion is its jitter."""
    return np.asarray(values[2:] - 2 * values[1:-1] + values[:-2], np.float64)


def landmark_shake_percent(points: F64) -> float:
    """Mean length of the second difference of landmarks (T, 468+, ≥ 2) over time, in % of the eye distance.

    NaN for fewer than three frames.
    """
    return _shake(points[:, :SURFACE, :2], points)


def landmark_jitter_percent(points: F64, true_points: F64) -> float:
    """The same of the error `points − true_points`: what trembles in the drawn face and not in the real one.

    A drawn face that follows exactly, or stays off by the same amount, has none; one that stands still has all
    of the real one's. NaN for fewer than three frames.
    """
    return _shake((points - true_points)[:, :SURFACE, :2], true_points)


def _shake(values: F64, faces: F64) -> float:
    if len(values) < 3:
        return float("nan")
    scale = float(np.median([eye_distance_px(p) for p in faces]))
    return float(100 * np.linalg.norm(second_difference(values), axis=-1).mean() / max(scale, 1e-6))


def flicker(pictures: Sequence[U8]) -> float:
    """Mean |second difference| of the pixels over time, 0 … 255; NaN for fewer than three pictures."""
    if len(pictures) < 3:
        return float("nan")
    return float(np.abs(second_difference(np.stack(pictures).astype(np.float64))).mean())


def mouth_mask(points: F32 | F64, size_px: int) -> Mask:
    """(size, size) the mouth: hull of the outer lips, grown by a tenth of the eye distance on all sides."""
    return _hull(points, [LIPS_OUTER], size_px, MOUTH_REACH)


def eye_mask(points: F32 | F64, size_px: int) -> Mask:
    """(size, size) both eyes with the skin of their upper lids, grown by 6 % of the eye distance."""
    right, left = ((*EYE_RIGHT, *LID_SKIN_RIGHT[1]), (*EYE_LEFT, *LID_SKIN_LEFT[1]))
    return _hull(points, [right, left], size_px, EYE_REACH)


def head_mask(points: F32 | F64, size_px: int) -> Mask:
    """(size, size) the head: hull of the face's oval, grown by 35 % of the eye distance, so that hair is in it.

    Told apart because a photo cannot know what comes into view where the driver's camera moves.
    """
    return _hull(points, [OVAL], size_px, HEAD_REACH)


def _hull(points: F32 | F64, groups: Sequence[Sequence[int]], size_px: int, reach: float) -> Mask:
    canvas = np.zeros((size_px, size_px), np.uint8)
    for group in groups:
        outline = np.asarray(points, np.float64)[list(group), :2]
        cv2.fillConvexPoly(canvas, cv2.convexHull(np.rint(outline).astype(np.int32)), (1,))
    radius = max(1, round(reach * eye_distance_px(points)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(canvas, disc).astype(bool)
