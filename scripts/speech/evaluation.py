"""Figures of speech → motion: opening of the mouth against the tracked one, lips on p, b and m."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.geometry import F64
from engines.motion import Motion
from engines.speech.features import log_mel
from engines.speech.opening import openings_of
from engines.speech.speech_to_motion import SpeechToMotion, motion_of
from scripts.evaluation.statistics import LEAST_SUBJECTS, ROUNDS, Estimate
from scripts.speech.data import Recording
from scripts.speech.visemes import Articulation, Phone, articulations_of

F32 = NDArray[np.float32]

FPS = 25.0
FURTHEST_FRAMES = 10
LEAST_FRAMES = 20
GRID_HZ = 100.0
LIPS_MEET_BELOW = 0.02  # opening, of 0.13 on an open vowel: at 512 pixels the gap is one pixel
NEAR_S = 0.04  # an alignment's own error
PAUSE_S = 0.15


@dataclass(frozen=True, slots=True)
class Curve:
    """Opening of the mouth (N,) at times (N,) in seconds of the sound."""

    times_s: F64
    openings: F64

    def moved(self, seconds: float) -> Curve:
        """The same, that much later: what chance would give."""
        return Curve(self.times_s + seconds, self.openings)

    def at(self, times_s: F64) -> F64:
        """(M,) between the samples."""
        return np.interp(times_s, self.times_s, self.openings)


def heard_curve(speech: SpeechToMotion, sound: F32) -> Curve:
    """What the product shows for (S,) of sound: the rest pose's opening less, which is closed."""
    tail = np.zeros(round((speech.look_ahead_s + 0.1) * 16_000), np.float32)
    spoken, _ = speech.hear(np.concatenate([sound, tail]))
    motions: list[Motion] = [motion_of(s) for s in spoken]
    expressions = np.array([m.expression for m in motions])
    closures = np.array([m.closure[0] for m in motions])
    return Curve(np.array([s.time_s for s in spoken]), openings_of(expressions, closures).astype(np.float64))


def envelope_curve(sound: F32, smooth_s: float) -> Curve:
    """The baseline: loudness of the speech in dB above 25 dB below its level, smoothed, nothing of the future."""
    features, _ = log_mel(sound)
    level = np.log(np.exp(features.astype(np.float64)).sum(1))
    loud = np.maximum(level + 5.8, 0)
    keep = np.exp(-1 / (smooth_s * GRID_HZ)) if smooth_s else 0.0
    out = np.empty_like(loud)
    value = 0.0
    for k, x in enumerate(loud):
        value = keep * value + (1 - keep) * x
        out[k] = value
    return Curve((np.arange(len(out)) + 1) / GRID_HZ, out)


@dataclass(frozen=True, slots=True)
class Opening:
    """Of one clip: correlation at no shift and at the best one, and that shift in frames (> 0: heard later)."""

    r: float
    best_r: float
    lag_frames: float


def opening_scores(curve: Curve, clip: Recording) -> Opening | None:
    """Against the tracked opening while somebody speaks, at 25 fps; None for too few frames.

    How a mouth rests in a pause, shut or ajar, cannot be heard, so pauses do not count.
    """
    hop_s = (np.arange(len(clip.openings)) + 1) / GRID_HZ
    times = np.arange(hop_s[0], hop_s[-1], 1 / FPS)
    known = np.interp(times, hop_s, clip.known[:, 0]) > 0.99
    label = np.interp(times, hop_s, clip.openings)
    if known.sum() < LEAST_FRAMES or label[known].std() < 1e-6:
        return None
    shifts = np.arange(-2 * FURTHEST_FRAMES, 2 * FURTHEST_FRAMES + 1) / 2
    r = np.array([_correlation(label[known], curve.at(times + k / FPS)[known]) for k in shifts])
    best = int(r.argmax())
    return Opening(float(r[2 * FURTHEST_FRAMES]), float(r[best]), float(shifts[best]))


def _correlation(a: F64, b: F64) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 and b.std() > 1e-9 else 0.0


@dataclass(frozen=True, slots=True)
class Lips:
    """Of one recording: p, b and m said and of them shown; times the lips met in speech and of these rightly.

    `shut_s` of `speech_s`: how long the lips were together while phones sounded. A mouth that is always shut misses
    nothing.
    """

    said: int
    shown: int
    met: int
    right: int
    shut_s: float
    speech_s: float


def closure_scores(curve: Curve, phones: Sequence[Phone]) -> Lips:
    """Whether the lips meet on p, b and m, within 40 ms, and nowhere else within speech.

    Meeting on f and v, where the lip is at the teeth, or in a pause is neither right nor wrong.
    """
    times = np.arange(curve.times_s[0], curve.times_s[-1], 1 / GRID_HZ)
    met = curve.at(times) < LIPS_MEET_BELOW
    phones = [p for p in phones if Articulation.SILENCE not in articulations_of(p.symbol)]
    wanted = [p for p in phones if Articulation.BILABIAL in articulations_of(p.symbol)]
    shown = sum(bool(met[(times >= p.start_s - NEAR_S) & (times <= p.end_s + NEAR_S)].any()) for p in wanted)
    events = [e for e in _runs(met, times) if not _in_pause(e, phones)]
    right = sum(any(_touch(e, p) for p in wanted) for e in events)
    near = [p for p in phones if Articulation.LABIODENTAL in articulations_of(p.symbol)]
    events = [e for e in events if any(_touch(e, p) for p in wanted) or not any(_touch(e, p) for p in near)]
    speaks = np.zeros(len(times), bool)
    for p in phones:
        speaks |= (times >= p.start_s) & (times < p.end_s)
    shut_s, speech_s = float((met & speaks).sum()) / GRID_HZ, float(speaks.sum()) / GRID_HZ
    return Lips(len(wanted), shown, len(events), right, shut_s, speech_s)


def _runs(met: NDArray[np.bool_], times: F64) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], met.astype(int), [0]])))
    return [(float(times[a]), float(times[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _touch(event: tuple[float, float], phone: Phone) -> bool:
    return event[0] <= phone.end_s + NEAR_S and event[1] >= phone.start_s - NEAR_S


def _in_pause(event: tuple[float, float], phones: Sequence[Phone]) -> bool:
    """Whether it reaches into a silence, where lips may rest: none is wrong there."""
    ends = [0.0, *(p.end_s for p in phones)]
    starts = [*(p.start_s for p in phones), np.inf]
    return any(b - a > PAUSE_S and event[0] < b and event[1] > a for a, b in zip(ends, starts, strict=True))


def median(values: Iterable[float], subjects: Sequence[str], rounds: int = ROUNDS) -> Estimate:
    """Median with its 95 % interval, by drawing whole subjects with replacement."""
    x = np.asarray(list(values), np.float64)
    names, index = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < LEAST_SUBJECTS:
        return Estimate(float(np.median(x)) if len(x) else np.nan, np.nan, np.nan, len(x), len(names))
    groups = [x[index == k] for k in range(len(names))]
    rng = np.random.default_rng(20240501)
    drawn = [
        np.median(np.concatenate([groups[k] for k in rng.integers(0, len(groups), len(groups))]))
        for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(np.median(x)), float(low), float(high), len(x), len(names))


def share(
    right: Sequence[int], all_of: Sequence[int], subjects: Sequence[str], rounds: int = ROUNDS
) -> Estimate:
    """Σ right / Σ all with its 95 % interval, by drawing whole subjects with replacement."""
    names, index = np.unique(np.asarray(subjects), return_inverse=True)
    a = np.bincount(index, np.asarray(right, np.float64), len(names))
    b = np.bincount(index, np.asarray(all_of, np.float64), len(names))
    if b.sum() == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, len(names))
    if len(names) < LEAST_SUBJECTS:
        return Estimate(float(a.sum() / b.sum()), np.nan, np.nan, int(b.sum()), len(names))
    picks = np.random.default_rng(20240501).integers(0, len(names), (rounds, len(names)))
    low, high = np.nanpercentile(a[picks].sum(1) / np.maximum(b[picks].sum(1), 1), [2.5, 97.5])
    return Estimate(float(a.sum() / b.sum()), float(low), float(high), int(b.sum()), len(names))
