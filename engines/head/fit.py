"""Landmarks → pose, identity and expression of the head model (design § 2).

Source (once): pose, α, β and the corrective δ. Driver (per frame, < 1 ms): pose by Procrustes, β by boxed
least squares with a prior, gaze from the irises, closure of lips and lids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, Similarity, align_similarity
from engines.head.landmark_names import (
    CORNERS_LEFT,
    CORNERS_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LANDMARK_COUNT,
    LIPS_INNER,
    LIPS_OUTER,
    SURFACE,
)
from engines.head.model import EYEBALL_RADIUS_HU, HeadModel
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT

F32 = NDArray[np.float32]

# Coefficients may leave 0 … 1 a little: a driver's calibrated neutral is never exact, and the excursion
# carries what clipping would lose.
EXPRESSION_LOW, EXPRESSION_HIGH = -0.25, 1.25
DEPTH_WEIGHT = 0.7  # MediaPipe's depth is less sure than what it sees

# Source fit: what a landmark may miss, and what β may differ from the scores, before the prior pulls back.
_LANDMARK_SIGMA_HU = 0.012
_SCORE_SIGMA = 0.2
_SOURCE_ROUNDS = 8

# a tenth of the mean curvature, over-relaxed (Boyd § 3.4.3): 24 steps end within 1 % of the least cost,
# without either up to 12 % above
_ADMM_STEP, _OVER_RELAX = 0.1, 1.7


def landmark_weights() -> F64:
    """(478, 3): mouth and eyes count three times, irises not at all, depth less."""
    w = np.ones((LANDMARK_COUNT, 3))
    w[[*LIPS_INNER, *LIPS_OUTER, *EYE_LEFT, *EYE_RIGHT]] = 3
    w[SURFACE:] = 0
    w[:, 2] *= DEPTH_WEIGHT
    return w


def fit_pose(model: HeadModel, landmarks_hu: F32 | F64, landmarks_px: F32 | F64) -> Similarity:
    """Head units → pixels from landmarks (478, 3), by Procrustes weighted towards what expressions leave."""
    return align_similarity(landmarks_hu, landmarks_px, model.fit_weight)


@dataclass(frozen=True)
class ExpressionFit:
    """Solves `min_β Σ w |u − n − B β|² + Σ λ (β − prior)²`, `low ≤ β ≤ high`, in well under a millisecond."""

    model: HeadModel
    prior_strength: float = 0.004
    iterations: int = 24

    @cached_property
    def basis(self) -> F64:
        """B at the landmarks: (52, 478, 3)."""
        return np.stack([self.model.landmarks(b) for b in self.model.expression_hu]).astype(np.float64)

    @cached_property
    def _root_weight(self) -> F64:
        return np.sqrt(landmark_weights()).ravel()

    @cached_property
    def _system(self) -> tuple[F64, F64, F64, float]:
        basis = self.basis.reshape(EXPRESSION_COUNT, -1) * self._root_weight
        energy = (basis**2).sum(1)
        prior = self.prior_strength * np.maximum(energy, np.percentile(energy, 30))
        gram = basis @ basis.T + np.diag(prior)
        rho = _ADMM_STEP * float(np.diag(gram).mean())
        inverse = np.linalg.inv(gram + rho * np.eye(EXPRESSION_COUNT))
        return basis, np.asarray(prior, np.float64), np.asarray(inverse, np.float64), rho

    def solve(self, unposed_hu: F64, neutral_hu: F32 | F64, prior: F32, start: F32 | None = None) -> F32:
        """β (52,) for un-posed landmarks (478, 3) against a person's neutral landmarks, pulled to `prior` (52,).

        Boxed quadratic programme by ADMM (Boyd et al. 2011, § 5.2) with the factor computed once. Begins at
        `start`, a solution near by, where fewer iterations do; else at the prior.
        """
        basis, strength, inverse, rho = self._system
        right = basis @ ((unposed_hu - neutral_hu).ravel() * self._root_weight) + strength * prior
        begin = prior if start is None else start
        x = np.clip(begin.astype(np.float64), EXPRESSION_LOW, EXPRESSION_HIGH)
        dual = np.zeros_like(x)
        for _ in range(self.iterations if start is None else self.iterations * 3 // 4):
            free = inverse @ (right + rho * (x - dual))
            free = _OVER_RELAX * free + (1 - _OVER_RELAX) * x
            x = np.minimum(np.maximum(free + dual, EXPRESSION_LOW), EXPRESSION_HIGH)
            dual += free - x
        return x.astype(np.float32)

    def solve_many(self, unposed_hu: F64, neutral_hu: F32 | F64, prior: F32) -> F32:
        """`solve` of F frames at once: un-posed landmarks (F, 478, 3), priors (F, 52) → β (F, 52)."""
        basis, strength, inverse, rho = self._system
        left = (unposed_hu - neutral_hu).reshape(len(unposed_hu), -1) * self._root_weight
        right = left @ basis.T + strength * prior
        x = np.clip(prior.astype(np.float64), EXPRESSION_LOW, EXPRESSION_HIGH)
        dual = np.zeros_like(x)
        for _ in range(self.iterations):
            free = (right + rho * (x - dual)) @ inverse
            free = _OVER_RELAX * free + (1 - _OVER_RELAX) * x
            x = np.clip(free + dual, EXPRESSION_LOW, EXPRESSION_HIGH)
            dual += free - x
        return x.astype(np.float32)

    def offset(self, expression: F32) -> F64:
        """`B β` at the landmarks: (478, 3)."""
        return np.tensordot(expression.astype(np.float64), self.basis, 1)


@dataclass(frozen=True, slots=True)
class DriverFrame:
    """One fitted driver frame: `pose` head units → pixels, `unposed_hu` (478, 3), β (52,)."""

    pose: Similarity
    unposed_hu: F64
    expression: F32


def fit_driver(
    fit: ExpressionFit,
    neutral_hu: F32 | F64,
    landmarks_px: F32,
    scores: F32,
    last: F32 | None = None,
    rounds: int = 3,
) -> DriverFrame:
    """Pose and β of one frame against the driver's neutral landmarks (478, 3).

    The pose is taken against the expressive shape, starting from `last`, the frame before, or the scores: an
    open jaw must not pitch the head. Raises ValueError when the
    landmarks are not finite or span nothing.
    """
    expression = scores if last is None else last
    pose = unposed = None
    for _ in range(rounds):
        pose = align_similarity(neutral_hu + fit.offset(expression), landmarks_px, fit.model.fit_weight)
        unposed = pose.invert(landmarks_px)
        expression = fit.solve(unposed, neutral_hu, scores, None if last is None else expression)
    assert pose is not None
    assert unposed is not None
    return DriverFrame(pose, unposed, expression)


@dataclass(frozen=True, slots=True)
class SourceFit:
    """One fitted photo: `pose`, α (K,), β (52,), and `left_hu` (478, 3), what the model does not explain."""

    pose: Similarity
    identity: F32
    expression: F32
    left_hu: F64


def fit_source(model: HeadModel, landmarks_px: F32 | F64, scores: F32) -> SourceFit:
    """Landmarks (478, 3) of one photo → pose, α, β: alternate Procrustes and regularised least squares.

    `Σ w |u − V̄ − B_id α − B_exp β|² / σ² + |α|² + |β − scores|² / σ_β²`, β kept in its box.
    """
    both, basis, strength, gram, mean = _source_system(model)
    count = len(both) - EXPRESSION_COUNT
    root = np.sqrt(landmark_weights()).ravel() / _LANDMARK_SIGMA_HU
    prior = np.concatenate([np.zeros(count), np.asarray(scores, np.float64)])
    x = prior.copy()
    pose = Similarity(1.0, np.eye(3), np.zeros(3))
    unposed = mean
    for _ in range(_SOURCE_ROUNDS):
        shape = mean + np.tensordot(x, both, 1)
        pose = align_similarity(shape, landmarks_px, model.fit_weight)
        unposed = pose.invert(landmarks_px)
        right = basis @ ((unposed - mean).ravel() * root) + strength * prior
        x = _boxed(gram, right, count)
    shape = mean + np.tensordot(x, both, 1)
    return SourceFit(pose, x[:count].astype(np.float32), x[count:].astype(np.float32), unposed - shape)


# Photo fit: what the prior's displacement of a landmark may miss, and how far β may be from the scores.
_MOVED_SIGMA_HU = 0.012
_TOLD_SCORE_SIGMA, _LOOK_SIGMA = 0.2, 0.05
# Half of what the prior tells of the contour from temple to jaw: there pictures bear little, and Procrustes less.
_CONTOUR_SHARE = 0.5
_CONTOUR = [251, 389, 356, 454, 323, 361, 288, 397, 365, 21, 162, 127, 234, 93, 132, 58, 172, 136]
# Lids that a smile narrows are wider at rest, and lips that it draws apart are rounder: negative coefficients, as
# drivers have them. Not what turns lips in or out: below zero it thins them where a jaw opens.
_BELOW_ZERO = (
    "eyeBlink", "eyeSquint", "eyeWide", "mouthClose", "mouthFunnel", "mouthPucker", "mouthSmile", "mouthFrown",
    "mouthDimple", "mouthStretch", "mouthLeft", "mouthRight", "mouthLowerDown", "mouthUpperUp",
)  # fmt: skip


@lru_cache(maxsize=1)
def _told_box() -> tuple[F64, F64]:
    """(52,) least β and (52,) how far β may be from the scores: the gaze's own stay what they are."""
    low = np.array([EXPRESSION_LOW if name.startswith(_BELOW_ZERO) else 0.0 for name in ARKIT_NAMES])
    sigma = np.array([_LOOK_SIGMA if "Look" in name else _TOLD_SCORE_SIGMA for name in ARKIT_NAMES])
    return low, sigma


def fit_photo(model: HeadModel, landmarks_px: F32 | F64, scores: F32, moved_px: F64) -> SourceFit:
    """As `fit_source`, with what of the face is expression told: `moved_px` (478, 3), from where each landmark rests to
    where it is (`engines.head.neutral_prior`).

    β is what moves landmarks so, α what they are where they rest. β may leave 0 … 1 by as much as a driver's: what it
    does not say of the smile would stay in the neutral.
    """
    both, _, _, _, mean = _source_system(model)
    count = len(both) - EXPRESSION_COUNT
    root = np.sqrt(landmark_weights()).ravel()
    modes = both[:count].reshape(count, -1) * root / _LANDMARK_SIGMA_HU
    shapes = both[count:].reshape(EXPRESSION_COUNT, -1) * root / _MOVED_SIGMA_HU
    low, sigma = _told_box()
    told = np.asarray(scores, np.float64) / sigma**2
    gram_shapes = shapes @ shapes.T + np.diag(1 / sigma**2)
    gram_modes = modes @ modes.T + np.eye(count)
    alpha, beta = np.zeros(count), np.asarray(scores, np.float64)
    pose, unposed = Similarity(1.0, np.eye(3), np.zeros(3)), mean
    moved_px = moved_px.copy()
    moved_px[_CONTOUR] *= _CONTOUR_SHARE
    for _ in range(_SOURCE_ROUNDS):
        offset = np.tensordot(beta, both[count:], 1)
        pose = align_similarity(
            mean + np.tensordot(alpha, both[:count], 1) + offset, landmarks_px, model.fit_weight
        )
        unposed = pose.invert(landmarks_px)
        moved = moved_px @ pose.rotation / pose.scale
        right = shapes @ (moved.ravel() * root / _MOVED_SIGMA_HU) + told
        beta = _boxed(gram_shapes, right, 0, low, EXPRESSION_HIGH)
        rests = unposed - np.tensordot(beta, both[count:], 1) - mean
        alpha = np.linalg.solve(gram_modes, modes @ (rests.ravel() * root / _LANDMARK_SIGMA_HU))
    shape = mean + np.tensordot(alpha, both[:count], 1) + np.tensordot(beta, both[count:], 1)
    return SourceFit(pose, alpha.astype(np.float32), beta.astype(np.float32), unposed - shape)


@lru_cache(maxsize=4)
def _source_system(model: HeadModel) -> tuple[F64, F64, F64, F64, F64]:
    """(modes and expressions (K + 52, 478, 3), weighted basis, prior strengths, Gram matrix, mean landmarks)."""
    modes = np.stack([model.landmarks(b) for b in model.identity_hu]).astype(np.float64)
    both = np.concatenate([modes, ExpressionFit(model).basis])
    root = np.sqrt(landmark_weights()).ravel() / _LANDMARK_SIGMA_HU
    basis = both.reshape(len(both), -1) * root
    strength = np.concatenate([np.ones(len(modes)), np.full(EXPRESSION_COUNT, 1 / _SCORE_SIGMA**2)])
    gram = basis @ basis.T + np.diag(strength)
    return both, basis, strength, gram, np.asarray(model.landmarks(model.mean_hu), np.float64)


def _boxed(gram: F64, right: F64, free: int, low: F64 | float = 0.0, high: float = 1.0) -> F64:
    """Least squares with the coefficients after `free` held in `low` … `high` by an active set."""
    least = np.full(len(gram), -np.inf)
    least[free:] = low
    x = np.linalg.solve(gram, right)
    held = np.zeros(len(x), bool)
    value = np.zeros(len(x))
    for _ in range(6):
        out = (x < least - 1e-6) | (x > high + 1e-6)
        out[:free] = False
        if not (out & ~held).any():
            break
        held |= out
        value[out] = np.clip(x[out], least[out], high)
        open_ = ~held
        x = value.copy()
        x[open_] = np.linalg.solve(
            gram[np.ix_(open_, open_)], right[open_] - gram[np.ix_(open_, held)] @ value[held]
        )
    x[free:] = np.clip(x[free:], least[free:], high)
    return np.asarray(x, np.float64)


def measure_gaze(unposed_hu: F64 | F32) -> F32:
    """Gaze (…, 2, 2): (yaw, pitch) in radians of the right and left eye, from where each iris sits in its eye.

    Of one frame's un-posed landmarks (478, 3), or of many (…, 478, 3).
    """
    out = np.zeros((*unposed_hu.shape[:-2], 2, 2), np.float32)
    for row, (iris, corners) in enumerate(((IRIS_RIGHT, CORNERS_RIGHT), (IRIS_LEFT, CORNERS_LEFT))):
        centre = unposed_hu[..., list(corners), :].mean(-2)
        offset = (unposed_hu[..., iris, :2] - centre[..., :2]) / EYEBALL_RADIUS_HU
        out[..., row, :] = np.arcsin(np.clip(offset, -0.9, 0.9))
    return out


_LIP_PAIRS = ((82, 87), (13, 14), (312, 317))
_LID_PAIRS = (((160, 144), (159, 145), (158, 153)), ((387, 373), (386, 374), (385, 380)))
_MOUTH_CORNERS = (78, 308)
_LID_CORNERS = ((33, 133), (263, 362))
_OPENINGS = (
    (_LIP_PAIRS, _MOUTH_CORNERS),
    (_LID_PAIRS[0], _LID_CORNERS[0]),
    (_LID_PAIRS[1], _LID_CORNERS[1]),
)


def openings(landmarks: F64 | F32) -> F64:
    """(3,) gap over width of mouth, right eye and left eye, in the picture plane of un-posed landmarks (478, 3)."""
    out = np.empty(3)
    for k, (pairs, (a, b)) in enumerate(_OPENINGS):
        gap = np.mean([np.linalg.norm(landmarks[u, :2] - landmarks[v, :2]) for u, v in pairs])
        out[k] = gap / max(float(np.linalg.norm(landmarks[a, :2] - landmarks[b, :2])), 1e-6)
    return out


def openings_of_many(landmarks: F64 | F32) -> F64:
    """(F, 3): `openings` of F frames (F, 478, 3) at once."""
    xy = landmarks[..., :2]
    out = np.empty((len(xy), 3))
    for k, (pairs, (a, b)) in enumerate(_OPENINGS):
        upper, lower = (xy[:, [pair[side] for pair in pairs]] for side in (0, 1))
        gap = np.linalg.norm(upper - lower, axis=-1).mean(1)
        out[:, k] = gap / np.maximum(np.linalg.norm(xy[:, a] - xy[:, b], axis=-1), 1e-6)
    return out


# Lips count as closed up to this gap over the mouth's width, as open from the second on; lids likewise, as a
# share of the person's own rest opening (MediaPipe leaves a fifth of it on a closed eye).
LIPS_CLOSED, LIPS_OPEN = 0.02, 0.06
LIDS_CLOSED, LIDS_OPEN = 0.32, 0.62


def measure_closure(unposed_hu: F64 | F32, rest_openings: F64) -> F32:
    """(3,) closure of lips, right and left eye in 0 … 1; `rest_openings` (3,) are the person's own at rest."""
    return closure_of_openings(openings(unposed_hu), rest_openings)


def closure_of_openings(now: F64, rest_openings: F64) -> F32:
    """(…, 3) closure of measured `openings` (…, 3)."""
    lips = (LIPS_OPEN - now[..., :1]) / (LIPS_OPEN - LIPS_CLOSED)
    lids = (LIDS_OPEN - now[..., 1:] / np.maximum(rest_openings[1:], 0.05)) / (LIDS_OPEN - LIDS_CLOSED)
    return np.clip(np.concatenate([lips, lids], -1), 0, 1).astype(np.float32)
