"""The training cache: pairs (photo, driving frame) of one person, as the generator will see them.

    python -m scripts.generators.pairs DATA CACHE [--tracks runs/tracks] [--jobs 2]

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
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from calibration.enroll import enroll
from calibration.matte import cut_out
from engines.enrollment import Enrollment
from engines.errors import VisavisError
from engines.generators.geometric.generator import GeometricGenerator
from engines.generators.visavis import inputs
from engines.geometry import (
    F64,
    Camera,
    align_similarity,
    rotation_from_degrees,
    rotation_matrix,
    rotation_vector,
)
from engines.head.fit import ExpressionFit, fit_driver, measure_closure, measure_gaze, openings
from engines.head.model import HeadModel, load_head_model
from engines.motion import ARKIT_INDEX, Motion
from engines.picture.composite import make_background
from engines.raster.gbuffer import rasterise
from engines.raster.pose import head_viewport, pose_head
from engines.raster.resample import resample
from engines.renderer import Renderer
from scripts.generators.data import CACHE_VERSION
from scripts.generators.errors import TrainingError
from scripts.people.tracks import Tracked, load_tracks
from scripts.regressor.crops import pictures

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Arrays = dict[str, NDArray[Any]]

SOURCES, TARGETS = 3, 24  # of each clip; targets of each source
HELD_OUT_SOURCES, HELD_OUT_TARGETS = 1, 10
DEGRADED_SHARE = 0.25  # of the sources: blurred or compressed as poor photos are
LEAST_SIDE_PX, MOST_SIDE_PX = 256, 512
MISFIT = 0.06  # landmarks missed by more of the face's size are no label
_CALM = [
    ARKIT_INDEX[n]
    for n in ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthFunnel", "mouthPucker",
              "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp")
]  # fmt: skip


class Rejected(Exception):
    """A clip or portrait gives no pairs; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make of one item, and how many."""

    item: Tracked
    sources: int
    targets: int
    seed: int
    sharpness: float  # below 1 where the clip was enlarged: losses on sharpness count less


class Source:
    """One enrolled photo with everything that its pairs share."""

    def __init__(self, model: HeadModel, enrollment: Enrollment) -> None:
        self.model = model
        self.enrollment = enrollment
        side = int(np.clip(round(enrollment.crop_px[2]), LEAST_SIDE_PX, MOST_SIDE_PX))
        self.viewport = head_viewport(enrollment, side)
        self.window = inputs.Window.of(enrollment, self.viewport)
        self.generator = GeometricGenerator(model)
        self.cache = self.generator.prepare(enrollment, self.viewport)
        self.guides = inputs.prepare_guides(enrollment)
        self.mesh = pose_head(model, enrollment, enrollment.motion, self.viewport)
        self.background = make_background(enrollment, self.viewport)
        self.landmarks_hu = model.landmarks(enrollment.neutral_hu)

    def arrays(self) -> Arrays:
        """What the photo itself gives: `s_…` of one row."""
        gbuffer = rasterise(self.model, self.mesh, self.viewport, self.generator.config.grid_px)
        crops = inputs.photo_crops(self.enrollment, self.viewport, self.mesh)
        return {
            "s_photo": inputs.photo_input(self.enrollment, self.viewport, self.guides, gbuffer, self.window),
            "s_background": inputs.low_picture(self.background, self.window),
            "s_mouth": crops[0],
            "s_eyes": crops[1],
        }

    def motion(
        self, fit: ExpressionFit, points: F64, scores: F64, rest: F64, size_px: tuple[int, int]
    ) -> Motion:
        """Motion of a frame of the same camera against this photo's own neutral. Raises ValueError."""
        frame = fit_driver(fit, self.landmarks_hu, points.astype(np.float32), scores.astype(np.float32))
        reached = frame.pose.apply(self.landmarks_hu + fit.offset(frame.expression))
        missed = np.linalg.norm((reached - points)[:468, :2], axis=1).mean()
        if missed > MISFIT * np.ptp(points[:, 1]):
            raise ValueError("the landmarks are no face that the model can make")
        rotation, translation = Camera(*size_px).from_similarity(frame.pose)
        return Motion(
            expression=frame.expression,
            rotation_rad=rotation.astype(np.float32),
            translation_hu=translation.astype(np.float32),
            gaze_rad=measure_gaze(frame.unposed_hu),
            closure=measure_closure(frame.unposed_hu, rest),
        )

    def pair(self, motion: Motion, truth: U8) -> Arrays:
        """`t_…` of one row: the geometric picture and its guides for `motion`, and the frame `truth` (H, W, 3)."""
        mesh = pose_head(self.model, self.enrollment, motion, self.viewport)
        gbuffer = rasterise(self.model, mesh, self.viewport, self.generator.config.grid_px)
        layers = self.generator.draw(self.cache, gbuffer, motion)
        size = (self.viewport.width_px, self.viewport.height_px)
        target = resample(truth, self.viewport, 0, size)
        matte = cut_out(truth, self.enrollment.crop_px).alpha
        guide, part = inputs.guides(self.guides, gbuffer, self.window)
        mouth = inputs.mouth_box(mesh)
        eyes = inputs.eye_boxes(mesh)
        mirrored = (False, True)
        out: Arrays = {
            "t_picture": inputs.low_picture(layers.picture, self.window),
            "t_truth": inputs.low_picture(target, self.window),
            "t_matte": inputs.low_picture(resample(matte, self.viewport, 0, size), self.window),
            "t_guide": guide,
            "t_part": part,
            "t_where": inputs.where_in_photo(layers.flow, gbuffer, self.window).astype(np.float16),
            "t_motion": inputs.motion_vector(self.enrollment.motion, motion, self.mesh.pose, mesh.pose),
        }
        for name, image in (("picture", layers.picture[..., :3]), ("truth", target)):
            image = np.ascontiguousarray(image)
            out[f"t_mouth_{name}"] = inputs.cut_box(image, mouth, inputs.MOUTH_PX)
            out[f"t_eyes_{name}"] = np.stack(
                [
                    inputs.cut_box(image, b, inputs.EYE_PX, mirrored=m)
                    for b, m in zip(eyes, mirrored, strict=True)
                ]
            )
        out["t_mouth_part"] = inputs.part_crop(gbuffer, mouth, inputs.MOUTH_PX)
        out["t_eyes_part"] = np.stack(
            [
                inputs.part_crop(gbuffer, b, inputs.EYE_PX, mirrored=m)
                for b, m in zip(eyes, mirrored, strict=True)
            ]
        )
        # crop pixels → window, as grid_sample counts: where D must be looked up for the crops
        out["t_mouth_place"] = inputs.place_in_window(mouth, self.window, inputs.MOUTH_PX)
        out["t_eyes_place"] = np.stack(
            [
                inputs.place_in_window(b, self.window, inputs.EYE_PX, mirrored=m)
                for b, m in zip(eyes, mirrored, strict=True)
            ]
        )
        return out


def png(image: U8) -> bytes:
    """Picture (H, W, 3) → PNG file."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)
    return out.getvalue()


def degrade(image: U8, rng: np.random.Generator) -> U8:
    """A poorer photo: blurred, compressed or noisy."""
    kind = int(rng.integers(3))
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3)), np.uint8)
    if kind == 1:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 70))])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    noise = rng.normal(0, rng.uniform(2, 7), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def shifted_crop(enrollment: Enrollment, rng: np.random.Generator) -> Enrollment:
    """The head a little nearer, further or aside in its crop, inside the photo."""
    left, top, side = enrollment.crop_px
    height, width = enrollment.photo.shape[:2]
    new = min(side * rng.uniform(0.88, 1.08), height, width)
    x = left + (side - new) / 2 + rng.uniform(-0.05, 0.05) * side
    y = top + (side - new) / 2 + rng.uniform(-0.05, 0.05) * side
    crop = (float(np.clip(x, 0, width - new)), float(np.clip(y, 0, height - new)), float(new))
    return replace(enrollment, crop_px=crop)


def rest_openings(model: HeadModel, item: Tracked) -> F64:
    """(3,) how open mouth and eyes are in the calmest quarter of a clip."""
    mean = model.landmarks(model.mean_hu)
    calm = np.argsort(item.scores[:, _CALM].sum(1))[: max(1, len(item.scores) // 4)]
    own = [
        openings(align_similarity(mean, item.points_px[k], model.fit_weight).invert(item.points_px[k]))
        for k in calm
    ]
    return np.asarray(np.median(own, 0), np.float64)


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


def clip_pairs(model: HeadModel, plan: Plan) -> Arrays:
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


def portrait_pairs(model: HeadModel, plan: Plan) -> Arrays:
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


def write_item(plan: Plan, folder: Path) -> tuple[str, str | None]:
    """Make one item's file; (name, reason why not or None)."""
    cv2.setNumThreads(1)
    model = load_head_model()
    make = clip_pairs if plan.item.path.suffix == ".mp4" else portrait_pairs
    try:
        arrays = make(model, plan)
    except (Rejected, VisavisError) as error:
        return plan.item.name, str(error)
    target = folder / f"{plan.item.name}.npz"
    part = folder / f".{plan.item.name}.part.npz"
    np.savez(part, sharpness=np.float32(plan.sharpness), **arrays)  # pyright: ignore[reportArgumentType]
    part.replace(target)
    return plan.item.name, None


def enlarged(folder: Path) -> set[str]:
    """Names of clips that the manifest tags as enlarged."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return set()
    with manifest.open(encoding="utf-8") as rows:
        return {row["id"] for row in csv.DictReader(rows) if "upscaled" in row.get("tags", "")}


def make_plans(items: Sequence[Tracked], blurry: set[str]) -> list[Plan]:
    """Plans of all items, held-out people with fewer pairs."""
    plans: list[Plan] = []
    for item in items:
        seed = int(hashlib.sha256(item.name.encode()).hexdigest()[:8], 16)
        if item.path.suffix == ".mp4":
            sources, targets = (HELD_OUT_SOURCES, HELD_OUT_TARGETS) if item.held_out else (SOURCES, TARGETS)
        else:
            sources, targets = (0, 0) if item.held_out else (2, 1)
        if sources:
            plans.append(Plan(item, sources, targets, seed, 0.3 if item.name in blurry else 1.0))
    return plans


def build(data: Path, cache: Path, tracks: Path, jobs: int = 2) -> dict[str, object]:
    """Make what is missing of the cache; returns the report. Raises TrainingError when nothing at all is usable."""
    clips, portraits = load_tracks(data, tracks)
    cache.mkdir(parents=True, exist_ok=True)
    plans = make_plans(clips + portraits, enlarged(data))
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
    part = cache / ".report.part"
    part.write_text(json.dumps(report, indent=1), encoding="utf-8")
    part.replace(cache / "report.json")
    return report


def _made(plans: Sequence[Plan], cache: Path, jobs: int) -> Iterator[tuple[str, str | None]]:
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
