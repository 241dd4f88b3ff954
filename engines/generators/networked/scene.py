"""`Scene`: what networks may look at of a batch of frames, in the generator's window; every look-up in torch.

Training and serving build the same `Scene` out of the same few things: which triangle each pixel shows, the posed
corners, the photo, its UV maps and the motion. All else is looked up here: nothing is interpolated twice.
Equations: see `engines.raster.conditioning`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.constant import constant
from engines.generators.networked.picture import Picture, Size, Tint
from engines.head.model import HeadModel
from engines.motion_descriptor import DESCRIPTOR_SIZE
from engines.raster.conditioning import HEAD_PARTS
from engines.raster.conditioning_torch import lookup


@dataclass(frozen=True, slots=True)
class HeadTables:
    """What look-ups need of a head model of N vertices and T triangles, on one device.

    `triangles` (T, 3) int64, `part` (T,) uint8, `uv` (N, 2), `pncc` (N, 3), `weld` (N,) first vertex at the same
    place, `mirror` (N,) its vertex in the mirror, `landmark_vertices` and `landmark_weights` (478, 3).
    """

    triangles: Tensor
    part: Tensor
    uv: Tensor
    pncc: Tensor
    weld: Tensor
    mirror: Tensor
    landmark_vertices: Tensor
    landmark_weights: Tensor

    @staticmethod
    def of(model: HeadModel, device: torch.device | str = "cpu") -> HeadTables:
        """Made once for each model and device."""
        return _tables(model, str(device))

    def landmarks(self, vertices: Tensor) -> Tensor:
        """Vertices (B, N, C) → landmarks (B, 478, C)."""
        return (vertices[:, self.landmark_vertices] * self.landmark_weights[..., None]).sum(2)


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # else training could not use them afterwards
def _tables(model: HeadModel, device: str) -> HeadTables:
    def to(values: NDArray[np.generic], kind: type[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, kind)).to(device)

    first = np.unique(model.weld)
    places = torch.from_numpy(model.mean_hu.astype(np.float32))
    turned = places * torch.tensor([-1.0, 1.0, 1.0])
    nearest = torch.cat([torch.cdist(some, places[first]).argmin(1) for some in turned.split(1024)])
    return HeadTables(
        to(model.triangles, np.int64),
        to(model.part, np.uint8),
        to(model.uv, np.float32),
        to(model.pncc(), np.float32),
        to(model.weld, np.int64),
        to(first[nearest.numpy()], np.int64),
        to(model.landmark_vertices, np.int64),
        to(model.landmark_weights, np.float32),
    )


@dataclass(frozen=True, slots=True)
class Surface:
    """The posed head as a grid of pixels (B, h, w) sees it: which `triangle` (−1: none), and the triangle's
    `corners` (B, N, 3: x, y in pixels of the grid, z away)."""

    triangle: Tensor
    corners: Tensor


class Scene:
    """A batch of frames. Pictures are (B, C, h, w); where nothing of the head is drawn, look-ups are 0.

    - `size`: the grid on which the head is rasterised; flows are told in shares of its sides, as of any other's.
    - `photo`: premultiplied RGBA. - `posed`, `own`: the head to draw, and as the photo shows it.
    - `colour` (B, 3, S, S), `visibility` (B, 1, S, S) uint8: the photo's UV maps.
    - `motions` (B, moments, 65), oldest first, `past` of them before the one to draw, and `own_motion` (B, 65):
      descriptors told in the window (`engines.motion_descriptor`).
    - `picture`, `where`: what the base generator drew (`Picture` RGBA of the window) and where in the photo each of
      32 × 32 places comes from (B, 32, 32, 2), for a generator that completes it.
    - `flip` (B,): rows seen in a mirror.
    """

    def __init__(
        self,
        tables: HeadTables,
        size: Size,
        photo: Picture,
        posed: Surface,
        own: Surface,
        colour: Tensor,
        visibility: Tensor,
        motions: Tensor,
        own_motion: Tensor,
        *,
        past: int = 0,
        flip: Tensor | None = None,
        tint: Tint | None = None,
        picture: Picture | None = None,
        where: Tensor | None = None,
    ) -> None:
        self.tables, self.size, self.photo = tables, size, photo
        self.posed, self.own = posed, own
        self.colour, self.visibility = colour, visibility
        self.motions, self.own_motion, self.past = motions, own_motion, past
        self.flip, self.tint = flip, tint
        self.picture, self.where = picture, where

    @staticmethod
    def empty(tables: HeadTables, size: Size, moments: int = 1, past: int = 0) -> Scene:
        """One frame of nothing: what shapes follow from."""
        none = Surface(torch.full((1, size.height_px, size.width_px), -1), torch.zeros(1, len(tables.uv), 3))
        nothing = Picture(torch.zeros(1, 4, size.height_px, size.width_px))
        return Scene(
            tables, size, nothing, none, none,
            torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8),
            torch.zeros(1, moments, DESCRIPTOR_SIZE), torch.zeros(1, DESCRIPTOR_SIZE),
            past=past, picture=nothing, where=torch.zeros(1, 32, 32, 2),
        )  # fmt: skip

    @property
    def motion(self) -> Tensor:
        """(B, 65): the moment to draw."""
        return self.motions[:, self.past]

    def photo_at(self, size: Size) -> Tensor:
        """The photo's person (B, 4, h, w), premultiplied."""
        return self.photo.at(size)

    # --- look-ups of the head to draw -----------------------------------------------------------------

    @cached_property
    def _seen(self) -> _Seen:
        return _Seen(self.posed, self.tables)

    @cached_property
    def _seen_own(self) -> _Seen:
        return _Seen(self.own, self.tables)

    def covered(self) -> Tensor:
        """(B, 1, h, w): 1 where the head is drawn; the rendered mesh's coverage."""
        return self._in_mirror(self._seen.covered)

    def mask(self, parts: Collection[int] = HEAD_PARTS) -> Tensor:
        """`I_m` (B, 1, h, w): 1 where one of `parts` is drawn; paper 000, eq. 7."""
        return self._in_mirror(self._seen.mask(parts))

    def parts(self) -> Tensor:
        """(B, h, w) uint8 of `Part`."""
        return self._in_mirror(self._seen.part)

    def flow(self) -> Tensor:
        """`F_c` (B, 2, h, w): where each place comes from in the photo minus where it is, in shares of the window's
        sides; paper 001, eq. 3; paper 002, § 3.2."""
        seen = self._seen
        moved = self.own.corners[..., :2] - self.posed.corners[..., :2]
        shares = constant([1 / self.size.width_px, 1 / self.size.height_px], moved)
        found = self._in_mirror(seen.vertex_values(moved * shares))
        if self.flip is None:
            return found
        turned = torch.cat([-found[:, :1], found[:, 1:]], 1)
        return torch.where(self.flip[:, None, None, None], turned, found)

    def occlusion(self) -> Tensor:
        """`O_c` (B, 1, h, w) 0 … 1, 1 = the photo shows it, soft, by texels; paper 001, eq. 4."""
        return self._in_mirror(self._seen.texture(self.visibility))

    def occlusion_by_triangle(self) -> Tensor:
        """`O_c = 1(P_t ∈ P_s)` (B, 1, h, w) as paper 001, eq. 4, says it: whether the photo's own G-buffer shows the
        pixel's triangle."""
        batch, count = len(self.posed.triangle), len(self.tables.triangles)
        shown = torch.zeros(batch, count + 1, device=self.posed.triangle.device)
        shown.scatter_(1, self.own.triangle.flatten(1).long() + 1, 1.0)
        shown[:, 0] = 0
        found = shown.gather(1, self.posed.triangle.flatten(1).long() + 1)
        return self._in_mirror(found.reshape(self.posed.triangle.shape)[:, None])

    def rendered_face(self) -> Tensor:
        """`I_rend` (B, 3, h, w): the photo's colours on the posed head; paper 000, eq. 6; `I_r` of paper 001."""
        return self.rendered(self.colour, tinted=True)

    def rendered(self, texture: Tensor, *, tinted: bool = False) -> Tensor:
        """Any UV texture (B, C, S, S) on the posed head (B, C, h, w), with gradients; paper 000, eq. 6."""
        seen = self._seen
        found = seen.texture(texture)
        if tinted and self.tint is not None:
            found = self.tint.of(found) * seen.covered
        return self._in_mirror(found)

    def pncc(self) -> Tensor:
        """(B, 3, h, w): the photo's identity with the driver's motion, each place showing its coordinate on the mean
        head; papers 003, § 2.2, and 004 (the rebuilt PNCC)."""
        return self._pncc(self._seen)

    def own_pncc(self) -> Tensor:
        """The same of the head as the photo shows it."""
        return self._pncc(self._seen_own)

    def codes(self, codes: Tensor) -> Tensor:
        """Posed neural codes (B, d, h, w) of learned per-vertex `codes` (N, d), with gradients, tied across the
        atlas' seams, the mirror vertex's in a mirrored row; paper 002, § 3.2."""
        seen, tables = self._seen, self.tables
        vertex = tables.weld[seen.corner]
        if self.flip is not None:
            vertex = torch.where(self.flip[:, None, None, None], tables.mirror[seen.corner], vertex)
        return self._in_mirror(seen.mix(codes[vertex]))

    # --------------------------------------------------------------------------------------------------

    def _pncc(self, seen: _Seen) -> Tensor:
        found = seen.mix(self.tables.pncc[seen.corner])
        if self.flip is None:
            return found
        # the code's x runs across the head
        turned = torch.cat([(1 - found[:, :1]) * seen.covered, found[:, 1:]], 1)
        return self._in_mirror(torch.where(self.flip[:, None, None, None], turned, found))

    def _in_mirror(self, x: Tensor) -> Tensor:
        if self.flip is None:
            return x
        return torch.where(self.flip.reshape(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


class _Seen:
    """A `Surface` looked at pixel by pixel: `corner` (B, h, w, 3) vertices, `weight` (B, h, w, 3) of each."""

    def __init__(self, surface: Surface, tables: HeadTables) -> None:
        triangle, corners = surface.triangle.long(), surface.corners
        batch, height, width = triangle.shape
        drawn = triangle >= 0
        self.covered = drawn[:, None].to(corners.dtype)
        self.corner = tables.triangles[triangle.clamp_min(0)]
        self._tables, self._triangle, self._drawn = tables, triangle, drawn
        with torch.no_grad():
            rows = torch.arange(batch, device=triangle.device)[:, None, None, None]
            at = corners[rows, self.corner][..., :2]
            x = torch.arange(width, device=at.device) + 0.5
            y = torch.arange(height, device=at.device) + 0.5
            at = at - torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)[:, :, None]
            a, b, c = at.unbind(3)
            weight = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], -1)
            total = weight.sum(-1, keepdim=True)
            weight = weight / torch.where(total == 0, torch.ones_like(total), total)
            self.weight = weight * drawn[..., None]

    @cached_property
    def part(self) -> Tensor:
        return torch.where(self._drawn, self._tables.part[self._triangle.clamp_min(0)], 0)

    @cached_property
    def uv(self) -> Tensor:
        """(B, h, w, 2)."""
        return (self._tables.uv[self.corner] * self.weight[..., None]).sum(3)

    def mask(self, parts: Collection[int]) -> Tensor:
        found = torch.zeros_like(self._drawn)
        for part in parts:
            found |= self.part == int(part)
        return found[:, None].to(self.covered.dtype)

    def mix(self, at_corners: Tensor) -> Tensor:
        """(B, h, w, 3, C) → (B, C, h, w)."""
        return (at_corners * self.weight[..., None]).sum(3).permute(0, 3, 1, 2)

    def vertex_values(self, values: Tensor) -> Tensor:
        """Of each row's own vertices (B, N, C) → (B, C, h, w)."""
        rows = torch.arange(len(values), device=values.device)[:, None, None, None]
        return self.mix(values[rows, self.corner])

    def texture(self, texture: Tensor) -> Tensor:
        return lookup(texture, self.uv) * self.covered


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
