"""The yardstick of a picture that is believed: one row per face, what a call asks of it, drawn at full size.

    python -m scripts.yardstick -o yardstick [--photo FILE ...] [--driver MOTION.jsonl ...] [--generator geometric]

Columns: the head at rest, turned by 10° and 20° and nodding, lips closed, jaw open, pucker, smile, blink, the
neutral face; then the extremes of every driver's recorded motion. Without photos: the faces of `scripts.contact_sheet`.
`.avatar` files may stand for photos and save their enrolment. OUT/FACE.png is a face's row in two lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # also when run as a file

import numpy as np
from numpy.typing import NDArray

from engines.edit import Edit, apply_edit
from engines.enrollment import Enrollment
from engines.generators.names import DEFAULT_GENERATOR
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.motion import Motion, MotionTrack, read_motion
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.contact_sheet import (
    RENDER_PX,
    Face,
    Sheet,
    compose,
    expression_motion,
    safe_faces,
    telling_moments,
)
from scripts.mouth_sheet import enrolled

U8 = NDArray[np.uint8]

TURNS_DEG = {
    "yaw -20°": (-20, 0), "yaw -10°": (-10, 0), "yaw +10°": (10, 0), "yaw +20°": (20, 0), "nod +12°": (0, 12),
    "up -12°": (0, -12),
}  # fmt: skip
EXPRESSIONS = ("lips closed", "jaw 0.9, teeth", "pucker", "smile", "blink")
NEUTRAL, PUCKER = Edit(neutral=True), Edit(neutral=True, expression={"mouthPucker": 0.9})


def turned(rest: Motion, yaw_deg: float, pitch_deg: float) -> Motion:
    """`rest` with the head turned from where the photo has it."""
    turn = rotation_matrix(rotation_from_degrees(yaw_deg, pitch_deg, 0)) @ rotation_matrix(rest.rotation_rad)
    return replace(rest, rotation_rad=rotation_vector(turn).astype(np.float32))


def asked(rest: Motion, drivers: Sequence[MotionTrack]) -> dict[str, Motion]:
    """Caption → motion, all that the yardstick asks of a face that rests in `rest`."""
    motions = {"at rest": rest} | {name: turned(rest, *angles) for name, angles in TURNS_DEG.items()}
    for name in EXPRESSIONS:
        motions[name] = retarget(expression_motion(name), Motion(), rest, Controls())
    motions |= {"neutral": apply_edit(rest, NEUTRAL), "neutral, pucker": apply_edit(rest, PUCKER)}
    for number, track in enumerate(drivers, 1):
        neutral = track.neutral or track.motions[0]
        for name, motion in telling_moments(track):
            motions[f"{number}: {name}"] = retarget(motion, neutral, rest, Controls())
    return motions


def row_of(enrollment: Enrollment, drivers: Sequence[MotionTrack], generator: str) -> Mapping[str, U8]:
    """Caption → picture (S, S, 3)."""
    renderer = Renderer(enrollment, generator=generator, size_px=RENDER_PX)
    renderer.wait_until_compiled()
    return {
        name: np.asarray(renderer.render(motion)[..., :3])
        for name, motion in asked(enrollment.motion, drivers).items()
    }


def lines_of(row: Mapping[str, U8], columns: int) -> list[Mapping[str, U8]]:
    """A row in lines of at most `columns` pictures."""
    names = list(row)
    return [{n: row[n] for n in names[k : k + columns]} for k in range(0, len(names), columns)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", nargs="+", type=Path, default=[], metavar="FILE", help="your own faces")
    parser.add_argument(
        "--driver", nargs="+", type=Path, default=[], metavar="MOTION", help="recorded motions (.jsonl)"
    )
    parser.add_argument("--generator", default=DEFAULT_GENERATOR)
    parser.add_argument("--cell", type=int, default=288, help="side of a picture in the sheet (default: 288)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    drivers = [read_motion(path) for path in given.driver]
    given.output.mkdir(parents=True, exist_ok=True)
    for face in [Face(p.stem, p) for p in given.photo] or safe_faces():
        lines = lines_of(row_of(enrolled(face), drivers, given.generator), 7)
        path = given.output / f"{face.name.split(' (')[0].replace(' ', '-')}.png"
        compose(Sheet(lines, [face.name] * len(lines), given.cell), given.cell).save(path)
        print(path, flush=True)


if __name__ == "__main__":
    main()
