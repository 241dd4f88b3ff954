"""Landmarks → pose and expression: rigid alignment, then boxed least squares with a prior (design § 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engines.face_model import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LANDMARK_COUNT,
    LIPS_INNER,
    LIPS_OUTER,
    FaceModel,
)
from engines.geometry import F64, Similarity, align_similarity
from engines.motion import EXPRESSION_COUNT

F32 = NDArray[np.float32]

EYEBALL_RADIUS_HU = 0.12  # 12 mm

# Coefficients may leave 0 … 1 a little: a driver's calibrated neutral is never exact, and the excursion
# carries what clipping would lose (held-out residual 0.42 % against 0.50 % of the half-face).
EXPRESSION_LOW, EXPRESSION_HIGH = -0.25, 1.25


def fit_pose(model: FaceModel, neutral_hu: F32 | F64, landmarks_px: F32 | F64) -> Similarity:
    """Head units → pixels from landmarks (478, 3), by Procrustes weighted towards what expressions leave."""
    return align_similarity(neutral_hu[:LANDMARK_COUNT], landmarks_px, model.fit_weight)


@dataclass(frozen=True)
class ExpressionFit:
    """Solves `min_β Σ w |u − n − B β|² + Σ λ (β − prior)²`, `low ≤ β ≤ high`, in well under a millisecond."""

    model: FaceModel
    prior_strength: float = 0.1
    iterations: int = 24

    @cached_property
    def _weight(self) -> F64:
        w = np.ones(LANDMARK_COUNT)
        w[[*LIPS_INNER, *LIPS_OUTER, *EYE_LEFT, *EYE_RIGHT]] = 3
        w[LANDMARK_COUNT - 10 :] = 0  # irises: gaze is measured on its own
        return np.sqrt(np.repeat(w, 3))

    @cached_property
    def _system(self) -> tuple[F64, F64, F64, float]:
        basis = self.model.expression_hu[:, :LANDMARK_COUNT].reshape(EXPRESSION_COUNT, -1) * self._weight
        energy = (basis**2).sum(1)
        prior = self.prior_strength * np.maximum(energy, np.percentile(energy, 30))
        gram = basis @ basis.T + np.diag(prior)
        rho = float(np.diag(gram).mean())
        inverse = np.linalg.inv(gram + rho * np.eye(EXPRESSION_COUNT)).astype(np.float64)
        return basis.astype(np.float64), prior, inverse, rho

    def solve(self, unposed_hu: F64, neutral_hu: F32 | F64, prior: F32) -> F32:
        """β (52,) for un-posed landmarks (478, 3) against a person's neutral, pulled to `prior` (52,).

        Boxed quadratic programme by ADMM (Boyd et al. 2011, § 5.2) with the factor computed once.
        """
        basis, strength, inverse, rho = self._system
        residual = (unposed_hu - neutral_hu[:LANDMARK_COUNT]).reshape(-1) * self._weight
        right = basis @ residual + strength * prior
        x = np.clip(prior.astype(np.float64), EXPRESSION_LOW, EXPRESSION_HIGH)
        dual = np.zeros_like(x)
        for _ in range(self.iterations):
            free = inverse @ (right + rho * (x - dual))
            x = np.clip(free + dual, EXPRESSION_LOW, EXPRESSION_HIGH)
            dual += free - x
        return x.astype(np.float32)


def measure_gaze(unposed_hu: F64) -> F32:
    """Gaze (2, 2): (yaw, pitch) in radians of the right and left eye, from where each iris sits in its eye."""
    out = np.zeros((2, 2), np.float32)
    for row, (iris, corners) in enumerate(((IRIS_RIGHT, CORNERS_RIGHT), (IRIS_LEFT, CORNERS_LEFT))):
        centre = unposed_hu[list(corners)].mean(0)
        offset = (unposed_hu[iris, :2] - centre[:2]) / EYEBALL_RADIUS_HU
        out[row] = np.arcsin(np.clip(offset, -0.9, 0.9))
    return out
