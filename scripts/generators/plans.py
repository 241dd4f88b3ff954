"""What is to be made of folders of clips and portraits: one Plan for each item, under a name of its own."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.generators.item import SUFFIX, DamagedItem, read_about
from scripts.people.tracks import is_held_out, read_subjects, subject_of
from scripts.training.errors import TrainingError

FRAMES, PARTNERS = 12, 6  # of each clip, and how many others drive each of them: 72 pairs
HELD_OUT_FRAMES = 4
COPIES = 2  # of each portrait
_ENLARGED = 0.3
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make of the clip or portrait at `path`.

    `frames` to enroll (of a portrait: posed copies), each with `partners` others; `sharpness` below 1 where the clip
    was enlarged: losses on sharpness count less; `clip` sha256 of the file.
    """

    name: str
    path: Path
    subject: str
    held_out: bool
    frames: int
    partners: int
    sharpness: float
    clip: str

    @property
    def is_clip(self) -> bool:
        """Whether it is no portrait."""
        return self.path.suffix == ".mp4"

    @property
    def seed(self) -> int:
        """Of all chance in it: what is in the file decides, not where it lies."""
        return int(self.clip[:8], 16)


def plan_items(folders: Sequence[Path], cache: Path) -> list[Plan]:
    """Plans of all clips and portraits below `folders`, in an order that mixes them and is always the same,
    people held out first.

    The same file in two folders is one item; another file of the same name gets a name of its own. Raises TrainingError
    for a folder that is not there or holds nothing, ForeignFile for a cache that holds what is none.
    """
    plans: dict[str, Plan] = {}
    seen: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(f"there is no folder {folder}; name one with clips (.mp4)")
        subjects, blurry = read_subjects(folder), enlarged(folder)
        for path in files_of(folder):
            clip = hashlib.sha256(path.read_bytes()).hexdigest()
            if clip in seen:
                continue
            seen.add(clip)
            subject = subject_of(path.stem, subjects)
            held_out = is_held_out(subject)
            if path.suffix == ".mp4":
                frames = HELD_OUT_FRAMES if held_out else FRAMES
            elif held_out:
                continue  # a copy that was drawn judges nobody
            else:
                frames = COPIES
            sharpness = _ENLARGED if path.stem in blurry else 1.0
            name = _name(path.stem, clip, plans, cache)
            plans[name] = Plan(name, path, subject, held_out, frames, PARTNERS, sharpness, clip)
    if not plans:
        named = ", ".join(str(f) for f in folders)
        raise TrainingError(f"no usable clip in {named}: put clips (.mp4) or portraits/ (pictures) there")
    # those who judge a training first: they are few, and should be there when it begins
    return sorted(
        plans.values(), key=lambda plan: (not plan.held_out, hashlib.sha256(plan.name.encode()).digest())
    )


def files_of(folder: Path) -> list[Path]:
    """Clips and portraits below a folder, hidden files left out."""
    clips = sorted(folder.rglob("*.mp4"))
    pictures = sorted(p for p in folder.rglob("portraits/*") if p.suffix.lower() in _PICTURES)
    return [p for p in clips + pictures if p.is_file() and not p.name.startswith(".")]


def enlarged(folder: Path) -> set[str]:
    """Names of clips that the manifest tags as enlarged."""
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return set()
    with manifest.open(encoding="utf-8") as rows:
        return {row["id"] for row in csv.DictReader(rows) if "upscaled" in (row.get("tags") or "")}


def _name(stem: str, clip: str, taken: dict[str, Plan], cache: Path) -> str:
    """The file's own name, as long as no other file has it, here or in the cache."""
    if stem not in taken:
        path = cache / f"{stem}{SUFFIX}"
        if not path.exists():
            return stem
        try:
            if read_about(path).clip == clip:
                return stem
        except DamagedItem:
            return stem  # it will be made again
    return f"{stem}-{clip[:8]}"
