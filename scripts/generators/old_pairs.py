"""The training cache: pairs (photo, driving frame) of one person, as the generator will see them.

    python -m scripts.generators.old_pairs DATA CACHE [--tracks runs/tracks] [--jobs 2]

DATA is any folder with clips (.mp4) and, if you like, portraits/ (pictures). Of every clip some frames are enrolled
as if they were photos; other frames of the clip drive them through the head model (identity of the photo, motion of
the frame: never the frame's own landmarks), and the geometric picture, its guides and the true frame are kept. Of
every portrait a posed copy is drawn first, which then is the photo, and the portrait itself is the truth: large
head turns are rare in clips.

One file per clip or portrait; those that exist are not made again. `report.json` says what was left out and why.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.enroll import enroll
from engines.errors import VisavisError
from engines.files import whole_file, write_whole
from engines.geometry import (
    align_similarity,
    rotation_from_degrees,
    rotation_matrix,
    rotation_vector,
)
from engines.head.fit import ExpressionFit, openings
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX
from engines.renderer import Renderer
from scripts.generators.data import CACHE_VERSION
from scripts.generators.old_source import Arrays, Source, degrade, png, rest_openings, shifted_crop
from scripts.people.tracks import Tracked, load_tracks
from scripts.regressor.crops import pictures
from scripts.training.errors import TrainingError

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

SOURCES, TARGETS = 3, 24  # of each clip; targets of each source
HELD_OUT_SOURCES, HELD_OUT_TARGETS = 1, 10
DEGRADED_SHARE = 0.25  # of the sources: blurred or compressed as poor photos are


class Rejected(Exception):
    """A clip or portrait gives no pairs; the message says why."""


@dataclass(frozen=True, slots=True)
class PairsOfItem:
    """What to make of one item, and how many."""

    item: Tracked
    sources: int
    targets: int
    seed: int
    sharpness: float  # below 1 where the clip was enlarged: losses on sharpness count less


def choose_rows(item: Tracked, count: int, rng: np.random.Generator) -> list[int]:
    """Frames to enroll: the first, then those that differ most in pose and expression from the ones taken."""
    mean = item.points_px[:, :468] - item.points_px[:, :468].mean(1, keepdims=True)
    shape = (mean / np.linalg.norm(mean, axis=(1, 2), keepdims=True)).reshape(len(mean), -1)
    rows = [0]
    while len(rows) < min(count, len(shape)):
        away = np.min([np.linalg.norm(shape - shape[r], axis=1) for r in rows], 0)
        away = away * rng.uniform(0.5, 1, len(away))
        rows.append(int(away.argmax()))
    return rows


def choose_targets(item: Tracked, source: int, count: int, rng: np.random.Generator) -> list[int]:
    """Frames that drive: spread over the clip, those with blinks and open mouths likelier."""
    lively = 1 + 3 * item.scores[:, ARKIT_INDEX["jawOpen"]] + 2 * item.scores[:, ARKIT_INDEX["eyeBlinkLeft"]]
    lively[source] = 0
    if not lively.sum():
        return []
    many = min(count, int((lively > 0).sum()))
    return sorted(int(k) for k in rng.choice(len(lively), many, replace=False, p=lively / lively.sum()))


def clip_pairs(model: HeadModel, plan: PairsOfItem) -> Arrays:
    """All pairs of a clip. Raises Rejected."""
    item, rng = plan.item, np.random.default_rng(plan.seed)
    images = dict(pictures(item))
    fit, rest = ExpressionFit(model), rest_openings(model, item)
    rows: list[Arrays] = []
    sources: list[Arrays] = []
    reasons: list[str] = []
    for row in choose_rows(item, plan.sources, rng):
        photo = images[row]
        if not item.held_out and rng.uniform() < DEGRADED_SHARE:
            photo = degrade(photo, rng)
        try:
            enrollment = enroll(png(photo), name=item.name)
        except VisavisError as error:
            reasons.append(str(error))
            continue
        if not item.held_out and len(sources):
            enrollment = shifted_crop(enrollment, rng)
        source = Source(model, enrollment)
        kept = len(rows)
        for target in choose_targets(item, row, plan.targets, rng):
            try:
                motion = source.motion(fit, item.points_px[target], item.scores[target], rest, item.size_px)
            except ValueError as error:
                reasons.append(str(error))
                continue
            pair = source.pair(motion, images[target])
            rows.append(
                pair
                | {
                    "t_source": np.array(len(sources), np.int32),
                    "t_frame": np.array(item.frame[target], np.int32),
                }
            )
        if len(rows) > kept:
            sources.append(source.arrays())
    return _stacked(rows, sources, reasons)


def portrait_pairs(model: HeadModel, plan: PairsOfItem) -> Arrays:
    """Posed copies of a portrait are the photos, the portrait is the truth. Raises Rejected."""
    item, rng = plan.item, np.random.default_rng(plan.seed)
    _, truth = next(iter(pictures(item)))
    fit, rest = (
        ExpressionFit(model),
        openings(
            align_similarity(model.landmarks(model.mean_hu), item.points_px[0], model.fit_weight).invert(
                item.points_px[0]
            )
        ),
    )
    rows: list[Arrays] = []
    sources: list[Arrays] = []
    reasons: list[str] = []
    try:
        renderer = Renderer(enroll(png(truth), name=item.name), generator="geometric", framing="photo")
    except VisavisError as error:
        raise Rejected(str(error)) from error
    own = renderer.enrollment.motion
    for _ in range(plan.sources):
        yaw, pitch, roll = rng.uniform((-28, -14, -8), (28, 14, 8))
        turn = rotation_matrix(rotation_from_degrees(yaw, pitch, roll)) @ rotation_matrix(own.rotation_rad)
        expression = own.expression.copy()
        for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft"):
            amount = max(0.0, rng.uniform(-0.3, 0.5))
            names = [name, name.replace("Left", "Right")]
            expression[[ARKIT_INDEX[n] for n in names]] += np.float32(amount)
        posed = replace(
            own, rotation_rad=rotation_vector(turn).astype(np.float32), expression=np.clip(expression, 0, 1)
        )
        try:
            source = Source(model, enroll(png(renderer.render(posed)), name=item.name))
            motion = source.motion(fit, item.points_px[0], item.scores[0], rest, item.size_px)
        except (VisavisError, ValueError) as error:
            reasons.append(str(error))
            continue
        rows.append(
            source.pair(motion, truth)
            | {"t_source": np.array(len(sources), np.int32), "t_frame": np.array(0, np.int32)}
        )
        sources.append(source.arrays())
    return _stacked(rows, sources, reasons)


def _stacked(rows: Sequence[Arrays], sources: Sequence[Arrays], reasons: Sequence[str]) -> Arrays:
    if not rows:
        raise Rejected(reasons[0] if reasons else "no other frame shows the face")
    out = {name: np.stack([r[name] for r in rows]) for name in rows[0]}
    return out | {name: np.stack([s[name] for s in sources]) for name in sources[0]}


def write_item(plan: PairsOfItem, folder: Path) -> tuple[str, str | None]:
    """Make one item's file; (name, reason why not or None)."""
    cv2.setNumThreads(1)
    model = load_head_model()
    make = clip_pairs if plan.item.path.suffix == ".mp4" else portrait_pairs
    try:
        arrays = make(model, plan)
    except (Rejected, VisavisError) as error:
        return plan.item.name, str(error)
    with whole_file(folder / f"{plan.item.name}.npz") as part:
        np.savez(part, sharpness=np.float32(plan.sharpness), **arrays)  # pyright: ignore[reportArgumentType]
    return plan.item.name, None


def enlarged(folder: Path) -> set[str]:
    """Names of clips that the manifest tags as enlarged."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return set()
    with manifest.open(encoding="utf-8") as rows:
        return {row["id"] for row in csv.DictReader(rows) if "upscaled" in row.get("tags", "")}


def plan_items(items: Sequence[Tracked], blurry: set[str]) -> list[PairsOfItem]:
    """Plans of all items, held-out people with fewer pairs."""
    plans: list[PairsOfItem] = []
    for item in items:
        seed = int(hashlib.sha256(item.name.encode()).hexdigest()[:8], 16)
        if item.path.suffix == ".mp4":
            sources, targets = (HELD_OUT_SOURCES, HELD_OUT_TARGETS) if item.held_out else (SOURCES, TARGETS)
        else:
            sources, targets = (0, 0) if item.held_out else (2, 1)
        if sources:
            plans.append(PairsOfItem(item, sources, targets, seed, 0.3 if item.name in blurry else 1.0))
    return plans


def build(data: Path, cache: Path, tracks: Path, jobs: int = 2) -> dict[str, object]:
    """Make what is missing of the cache; returns the report. Raises TrainingError when nothing at all is usable."""
    clips, portraits = load_tracks(data, tracks)
    cache.mkdir(parents=True, exist_ok=True)
    plans = plan_items(clips + portraits, enlarged(data))
    missing = [p for p in plans if not (cache / f"{p.item.name}.npz").exists()]
    left_out: dict[str, str] = {}
    for name, reason in tqdm(_made(missing, cache, jobs), total=len(missing), desc="pairs", mininterval=5):
        if reason is not None:
            left_out[name] = reason
    made = [p for p in plans if (cache / f"{p.item.name}.npz").exists()]
    report: dict[str, object] = {
        "version": CACHE_VERSION,
        "items": {p.item.name: {"subject": p.item.subject, "held_out": p.item.held_out} for p in made},
        "left_out": left_out,
    }
    if not made:
        raise TrainingError(
            f"no usable clip in {data}: "
            + ("; ".join(f"{n}: {r}" for n, r in left_out.items()) or "none with a face")
        )
    write_whole(cache / "report.json", json.dumps(report, indent=1))
    return report


def _made(plans: Sequence[PairsOfItem], cache: Path, jobs: int) -> Iterator[tuple[str, str | None]]:
    if jobs <= 1:
        yield from (write_item(p, cache) for p in plans)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(write_item, p, cache) for p in plans]
        for future in waiting:
            yield future.result()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with clips (.mp4) and portraits/ (pictures)")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    try:
        report = build(arguments.data, arguments.cache, arguments.tracks, arguments.jobs)
    except VisavisError as error:
        print(f"pairs: {error}", file=sys.stderr)
        sys.exit(1)
    items, left_out = report["items"], report["left_out"]
    assert isinstance(items, dict)
    assert isinstance(left_out, dict)
    print(f"{len(items)} items with pairs, {len(left_out)} left out")
    for name, reason in left_out.items():
        print(f"  {name}: {reason}")


if __name__ == "__main__":
    main()
