"""`Patch`: what is painted over a part of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """In `box` (x0, y0, x1, y1) of a picture `colour` (h, w, 3) 0 … 255, premultiplied by `alpha` (h, w, 1) 0 … 1."""

    box: Box
    colour: F32
    alpha: F32

    def over(self, picture: NDArray[Any], left: int = 0, top: int = 0) -> None:
        """Paint it over a picture (H, W, 3 or 4) 0 … 255, premultiplied, in place, whose corner is at (left, top).

        Where nothing of the head was drawn (a mouth seen from below has no wall) it is as opaque as elsewhere.
        """
        x0, y0, x1, y1 = self.box
        high, wide = picture.shape[:2]
        rows, columns = slice(max(y0, top), min(y1, top + high)), slice(max(x0, left), min(x1, left + wide))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        own = np.s_[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
        under = picture[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        drawn = under * (1 - self.alpha[own])
        drawn[..., :3] += self.colour[own]
        drawn[..., 3:] += self.alpha[own] * np.float32(255)
        under[:] = drawn if picture.dtype == np.float32 else np.clip(drawn + np.float32(0.5), 0, 255)


def layered(patches: Sequence[Patch]) -> Patch | None:
    """Several patches, the last on top, as one; None: there are none."""
    if len(patches) < 2:
        return patches[0] if patches else None
    boxes = np.array([patch.box for patch in patches])
    x0, y0, x1, y1 = (int(v) for v in (*boxes[:, :2].min(0), *boxes[:, 2:].max(0)))
    colour, alpha = np.zeros((y1 - y0, x1 - x0, 3), np.float32), np.zeros((y1 - y0, x1 - x0, 1), np.float32)
    for patch in patches:
        left, top, right, bottom = patch.box
        here = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
        clear = 1 - patch.alpha
        colour[here] = colour[here] * clear + patch.colour
        alpha[here] = alpha[here] * clear + patch.alpha
    return Patch((x0, y0, x1, y1), colour, alpha)
