"""Whom to evaluate on, and which frames: held-out clips tracked at their full rate, cached on disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from engines.errors import VisavisError
from engines.files import whole_file
from engines.geometry import F64
from scripts.people.decoding import ClipError, decode
from scripts.people.tracks import MIN_FRAMES, Tracked, is_held_out, read_subjects, subject_of, track_clip

U8 = NDArray[np.uint8]


class EvaluationError(VisavisError):
    """There is nothing to evaluate on; the message says what would be."""


def find_clips(data: Path, *, everyone: bool, count: int | None = None) -> list[tuple[Path, str]]:
    """(path, subject) of the clips under `data` of held-out people (or of everyone), `count` spread evenly.

    Raises EvaluationError when there are none.
    """
    subjects = read_subjects(data)
    found = [(p, subject_of(p.stem, subjects)) for p in sorted(data.rglob("*.mp4"))]
    chosen = [(p, s) for p, s in found if everyone or is_held_out(s)]
    if not chosen:
        raise EvaluationError(
            f"{data} holds {len(found)} clips, none of a held-out person; --everyone evaluates on all of them"
            if found
            else f"{data} holds no .mp4 clips; give a folder of talking-face clips"
        )
    return chosen if count is None else [chosen[k] for k in spread_indices(len(chosen), count)]


def find_portraits(data: Path, *, everyone: bool) -> list[tuple[Path, str]]:
    """(path, subject) of the pictures in folders called `portraits` under `data`."""
    subjects = read_subjects(data)
    pictures = sorted(p for p in data.rglob("portraits/*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    found = [(p, subject_of(p.stem, subjects)) for p in pictures]
    return [(p, s) for p, s in found if everyone or is_held_out(s)]


def load_clip(path: Path, subject: str, cache: Path) -> Tracked | None:
    """The clip with landmarks of every frame, from the cache where it is there; None when hardly a face is seen.

    Raises ClipError when the file is no clip.
    """
    stat = path.stat()
    kept = cache / f"{path.stem}-{stat.st_size}.npz"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        record = track_clip(path, stride=1)
        with whole_file(kept) as part:
            np.savez(part, **record)  # pyright: ignore[reportArgumentType]
    with np.load(kept) as data:
        if len(data["scores"]) < MIN_FRAMES:
            return None
        width, height = (int(v) for v in data["size_px"])
        points, scores, frame = (data[k].astype(np.float64) for k in ("points_px", "scores", "frame"))
    return Tracked(path.stem, subject, path, points, scores, frame, (width, height))


def load_clips(found: Sequence[tuple[Path, str]], cache: Path) -> tuple[list[Tracked], list[str]]:
    """All clips that can be used, and why others cannot. Raises EvaluationError when none can."""
    clips: list[Tracked] = []
    skipped: list[str] = []
    for path, subject in tqdm(found, desc="tracking", mininterval=5):
        try:
            clip = load_clip(path, subject, cache)
        except ClipError as error:
            skipped.append(str(error))
            continue
        if clip is None:
            skipped.append(f"{path.name}: a face in fewer than {MIN_FRAMES} frames")
        else:
            clips.append(clip)
    if not clips:
        raise EvaluationError(f"no clip can be used: {'; '.join(skipped)}")
    return clips, skipped


def spread_indices(available: int, count: int) -> list[int]:
    """`count` of 0 … available − 1, evenly spaced, first and last kept clear of; all when there are no more."""
    if available <= count:
        return list(range(available))
    return [int((k + 0.5) * available / count) for k in range(count)]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of a track: `apart`, spread over the clip, for everything but time; `runs` of consecutive frames."""

    apart: tuple[int, ...]
    runs: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> list[int]:
        """All of them, once, in order."""
        return sorted({*self.apart, *(row for run in self.runs for row in run)})


def choose_frames(frame: F64, count: int, runs: int = 2, length: int = 8) -> Chosen:
    """`count` rows spread over the clip (not the first, which is the photo), and `runs` of `length` in a row.

    `frame` (F,) are the frame numbers; a run that misses a frame is left out.
    """
    rows = range(1, len(frame))
    apart = tuple(rows[k] for k in spread_indices(len(rows), count))
    taken: list[tuple[int, ...]] = []
    for k in range(runs):
        middle = int((k + 1) * len(frame) / (runs + 1))
        start = max(1, min(middle - length // 2, len(frame) - length))
        run = tuple(range(start, min(start + length, len(frame))))
        if len(run) == length and frame[run[-1]] - frame[run[0]] == length - 1:
            taken.append(run)
    return Chosen(apart, tuple(taken))


def read_frames(clip: Tracked, rows: Collection[int]) -> dict[int, U8]:
    """RGB pictures of these rows of the track. Raises ClipError when the clip has changed and lacks one."""
    rows_of = {int(clip.frame[row]): row for row in rows}
    return {rows_of[number]: picture for number, picture in decode(clip.path, rows_of)}


def resized(clip: Tracked, size_px: tuple[int, int]) -> Tracked:
    """The track as if the clip were (width, height) large: enrollment shrinks very large photos."""
    if clip.size_px == size_px:
        return clip
    scale = np.array([size_px[0], size_px[1], size_px[0]]) / [*clip.size_px, clip.size_px[0]]
    return replace(clip, points_px=clip.points_px * scale, size_px=size_px)


def from_row(clip: Tracked, row: int) -> Tracked:
    """The track from this row on."""
    return replace(clip, points_px=clip.points_px[row:], scores=clip.scores[row:], frame=clip.frame[row:])
