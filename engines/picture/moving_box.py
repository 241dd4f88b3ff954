"""The part of a frame where a head can move: the generator draws that box only, the rest is a prepared still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.geometry import F64
from engines.head.model import HeadModel
from engines.raster.gbuffer import HeadMesh, Viewport
from engines.retarget import SHIFT_KNEE_HU, ZOOM_KNEE

_BODY_REACH_HU = 1.0  # the body layer moves along this far from the head (0.9) and a little for its smoothing
_MOVES = 0.02  # a vertex less rigid than this stays in its place
_WORTH_IT = 0.7  # a box that fills more of the frame than this might as well be the frame


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a frame in whole pixels, the far edges exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, frame: Viewport) -> Viewport:
        """This part of `frame` as a viewport of its own; pixels fall on the frame's pixels."""
        return replace(
            frame,
            origin_x_px=frame.origin_x_px + self.left / frame.scale,
            origin_y_px=frame.origin_y_px + self.top / frame.scale,
            width_px=self.right - self.left,
            height_px=self.bottom - self.top,
        )

    def holds(self, mesh: HeadMesh, frame: Viewport) -> bool:
        """Whether a mesh told in this box's pixels stays within it, or leaves only where the frame ends too."""
        low, high = _bounds(mesh)
        return bool(
            (self.left == 0 or low[0] >= 0)
            and (self.top == 0 or low[1] >= 0)
            and (self.right == frame.width_px or high[0] <= self.right - self.left)
            and (self.bottom == frame.height_px or high[1] <= self.bottom - self.top)
        )


def whole(frame: Viewport) -> Box:
    """All of `frame`."""
    return Box(0, 0, frame.width_px, frame.height_px)


def moving_box(model: HeadModel, frame: Viewport, rest: HeadMesh, range_of_motion: Sequence[HeadMesh]) -> Box:
    """Where things move in `frame`, for meshes told in its pixels.

    The body layer's motion ends `_BODY_REACH_HU` from the photo's head. The head itself turns, nears and moves, here
    as far as `engines.retarget` lets it freely; the little that it allows beyond is rare and leaves the box.
    """
    scale = rest.pose.scale
    moves = model.rigidity > _MOVES
    low, high = _bounds(rest, moves)
    low, high = low - _BODY_REACH_HU * scale, high + _BODY_REACH_HU * scale
    centre = rest.pose.shift[:2]
    grow, shift = float(np.exp(ZOOM_KNEE)), SHIFT_KNEE_HU * scale
    for mesh in range_of_motion:
        own_low, own_high = _bounds(mesh, moves)
        low = np.minimum(low, centre + (own_low - centre) * grow - shift)
        high = np.maximum(high, centre + (own_high - centre) * grow + shift)
    size = np.array([frame.width_px, frame.height_px])
    x0, y0 = np.clip(np.floor(low), 0, size - 2).astype(int)
    x1, y1 = np.clip(np.ceil(high), (x0 + 2, y0 + 2), size).astype(int)
    if (x1 - x0) * (y1 - y0) > _WORTH_IT * size.prod():
        return whole(frame)
    return Box(int(x0), int(y0), int(x1), int(y1))


def _bounds(
    mesh: HeadMesh, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None
) -> tuple[F64, F64]:
    points = mesh.vertices_px[:, :2] if chosen is None else mesh.vertices_px[chosen, :2]
    return points.min(0).astype(np.float64), points.max(0).astype(np.float64)
