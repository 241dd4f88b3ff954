"""Seams and tears of turned heads: how much rougher than the photo itself a drawn person's contour and hair are.

    python -m scripts.measure.seams PHOTO ... [--generator geometric] [-o seams.json] [--before seams.json]

For each photo (or `.avatar`), the head is turned by ±10° and ±20° and drawn without a background. Printed, per person
and at last for all (median), each as it is at rest and then turned:

- rough: how far the contour strays from itself smoothed along its length (RMS, pixels at 512²), in excess of at rest;
- seam: how steep the picture is along the rim of the head's layer where that runs through the person (hair, neck,
  clothes), mean gradient times length (per cent of a step from black to white along the picture's side), in excess of
  at rest;
- invented: the share of the drawn skull (per cent) that the photo does not show and the texture has to.

`--before`: what an earlier version measured of the same photos stands beside.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # also when run as a file

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from calibration.enroll import enroll
from calibration.hair import scalp_weight
from engines.enrollment import Enrollment, head_model_of, load_enrollment
from engines.geometry import rotation_from_degrees, rotation_matrix, rotation_vector
from engines.motion import Motion
from engines.picture.background import Background
from engines.raster.gbuffer import draw_in_uv, rasterise
from engines.raster.pose import head_viewport, pose_head
from engines.renderer import Renderer

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

SIDE_PX = 512
TURNS_DEG = (-20.0, -10.0, 10.0, 20.0)
_SMOOTH_PX = 6.0  # along the contour
_RIM_PX = 6  # of the picture and of the contour, where nothing is judged


@dataclass(frozen=True, slots=True)
class Seams:
    """What is worse than at rest, over all turns: `rough_px`, `seam` (per cent), `invented` (per cent)."""

    rough_px: float
    seam: float
    invented: float


def turned(rest: Motion, yaw_deg: float) -> Motion:
    """`rest` with the head turned to the side from where the photo has it."""
    turn = rotation_matrix(rotation_from_degrees(yaw_deg, 0.0, 0.0)) @ rotation_matrix(rest.rotation_rad)
    return replace(rest, rotation_rad=rotation_vector(turn).astype(np.float32))


def contour_roughness(alpha: U8) -> float:
    """RMS distance (pixels) of the contour of `alpha` (H, W) from itself smoothed; the picture's rim does not count."""
    height, width = alpha.shape
    found, _ = cv2.findContours((alpha > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not found:
        return 0.0
    line = max(found, key=len)[:, 0].astype(np.float32)
    if len(line) < 8 * _SMOOTH_PX:
        return 0.0
    reach = round(4 * _SMOOTH_PX)
    around = np.concatenate([line[-reach:], line, line[:reach]])
    smooth = gaussian_filter1d(around, _SMOOTH_PX, axis=0)[reach:-reach]
    along = np.gradient(smooth, axis=0)
    across = (
        np.stack([-along[:, 1], along[:, 0]], -1) / np.maximum(np.linalg.norm(along, axis=1), 1e-6)[:, None]
    )
    off = np.sum((line - smooth) * across, 1)
    inner = (line > _RIM_PX).all(1) & (line[:, 0] < width - _RIM_PX) & (line[:, 1] < height - _RIM_PX)
    return float(np.sqrt(np.mean(off[inner] ** 2))) if inner.any() else 0.0


def seam(picture: U8, covered: U8) -> float:
    """How steep a picture (H, W, 4) is along the rim of what the head's layer covers (H, W) within the person: mean
    gradient there times the rim's length, in full steps (0 → 255) along the picture's side."""
    person = cv2.erode(
        (picture[..., 3] > 240).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=_RIM_PX
    )
    person[:_RIM_PX] = person[-_RIM_PX:] = person[:, :_RIM_PX] = person[:, -_RIM_PX:] = 0
    rim = np.asarray(cv2.morphologyEx(covered, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))) * np.asarray(
        person
    )
    return float(steepness(np.ascontiguousarray(picture[..., :3]))[rim > 0].sum()) / (
        2 * 255 * picture.shape[1]
    )


def steepness(picture: U8) -> F32:
    """(H, W) how much a picture (H, W, 3) changes from pixel to pixel."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *order, scale=0.25) for order in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(across, down), np.float32)


def seams_of(enrollment: Enrollment, generator: str) -> Seams:
    """Draw a person turned, and measure."""
    renderer = Renderer(
        enrollment, generator=generator, size_px=SIDE_PX, background=Background(mode="transparent")
    )
    renderer.wait_until_compiled()
    model, view = head_model_of(enrollment), head_viewport(enrollment, SIDE_PX)
    scalp = draw_in_uv(model, np.repeat(scalp_weight(model)[:, None], 3, 1), len(enrollment.uv_visibility))
    rest = enrollment.motion
    rough, steep, invented = [], [], []
    for yaw_deg in (0.0, *TURNS_DEG):
        motion = turned(rest, yaw_deg)
        picture = renderer.render(motion)
        mesh = pose_head(model, enrollment, motion, view)
        rough.append(contour_roughness(np.ascontiguousarray(picture[..., 3])))
        seen = rasterise(model, mesh, view, SIDE_PX)
        steep.append(100 * seam(picture, np.minimum(seen.part, 1).astype(np.uint8)))
        size = len(enrollment.uv_visibility)
        at_x, at_y = seen.uv[..., 0] * size - 0.5, seen.uv[..., 1] * size - 0.5
        skull = (cv2.remap(scalp[..., 0], at_x, at_y, cv2.INTER_LINEAR) > 0.5) & (seen.part > 0)
        hidden = cv2.remap(enrollment.uv_visibility, at_x, at_y, cv2.INTER_LINEAR) < 128
        invented.append(100 * float(hidden[skull].mean()) if skull.any() else 0.0)

    def beyond_rest(values: list[float]) -> float:
        return float(np.mean([max(0.0, value - values[0]) for value in values[1:]]))

    return Seams(beyond_rest(rough), beyond_rest(steep), beyond_rest(invented))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--generator", default="geometric")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the numbers")
    parser.add_argument(
        "--before", type=Path, metavar="FILE", help="numbers kept earlier, of the same photos"
    )
    arguments = parser.parse_args()
    before: dict[str, list[float]] = json.loads(arguments.before.read_text()) if arguments.before else {}
    found: dict[str, list[float]] = {}
    print(f"{'person':24} {'rough px':>16} {'seam %':>18} {'invented %':>16}")
    for photo in arguments.photos:
        enrolled = load_enrollment(photo) if photo.suffix == ".avatar" else enroll(photo)
        seams = seams_of(enrolled, arguments.generator)
        found[photo.stem] = [seams.rough_px, seams.seam, seams.invented]
        print(_line(photo.stem, found[photo.stem], before.get(photo.stem)), flush=True)
    both = [name for name in found if name in before]
    medians = np.median([before[name] for name in both], 0).tolist() if both else None
    print(_line("median", np.median(list(found.values()), 0).tolist(), medians))
    if arguments.output:
        arguments.output.write_text(json.dumps(found))


def _line(name: str, now: list[float], before: list[float] | None) -> str:
    cells = [f"{value:.2f}" for value in now]
    if before is not None:
        cells = [f"{was:.2f} → {cell}" for was, cell in zip(before, cells, strict=True)]
    return f"{name:24} {cells[0]:>16} {cells[1]:>18} {cells[2]:>16}"


if __name__ == "__main__":
    main()
