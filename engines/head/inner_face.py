"""The inner face: what of a head model the face oval encloses, as models of the face alone have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.head.landmark_names import OVAL
from engines.head.model import HeadModel, Part

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

_WITHIN = (Part.EYE, Part.MOUTH, Part.TEETH, Part.TONGUE, Part.SOCKET)
_BEHIND_HU = 0.05  # so far behind the sheet through the oval a triangle still belongs to the face


def inner_face(model: HeadModel) -> Mask:
    """(T,) of the model's triangles: skin within the oval of the mean head seen from the front, and eyes and mouth.

    What lies behind the face (the back of the head, the throat) is told by a sheet `z = a + b x² + c y + d y²`, which
    the oval's 36 landmarks fit to 0.02 head units.
    """
    middle = model.mean_hu[model.triangles].mean(1)
    oval = model.landmarks(model.mean_hu)[list(OVAL)]
    shape, *_ = np.linalg.lstsq(_sheet(oval), oval[:, 2], rcond=None)
    before = middle[:, 2] < _sheet(middle) @ shape + _BEHIND_HU
    skin = (model.part == Part.SKIN) & before & _enclosed(middle, oval)
    return skin | np.isin(model.part, _WITHIN)


def _sheet(points: NDArray[np.floating]) -> NDArray[np.floating]:
    x, y = points[:, 0], points[:, 1]
    return np.stack([np.ones_like(x), x**2, y, y**2], 1)


def _enclosed(points: NDArray[np.floating], ring: NDArray[np.floating]) -> Mask:
    """Which points (n, 3) the closed ring (m, 3) goes round, both seen from the front."""
    x, y = points[:, :1], points[:, 1:2]
    (ax, ay), (bx, by) = ring[:, :2].T, np.roll(ring, -1, 0)[:, :2].T
    rise = np.where(ay == by, 1, by - ay)
    crossed = ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / rise)
    return crossed.sum(1) % 2 == 1
