"""How well the per-frame fit explains the motion of people it has not seen, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from calibration.calm import CALIBRATION_S, sample_of
from calibration.neutral_estimator import EASE_S, NeutralEstimator
from engines.geometry import F64, Camera, align_similarity
from engines.head.fit import SURFACE, ExpressionFit, fit_driver, landmark_weights, measure_gaze
from engines.head.model import HeadModel
from scripts.head.learn import HALF_FACE_HU, fit_clip, start_clip
from scripts.measure.figures import Figure, Section, column, mean_of, worst
from scripts.people.tracks import Tracked

CLIP_FPS = 25.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of each call of `fit_driver`: on the wall, and of this thread alone."""

    wall_ms: list[float] = field(default_factory=list[float])
    thread_ms: list[float] = field(default_factory=list[float])


def left_percent(unposed_hu: F64, explained_hu: F64) -> float:
    """Mean 3-D distance of the 468 surface landmarks (478, 3), in % of the half-face."""
    apart = np.linalg.norm(unposed_hu[:SURFACE] - explained_hu[:SURFACE], axis=1)
    return float(100 * apart.mean() / HALF_FACE_HU)


def whole_clip_neutral(model: HeadModel, fit: ExpressionFit, clip: Tracked) -> F64:
    """Neutral landmarks (478, 3) of a clip that is seen as a whole."""
    template = np.asarray(model.landmarks(model.mean_hu), np.float64)
    rigid = model.fit_weight.astype(np.float64)
    work = start_clip(clip, template, rigid)
    fit_clip(work, fit.basis, landmark_weights(), rigid)
    return work.neutral


def with_neutral(fit: ExpressionFit, neutral_hu: F64, clip: Tracked, costs: Costs) -> list[float]:
    """What `fit_driver` leaves of each frame against a fixed neutral (478, 3): %."""
    last = None
    left: list[float] = []
    for points, scores in zip(clip.points_px, clip.scores, strict=True):
        p, s = points.astype(np.float32), scores.astype(np.float32)
        wall_ns, thread_ns = time.perf_counter_ns(), time.thread_time_ns()
        fitted = fit_driver(fit, neutral_hu, p, s, last)
        costs.thread_ms.append((time.thread_time_ns() - thread_ns) / 1e6)
        costs.wall_ms.append((time.perf_counter_ns() - wall_ns) / 1e6)
        last = fitted.expression
        left.append(left_percent(fitted.unposed_hu, neutral_hu + fit.offset(fitted.expression)))
    return left


def with_scores(fit: ExpressionFit, clip: Tracked, learn_from: slice, rounds: int = 2) -> list[float]:
    """What MediaPipe's scores, taken as β, leave of each frame: %.

    The neutral is fitted for them on the frames `learn_from`, the pose on every frame, in turn.
    """
    rigid = fit.model.fit_weight
    offsets = np.tensordot(clip.scores, fit.basis, 1)
    target = np.broadcast_to(np.asarray(fit.model.landmarks(fit.model.mean_hu), np.float64), offsets.shape)
    shapes = neutral = offsets
    for _ in range(rounds + 1):
        shapes = np.stack(
            [
                align_similarity(t, p, rigid).invert(p)
                for t, p in zip(target + 0 * offsets, clip.points_px, strict=True)
            ]
        )
        neutral = (shapes - offsets)[learn_from].mean(0)
        target = neutral + offsets
    return [left_percent(shape, t) for shape, t in zip(shapes, neutral + offsets, strict=True)]


def live(model: HeadModel, fit: ExpressionFit, clip: Tracked) -> list[tuple[float, float]]:
    """(seconds, % left) of each frame as in a call: the neutral is taken from the clip itself."""
    estimator = NeutralEstimator(model)
    camera = Camera(*clip.size_px)
    mean = np.asarray(model.landmarks(model.mean_hu), np.float64)
    last = None
    out: list[tuple[float, float]] = []
    for number, points, scores in zip(clip.frame, clip.points_px, clip.scores, strict=True):
        time_s = float(number) / CLIP_FPS
        p, s = points.astype(np.float32), scores.astype(np.float32)
        current = estimator.current
        fitted = fit_driver(fit, current.mesh_hu if current else mean, p, s, last)
        if current:
            explained = current.mesh_hu + fit.offset(fitted.expression)
            out.append((time_s, left_percent(fitted.unposed_hu, explained)))
        rotation, translation = camera.from_similarity(fitted.pose)
        gaze = measure_gaze(fitted.unposed_hu)
        estimator.add(sample_of(time_s, fitted.unposed_hu, s, rotation, translation, gaze))
        now = estimator.current
        last = fitted.expression if current or now is None else fit.solve(fitted.unposed_hu, now.mesh_hu, s)
    return out


def measure_driver(model: HeadModel, clips: Sequence[Tracked]) -> Section:
    """Residuals of the fit and of MediaPipe's scores on every clip, with both neutrals; milliseconds per fit."""
    fit = ExpressionFit(model)
    costs = Costs()
    items: dict[str, dict[str, float]] = {}
    for clip in tqdm(clips, desc="driver"):
        neutral = whole_clip_neutral(model, fit, clip)
        whole = float(np.mean(with_neutral(fit, neutral, clip, costs)))
        whole_scores = float(np.mean(with_scores(fit, clip, slice(None))))
        row = {
            "frames": float(len(clip.scores)),
            "whole": whole,
            "whole_scores": whole_scores,
            "whole_ratio": whole_scores / whole,
        }
        start_s = float(clip.frame[0]) / CLIP_FPS + CALIBRATION_S
        seconds = np.array(clip.frame) / CLIP_FPS
        calibrated = int((seconds <= start_s).sum())
        later = [left for at_s, left in live(model, fit, clip) if at_s > start_s + EASE_S]
        scored = np.array(with_scores(fit, clip, slice(0, calibrated)))[seconds > start_s + EASE_S]
        if later:
            row |= {
                "live": float(np.mean(later)),
                "live_scores": float(scored.mean()),
                "live_ratio": float(scored.mean() / np.mean(later)),
            }
        items[clip.name] = row
    return Section("driver", _figures(items, costs), items)


def _figures(items: dict[str, dict[str, float]], costs: Costs) -> list[Figure]:
    figures = [Figure(key="clips", label="held-out clips", value=len(items))]
    names = {"whole": "neutral of the whole clip", "live": "the live neutral"}
    for kind, name in names.items():
        own, ratio = column(items, kind), column(items, f"{kind}_ratio")
        figures += [
            Figure(key=f"{kind}_worst", label=f"residual, {name}, worst clip", value=mean_of(own, np.max),
                   unit="% of half-face", at_most=0.7, note=worst(items, kind, 5)),
            Figure(key=f"{kind}_mean", label=f"residual, {name}, mean of clips", value=mean_of(own),
                   unit="% of half-face", note=f"{len(own)} clips; {int((own > 0.7).sum())} above 0.7"),
            Figure(key=f"{kind}_scores", label=f"MediaPipe's scores as β, {name}, mean of clips",
                   value=mean_of(column(items, f"{kind}_scores")), unit="% of half-face"),
            Figure(key=f"{kind}_ratio_min", label=f"scores over fit, {name}, least", value=mean_of(ratio, np.min),
                   at_least=2, note=worst(items, f"{kind}_ratio", 5, low=True)),
            Figure(key=f"{kind}_ratio_mean", label=f"scores over fit, {name}, mean", value=mean_of(ratio),
                   note=f"{int((ratio < 2).sum())} clips below 2"),
        ]  # fmt: skip
    wall, thread = np.array(costs.wall_ms), np.array(costs.thread_ms)
    figures += [
        Figure(key="fit_ms", label="fit_driver, median on the wall", value=float(np.median(wall)), unit="ms",
               at_most=1, note=f"{len(wall)} calls, p10 {np.percentile(wall, 10):.2f} ms"),
        Figure(key="fit_thread_ms", label="fit_driver, median of this thread", value=float(np.median(thread)),
               unit="ms", at_most=1),
    ]  # fmt: skip
    return figures
