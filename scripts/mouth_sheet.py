"""Mouths under strong expressions, close up: the sheet on which lips are judged.

    python -m scripts.mouth_sheet -o mouths.png [--photo FILE ...] [--generator visavis] [--strength 0.5] [--yaw 20]

One row per face, one column per expression: the photo's own, jawOpen, smile, funnel and pucker alone and in pairs, each
added to what the photo shows, as a driver's would be. Without photos: the faces of `scripts.contact_sheet`.
`.avatar` files may stand for photos and save their enrolment.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.enroll import enroll
from engines.edit import Edit, apply_edit
from engines.enrollment import Enrollment, load_enrollment
from engines.generators.names import DEFAULT_GENERATOR
from engines.head.landmark_names import LIPS_OUTER
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT, Motion
from engines.raster.pose import pose_head
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from scripts.contact_sheet import RENDER_PX, Face, Sheet, compose, safe_faces

U8 = NDArray[np.uint8]

MOVEMENTS: dict[str, tuple[str, ...]] = {
    "jaw": ("jawOpen",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "funnel": ("mouthFunnel",),
    "pucker": ("mouthPucker",),
}
CELL_HU = 1.5  # from under the nose to under an open jaw
_MIDDLE_DOWN_HU = 0.2  # of the cell, below the middle of the resting lips


def mouth_motions(strength: float = 1.0) -> dict[str, Motion]:
    """Caption → a driver's motion against a driver at rest: none, each of `MOVEMENTS`, and their pairs."""
    motions = {"photo": Motion()}
    for count in (1, 2):
        for names in combinations(MOVEMENTS, count):
            expression = np.zeros(EXPRESSION_COUNT, np.float32)
            expression[[ARKIT_INDEX[c] for name in names for c in MOVEMENTS[name]]] = strength
            motions[f"{' + '.join(names)} {strength:g}"] = Motion(expression=expression)
    return motions


def draw_mouths(
    enrollment: Enrollment, generator: str, strength: float, yaw_deg: float | None, cell_px: int
) -> Mapping[str, U8]:
    """Caption → the mouth (cell, cell, 3); with `yaw_deg` the head is turned there."""
    renderer = Renderer(enrollment, generator=generator, size_px=RENDER_PX)
    own = enrollment.motion
    rest = own if yaw_deg is None else apply_edit(own, Edit(yaw_deg=yaw_deg))
    mesh = pose_head(load_head_model(), enrollment, rest, renderer.viewport)
    centre = mesh.landmarks_px[list(LIPS_OUTER), :2].mean(0)
    centre[1] += _MIDDLE_DOWN_HU * mesh.pose.scale
    side = CELL_HU * mesh.pose.scale
    step = side / cell_px
    affine = np.array([[step, 0, centre[0] - side / 2], [0, step, centre[1] - side / 2]], np.float64)
    affine[:, 2] += step / 2 - 0.5
    out: dict[str, U8] = {}
    for caption, motion in mouth_motions(strength).items():
        driven = retarget(motion, Motion(), own, Controls())
        placed = replace(driven, rotation_rad=rest.rotation_rad, translation_hu=rest.translation_hu)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        cell = cv2.warpAffine(renderer.render(placed), affine, (cell_px, cell_px), flags=flags)
        out[caption] = np.asarray(cell, np.uint8)
    return out


def enrolled(face: Face) -> Enrollment:
    """The face's enrollment, from a photo or from an avatar's file."""
    kept = isinstance(face.photo, Path) and face.photo.suffix == ".avatar"
    return load_enrollment(Path(str(face.photo))) if kept else enroll(face.photo)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photo", nargs="+", type=Path, default=[], metavar="FILE", help="your own faces instead"
    )
    parser.add_argument("--generator", default=DEFAULT_GENERATOR)
    parser.add_argument("--strength", type=float, default=1.0, help="of each movement, 0 … 1 (1)")
    parser.add_argument("--yaw", type=float, default=None, metavar="DEGREES", help="turn the head there")
    parser.add_argument("--cell", type=int, default=240, metavar="PX", help="side of a picture (240)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args()
    faces = [Face(p.stem, p) for p in arguments.photo] or safe_faces()
    rows = [
        draw_mouths(enrolled(f), arguments.generator, arguments.strength, arguments.yaw, arguments.cell)
        for f in faces
    ]
    page: Image.Image = compose(Sheet(rows, [f.name for f in faces], arguments.cell), arguments.cell)
    page.save(arguments.output)
    print(f"{arguments.output}: {page.width} × {page.height} px", flush=True)


if __name__ == "__main__":
    main()
