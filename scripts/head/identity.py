"""Identity modes: everybody's neutral as a dense head, then PCA over people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64, align_similarity
from engines.head.surface import Spread
from scripts.head.anny import RawHead
from scripts.head.assemble import Head, spread_all
from scripts.head.learn import HALF_FACE_HU, Clip, fit_weights
from scripts.head.register import SURFACE
from scripts.people.tracks import Tracked

MODES = 60
_PASSES = 3
_LANDMARK_SIGMA_HU, _SCORE_SIGMA = 0.012, 0.2
_SLIDER_RIDGE = 0.02


def people_of_clips(clips: list[Clip]) -> dict[str, F64]:
    """Mean neutral landmarks (478, 3) of each subject."""
    by_subject: dict[str, list[F64]] = {}
    for clip in clips:
        by_subject.setdefault(clip.tracked.subject, []).append(clip.neutral)
    return {s: np.mean(n, 0) for s, n in by_subject.items()}


def neutral_of_portrait(portrait: Tracked, mean: F64, modes: F64, basis: F64, rigid: F64) -> F64:
    """Neutral landmarks (478, 3) of one photo, identity and expression told apart by their priors."""
    both = np.concatenate([modes, basis])
    root = np.sqrt(fit_weights()).ravel() / _LANDMARK_SIGMA_HU
    flat = both.reshape(len(both), -1) * root
    strength = np.concatenate([np.ones(len(modes)), np.full(len(basis), 1 / _SCORE_SIGMA**2)])
    gram = flat @ flat.T + np.diag(strength)
    prior = np.concatenate([np.zeros(len(modes)), portrait.scores[0]])
    x = prior
    points = portrait.points_px[0]
    unposed = mean
    for _ in range(5):
        pose = align_similarity(mean + np.tensordot(x, both, 1), points, rigid)
        unposed = pose.invert(points)
        x = np.linalg.solve(gram, flat @ ((unposed - mean).ravel() * root) + strength * prior)
    return unposed - np.tensordot(np.clip(x[len(modes) :], 0, 1), basis, 1)


class Densifier:
    """Landmarks of a neutral face → the whole head: sliders as far as they go, the rest spread smoothly."""

    def __init__(self, head: Head, raw: RawHead, turn: F64, scale: float, spread: Spread) -> None:
        self._head, self._spread = head, spread
        own = head.kept >= 0
        self._sliders = np.zeros((len(raw.sliders), len(head.vertices), 3), np.float32)
        self._sliders[:, own] = (raw.sliders[:, head.kept[own]] @ turn.T * scale).astype(np.float32)
        for side, ball in ((1, head.eye_side == 1), (2, head.eye_side == 2)):
            del side
            # eyeballs are set by the lids afterwards
            self._sliders[:, ball] = 0
        self._at = np.stack([head.embedding.at(s.astype(np.float64))[:SURFACE] for s in self._sliders])
        flat = self._at.reshape(len(self._at), -1)
        self._gram = flat @ flat.T + _SLIDER_RIDGE * SURFACE / 100 * np.eye(len(flat))

    def __call__(self, delta: F64) -> F64:
        """Displacements (478, 3) at the landmarks → (N, 3)."""
        flat = self._at.reshape(len(self._at), -1)
        alpha = np.clip(np.linalg.solve(self._gram, flat @ delta[:SURFACE].ravel()), -1, 1)
        dense = np.tensordot(alpha.astype(np.float32), self._sliders, 1).astype(np.float64)
        left = delta[:SURFACE] - self._head.embedding.at(dense)[:SURFACE]
        rest = spread_all(self._head, self._spread, left)
        eyes = spread_all(self._head, self._spread, delta[:SURFACE])
        ball = self._head.eye_side > 0
        dense, rest[ball] = dense + rest, 0
        dense[ball] = eyes[ball]
        return dense


def principal_modes(heads: F64, weights: F64 | None = None, count: int = MODES) -> F64:
    """(count, N, 3), one standard deviation each, of heads (P, N, 3) given as displacements from the mean."""
    flat = heads.reshape(len(heads), -1)
    if weights is not None:
        flat = flat * np.sqrt(weights / weights.mean())[:, None]
    gram = flat @ flat.T / len(flat)
    value, vector = np.linalg.eigh(gram)
    order = np.argsort(value)[::-1][:count]
    modes = (vector[:, order].T @ flat) / np.sqrt(len(flat))
    # a mode's direction is arbitrary: let its largest motion be positive, so that builds agree
    sign = np.sign(modes[np.arange(len(modes)), np.abs(modes).argmax(1)])
    return (modes * sign[:, None]).reshape(len(order), *heads.shape[1:])


def learn_identity(
    clips: list[Clip],
    portraits: list[Tracked],
    head: Head,
    densify: Densifier,
    basis: F64,
    rigid: F64,
    mirror: NDArray[np.int64],
) -> F64:
    """Identity modes (MODES, N, 3) of all people outside the validation split, each also mirrored."""
    mean = head.embedding.at(head.vertices)
    people = people_of_clips([c for c in clips if not c.tracked.held_out])
    modes = np.zeros((0, 0, 0))
    for step in range(2):
        neutrals = list(people.values())
        if step:
            at = np.stack([head.embedding.at(m) for m in modes])
            for portrait in portraits:
                if not portrait.held_out:
                    neutrals.append(neutral_of_portrait(portrait, mean, at, basis, rigid))
        deltas = [align_similarity(mean, n, rigid).invert(n) - mean for n in neutrals]
        deltas = [d for d in deltas if np.abs(d[:SURFACE]).max() < 0.5 * HALF_FACE_HU]
        deltas += [d[mirror] * (-1, 1, 1) for d in deltas]
        heads = np.stack([densify(d) for d in deltas])
        modes = principal_modes(heads)
    return modes
