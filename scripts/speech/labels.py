"""Pseudo-labels: the motion of people who speak in clips, by our own fit, beside the sound of the same clip.

python -m scripts.speech.labels DATA [--labels runs/speech/clips]

Landmarks are found in single pictures: the detector's video mode smooths them and lags behind fast lips.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.calm import RESTLESS
from calibration.neutral import DriverNeutral
from engines.files import whole_file
from engines.head.landmark_names import LOWER_LIP, UPPER_LIP
from engines.head.landmarks import FaceLandmarks, LandmarkDetector
from engines.motion import EXPRESSION_COUNT, Motion
from streamer.drive.trackers.mediapipe import MediaPipeTracker

F32 = NDArray[np.float32]

FPS = 25.0
MIN_FRAMES = 25
_CALM_FRAMES = 40  # a second for the neutral, and its easing
_FOREHEAD, _CHIN = 10, 152


@dataclass(frozen=True, slots=True)
class Item:
    """One clip with verified lip sync."""

    name: str
    subject: str
    video: Path
    sound: Path


def read_items(data: Path) -> list[Item]:
    """Clips of `manifest.csv` under `data` whose sound belongs to their mouth."""
    items: list[Item] = []
    with (data / "manifest.csv").open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            if row["kind"] != "clip" or row["speech_sync_ok"] != "1":
                continue
            video = data / (row["file512"] or row["file256"])
            items.append(Item(row["id"], row["subject"], video, data / row["wav"]))
    return items


def faces_of(video: Path) -> tuple[list[FaceLandmarks | None], tuple[int, int]]:
    """The largest face of every frame, None where there is none, and the picture's (width, height)."""
    detector = LandmarkDetector(video=False)
    faces: list[FaceLandmarks | None] = []
    size = (0, 0)
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            size = (frame.width, frame.height)
            found = detector.detect(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            faces.append(found[0] if found else None)
    detector.close()
    return faces, size


def neutral_of(faces: list[FaceLandmarks], size_px: tuple[int, int]) -> DriverNeutral | None:
    """The person's rest, from the calmest moments of the whole clip rather than from its first second."""
    restless = [float(f.scores[RESTLESS].sum()) for f in faces]
    calm = np.sort(np.argsort(restless)[: max(4, min(_CALM_FRAMES, len(faces) // 4))])
    with MediaPipeTracker() as tracker:
        for k in range(_CALM_FRAMES):
            tracker.fit(faces[int(calm[k % len(calm)])], size_px, k / FPS)
        return tracker.driver_neutral


def lip_gap(face: FaceLandmarks) -> float:
    """Distance between the lips' inner edges over the distance from forehead to upper lip, in space."""
    points = face.points_px
    # not to the chin, which moves with the jaw
    height = float(np.linalg.norm(points[_FOREHEAD] - points[UPPER_LIP]))
    return float(np.linalg.norm(points[UPPER_LIP] - points[LOWER_LIP])) / max(height, 1e-6)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Of every frame of a clip: motion (None: no face) and `lip_gap`; `rest`: the person's rest motion."""

    motions: list[Motion | None]
    lip_gaps: list[float]
    rest: Motion


def motions_of(video: Path) -> Labelled | None:
    """What the face does in a clip; None for one that shows no face for long enough."""
    faces, size = faces_of(video)
    seen = [f for f in faces if f is not None]
    if len(seen) < MIN_FRAMES:
        return None
    neutral = neutral_of(seen, size)
    if neutral is None:
        return None
    with MediaPipeTracker() as tracker:
        tracker.use_neutral(neutral, for_good=True)
        motions = [
            None if face is None else tracker.fit(face, size, k / FPS).motion for k, face in enumerate(faces)
        ]
    return Labelled(motions, [0.0 if face is None else lip_gap(face) for face in faces], neutral.motion)


def arrays_of(labelled: Labelled) -> dict[str, NDArray[np.generic]]:
    """The motions relative to the rest, as arrays over the frames: what a label file holds."""
    blank = Motion()
    known = [m or blank for m in labelled.motions]
    return {
        "lip_gap": np.array(labelled.lip_gaps, np.float32),
        "expression": np.array([m.expression - labelled.rest.expression for m in known], np.float32).reshape(
            -1, EXPRESSION_COUNT
        ),
        "closure": np.array([m.closure for m in known], np.float32).reshape(-1, 3),
        "rotation_rad": np.array([m.rotation_rad for m in known], np.float32).reshape(-1, 3),
        "translation_hu": np.array([m.translation_hu for m in known], np.float32).reshape(-1, 3),
        "seen": np.array([m is not None for m in labelled.motions]),
        "fps": np.array(FPS, np.float32),
    }


def label_all(items: list[Item], folder: Path) -> None:
    """A label file for every item that has none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in tqdm(items, desc="labelling", mininterval=5):
        kept = folder / f"{item.name}.npz"
        if kept.exists():
            continue
        found = motions_of(item.video)
        if found is None:
            continue
        with whole_file(kept) as part:
            np.savez(part, subject=np.str_(item.subject), **arrays_of(found))  # pyright: ignore[reportArgumentType]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with manifest.csv, clips and their sound")
    parser.add_argument("--labels", type=Path, default=Path("runs/speech/clips"))
    arguments = parser.parse_args()
    items = read_items(arguments.data)
    label_all(items, arguments.labels)
    print(f"{len(list(arguments.labels.glob('*.npz')))} of {len(items)} clips labelled")


if __name__ == "__main__":
    main()
