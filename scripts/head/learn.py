"""What real tracks teach: the mean face, the expression basis at the landmarks, everybody's neutral.

Alternates boxed least squares in β (MediaPipe's scores as prior) with ridge regression of the basis towards
the CC0 Face Units; the ridge is strong where a unit does not reach, so that a blink stays a blink.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, align_similarity
from engines.head.fit import EXPRESSION_HIGH, EXPRESSION_LOW
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LANDMARK_COUNT, LIPS_INNER, LIPS_OUTER, SURFACE
from engines.motion import ARKIT_NAMES, EXPRESSION_COUNT
from scripts.people.tracks import Tracked

PRIOR_STRENGTH = 0.02
HALF_FACE_HU = 0.8
Z_WEIGHT = 0.35  # MediaPipe's depth is a guess
FRAMES_PER_CLIP = 60
RIDGE, RIDGE_OUTSIDE, SUPPORT_HU = 0.002, 0.02, 0.008
LEARNING_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Neutral:
    """One person's expressionless landmarks (478, 3) in head units and how many frames they rest on."""

    subject: str
    held_out: bool
    landmarks_hu: F64
    frames: int


def fit_weights() -> F64:
    """(478, 3): mouth and eyes count three times, irises not at all, depth less."""
    w = np.ones((LANDMARK_COUNT, 3))
    w[[*LIPS_INNER, *LIPS_OUTER, *EYE_LEFT, *EYE_RIGHT]] = 3
    w[SURFACE:] = 0
    w[:, 2] *= Z_WEIGHT
    return w


def mirror_of(mean: F64) -> NDArray[np.int64]:
    """Index of each landmark's mirror image across the face."""
    image = mean * (-1, 1, 1)
    distance = ((mean[:, None] - image[None]) ** 2).sum(-1)
    # irises lie close to lids: match them among themselves
    distance[SURFACE:, :SURFACE] = np.inf
    distance[:SURFACE, SURFACE:] = np.inf
    mirror = distance.argmin(1)
    if not (mirror[mirror] == np.arange(len(mirror))).all():
        raise ValueError("the landmarks do not mirror one to one")
    return mirror


def twins() -> NDArray[np.int64]:
    """Index of each coefficient's left/right twin."""

    def twin(name: str) -> str:
        if "Left" in name:
            return name.replace("Left", "Right")
        return name.replace("Right", "Left")

    return np.array([ARKIT_NAMES.index(twin(n)) for n in ARKIT_NAMES])


def unpose(points_px: F64, template: F64, weights: F64) -> F64:
    """Every frame (F, 478, 3) brought to `template` (n ≤ 478, 3) by Procrustes."""
    n = len(template)
    return np.stack([align_similarity(template, p[:n], weights[:n]).invert(p) for p in points_px])


def fit_coefficients(basis: F64, residual: F64, prior: F64, weight: F64) -> F64:
    """β (F, 52) for residuals (F, 478, 3): the product's boxed least squares, for many frames at once."""
    root = np.sqrt(weight)
    flat = (basis * root).reshape(EXPRESSION_COUNT, -1)
    target = (residual * root).reshape(len(residual), -1)
    energy = (flat**2).sum(1)
    strength = np.diag(PRIOR_STRENGTH * np.maximum(energy, np.percentile(energy, 30)))
    gram = flat @ flat.T + strength
    right = target @ flat.T + prior @ strength
    rho = float(np.diag(gram).mean())
    inverse = np.linalg.inv(gram + rho * np.eye(EXPRESSION_COUNT))
    x = np.clip(prior, EXPRESSION_LOW, EXPRESSION_HIGH)
    dual = np.zeros_like(x)
    for _ in range(60):
        free = (right + rho * (x - dual)) @ inverse
        x = np.clip(free + dual, EXPRESSION_LOW, EXPRESSION_HIGH)
        dual += free - x
    return x


@dataclass(slots=True)
class Clip:
    """A clip at work: un-posed `shapes` (F, 478, 3), `scores` (F, 52), `beta` (F, 52), `neutral` (478, 3)."""

    tracked: Tracked
    points_px: F64
    scores: F64
    shapes: F64
    beta: F64
    neutral: F64


def start_clip(tracked: Tracked, template: F64, rigid: F64) -> Clip:
    """Take at most FRAMES_PER_CLIP frames, spread evenly, and un-pose them."""
    step = max(1, len(tracked.scores) // FRAMES_PER_CLIP)
    points, scores = tracked.points_px[::step], tracked.scores[::step]
    shapes = unpose(points, template, rigid)
    return Clip(tracked, points, scores, shapes, scores, shapes.mean(0))


def fit_clip(clip: Clip, basis: F64, weight: F64, rigid: F64, rounds: int = 2) -> None:
    """Neutral, β and pose of every frame, in turn: the pose against the frame's own expressive shape."""
    for _ in range(rounds):
        offsets = np.tensordot(clip.beta, basis, 1)
        clip.neutral = (clip.shapes - offsets).mean(0)
        clip.beta = fit_coefficients(basis, clip.shapes - clip.neutral, clip.scores, weight)
        target = clip.neutral + np.tensordot(clip.beta, basis, 1)
        clip.shapes = np.stack(
            [align_similarity(t, p, rigid).invert(p) for t, p in zip(target, clip.points_px, strict=True)]
        )


def regress(clips: list[Clip], start: F64, mirror: NDArray[np.int64]) -> F64:
    """Ridge regression of shapes on β towards `start` (52, 478, 3), each clip centred, and mirrored too."""
    twin = twins()
    xs: list[F64] = []
    ys: list[F64] = []
    for clip in clips:
        dx, dy = clip.beta - clip.beta.mean(0), clip.shapes - clip.shapes.mean(0)
        xs += [dx, dx[:, twin]]
        ys += [dy, dy[:, mirror] * (-1, 1, 1)]
    x, y = np.concatenate(xs), np.concatenate(ys)
    gram = x.T @ x / len(x)
    out = np.empty_like(start)
    reach = np.linalg.norm(start, axis=-1)
    inside = 1 - np.exp(-((reach / SUPPORT_HU) ** 2))  # (52, 478)
    penalty = RIDGE * inside + RIDGE_OUTSIDE * (1 - inside)
    signal = float(np.diag(gram).mean())
    residual = y - np.tensordot(x, start, 1)
    cross = np.einsum("fk,fjc->kjc", x, residual) / len(x)
    for j in range(LANDMARK_COUNT):
        out[:, j] = start[:, j] + np.linalg.solve(gram + np.diag(penalty[:, j] * signal), cross[:, j])
    return out


def residual_percent(clip: Clip, basis: F64, beta: F64 | None = None) -> float:
    """Mean 3-D distance left (468 landmarks), in % of the half-face."""
    use = clip.beta if beta is None else beta
    rest = (clip.shapes - np.tensordot(use, basis, 1)).mean(0)
    left = clip.shapes - rest - np.tensordot(use, basis, 1)
    return float(100 * np.linalg.norm(left[:, :SURFACE], axis=-1).mean() / HALF_FACE_HU)


def learn_template(clips: list[Tracked], canonical_hu: F64) -> tuple[F64, F64, NDArray[np.int64]]:
    """(mean face (478, 3), weights of the rigid alignment (478,), mirror map) of the people in `clips`.

    The mean lies in the frame and scale of MediaPipe's canonical face `canonical_hu` (468, 3).
    """
    step = 5
    shapes = [unpose(c.points_px[::step], canonical_hu, np.ones(SURFACE)) for c in clips]
    scores = [c.scores[::step] for c in clips]
    mirror = mirror_of(np.mean([s.mean(0) for s in shapes], 0))
    template, rigid = canonical_hu, np.ones(LANDMARK_COUNT)
    for _ in range(3):
        basis = _plain_regression(scores, shapes)
        neutral = np.mean(
            [s.mean(0) - np.tensordot(x.mean(0), basis, 1) for s, x in zip(shapes, scores, strict=True)], 0
        )
        neutral = (neutral + neutral[mirror] * (-1, 1, 1)) / 2
        # landmarks that expressions move tell little about the pose
        spread = np.mean([s.var(0).sum(-1) for s in shapes], 0)
        rigid = 1 / (spread + np.percentile(spread, 20))
        rigid = (rigid + rigid[mirror]) / 2
        rigid[SURFACE:] = 0
        rigid /= rigid.sum()
        template = align_similarity(neutral[:SURFACE], canonical_hu, rigid[:SURFACE]).apply(neutral)
        own = [align_similarity(s.mean(0), template, rigid).apply(s.mean(0)) for s in shapes]
        shapes = [unpose(c.points_px[::step], o, rigid) for o, c in zip(own, clips, strict=True)]
    return template, rigid, mirror


def _plain_regression(scores: list[F64], shapes: list[F64]) -> F64:
    x = np.concatenate([s - s.mean(0) for s in scores])
    y = np.concatenate([s - s.mean(0) for s in shapes]).reshape(len(x), -1)
    gain = np.linalg.solve(x.T @ x + 1e-4 * len(x) * np.eye(EXPRESSION_COUNT), x.T @ y)
    return np.asarray(gain, np.float64).reshape(EXPRESSION_COUNT, LANDMARK_COUNT, 3)


def learn_expressions(
    clips: list[Tracked], template: F64, rigid: F64, mirror: NDArray[np.int64], units: F64
) -> tuple[F64, list[Clip]]:
    """(basis (52, 478, 3), all clips fitted with it); people of the validation split teach nothing."""
    weight = fit_weights()
    work = [start_clip(c, template, rigid) for c in clips]
    train = [c for c in work if not c.tracked.held_out]
    basis = units
    for _ in range(LEARNING_ROUNDS):
        for clip in train:
            fit_clip(clip, basis, weight, rigid, rounds=1)
        basis = regress(train, units, mirror)
    for clip in work:
        fit_clip(clip, basis, weight, rigid, rounds=3)
    return basis, work
