"""How far from a person's rest the live neutral is: clips entered at several moments, as a call would.

    python -m scripts.measure_neutral DATA [--tracks runs/tracks] [--starts 4] [--seconds 15]

DATA holds clips (.mp4). A start plays the clip round and round from there; the truth is the calmest of the whole clip.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Before numpy is imported: one thread, as in a call.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.calm import Sample, calmest, sample_of
from calibration.neutral import DriverNeutral
from calibration.neutral_estimator import NeutralEstimator
from engines.geometry import F64, Camera
from engines.head.fit import ExpressionFit, fit_driver, measure_gaze
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX
from scripts.measure.driver import CLIP_FPS, whole_clip_neutral
from scripts.measure.figures import Figure, Section, share_percent, to_markdown
from scripts.people.tracks import Tracked, load_tracks

STRETCHED = 0.2  # of a coefficient: a viewer sees it
LOOKED_AT_S = (1.6, 4.0, 9.0, 14.0)
CALM_FRAMES = 0.1  # of a clip are its calmest
SHOWN = [
    ARKIT_INDEX[name]
    for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthFunnel", "mouthUpperUpLeft", "mouthUpperUpRight",
                 "mouthLowerDownLeft", "mouthLowerDownRight", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rest:
    """A clip's calmest frames: their mean un-posed landmarks (478, 3) and scores (52,)."""

    unposed_hu: F64
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Start:
    """One start: by what the rest is drawn wrong at `LOOKED_AT_S`; when a neutral was taken, how many there were."""

    wrong: tuple[float, ...]
    taken_s: float
    revisions: int


def samples_of(fit: ExpressionFit, clip: Tracked) -> list[Sample]:
    """Every frame of the clip, un-posed against the neutral of the whole clip."""
    neutral, camera = whole_clip_neutral(fit.model, fit, clip), Camera(*clip.size_px)
    out: list[Sample] = []
    for points, scores in zip(clip.points_px, clip.scores, strict=True):
        fitted = fit_driver(fit, neutral, points.astype(np.float32), scores.astype(np.float32))
        turn, place = camera.from_similarity(fitted.pose)
        gaze = measure_gaze(fitted.unposed_hu)
        out.append(sample_of(0.0, fitted.unposed_hu, scores.astype(np.float32), turn, place, gaze))
    return out


def rest_of(samples: Sequence[Sample]) -> Rest:
    """The calmest tenth."""
    calm = calmest(samples, CALM_FRAMES)
    return Rest(
        np.mean([s.unposed_hu for s in calm], 0), np.mean([s.scores for s in calm], 0).astype(np.float32)
    )


def wrong_by(fit: ExpressionFit, neutral: DriverNeutral, rest: Rest) -> float:
    """The largest coefficient that an avatar shows while its driver rests."""
    seen = fit.solve(rest.unposed_hu, neutral.mesh_hu, rest.scores)
    return float(np.abs(seen - neutral.motion.expression)[SHOWN].max())


def played(clip: Tracked, first: int, seconds: float) -> Iterator[tuple[float, int]]:
    """(time, index) of the frames from `first` on, round and round."""
    step_s = float(np.median(np.diff(clip.frame))) / CLIP_FPS
    for k in range(round(seconds / step_s)):
        yield k * step_s, (first + k) % len(clip.scores)


def start_at(
    model: HeadModel, fit: ExpressionFit, clip: Tracked, first: int, seconds: float, rest: Rest
) -> Start:
    """Drive as in a call from frame `first` on."""
    estimator, camera = NeutralEstimator(model), Camera(*clip.size_px)
    mean = np.asarray(model.landmarks(model.mean_hu), np.float64)
    wrong: list[float] = []
    taken_s, last = np.nan, None
    for time_s, k in played(clip, first, seconds):
        points, scores = clip.points_px[k].astype(np.float32), clip.scores[k].astype(np.float32)
        now = estimator.current
        fitted = fit_driver(fit, now.mesh_hu if now else mean, points, scores, last)
        turn, place = camera.from_similarity(fitted.pose)
        gaze = measure_gaze(fitted.unposed_hu)
        estimator.add(sample_of(time_s, fitted.unposed_hu, scores, turn, place, gaze))
        last = fitted.expression if now else None
        current = estimator.current
        if current and len(wrong) < len(LOOKED_AT_S) and time_s >= LOOKED_AT_S[len(wrong)]:
            wrong.append(wrong_by(fit, current, rest))
        if np.isnan(taken_s) and not estimator.collecting:
            taken_s = time_s
    return Start(tuple(wrong), taken_s, estimator.report.revision)


def measure_neutral(model: HeadModel, clips: Sequence[Tracked], starts: int, seconds: float) -> Section:
    """All starts of all clips."""
    fit = ExpressionFit(model)
    rows: list[Start] = []
    for clip in tqdm(clips, desc="neutral"):
        rest = rest_of(samples_of(fit, clip))
        for first in np.linspace(0, len(clip.scores), starts, endpoint=False).astype(int):
            rows.append(start_at(model, fit, clip, int(first), seconds, rest))
    figures = [Figure(key="starts", label="starts", value=len(rows))]
    for k, at_s in enumerate(LOOKED_AT_S):
        wrong = np.array([r.wrong[k] for r in rows if len(r.wrong) > k])
        if not len(wrong):
            continue
        figures += [
            Figure(key=f"wrong_{at_s:g}", label=f"rest drawn wrong by more than {STRETCHED:g} after {at_s:g} s",
                   value=share_percent(wrong > STRETCHED), unit="% of starts",
                   note=f"mean {wrong.mean():.3f}, by more than 0.4 {share_percent(wrong > 2 * STRETCHED):.1f} %"),
        ]  # fmt: skip
    taken = np.array([r.taken_s for r in rows])
    revisions = np.array([r.revisions for r in rows], np.float64)
    figures += [
        Figure(key="taken_s", label="until taken, median", value=float(np.nanmedian(taken)), unit="s",
               note=f"p90 {np.nanpercentile(taken, 90):.1f} s, never {int(np.isnan(taken).sum())}"),
        Figure(key="revisions", label="neutrals taken in a start, mean", value=float(revisions.mean()),
               note=f"most {int(revisions.max())} in {seconds:g} s"),
    ]  # fmt: skip
    return Section("neutral", figures, {})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    clips, _ = load_tracks(arguments.data, arguments.tracks)
    print(to_markdown([measure_neutral(load_head_model(), clips, arguments.starts, arguments.seconds)]))


if __name__ == "__main__":
    main()
