"""Landmark tracks of clips and portraits, cached on disk, and the split by subject.

python -m scripts.people.tracks DATA [--tracks runs/tracks]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.face import find_face
from calibration.photo import open_photo
from engines.errors import PhotoError
from engines.files import whole_file
from engines.geometry import F64
from engines.head.landmarks import LandmarkDetector
from scripts.people.decoding import ClipError, decode

Record = dict[str, NDArray[np.generic]]

STRIDE = 2
MIN_FRAMES = 10


@dataclass(frozen=True, slots=True)
class Tracked:
    """One clip (F frames, every second one) or portrait (F = 1).

    `points_px` (F, 478, 3), `scores` (F, 52), `frame` (F,) frame numbers, `size_px` (width, height).
    """

    name: str
    subject: str
    path: Path
    points_px: F64
    scores: F64
    frame: F64
    size_px: tuple[int, int]

    @property
    def held_out(self) -> bool:
        """Whether this person belongs to the validation fifth."""
        return is_held_out(self.subject)


def is_held_out(subject: str) -> bool:
    """A fifth of all subjects, decided by the name alone, so that every script agrees."""
    return int(hashlib.sha256(subject.encode()).hexdigest(), 16) % 5 == 0


def read_subjects(folder: Path) -> dict[str, str]:
    """Subject by item name from `manifest.csv`, where there is one."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(encoding="utf-8") as rows:
        return {row["id"]: row["subject"] for row in csv.DictReader(rows)}


def subject_of(name: str, subjects: dict[str, str]) -> str:
    """From the manifest, else the name before its last `_`."""
    return subjects.get(name) or name.rpartition("_")[0] or name


def track_clip(path: Path, stride: int = STRIDE) -> Record:
    """Landmarks and scores of every `stride`-th frame that shows a face. Raises ClipError for what is no clip."""
    detector = LandmarkDetector(video=True)
    points: list[F64] = []
    scores: list[F64] = []
    numbers: list[int] = []
    size = (0, 0)
    try:
        for index, image in decode(path):
            size = (image.shape[1], image.shape[0])
            if index % stride:
                continue
            faces = detector.detect(image, index * 40)
            if faces:
                points.append(faces[0].points_px.astype(np.float64))
                scores.append(faces[0].scores.astype(np.float64))
                numbers.append(index)
    except ClipError:
        if not points:
            raise
        # cut off: what came is a clip too
    finally:
        detector.close()
    return _record(points, scores, numbers, size)


def track_portrait(path: Path) -> Record:
    """Landmarks and scores of a photo, as enrollment sees it; empty when it shows no face."""
    try:
        found = find_face(open_photo(path).image)
    except PhotoError:
        return _record([], [], [], (0, 0))
    size = (found.image.shape[1], found.image.shape[0])
    face = found.face
    return _record([face.points_px.astype(np.float64)], [face.scores.astype(np.float64)], [0], size)


def _record(points: list[F64], scores: list[F64], numbers: list[int], size: tuple[int, int]) -> Record:
    return {
        "points_px": np.array(points, np.float32).reshape(-1, 478, 3),
        "scores": np.array(scores, np.float32).reshape(-1, 52),
        "frame": np.array(numbers, np.int32),
        "size_px": np.array(size, np.int32),
    }


def load_tracks(folder: Path, cache: Path) -> tuple[list[Tracked], list[Tracked]]:
    """(clips, portraits) under `folder`, tracked into `cache` where they are not yet."""
    subjects = read_subjects(folder)
    clips = _load(sorted(folder.rglob("*.mp4")), cache / "clips", subjects, MIN_FRAMES)
    pictures = sorted(p for p in folder.rglob("portraits/*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    portraits = _load(pictures, cache / "portraits", subjects, 1)
    return clips, portraits


def _load(paths: Iterable[Path], cache: Path, subjects: dict[str, str], least: int) -> list[Tracked]:
    from tqdm import tqdm  # not where pairs alone are made

    cache.mkdir(parents=True, exist_ok=True)
    out: list[Tracked] = []
    for path in tqdm(list(paths), desc=f"tracking {cache.name}", mininterval=5):
        kept = cache / f"{path.stem}.npz"
        if not kept.exists():
            record = track_clip(path) if path.suffix == ".mp4" else track_portrait(path)
            with whole_file(kept) as part:
                np.savez(part, **record)  # pyright: ignore[reportArgumentType]
        with np.load(kept) as data:
            if len(data["scores"]) < least:
                continue
            width, height = (int(v) for v in data["size_px"])
            out.append(
                Tracked(
                    path.stem,
                    subject_of(path.stem, subjects),
                    path,
                    data["points_px"].astype(np.float64),
                    data["scores"].astype(np.float64),
                    data["frame"].astype(np.float64),
                    (width, height),
                )
            )
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with clips (.mp4) and portraits/ (pictures)")
    parser.add_argument("--tracks", type=Path, default=Path("runs/tracks"))
    arguments = parser.parse_args()
    clips, portraits = load_tracks(arguments.data, arguments.tracks)
    print(f"{len(clips)} clips, {sum(len(c.scores) for c in clips)} frames, {len(portraits)} portraits")


if __name__ == "__main__":
    main()
