"""What the CPU tells a device of a frame of the geometric picture: the mesh, and where eyes and mouth are painted.

The outlines of eyes and lips are drawn here, by OpenCV: a few thousand pixels. All else is done on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.device.enrolled import MisfitError
from engines.device.sizes import Sizes
from engines.generators.geometric.eyes import eye_shapes
from engines.generators.geometric.folds import unfolded
from engines.generators.geometric.generator import GeometricCache, turn_weight
from engines.generators.geometric.layers import plane_motion
from engines.generators.geometric.open_mouth import open_mouth
from engines.motion import Motion
from engines.raster.gbuffer import HeadMesh

F32 = NDArray[np.float32]
Values = dict[str, NDArray[np.generic]]
Box = tuple[int, int, int, int]


def tell_geometric(cache: GeometricCache, mesh: HeadMesh, motion: Motion, sizes: Sizes) -> Values:
    """The fields of `Sizes.fields` of a head posed in the picture. Raises MisfitError."""
    linear, shift = plane_motion(cache.pose, mesh.pose)
    return {
        "vertices": mesh.vertices_px,
        "scale": np.array([mesh.pose.scale]),
        "turned": np.array([turn_weight(cache.pose, mesh.pose)]),
        "unfolded": np.array([unfolded(cache.folds, motion)]),
        "plane": np.column_stack([linear, shift]),
        **_eyes(cache, mesh, motion, sizes),
        **_mouth(cache, mesh, sizes),
    }


@dataclass(frozen=True, slots=True)
class Square:
    """A square of the picture around a box: its corner, whole pixels."""

    x: int
    y: int
    side: int

    @staticmethod
    def around(box: Box, side: int, size_px: tuple[int, int]) -> Square:
        """In a picture of `size_px` (width, height). Raises MisfitError."""
        x0, y0, x1, y1 = box
        if max(x1 - x0, y1 - y0) > side:
            raise MisfitError(f"a part of the face is {x1 - x0} × {y1 - y0} pixels; there is room for {side}")
        return Square(min(x0, size_px[0] - side), min(y0, size_px[1] - side), side)

    def mask(self, values: F32 | None, box: Box) -> NDArray[np.uint8]:
        """(side, side) bytes of (h, w, 1) over a box; None: nothing."""
        out = np.zeros((self.side, self.side), np.uint8)
        if values is not None:
            x0, y0, x1, y1 = box
            here = out[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x]
            here[:] = np.rint(values[..., 0] * 255)
        return out


NOWHERE = (0, 0, 0, 0)


def _eyes(cache: GeometricCache, mesh: HeadMesh, motion: Motion, sizes: Sizes) -> Values:
    height, width, side = sizes.height_px, sizes.width_px, sizes.eye_px
    turned = motion.gaze_rad - cache.motion.gaze_rad
    of: dict[str, list[NDArray[np.generic]]] = {}

    def say(name: str, value: object) -> None:
        of.setdefault(name, []).append(np.asarray(value))

    for lid, eye in eye_shapes(cache.eyes, mesh, cache.pose, turned, (width, height)):
        box = NOWHERE if lid is None else lid.box
        square = Square.around(box, side, (width, height))
        say("lid_corner", (square.x, square.y))
        say("lid_box", box)
        say("lid_affine", np.zeros((2, 3)) if lid is None else lid.affine)
        say("lid_mask", square.mask(None if lid is None else lid.mask, box))
        say("lid_line", square.mask(None if lid is None else lid.line, box))
        box = NOWHERE if eye is None else eye.box
        square = Square.around(box, side, (width, height))
        say("eye_corner", (square.x, square.y))
        say("eye_box", box)
        say("eye_affine", np.zeros((2, 3)) if eye is None else eye.affine)
        say("eye_mask", square.mask(None if eye is None else eye.mask, box))
        say("lashes", square.mask(None if eye is None else eye.lashes, box))
    return {name: np.stack(values) for name, values in of.items()}


def _mouth(cache: GeometricCache, mesh: HeadMesh, sizes: Sizes) -> Values:
    seen = open_mouth(cache.mouth, mesh, cache.pose, sizes.width_px, sizes.height_px)
    box = NOWHERE if seen is None else seen.box
    square = Square.around(box, sizes.mouth_px, (sizes.width_px, sizes.height_px))
    none = seen is None
    return {
        "mouth_corner": np.array([square.x, square.y]),
        "mouth_box": np.array(box),
        "mouth_numbers": np.array(
            [0] * 8
            if none
            else [
                seen.gap_hu,
                seen.lip_px,
                seen.hidden,
                seen.lit,
                seen.own_lit,
                *seen.sides_px,
                seen.scale,
            ]
        ),
        "teeth_px": np.zeros(3) if none else seen.teeth_px,
        "lower_teeth_px": np.zeros(3) if none else seen.lower_teeth_px,
        "tongue_px": np.zeros(3) if none else seen.tongue_px,
        "mouth_affine": np.zeros((2, 3)) if none else seen.affine,
        "thread": ellipse_spans(1 if none else seen.thread_px, sizes.thread_px),
        "mouth_mask": square.mask(None if none else seen.mask, box),
        "seam": square.mask(None if none else seen.seam, box),
    }


def ellipse_spans(side: int, reach: int) -> F32:
    """(2 reach + 1,): how far OpenCV's ellipse of `side` reaches sideways at each height, −1 not at all."""
    if side // 2 > reach:
        raise MisfitError(f"a mouth is closed within {side // 2} pixels; there is room for {reach}")
    out = np.full(2 * reach + 1, -1, np.float32)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    out[reach - side // 2 : reach + side // 2 + 1] = np.asarray(ellipse).sum(1) // 2
    return out
