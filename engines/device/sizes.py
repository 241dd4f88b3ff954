"""`Sizes`: all that follows from a picture's size; `Person`, `Head`: a photo and a head model as a device has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.device import filters
from engines.device.packet import Field
from engines.device.rows import Rows
from engines.generators.geometric.limits import (
    CONTOUR_BEHIND,
    CONTOUR_DEPTH,
    GRID_PX,
    INSIDE_SIGMA_PX,
    MARGIN,
    RIM_PX,
    RIM_SIGMA_PX,
)

# shares of the picture's longer side; faces as large as the head crop ever has them stay within
_EYE, _PLATE, _MOUTH, _OWN_MOUTH, _THREAD = 0.25, 0.3, 0.36, 0.45, 0.03
_PAIRS = 8  # for each place of a grid; heads ask for 3 at the most
BODY_GRID_PX = 48
_EDGE = np.array([54, 148, 54]) / 256  # σ 0.7 over three, as OpenCV has it of bytes


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a picture of `width_px` × `height_px`; two calls whose sizes are equal can be drawn at once."""

    width_px: int
    height_px: int

    @property
    def side_px(self) -> int:
        """The longer one."""
        return max(self.width_px, self.height_px)

    @property
    def columns(self) -> int:
        """Of the grid."""
        return round(self.width_px * self._step)

    @property
    def rows(self) -> int:
        """Of the grid."""
        return round(self.height_px * self._step)

    @property
    def _step(self) -> float:
        return min(1.0, GRID_PX / self.side_px)

    @property
    def margin_px(self) -> int:
        """Of the canvas around the picture."""
        return round(MARGIN * self.side_px)

    @property
    def canvas(self) -> tuple[int, int]:
        """(rows, columns): the photo, below it the photo without the head."""
        return 2 * (self.height_px + 2 * self.margin_px), self.width_px + 2 * self.margin_px

    @property
    def pairs(self) -> int:
        """Room for pairs of triangle and place of the grid."""
        return _PAIRS * self.rows * self.columns

    @property
    def eye_px(self) -> int:
        """Side of the square in which an eye and its lid are painted."""
        return self._within(_EYE)

    @property
    def plate_px(self) -> int:
        """Side of the square that holds the photo's eye."""
        return max(8, round(_PLATE * self.side_px))

    @property
    def mouth_px(self) -> int:
        """Side of the square in which the mouth is painted."""
        return self._within(_MOUTH)

    @property
    def own_mouth_px(self) -> int:
        """Side of the square that holds the photo's own mouth."""
        return max(8, round(_OWN_MOUTH * self.side_px))

    @property
    def thread_px(self) -> int:
        """How far the widest dark thread is closed to either side."""
        return max(2, round(_THREAD * self.side_px / 2))

    def _within(self, share: float) -> int:
        return min(max(8, round(share * self.side_px)), self.width_px, self.height_px)

    def fields(self, vertices: int) -> list[Field]:
        """What is told of each frame of the geometric picture; see `engines.device.telling`."""
        eye, mouth = self.eye_px, self.mouth_px
        return [
            Field("vertices", (vertices, 3)), Field("scale", (1,)), Field("turned", (1,)),
            Field("unfolded", (1,)), Field("plane", (2, 3)),
            Field("lid_corner", (2, 2)), Field("lid_box", (2, 4)), Field("lid_affine", (2, 2, 3)),
            Field("lid_mask", (2, eye, eye), True), Field("lid_line", (2, eye, eye), True),
            Field("eye_corner", (2, 2)), Field("eye_box", (2, 4)), Field("eye_affine", (2, 2, 3)),
            Field("eye_mask", (2, eye, eye), True), Field("lashes", (2, eye, eye), True),
            Field("mouth_corner", (2,)), Field("mouth_box", (4,)), Field("mouth_numbers", (8,)),
            Field("teeth_px", (3,)), Field("lower_teeth_px", (3,)), Field("tongue_px", (3,)),
            Field("mouth_affine", (2, 3)), Field("thread", (2 * self.thread_px + 1,)),
            Field("mouth_mask", (mouth, mouth), True), Field("seam", (mouth, mouth), True),
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person(Rows):
    """What a photo gives once for the geometric picture (`engines.device.enrolled` makes it), of each call a row.

    - `canvas` (B, 2 Hc · Wc) int32, pixels of four bytes: the photo, premultiplied, below it without the head.
    - `source` (B, 4, S, S): where in the canvas each texel lies in the photo, whether the photo shows it, and how far
      it is from following the head.
    - `colour` (B, S · S) int32: the texture. - `chosen` (B, T) bool: triangles that ever show.
    - `follow` (B, 1, g, g'), `head` (B, 1, h, w): how far the body goes along, where the photo's head is.
    - `plates`, `lids` (B, 2, 3, P, P), `lash_rgb` (B, 2, 3): the eyes. - `cavity_rgb`, `tongue_rgb`, `seam_rgb` (B, 3).
    - `teeth` (B, 2, 3, h, w), `own_mouth` (B, 4, Q, Q) premultiplied.
    - `folds` (B, Hc · Wc) int32: the upper canvas with a smile's folds filled, and where that counts.
    """

    canvas: Tensor
    source: Tensor
    colour: Tensor
    chosen: Tensor
    follow: Tensor
    head: Tensor
    plates: Tensor
    lids: Tensor
    lash_rgb: Tensor
    cavity_rgb: Tensor
    tongue_rgb: Tensor
    seam_rgb: Tensor
    teeth: Tensor
    own_mouth: Tensor
    folds: Tensor


@dataclass(frozen=True, slots=True)
class Head(Rows):
    """A head model of N vertices and T triangles, for all calls alike.

    - `triangles` (T, 3) int64, `uv` (T, 3, 2), `part` (T,) int64, `behind` (T,): how far each counts as further away
      while it is drawn, in head units. - `skin`, `painted` (256,): of each part, 1 where it is such,
      and so of face, eye, mouth, cavity, teeth and tongue: `kinds` (256, 6).
    - the mouth's inside: `inner` (I, 3) int64, `arch` (I, 3, 2) places in the teeth's texture, `kind` (I,),
      `upper`, `lower`, `tongue` (N, 1): 1 at the vertices of each.
    """

    triangles: Tensor
    uv: Tensor
    part: Tensor
    behind: Tensor
    skin: Tensor
    painted: Tensor
    kinds: Tensor
    inner: Tensor
    arch: Tensor
    kind: Tensor
    upper: Tensor
    lower: Tensor
    tongue: Tensor


@dataclass(frozen=True, slots=True)
class Grids:
    """`Sizes`, and the numbers that follow from them alone, on a device.

    What a recorded drawing reads must stay where it is: a drawing holds its own, and no cache may drop it.
    """

    sizes: Sizes
    step: Tensor  # (3,) from the picture's pixels to the grid's
    source: Tensor  # (1, 2, h, w): canvas place of each grid pixel's middle
    base: Tensor  # (1, 2, H, W): canvas place of each pixel
    body: Tensor  # (1, 2, g, g'): middles of the body's grid
    body_step: Tensor  # (2,)
    half_rows: Tensor
    half_columns: Tensor
    rim_rows: Tensor
    rim_columns: Tensor
    mean_rows: Tensor
    mean_columns: Tensor
    soft_rows: Tensor
    soft_columns: Tensor
    small_rows: Tensor
    small_columns: Tensor
    edge_rows: Tensor
    edge_columns: Tensor
    side_rows: Tensor
    side_columns: Tensor
    mouth: Tensor
    contour: float  # in pixels of the grid
    behind: float


@torch.inference_mode(False)
def grids(sizes: Sizes, device: torch.device) -> Grids:
    """For every frame of a drawing."""
    h, w, height, width = sizes.rows, sizes.columns, sizes.height_px, sizes.width_px
    margin = sizes.margin_px

    def to(values: object) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)

    def middles(columns: int, rows: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) + np.float32(0.5)
        return np.stack([x * np.float32(width / columns), y * np.float32(height / rows)])[None]

    g = body_grid(sizes)
    half = max(1, h // 2), max(1, w // 2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return Grids(
        sizes,
        to([w / width, h / height, (np.float32(w / width) + np.float32(h / height)) / 2]),
        to(middles(w, h) + margin),
        to(np.stack([x, y])[None] + margin),
        to(middles(g[1], g[0])),
        to([width / g[1], height / g[0]]),
        to(filters.area(h, half[0])),
        to(filters.area(w, half[1])),
        to(filters.gaussian(half[0], RIM_SIGMA_PX / 2)),
        to(filters.gaussian(half[1], RIM_SIGMA_PX / 2)),
        to(filters.mean(h, RIM_PX)),
        to(filters.mean(w, RIM_PX)),
        to(filters.gaussian(h, 0.8)),
        to(filters.gaussian(w, 0.8)),
        to(filters.area(height, h)),
        to(filters.area(width, w)),
        to(filters.banded(h, _EDGE)),
        to(filters.banded(w, _EDGE)),
        to(filters.gaussian(h, 1.0, 5)),
        to(filters.gaussian(w, 1.0, 5)),
        to(filters.gaussian(sizes.mouth_px, INSIDE_SIGMA_PX)),
        CONTOUR_DEPTH * h,
        CONTOUR_BEHIND * h,
    )


def body_grid(sizes: Sizes) -> tuple[int, int]:
    """(rows, columns) on which the body's motion is told."""
    return (
        max(2, round(BODY_GRID_PX * sizes.height_px / sizes.side_px)),
        max(2, round(BODY_GRID_PX * sizes.width_px / sizes.side_px)),
    )
