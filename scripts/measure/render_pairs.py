"""Draw driver × source pairs to PNG files; knows only what every version of the product has.

    python scripts/measure/render_pairs.py PLAN.json FOLDER

The plan is a list of {"name", "clip", "photo", "frames"}; pictures go to FOLDER/NAME/FRAME.png. With another
checkout first in PYTHONPATH this draws the same frames as that version does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from calibration.enroll import enroll
from engines.errors import VisavisError
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from streamer.drive.driver import Drive, Driver
from streamer.drive.trackers.mediapipe import MediaPipeTracker
from streamer.sources.video import VideoSource

SIZE_PX = 512


@dataclass(frozen=True, slots=True)
class Pair:
    """A clip that drives a photo; `frames` are the clip's frame numbers to draw."""

    name: str
    clip: Path
    photo: Path
    frames: tuple[int, ...]


def write_plan(pairs: Sequence[Pair], path: Path) -> None:
    """Save pairs for another process."""
    rows = [
        {"name": p.name, "clip": str(p.clip.resolve()), "photo": str(p.photo.resolve()), "frames": p.frames}
        for p in pairs
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")


def read_plan(path: Path) -> list[Pair]:
    """Inverse of `write_plan`."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [
        Pair(r["name"], Path(r["clip"]), Path(r["photo"]), tuple(int(f) for f in r["frames"])) for r in rows
    ]


def drive_clip(clip: Path) -> list[Drive]:
    """What drives each frame of a clip."""
    driver = Driver(MediaPipeTracker())
    out: list[Drive] = []
    with VideoSource(clip) as source:
        while (frame := source.read()) is not None:
            out.append(driver.drive(frame))
    driver.close()
    return out


def draw_pairs(pairs: Sequence[Pair], folder: Path) -> list[str]:
    """Draw all pairs; what could not be drawn, and why."""
    drives: Mapping[Path, list[Drive]] = {
        clip: drive_clip(clip) for clip in dict.fromkeys(p.clip for p in pairs)
    }
    failed: list[str] = []
    for photo in tqdm(list(dict.fromkeys(p.photo for p in pairs)), desc="drawing pairs"):
        try:
            enrollment = enroll(photo)
        except VisavisError as error:
            failed.append(f"{photo.stem}: {error}")
            continue
        renderer = Renderer(enrollment, size_px=SIZE_PX)
        for pair in (p for p in pairs if p.photo == photo):
            (folder / pair.name).mkdir(parents=True, exist_ok=True)
            for number in pair.frames:
                drive = drives[pair.clip][number]
                motion = retarget(drive.motion, drive.neutral, enrollment.motion, Controls())
                picture = Image.fromarray(np.ascontiguousarray(renderer.render(motion)))
                picture.save(folder / pair.name / f"{number:05d}.png", compress_level=1)
    return failed


def main() -> None:
    """Command line."""
    plan, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for reason in draw_pairs(read_plan(plan), folder):
        print(reason, file=sys.stderr)


if __name__ == "__main__":
    main()
