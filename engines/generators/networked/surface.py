"""`Surface`: a posed head as a grid of pixels sees it; `Seen`: what each pixel looks up of it, in torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.constant import constant
from engines.generators.networked.picture import Size
from engines.head.inner_face import inner_face
from engines.head.model import HeadModel


@dataclass(frozen=True, slots=True)
class HeadTables:
    """What look-ups need of a head model of N vertices and T triangles, on one device.

    - `triangles` (T, 3) int64, `part` (T,) uint8, `inner` (T,) bool: of the inner face, `weld` (N,) first vertex at
      the same place, `mirror` (N,) its vertex in the mirror, `landmark_vertices` and `landmark_weights` (478, 3).
    - `uv` (T, 3, 2), `pncc` (T, 3, 3): of each triangle's first corner, and how much more the other two have.
    """

    triangles: Tensor
    part: Tensor
    inner: Tensor
    weld: Tensor
    mirror: Tensor
    landmark_vertices: Tensor
    landmark_weights: Tensor
    uv: Tensor
    pncc: Tensor

    @staticmethod
    def of(model: HeadModel, device: torch.device | str = "cpu") -> HeadTables:
        """Made once for each model and device."""
        return _tables(model, str(device))

    @property
    def vertex_count(self) -> int:
        """N."""
        return len(self.weld)

    def landmarks(self, vertices: Tensor) -> Tensor:
        """Vertices (B, N, C) → landmarks (B, 478, C)."""
        found = vertices.index_select(1, self.landmark_vertices.flatten())
        return (found.unflatten(1, (-1, 3)) * self.landmark_weights[..., None]).sum(2)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # else training could not use them afterwards
def _tables(model: HeadModel, device: str) -> HeadTables:
    def to(values: NDArray[np.generic], kind: type[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, kind)).to(device)

    def by_triangle(values: NDArray[np.generic]) -> Tensor:
        corners = values[model.triangles].astype(np.float32)
        corners[:, 1:] -= corners[:, :1]
        return to(corners, np.float32)

    first = np.unique(model.weld)
    places = torch.from_numpy(model.mean_hu.astype(np.float32))
    turned = places * torch.tensor([-1.0, 1.0, 1.0])
    nearest = torch.cat([torch.cdist(some, places[first]).argmin(1) for some in turned.split(1024)])
    return HeadTables(
        to(model.triangles, np.int64),
        to(model.part, np.uint8),
        to(inner_face(model), np.bool_),
        to(model.weld, np.int64),
        to(first[nearest.numpy()], np.int64),
        to(model.landmark_vertices, np.int64),
        to(model.landmark_weights, np.float32),
        by_triangle(model.uv),
        by_triangle(model.pncc()),
    )


@dataclass(frozen=True, slots=True)
class Surface:
    """The posed head as a grid of pixels (B, h, w) sees it: which `triangle` (−1: none), and the triangle's
    `corners` (B, N, 3: x, y in pixels of the grid, z away).

    `x` (w,), `y` (h,): where the pixels' centres lie on the grid, where they are not all of it.
    """

    triangle: Tensor
    corners: Tensor
    x: Tensor | None = None
    y: Tensor | None = None

    def mirrored(self, flip: Tensor) -> Surface:
        """Rows that `flip` (B,) names as a mirror shows them. Of all of a grid."""
        turned = constant([self.triangle.shape[2], 0, 0], self.corners) + self.corners * constant(
            [-1, 1, 1], self.corners
        )
        rows = flip[:, None, None]
        return Surface(
            torch.where(rows, self.triangle.flip(2), self.triangle), torch.where(rows, turned, self.corners)
        )

    def thinned(self, size: Size) -> Surface:
        """Of all of a grid only `size` pixels, each the one in which the middle of a coarser grid's lies."""
        rows, columns = self.triangle.shape[1:]

        def nearest(count: int, of: int) -> Tensor:
            step = torch.arange(count, device=self.corners.device) + 0.5
            return (step * (of / count)).long()

        row, column = nearest(size.height_px, rows), nearest(size.width_px, columns)
        picked = self.triangle.index_select(1, row).index_select(2, column)
        return replace(self, triangle=picked, x=column + 0.5, y=row + 0.5)


class Seen:
    """A `Surface` looked at pixel by pixel. Where nothing is drawn all is 0."""

    def __init__(self, surface: Surface, tables: HeadTables) -> None:
        self._surface, self._tables = surface, tables
        triangle = surface.triangle
        drawn = triangle >= 0
        self.shape = triangle.shape
        self.covered = drawn[:, None].to(surface.corners.dtype)
        self._drawn = drawn
        self._number = triangle.clamp_min(0).long().flatten()  # (P,)

    @cached_property
    def corner(self) -> Tensor:
        """(B, h, w, 3): vertices of the pixel's triangle."""
        return self._tables.triangles.index_select(0, self._number).reshape(*self.shape, 3)

    @cached_property
    def _shares(self) -> tuple[Tensor, Tensor]:
        """(P, 1) each: how much of its second and its third corner a pixel shows."""
        tables, corners = self._tables, self._surface.corners.detach()
        batch, height, width = self.shape
        # of each triangle of each row: its first corner, and how the shares grow along x and y
        at = corners[..., :2].index_select(1, tables.triangles.flatten()).unflatten(1, (-1, 3))
        (ax, ay), (bx, by), (cx, cy) = (at[:, :, k].unbind(2) for k in range(3))
        bx, by, cx, cy = bx - ax, by - ay, cx - ax, cy - ay
        area = bx * cy - by * cx
        area = torch.where(area == 0, torch.ones_like(area), area)
        planes = torch.stack([ax, ay, cy / area, -cx / area, -by / area, bx / area], 2).flatten(0, 1)
        row = torch.arange(batch, device=at.device) * len(tables.triangles)
        number = self._number + row.repeat_interleave(height * width, output_size=len(self._number))
        found = planes.index_select(0, number).reshape(batch, height, width, 6)
        x, y = self._surface.x, self._surface.y
        x = torch.arange(width, device=at.device) + 0.5 if x is None else x
        y = torch.arange(height, device=at.device) + 0.5 if y is None else y
        ax, ay, bx, by, cx, cy = found.unbind(3)
        dx, dy = x - ax, y[:, None] - ay
        return (dx * bx + dy * by).reshape(-1, 1), (dx * cx + dy * cy).reshape(-1, 1)

    @cached_property
    def weight(self) -> Tensor:
        """(B, h, w, 3): how much of each corner the pixel shows."""
        second, third = self._shares
        weight = torch.cat([1 - second - third, second, third], 1).reshape(*self.shape, 3)
        return weight * self._drawn[..., None]

    @cached_property
    def part(self) -> Tensor:
        """(B, h, w) uint8 of `Part`."""
        found = self._tables.part.index_select(0, self._number).reshape(self.shape)
        return found * self._drawn

    @cached_property
    def inner(self) -> Tensor:
        """(B, 1, h, w): 1 where the inner face is drawn."""
        found = self._tables.inner.index_select(0, self._number).reshape(self.shape) & self._drawn
        return found[:, None].to(self.covered.dtype)

    @cached_property
    def uv(self) -> Tensor:
        """(B, h, w, 2)."""
        return self._mixed(self._tables.uv).reshape(*self.shape, 2)

    def pncc(self) -> Tensor:
        """(B, 3, h, w)."""
        return self._mixed(self._tables.pncc).reshape(*self.shape, 3).permute(0, 3, 1, 2) * self.covered

    def _mixed(self, table: Tensor) -> Tensor:
        first, second, third = table.index_select(0, self._number).unbind(1)
        b, c = self._shares
        return torch.addcmul(torch.addcmul(first, second, b), third, c)

    def mask(self, parts: Collection[int]) -> Tensor:
        """(B, 1, h, w): 1 where one of `parts` is drawn."""
        found = torch.zeros_like(self._drawn)
        for part in parts:
            found |= self.part == int(part)
        return found[:, None].to(self.covered.dtype)

    def mix(self, at_corners: Tensor) -> Tensor:
        """(B, h, w, 3, C) → (B, C, h, w)."""
        return (at_corners * self.weight[..., None]).sum(3).permute(0, 3, 1, 2)

    def vertex_values(self, values: Tensor) -> Tensor:
        """Of each row's own vertices (B, N, C) → (B, C, h, w)."""
        batch, count = values.shape[:2]
        row = (torch.arange(batch, device=values.device) * count)[:, None, None, None]
        found = values.flatten(0, 1).index_select(0, (self.corner + row).flatten())
        return self.mix(found.reshape(*self.shape, 3, values.shape[2]))
