"""One person drives another's photo: do closed lips and eyes arrive, and does the photo stay who it is?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from calibration.calm import CALIBRATION_S
from calibration.neutral_estimator import EASE_S
from calibration.photo import open_photo
from engines.enrollment import Enrollment
from engines.geometry import F64, align_similarity
from engines.head.fit import ExpressionFit, openings
from engines.head.landmarks import LandmarkDetector
from engines.head.model import HeadModel
from engines.raster.pose import head_viewport, pose_head
from engines.retarget import Controls, retarget
from scripts.measure import render_pairs
from scripts.measure.driver import whole_clip_neutral
from scripts.measure.figures import (
    Figure,
    Section,
    column,
    enrolled,
    mean_of,
    share_percent,
    spread,
    worst,
)
from scripts.measure.render_pairs import Pair, draw_pairs
from scripts.people.recognition import NETS, Recogniser, RecognitionError, cosine
from scripts.people.tracks import Tracked
from streamer.drive.driver import Drive, Driver
from streamer.drive.trackers.mediapipe import MediaPipeTracker
from streamer.sources.video import VideoSource

DRIVERS, SOURCES_OF_EACH = 8, 2
STRIDE = 2
LIPS_CLOSED, LIPS_APART = 0.02, 0.10  # of the driver's mouth width
EYES_CLOSED, EYES_OPEN = 0.3, 0.85  # of the driver's rest
AVATAR_LIPS_PERCENT, AVATAR_EYES = 1.5, 0.3
OPEN_SMILE = 0.06  # a photo's mouth is open from here on
IDENTITY_FRAMES = 30


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame of a driver: `drive`, and what its own landmarks say: `lips` gap, `eyes` (2,) over rest."""

    number: int
    drive: Drive
    lips: float
    eyes: F64


def watch(model: HeadModel, clip: Path) -> list[Seen]:
    """Drive with a clip as in a call; every second frame, once the neutral is taken."""
    fit = ExpressionFit(model)
    tracker = MediaPipeTracker(model)
    driver = Driver(tracker)
    out: list[Seen] = []
    with VideoSource(clip) as source:
        while (frame := source.read()) is not None:
            drive = driver.drive(frame)
            neutral = tracker.driver_neutral
            if (
                frame.sequence % STRIDE
                or drive.state not in ("tracking", "calibrating")
                or frame.pts_s < CALIBRATION_S + EASE_S
                or drive.landmarks_px is None
                or neutral is None
            ):
                continue
            rest = openings(neutral.mesh_hu + fit.offset(neutral.motion.expression))
            pose = align_similarity(neutral.mesh_hu, drive.landmarks_px, model.fit_weight)
            now = openings(pose.invert(drive.landmarks_px))
            out.append(Seen(frame.sequence, drive, float(now[0]), now[1:] / np.maximum(rest[1:], 1e-3)))
    driver.close()
    return out


def choose_drivers(model: HeadModel, clips: Sequence[Tracked], count: int = DRIVERS) -> list[Tracked]:
    """Clips in which lips meet and eyes close, the richest first, each of another person."""
    fit = ExpressionFit(model)
    ranked: list[tuple[int, Tracked]] = []
    for clip in clips:
        neutral = whole_clip_neutral(model, fit, clip)
        now = np.array(
            [openings(align_similarity(neutral, p, model.fit_weight).invert(p)) for p in clip.points_px]
        )
        lips = int((now[:, 0] <= LIPS_CLOSED).sum())
        eyes = int((now[:, 1:] <= EYES_CLOSED * np.median(now[:, 1:], 0)).any(1).sum())
        if lips >= 3 and eyes >= 1 and len(now) >= 40:
            ranked.append((min(lips, 30) + 10 * min(eyes, 6), clip))
    ranked.sort(key=lambda row: -row[0])
    return list({c.subject: c for _, c in reversed(ranked)}.values())[::-1][:count]


def choose_sources(portraits: Sequence[Tracked], each: int = DRIVERS) -> list[Tracked]:
    """`each` portraits with an open smile and as many with closed lips, alternating, all of different people."""
    gap = {t.name: float(openings(t.points_px[0])[0]) for t in portraits}
    smiling = spread([t for t in portraits if gap[t.name] >= OPEN_SMILE], each)
    taken = {t.subject for t in smiling}
    closed = spread([t for t in portraits if gap[t.name] <= LIPS_CLOSED and t.subject not in taken], each)
    return [t for pair in zip(smiling, closed, strict=False) for t in pair]


def avatar_openings(model: HeadModel, enrollment: Enrollment, drive: Drive | None) -> F64:
    """(3,) openings of the posed avatar's own landmarks; without a drive, of the photo."""
    motion = enrollment.motion
    if drive is not None:
        motion = retarget(drive.motion, drive.neutral, enrollment.motion, Controls())
    mesh = pose_head(model, enrollment, motion, head_viewport(enrollment, 512))
    return openings(mesh.pose.invert(mesh.landmarks_px))


def closing(model: HeadModel, seen: Sequence[Seen], enrollment: Enrollment) -> dict[str, float]:
    """How the avatar's lips and eyes follow the driver's, as shares in %."""
    photo = avatar_openings(model, enrollment, None)
    now = np.array([avatar_openings(model, enrollment, s.drive) for s in seen])
    gap_percent, eyes = 100 * now[:, 0], now[:, 1:] / np.maximum(photo[1:], 1e-3)
    their_lips, their_eyes = np.array([s.lips for s in seen]), np.array([s.eyes for s in seen])
    shut, apart = their_lips <= LIPS_CLOSED, their_lips >= LIPS_APART
    blinks, wide = their_eyes <= EYES_CLOSED, their_eyes >= EYES_OPEN
    return {
        "photo_gap": float(100 * photo[0]),
        "lips_frames": float(shut.sum()),
        "lips_shut": share_percent(gap_percent[shut] <= AVATAR_LIPS_PERCENT),
        "lips_gap": float(gap_percent[shut].mean()) if shut.any() else np.nan,
        "lips_apart_frames": float(apart.sum()),
        "lips_apart": share_percent(gap_percent[apart] > 2 * AVATAR_LIPS_PERCENT),
        "eyes_frames": float(blinks.sum()),
        "eyes_shut": share_percent(eyes[blinks] <= AVATAR_EYES),
        "eyes_opening": float(eyes[blinks].mean()) if blinks.any() else np.nan,
        "eyes_open_frames": float(wide.sum()),
        "eyes_open": share_percent(eyes[wide] >= 0.6),
    }


def measure_cross(
    model: HeadModel,
    clips: Sequence[Tracked],
    portraits: Sequence[Tracked],
    *,
    recognition: Path | None,
    baseline: Path | None,
    work: Path,
) -> Section:
    """Closing and identity over driver × source pairs. `work` holds the pictures; `baseline` another checkout."""
    drivers = choose_drivers(model, clips)
    sources = choose_sources(portraits)
    items: dict[str, dict[str, float]] = {}
    pairs: list[Pair] = []
    watched: dict[str, list[Seen]] = {}
    for k, clip in enumerate(tqdm(drivers, desc="cross")):
        seen = watch(model, clip.path)
        for source in sources[SOURCES_OF_EACH * k : SOURCES_OF_EACH * (k + 1)]:
            name = f"{clip.name}+{source.name}"
            watched[name] = seen
            items[name] = {"frames": float(len(seen))} | closing(model, seen, enrolled(source.path))
            numbers = np.linspace(0, len(seen) - 1, min(IDENTITY_FRAMES, len(seen))).astype(int)
            pairs.append(Pair(name, clip.path, source.path, tuple(seen[int(n)].number for n in numbers)))
    smiles = sum(r["photo_gap"] >= 100 * OPEN_SMILE for r in items.values())
    figures = [
        Figure(
            key="pairs",
            label="driver × source pairs",
            value=len(items),
            at_least=12,
            note=f"{smiles} open smiles",
        )
    ]
    figures += _closing_figures(items)
    figures += _identity(pairs, watched, items, recognition, baseline, work)
    return Section("cross", figures, items)


def pooled(items: Mapping[str, Mapping[str, float]], key: str, frames: str) -> float:
    """Mean of `key` over the frames of all pairs, each weighted with its number of `frames`; NaN for none."""
    rows = [(r[key], r[frames]) for r in items.values() if r[frames] > 0]
    total = sum(w for _, w in rows)
    return sum(v * w for v, w in rows) / total if total else float("nan")


def _closing_figures(items: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    def count(key: str) -> int:
        return int(sum(r[key] for r in items.values()))

    smiles = {n: r for n, r in items.items() if r["photo_gap"] >= 100 * OPEN_SMILE}
    return [
        Figure(key="lips_shut", label=f"driver's lips closed: avatar's gap ≤ {AVATAR_LIPS_PERCENT:g} % of mouth width",
               value=pooled(items, "lips_shut", "lips_frames"), unit="% of frames", at_least=95,
               note=f"{count('lips_frames')} frames; least: {worst(items, 'lips_shut', low=True)}"),
        Figure(key="lips_shut_smiles", label="the same on open smiles",
               value=pooled(smiles, "lips_shut", "lips_frames"), unit="% of frames", at_least=95,
               note=f"{len(smiles)} pairs"),
        Figure(key="lips_gap", label="driver's lips closed: avatar's mean gap",
               value=pooled(items, "lips_gap", "lips_frames"), unit="% of mouth width",
               note=worst(items, "lips_gap")),
        Figure(key="lips_apart", label=f"driver's lips {LIPS_APART:g} apart: gap > {2 * AVATAR_LIPS_PERCENT:g} %",
               value=pooled(items, "lips_apart", "lips_apart_frames"), unit="% of frames",
               note=f"{count('lips_apart_frames')} frames; least: {worst(items, 'lips_apart', low=True)}"),
        Figure(key="eyes_shut", label=f"driver's eye closed: avatar's opening ≤ {AVATAR_EYES:g} of the photo's",
               value=pooled(items, "eyes_shut", "eyes_frames"), unit="% of eyes", at_least=95,
               note=f"{count('eyes_frames')} eyes; least: {worst(items, 'eyes_shut', low=True)}"),
        Figure(key="eyes_opening", label="driver's eye closed: avatar's mean opening",
               value=pooled(items, "eyes_opening", "eyes_frames"), unit="of the photo's"),
        Figure(key="eyes_open", label="driver's eye open: avatar's opening ≥ 0.6 of the photo's",
               value=pooled(items, "eyes_open", "eyes_open_frames"), unit="% of eyes",
               note=worst(items, "eyes_open", low=True)),
    ]  # fmt: skip


# --- identity -----------------------------------------------------------------------------------


def draw_with(checkout: Path, pairs: Sequence[Pair], folder: Path) -> list[str]:
    """Draw the pairs with another checkout's code; what could not be drawn, and why."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "plan.json"
    render_pairs.write_plan(pairs, plan)
    done = subprocess.run(
        [sys.executable, str(Path(render_pairs.__file__).resolve()), str(plan), str(folder)],
        env=os.environ | {"PYTHONPATH": str(checkout.resolve())},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        [] if done.returncode == 0 else [done.stderr.strip().splitlines()[-1] if done.stderr else "it failed"]
    )


@dataclass(frozen=True, slots=True)
class Looked:
    """What is seen in a pair's drawn pictures: mean cosine to the photo by net, `openings` (3,) by frame number.

    `photo_openings` (3,) of the photo; `unseen` pictures show no face that is found.
    """

    cosines: Mapping[str, float]
    openings: Mapping[int, F64]
    photo_openings: F64
    unseen: int


def look_at(pairs: Sequence[Pair], folder: Path, recognisers: Sequence[Recogniser]) -> dict[str, Looked]:
    """Recognise and measure every drawn picture of every pair."""
    detector = LandmarkDetector(video=False)
    out: dict[str, Looked] = {}

    def look(image: NDArray[np.uint8]) -> tuple[list[NDArray[np.float32]], F64] | None:
        faces = detector.detect(image)
        if not faces:
            return None
        points = faces[0].points_px
        return [r.describe(image, points) for r in recognisers], openings(points)

    for pair in tqdm(pairs, desc=f"identity {folder.name}"):
        photo = look(open_photo(pair.photo).image)
        files = sorted((folder / pair.name).glob("*.png"))
        found = {int(f.stem): look(np.asarray(Image.open(f).convert("RGB"), np.uint8)) for f in files}
        seen = {number: drawn for number, drawn in found.items() if drawn and photo}
        cosines: dict[str, float] = {}
        if photo:
            for k, recogniser in enumerate(recognisers):
                each = np.array([cosine(photo[0][k], vectors[k]) for vectors, _ in seen.values()])
                cosines[recogniser.spec.name] = mean_of(each)
        out[pair.name] = Looked(
            cosines,
            {number: now for number, (_, now) in seen.items()},
            photo[1] if photo else np.full(3, np.nan),
            len(files) - len(seen),
        )
    detector.close()
    return out


def closed_in_pictures(seen: Sequence[Seen], looked: Looked) -> dict[str, float]:
    """How often MediaPipe finds the drawn face closed, by the very thresholds that found the driver closed: %."""
    frames = {s.number: s for s in seen}
    lips = [now[0] <= LIPS_CLOSED for n, now in looked.openings.items() if frames[n].lips <= LIPS_CLOSED]
    eyes: list[bool] = []
    for number, now in looked.openings.items():
        share = now[1:] / np.maximum(looked.photo_openings[1:], 1e-3)
        eyes += [bool(e) for e in (share <= EYES_CLOSED)[frames[number].eyes <= EYES_CLOSED]]
    return {
        "drawn_lips_frames": float(len(lips)), "drawn_lips_shut": share_percent(lips),
        "drawn_eyes_frames": float(len(eyes)), "drawn_eyes_shut": share_percent(eyes),
    }  # fmt: skip


def _identity(
    pairs: Sequence[Pair],
    watched: Mapping[str, Sequence[Seen]],
    items: dict[str, dict[str, float]],
    recognition: Path | None,
    baseline: Path | None,
    work: Path,
) -> list[Figure]:
    def skipped(reason: str) -> list[Figure]:
        return [Figure(key="identity", label="identity", value=float("nan"), note=f"skipped: {reason}")]

    if recognition is None:
        return skipped("give the folder of the recognition nets with --recognition")
    try:
        recognisers = [
            Recogniser(recognition, spec) for spec in NETS if (recognition / f"{spec.name}.json").is_file()
        ]
    except RecognitionError as error:
        return skipped(str(error))
    if not recognisers:
        return skipped(f"neither faceres.json nor mobileface.json is in {recognition}")
    reasons = draw_pairs(pairs, work / "now")
    now = look_at(pairs, work / "now", recognisers)
    before: dict[str, Looked] = {}
    if baseline is not None:
        reasons += draw_with(baseline, pairs, work / "before")
        before = look_at(pairs, work / "before", recognisers)
    figures: list[Figure] = []
    for name in (r.spec.name for r in recognisers):
        for pair in pairs:
            items[pair.name][f"id_{name}"] = now[pair.name].cosines.get(name, np.nan)
            if before:
                items[pair.name][f"id_{name}_before"] = before[pair.name].cosines.get(name, np.nan)
        both = {n: r for n, r in items.items() if not before or np.isfinite(r[f"id_{name}_before"])}
        then = mean_of(column(both, f"id_{name}_before")) if before else None
        figures.append(
            Figure(key=f"id_{name}", label=f"identity kept: cosine by {name}, mean of pairs",
                   value=mean_of(column(both, f"id_{name}")), at_least=then,
                   note=f"least: {worst(items, f'id_{name}', low=True)}")
        )  # fmt: skip
        if then is not None:
            figures.append(Figure(key=f"id_{name}_before", label="the same by the baseline checkout", value=then,
                                  note=f"{len(both)} pairs"))  # fmt: skip
    for name, looked in now.items():
        items[name] |= closed_in_pictures(watched[name], looked)
    for what, label in (
        ("lips", f"gap ≤ {100 * LIPS_CLOSED:g} % of mouth width"),
        ("eyes", f"≤ {EYES_CLOSED:g} of the photo's"),
    ):
        share, frames = f"drawn_{what}_shut", f"drawn_{what}_frames"
        figures.append(
            Figure(key=share, label=f"driver's {what} closed: as MediaPipe sees the drawn picture, {label}",
                   value=pooled(items, share, frames), unit="%",
                   note=f"{int(sum(r[frames] for r in items.values()))} of the identity frames; "
                        f"least: {worst(items, share, low=True)}")
        )  # fmt: skip
    lost = sum(r.unseen for r in now.values())
    figures.append(Figure(key="id_unseen", label="drawn pictures without a detectable face", value=lost,
                          note="; ".join(reasons)))  # fmt: skip
    return figures
