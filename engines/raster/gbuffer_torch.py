"""The G-buffer in torch: the same picture as `engines.raster.gbuffer`, with gradients, in batches, on any device.

For training and for a path that stays on the GPU; needs nothing but torch. Which triangle a pixel shows is
chosen without gradient (so a silhouette pulls at nothing); its barycentrics are then computed again from its
corners, through which `uv` and `depth_px` have gradients with respect to the vertices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.errors import ModelError

# (triangle, pixel) pairs tested at a time: on a CPU as many as stay in its cache, else what bounds memory
# (about 200 bytes each) with few launches
_PAIRS_CPU, _PAIRS_ELSEWHERE = 1 << 16, 1 << 21
# the nearest triangle of a pixel is the least of keys that hold depth in the upper half, index in the lower
_NOTHING = torch.iinfo(torch.int64).max
_INDEX_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class TorchMesh:
    """What stays the same from frame to frame, on one device: T triangles over N vertices.

    `triangles` (T, 3) int64, `corner_uv` (T, 3, 2) float32, `part` (T,) uint8.
    """

    triangles: Tensor
    corner_uv: Tensor
    part: Tensor
    vertex_count: int

    @classmethod
    def of(
        cls,
        triangles: NDArray[np.integer],
        uv: NDArray[np.floating],
        part: NDArray[np.integer],
        device: torch.device | str = "cpu",
    ) -> TorchMesh:
        """From a model's `triangles` (T, 3), `uv` (N, 2) in 0 … 1 and `part` (T,) of `Part`.

        Raises ModelError when they do not fit each other.
        """
        if triangles.ndim != 2 or triangles.shape[1] != 3 or uv.ndim != 2 or uv.shape[1] != 2:
            raise ModelError(f"triangles {triangles.shape} and uv {uv.shape}: expected (T, 3) and (N, 2)")
        if part.shape != (len(triangles),):
            raise ModelError(f"part {part.shape}: expected one for each of {len(triangles)} triangles")
        if len(triangles) and not 0 <= int(triangles.min()) <= int(triangles.max()) < len(uv):
            raise ModelError(f"triangles point at a vertex that is not there ({len(uv)} vertices)")
        index = torch.from_numpy(triangles.astype(np.int64))
        corner_uv = torch.from_numpy(uv.astype(np.float32))[index]
        parts = torch.from_numpy(part.astype(np.uint8))
        return cls(index.to(device), corner_uv.to(device), parts.to(device), len(uv))


@dataclass(frozen=True, slots=True)
class TorchGBuffer:
    """A batch of G-buffers (B, h, w). Uncovered pixels: uv, part and barycentric 0, triangle −1, depth far away.

    - `uv` (B, h, w, 2) in 0 … 1, `barycentric` (B, h, w, 3), `depth_px` (B, h, w): have gradients. Depth is the
      mesh's own z in pixels; `GBuffer.depth_px` is the same but for a constant (its camera's distance).
    - `part` (B, h, w) uint8 of `Part`; `triangle` (B, h, w) int64.
    """

    uv: Tensor
    part: Tensor
    depth_px: Tensor
    triangle: Tensor
    barycentric: Tensor

    @property
    def covered(self) -> Tensor:
        """(B, h, w) bool."""
        return self.triangle >= 0


def rasterise_torch(
    vertices_px: Tensor, mesh: TorchMesh, height: int, width: int, *, cull: bool = False
) -> TorchGBuffer:
    """Draw posed meshes `vertices_px` (B, N, 3: x, y in pixels of the grid, z away) with z-buffering.

    Orthographic. A pixel shows the nearest triangle that holds its centre, edges included; of triangles equally
    near, the first. With `cull`, only triangles that face the camera (wound as in `HeadModel`) are drawn.
    A triangle with a corner that is not finite is left out. float32 or float64 (others become float32); raises
    ModelError when `vertices_px` does not fit `mesh`.
    """
    if vertices_px.ndim != 3 or vertices_px.shape[1:] != (mesh.vertex_count, 3):
        raise ModelError(f"vertices are {tuple(vertices_px.shape)}, expected (B, {mesh.vertex_count}, 3)")
    if vertices_px.dtype != torch.float64:
        vertices_px = vertices_px.float()
    batch = len(vertices_px)
    triangle = visible_triangles(vertices_px, mesh, height, width, cull=cull).flatten()

    pixel = torch.nonzero(triangle >= 0).squeeze(1)  # only what is covered is worth interpolating
    chosen = triangle.index_select(0, pixel)
    frame, place = pixel // (height * width), pixel % (height * width)
    corner = mesh.triangles.index_select(0, chosen) + (frame * mesh.vertex_count)[:, None]
    corners = vertices_px.reshape(-1, 3).index_select(0, corner.reshape(-1)).reshape(-1, 9)
    edges = torch.stack(_edges(_around(corners, place % width, place // width)), 1)
    weight = edges / edges.sum(1, keepdim=True)
    # no matrix product here: mixed precision would round it
    uv = (weight[..., None] * mesh.corner_uv.index_select(0, chosen)).sum(1)
    depth = (weight * corners[:, 2::3]).sum(1)

    def spread(values: Tensor, elsewhere: float = 0.0) -> Tensor:
        picture = values.new_full((batch * height * width, *values.shape[1:]), elsewhere)
        return picture.index_copy(0, pixel, values).reshape(batch, height, width, *values.shape[1:])

    return TorchGBuffer(
        uv=spread(uv),
        part=spread(mesh.part[chosen], 0),
        depth_px=spread(depth, 4 * 64.0 * height),  # as far as `draw_triangles` clears to
        triangle=triangle.reshape(batch, height, width),
        barycentric=spread(weight),
    )


@torch.no_grad()
def visible_triangles(
    vertices_px: Tensor, mesh: TorchMesh, height: int, width: int, *, cull: bool = False
) -> Tensor:
    """The `triangle` (B, h, w) int64 of `rasterise_torch` alone, −1 = none."""
    return _visible(vertices_px.detach(), mesh, height, width, cull).reshape(-1, height, width)


def _around(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, ...]:
    """Corners (P, 9: x, y, z of each) as seen from pixel centres (P,): x, y, x, y, x, y."""
    x, y = column.to(corners.dtype) + 0.5, row.to(corners.dtype) + 0.5
    return tuple(corners[:, k] - (y if k % 3 else x) for k in (0, 1, 3, 4, 6, 7))


def _edges(around: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Twice the signed areas that a point makes with the edge opposite each corner.

    Neighbours that share an edge get exactly opposite numbers for it, whatever the rounding: no cracks.
    """
    ax, ay, bx, by, cx, cy = around
    return bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx


def _visible(vertices: Tensor, mesh: TorchMesh, height: int, width: int, cull: bool) -> Tensor:
    """The nearest triangle of each pixel, −1 = none: (B·h·w,) int64."""
    corners = vertices.index_select(1, mesh.triangles.reshape(-1)).reshape(-1, 9)  # (B·T, xyz of 3 corners)
    # pixels whose centres lie in the bounding box: from `first`, `size` of them
    spans: list[tuple[Tensor, Tensor]] = []
    drawn = torch.isfinite(corners).all(1)
    for axis, limit in ((0, width), (1, height)):
        a, b, c = corners[:, axis], corners[:, axis + 3], corners[:, axis + 6]
        low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
        first = torch.ceil(low - 0.5).clamp(0, limit)
        size = (torch.floor(high - 0.5) + 1).clamp(0, limit) - first
        drawn &= size > 0
        spans.append((first, size))
    if cull:
        drawn &= sum(_edges(tuple(corners[:, k] for k in (0, 1, 3, 4, 6, 7)))) < 0
    kept = torch.nonzero(drawn).squeeze(1)
    corners, index = corners.index_select(0, kept), kept % len(mesh.triangles)
    (left, columns), (top, rows) = (
        (first.index_select(0, kept).long(), size.index_select(0, kept).long()) for first, size in spans
    )
    count = rows * columns
    before = count.cumsum(0) - count
    start = torch.div(kept, len(mesh.triangles), rounding_mode="floor") * (height * width)
    table = torch.stack([columns, left, top, start, index], 1)
    key = torch.full((len(vertices) * height * width,), _NOTHING, dtype=torch.int64, device=vertices.device)
    for begin, end, done, pairs in _chunks(before, count):
        own = torch.repeat_interleave(
            torch.arange(begin, end, device=count.device), count[begin:end], output_size=pairs
        )
        place = torch.arange(done, done + pairs, device=count.device) - before.index_select(0, own)
        across, x0, y0, first_pixel, triangle = table.index_select(0, own).unbind(1)
        row = torch.div(place, across, rounding_mode="floor")
        x, y = x0 + place - row * across, y0 + row
        corner = corners.index_select(0, own)
        u, v, w = _edges(_around(corner, x, y))
        area = u + v + w
        least, most = torch.minimum(torch.minimum(u, v), w), torch.maximum(torch.maximum(u, v), w)
        held = ((least >= 0) | (most <= 0)) & (area != 0)
        depth = (u * corner[:, 2] + v * corner[:, 5] + w * corner[:, 8]) / area
        found = torch.where(held, (_sortable(depth) << 32) | triangle, _NOTHING)
        key.scatter_reduce_(0, first_pixel + y * width + x, found, "amin")
    return torch.where(key == _NOTHING, -1, key & _INDEX_MASK)


def _sortable(depth: Tensor) -> Tensor:
    """Depths as int64 within 32 bits, in the same order."""
    bits = depth.float().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


def _chunks(before: Tensor, count: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """(begin, end, pairs before, pairs): runs of triangles with a bounded number of pairs, or one alone."""
    if not len(count):
        return
    most = _PAIRS_CPU if count.device.type == "cpu" else _PAIRS_ELSEWHERE
    total = int(before[-1] + count[-1])
    if total <= most:
        yield 0, len(count), 0, total
        return
    ends = (before + count).cpu().numpy()
    begin, done = 0, 0
    while begin < len(ends):
        end = max(begin + 1, int(np.searchsorted(ends, done + most, side="right")))
        yield begin, end, done, int(ends[end - 1]) - done
        begin, done = end, int(ends[end - 1])
