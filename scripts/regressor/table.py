"""The regressor's table: how far it is from the labels on held-out people, beside MediaPipe run once more.

MediaPipe made the labels from whole frames; run again on the crops, it says how well it repeats itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from engines.compile.open import open_engine
from engines.errors import EngineError
from engines.geometry import align_similarity, rotation_vector, yaw_pitch_roll_deg
from engines.head.model import HeadModel, load_head_model
from engines.head.regressor.crop import (
    CROP_PER_FACE,
    INPUT_PX,
    SKIN_LANDMARKS,
    CropBox,
    face_extent,
    move_points,
)
from engines.head.regressor.network import RegressorNet, as_input, without_norm
from engines.head.regressor.prediction import place_head, read_output
from engines.motion import ARKIT_INDEX
from scripts.people.tracks import is_held_out
from scripts.regressor.crops import CACHE_PX, decode
from scripts.regressor.regression import Samples, warp

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_GROUPS = {
    "jawOpen": ("jawOpen",),
    "mouthSmile": ("mouthSmileLeft", "mouthSmileRight"),
    "eyeBlink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "browInnerUp": ("browInnerUp",),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None where a number has no meaning or was not taken."""

    name: str
    regressor: float | None
    mediapipe: float | None = None


@dataclass
class _Seen:
    """What one tracker said about the frames, in order."""

    landmark: list[float]
    angles: list[F64]
    expression: list[F32]
    gaze: list[F32]
    closure: list[F32]


def within_clips(got: F64, want: F64, item: NDArray[np.int32]) -> float:
    """Pearson correlation of the movement within each clip: each clip's mean is taken off first."""

    def centred(x: F64) -> F64:
        sums = np.bincount(item, x)
        return x - (sums / np.maximum(np.bincount(item), 1))[item]

    a, b = centred(got), centred(want)
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))


def held_out_rows(samples: Samples, count: int) -> NDArray[np.int64]:
    """Rows of held-out people's clips, evenly spread."""
    crops = samples.crops
    wanted = np.array(
        [is_held_out(s) and k == "clip" for s, k in zip(crops.subjects, crops.kinds, strict=True)], bool
    )
    rows = np.flatnonzero(wanted[crops.item] & (samples.labels.residual < 0.06))
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def _angles(rotation: F64) -> F64:
    return np.array(yaw_pitch_roll_deg(rotation_vector(rotation)))


def _by_network(samples: Samples, net: RegressorNet, rows: Sequence[int]) -> tuple[_Seen, float]:
    """What the network says, through crops as off as those of a followed face; and the share it took as faces."""
    rng = np.random.default_rng(0)
    seen, sure = _Seen([], [], [], [], []), 0
    for row in rows:
        dx, dy = rng.normal(0, 0.02, 2)
        box = samples.box(row, (dx, dy, CROP_PER_FACE * float(np.exp(rng.normal(0, 0.03))), 0.0))
        with torch.inference_mode():
            raw = net(as_input(warp(decode(samples.crops.jpegs[row]), box)))[0].numpy()
        prediction = read_output(raw, net.layout)
        points = place_head(prediction, box, samples.basis.anchor_hu).apply(samples.basis.decode(prediction))
        seen.landmark.append(_landmark_error(points, samples.crops.points_px[row]))
        seen.angles.append(_angles(prediction.rotation))
        seen.expression.append(prediction.expression)
        seen.gaze.append(prediction.gaze_rad)
        seen.closure.append(prediction.closure)
        sure += prediction.confidence >= 0.5
    return seen, sure / max(len(rows), 1)


def _landmark_error(got: F64 | F32, want: F32) -> float:
    miss = np.linalg.norm(got[:SKIN_LANDMARKS, :2] - want[:SKIN_LANDMARKS, :2], axis=1).mean()
    return float(miss) / face_extent(want)[2] * 100


def _by_mediapipe(samples: Samples, model: HeadModel, rows: Sequence[int]) -> tuple[_Seen, list[int], float]:
    """MediaPipe on the same crops (doubled); which rows it answered, and ms for each."""
    from engines.head.fit import measure_gaze
    from engines.head.landmarks import LandmarkDetector

    seen, answered, spent = _Seen([], [], [], [], []), list[int](), list[float]()
    detector = LandmarkDetector(video=False)
    whole = CropBox(CACHE_PX / 2, CACHE_PX / 2, CACHE_PX)
    for index, row in enumerate(rows):
        picture = cv2.resize(
            decode(samples.crops.jpegs[row]), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC
        )
        begun = time.perf_counter()
        faces = detector.detect(np.asarray(picture, np.uint8))
        spent.append((time.perf_counter() - begun) * 1e3)
        if not faces:
            continue
        points = move_points(np.array([[0.5, 0, 0], [0, 0.5, 0]]), faces[0].points_px)
        target = samples.target(row, whole)
        shape = samples.basis.shape(target.identity)[: len(points)]
        shape = shape + np.tensordot(target.expression, samples.basis.expression_hu[:, : len(points)], 1)
        pose = align_similarity(shape, points, model.fit_weight)
        answered.append(index)
        seen.landmark.append(_landmark_error(points, samples.crops.points_px[row]))
        seen.angles.append(_angles(pose.rotation))
        seen.expression.append(faces[0].scores)
        seen.gaze.append(measure_gaze(pose.invert(points)))
    detector.close()
    return seen, answered, float(np.median(spent)) if spent else 0.0


def _milliseconds(call: Callable[[], object], count: int = 60) -> float:
    for _ in range(5):
        call()
    spent: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        spent.append((time.perf_counter() - begun) * 1e3)
    return float(np.median(spent))


def _rejected(samples: Samples, net: RegressorNet, rows: Sequence[int]) -> float:
    """Share of crops without a usable face to which the network says no."""
    rng = np.random.default_rng(1)
    part = net.layout.part("confidence")
    with torch.inference_mode():
        logits = [float(net(as_input(samples.no_face(row, rng)))[0, part]) for row in rows]
    return float(np.mean(np.array(logits) < 0))


def measure(samples: Samples, net: RegressorNet, frames: int, mediapipe_frames: int) -> list[Row]:
    """The table's rows for `frames` held-out frames, of which MediaPipe sees `mediapipe_frames` again (0: none)."""
    net = without_norm(net)
    rows = [int(r) for r in held_out_rows(samples, frames)]
    fewer = [int(r) for r in held_out_rows(samples, mediapipe_frames)] if mediapipe_frames else []
    seen, sure = _by_network(samples, net, rows)
    again, answered, again_ms = _by_mediapipe(samples, load_head_model(), fewer)
    labels, item = samples.labels, samples.crops.item
    kept = [fewer[i] for i in answered]
    out = [Row("landmarks, mean miss, % of face", *_means(seen.landmark, again.landmark))]

    def truth(which: Sequence[int]) -> F64:
        return np.array([yaw_pitch_roll_deg(labels.rotation_rad[r]) for r in which]).reshape(-1, 3)

    off = np.abs(np.array(seen.angles) - truth(rows))
    off_again = np.abs(np.array(again.angles).reshape(-1, 3) - truth(kept))
    for k, name in enumerate(("yaw", "pitch", "roll")):
        out.append(Row(f"{name}, mean miss, degrees", *_means(off[:, k], off_again[:, k])))

    def correlation(got: list[F32], want: F32, which: list[int], columns: list[int]) -> float | None:
        if not got:
            return None
        flat = np.array(got, np.float64).reshape(len(got), -1)
        goal = want[which].reshape(len(which), -1).astype(np.float64)
        return float(np.mean([within_clips(flat[:, c], goal[:, c], item[which]) for c in columns]))

    for name, group in _GROUPS.items():
        columns = [ARKIT_INDEX[n] for n in group]
        out.append(
            Row(
                f"{name}, correlation within a clip",
                correlation(seen.expression, labels.expression, rows, columns),
                correlation(again.expression, labels.expression, kept, columns),
            )
        )
    error = np.abs(np.array(seen.expression) - labels.expression[rows]).mean()
    out.append(Row("expression, mean miss", float(error)))
    for name, columns in (("yaw", [0, 2]), ("pitch", [1, 3])):
        out.append(
            Row(
                f"gaze {name}, correlation within a clip",
                correlation(seen.gaze, labels.gaze_rad, rows, columns),
                correlation(again.gaze, labels.gaze_rad, kept, columns),
            )
        )
    gaze = np.degrees(np.abs(np.array(seen.gaze) - labels.gaze_rad[rows]).mean())
    out.append(Row("gaze, mean miss, degrees", float(gaze)))
    for name, columns in (("lips", [0]), ("lids", [1, 2])):
        out.append(
            Row(
                f"closure of {name}, correlation within a clip",
                correlation(seen.closure, labels.closure, rows, columns),
            )
        )
    out.append(Row("faces taken as faces, %", 100 * sure, 100 * len(kept) / len(fewer) if fewer else None))
    out.append(Row("crops without a face refused, %", 100 * _rejected(samples, net, rows)))
    example = torch.rand(1, 3, INPUT_PX, INPUT_PX)
    for engine in map(open_engine, ("openvino", "torch")):
        try:
            compiled = engine.compile(net, (example,), "fp32")
        except EngineError:
            continue
        spent = _milliseconds(lambda call=compiled: call(example))
        out.append(Row(f"ms per frame, {engine.name}", spent, again_ms if fewer else None))
    return out


def _means(a: Sequence[float] | F64, b: Sequence[float] | F64) -> tuple[float, float | None]:
    return float(np.mean(a)), float(np.mean(b)) if len(b) else None


def print_table(rows: Sequence[Row]) -> None:
    """The table as Markdown."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    print("| held-out people | regressor | MediaPipe again |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {row.name} | {cell(row.regressor)} | {cell(row.mediapipe)} |")
