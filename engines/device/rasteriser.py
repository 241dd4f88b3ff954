"""A rasteriser of fixed shapes: what it does and allocates depends on sizes alone, so that a CUDA graph can hold it.

As `engines.raster.gbuffer_torch`, but the pairs of triangle and pixel have a fixed room; `full` says when it was too
small, and then the picture must be drawn elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_NOTHING = torch.iinfo(torch.int64).max
_INDEX_MASK = (1 << 32) - 1
FAR_PX = 1e9


@dataclass(frozen=True, slots=True)
class Drawn:
    """`triangle` (B, h, w) int64, −1 none; `weight` (B, h, w, 3) of its corners, 0 where none; `depth` (B, h, w), far
    where none; `full` (B,) bool: not all triangles had room."""

    triangle: Tensor
    weight: Tensor
    depth: Tensor
    full: Tensor


def rasterise_fixed(
    corners: Tensor, chosen: Tensor, height: int, width: int, pairs: int, *, nearer: Tensor | None = None
) -> Drawn:
    """Triangles by their corners (B, T, 3, 3: x, y in pixels, z away), those that are `chosen` (B or 1, T) and face the
    camera, with room for `pairs` of triangle and pixel in each row.

    `nearer` (B, T): by how much what is drawn of each is told nearer in `depth` than it counts while drawing.
    """
    batch = len(corners)
    flat = corners.flatten(2)
    a, b, c = flat[..., 0:3], flat[..., 3:6], flat[..., 6:9]
    facing = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) < (b[..., 1] - a[..., 1]) * (
        c[..., 0] - a[..., 0]
    )
    drawn = chosen & facing & torch.isfinite(flat).all(2)
    first: list[Tensor] = []
    sizes: list[Tensor] = []
    for axis, limit in ((0, width), (1, height)):
        low = torch.minimum(torch.minimum(a[..., axis], b[..., axis]), c[..., axis])
        high = torch.maximum(torch.maximum(a[..., axis], b[..., axis]), c[..., axis])
        begin = torch.ceil(low - 0.5).clamp(0, limit)
        size = (torch.floor(high - 0.5) + 1).clamp(0, limit) - begin
        first.append(begin.nan_to_num().long())
        sizes.append(torch.where(drawn, size.nan_to_num(), 0).clamp_min(0).long())
    tested = sizes[0] * sizes[1]
    ends = tested.cumsum(1)
    starts = ends - tested
    # whose pair each is: how many triangles begin at it or before
    begun = torch.zeros(batch, pairs + 1, dtype=torch.int32, device=corners.device)
    begun.scatter_add_(1, starts.clamp_max(pairs), torch.ones_like(starts, dtype=torch.int32))
    own = (begun[:, :pairs].cumsum(1) - 1).long()
    place = torch.arange(pairs, device=corners.device) - starts.gather(1, own)
    wide = sizes[0].gather(1, own).clamp_min(1)
    down = torch.div(place, wide, rounding_mode="floor")
    x, y = first[0].gather(1, own) + place - down * wide, first[1].gather(1, own) + down
    at = flat.gather(1, own[..., None].expand(-1, -1, 9))
    u, v, w = _edges(at, x, y)
    area = u + v + w
    smallest, largest = torch.minimum(torch.minimum(u, v), w), torch.maximum(torch.maximum(u, v), w)
    counts = torch.arange(pairs, device=corners.device) < ends[:, -1:]
    held = ((smallest >= 0) | (largest <= 0)) & (area != 0) & counts
    depth = (u * at[..., 2] + v * at[..., 5] + w * at[..., 8]) / area
    found = torch.where(held, (_sortable(depth) << 32) | own, _NOTHING)
    pixel = torch.where(held, y * width + x, 0)
    key = torch.full((batch, height * width), _NOTHING, dtype=torch.int64, device=corners.device)
    key.scatter_reduce_(1, pixel, found, "amin")
    triangle = torch.where(key == _NOTHING, -1, key & _INDEX_MASK)
    return _interpolated(flat, triangle, height, width, nearer, ends[:, -1] > pairs)


def _interpolated(
    flat: Tensor, triangle: Tensor, height: int, width: int, nearer: Tensor | None, full: Tensor
) -> Drawn:
    number = triangle.clamp_min(0)
    at = flat.gather(1, number[..., None].expand(-1, -1, 9))
    place = torch.arange(height * width, device=flat.device)
    edges = torch.stack(_edges(at, place % width, torch.div(place, width, rounding_mode="floor")), 2)
    total = edges.sum(2, keepdim=True)
    weight = edges / torch.where(total == 0, torch.ones_like(total), total)
    weight = torch.where(triangle[..., None] >= 0, weight, 0)
    depth = (weight * at[..., 2::3]).sum(2)
    if nearer is not None:
        depth = depth - nearer.gather(1, number)
    depth = torch.where(triangle >= 0, depth, FAR_PX)
    shape = (len(flat), height, width)
    return Drawn(triangle.reshape(shape), weight.reshape(*shape, 3), depth.reshape(shape), full)


def _edges(corners: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Twice the signed areas that pixel centres make with the edge opposite each corner (P, 9)."""
    x, y = column.float() + 0.5, row.float() + 0.5
    ax, ay, bx, by, cx, cy = (corners[..., k] - (y if k % 3 else x) for k in (0, 1, 3, 4, 6, 7))
    return bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx


def _sortable(depth: Tensor) -> Tensor:
    """Depths as int64 within 32 bits, in the same order."""
    bits = depth.float().contiguous().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
