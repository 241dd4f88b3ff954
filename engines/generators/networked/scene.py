"""`Scene`: what networks may look at of a batch of frames, in the generator's window; every look-up in torch.

Training and serving build the same `Scene` out of the same few things: which triangle each pixel shows, the posed
corners, the photo, its UV maps and the motion. All else is looked up here: nothing is interpolated twice.
Equations: see `engines.raster.conditioning`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import cached_property

import torch
from torch import Tensor

from engines.generators.networked.constant import constant
from engines.generators.networked.picture import Picture, Size, Tint, sampled
from engines.generators.networked.surface import HeadTables, Seen, Surface
from engines.motion_descriptor import DESCRIPTOR_SIZE
from engines.raster.conditioning import HEAD_PARTS
from engines.raster.conditioning_torch import lookup


class Scene:
    """A batch of frames. Pictures are (B, C, h, w); where nothing of the head is drawn, look-ups are 0.

    - `size`: the grid on which the head is rasterised; flows are told in shares of its sides, as of any other's.
    - `photo`: RGBA, as fine as pairs store it; `photos`: what `photo_at` has made of it for other frames.
    - `posed`, `own`: the head to draw, and as the photo shows it.
    - `maps` (B, 4, S, S) uint8: the photo's UV maps, colour and visibility.
    - `motions` (B, moments, 65), oldest first, `past` of them before the one to draw, and `own_motion` (B, 65):
      descriptors told in the window (`engines.motion_descriptor`).
    - `picture`, `where`: what the base generator drew (`Picture` RGBA of the window) and where in the photo each of
      32 × 32 places comes from (B, 32, 32, 2), for a generator that completes it.
    - `openings`: what shows between lids and lips (`Picture` RGBA of the window), in training; a call lays it at full
      size.
    - `flip` (B,): rows seen in a mirror.
    """

    def __init__(
        self,
        tables: HeadTables,
        size: Size,
        photo: Picture,
        posed: Surface,
        own: Surface,
        maps: Tensor,
        motions: Tensor,
        own_motion: Tensor,
        *,
        past: int = 0,
        flip: Tensor | None = None,
        tint: Tint | None = None,
        picture: Picture | None = None,
        where: Tensor | None = None,
        openings: Picture | None = None,
        photos: dict[Size, Tensor] | None = None,
    ) -> None:
        self.tables, self.size, self.photo = tables, size, photo
        # mirrored before anything is looked up: all that is then lies where the mirror shows it
        self.posed = posed if flip is None else posed.mirrored(flip)
        self.own = own if flip is None else own.mirrored(flip)
        self.maps = maps
        self.motions, self.own_motion, self.past = motions, own_motion, past
        self.flip, self.tint = flip, tint
        self.picture, self.where = picture, None if where is None else _mirrored(where.float(), flip)
        self.openings = openings
        self._photos = {} if photos is None else photos
        self._thinned: dict[Size, Scene] = {}

    @staticmethod
    def empty(tables: HeadTables, size: Size, moments: int = 1, past: int = 0) -> Scene:
        """One frame of nothing: what shapes follow from."""
        none = Surface(
            torch.full((1, size.height_px, size.width_px), -1), torch.zeros(1, tables.vertex_count, 3)
        )
        nothing = Picture(torch.zeros(1, 4, size.height_px, size.width_px))
        return Scene(
            tables, size, nothing, none, none,
            torch.zeros(1, 4, 8, 8),
            torch.zeros(1, moments, DESCRIPTOR_SIZE), torch.zeros(1, DESCRIPTOR_SIZE),
            past=past, picture=nothing, where=torch.zeros(1, 32, 32, 2),
        )  # fmt: skip

    @property
    def motion(self) -> Tensor:
        """(B, 65): the moment to draw."""
        return self.motions[:, self.past]

    def photo_at(self, size: Size) -> Tensor:
        """The photo's person (B, 4, h, w), premultiplied."""
        if size not in self._photos:
            self._photos[size] = self.photo.at(size)
        return self._photos[size]

    def thinned(self, size: Size) -> Scene:
        """The same looked at on a coarser grid, each place as the nearest pixel of the finer one. Made once."""
        if size not in self._thinned:
            coarse = copy.copy(self)
            for looked_up in ("_seen", "_seen_own", "_maps"):
                coarse.__dict__.pop(looked_up, None)
            coarse.posed, coarse.own = self.posed.thinned(size), self.own.thinned(size)
            self._thinned[size] = coarse
        return self._thinned[size]

    # --- look-ups of the head to draw -----------------------------------------------------------------

    @cached_property
    def _seen(self) -> Seen:
        return Seen(self.posed, self.tables)

    @cached_property
    def _seen_own(self) -> Seen:
        return Seen(self.own, self.tables)

    @cached_property
    def _maps(self) -> Tensor:
        return self._texture(self.maps)

    def covered(self) -> Tensor:
        """(B, 1, h, w): 1 where the head is drawn; the rendered mesh's coverage."""
        return self._seen.covered

    def mask(self, parts: Collection[int] = HEAD_PARTS) -> Tensor:
        """`I_m` (B, 1, h, w): 1 where one of `parts` is drawn; paper 000, eq. 7."""
        return self._seen.mask(parts)

    def inner_face(self) -> Tensor:
        """(B, 1, h, w): 1 where skin within the face oval, an eye or the mouth is drawn; what paper 001 computes flow
        and occlusion for."""
        return self._seen.inner

    def parts(self) -> Tensor:
        """(B, h, w) uint8 of `Part`."""
        return self._seen.part

    def uv(self) -> Tensor:
        """(B, h, w, 2): where in the UV maps each place lies, −1 … 1 as `grid_sample` takes it, for networks that draw
        textures; `covered` says where there is anything."""
        return self._seen.uv * 2 - 1

    def flow(self) -> Tensor:
        """`F_c` (B, 2, h, w): where each place comes from in the photo minus where it is, in shares of the window's
        sides; paper 001, eq. 3; paper 002, § 3.2."""
        moved = self.own.corners[..., :2] - self.posed.corners[..., :2]
        shares = constant([1 / self.size.width_px, 1 / self.size.height_px], moved)
        return self._seen.vertex_values(moved * shares)

    def occlusion(self) -> Tensor:
        """`O_c` (B, 1, h, w) 0 … 1, 1 = the photo shows it, soft, by texels; paper 001, eq. 4."""
        return self._maps[:, 3:]

    def occlusion_by_triangle(self) -> Tensor:
        """`O_c = 1(P_t ∈ P_s)` (B, 1, h, w) as paper 001, eq. 4, says it: whether the photo's own G-buffer shows the
        pixel's triangle."""
        batch, count = len(self.posed.triangle), len(self.tables.triangles)
        shown = torch.zeros(batch, count + 1, device=self.posed.triangle.device)
        shown.scatter_(1, self.own.triangle.flatten(1).long() + 1, 1.0)
        shown[:, 0] = 0
        found = shown.gather(1, self.posed.triangle.flatten(1).long() + 1)
        return found.reshape(self.posed.triangle.shape)[:, None]

    def rendered_face(self) -> Tensor:
        """`I_rend` (B, 3, h, w): the photo's colours on the posed head; paper 000, eq. 6; `I_r` of paper 001."""
        found = self._maps[:, :3]
        return found if self.tint is None else self.tint.of(found) * self._seen.covered

    def rendered(self, texture: Tensor) -> Tensor:
        """Any UV texture (B or 1, C, S, S) on the posed head (B, C, h, w), with gradients; paper 000, eq. 6."""
        return self._texture(texture)

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
        return self._codes(self._seen, codes)

    def own_codes(self, codes: Tensor) -> Tensor:
        """The same of the head as the photo shows it."""
        return self._codes(self._seen_own, codes)

    # --------------------------------------------------------------------------------------------------

    def _texture(self, texture: Tensor) -> Tensor:
        seen = self._seen
        if texture.dtype == torch.uint8 and texture.shape[1] == 4 and len(texture) == len(seen.uv):
            return sampled(texture, seen.uv * 2 - 1) * seen.covered
        return lookup(texture, seen.uv) * seen.covered

    def _codes(self, seen: Seen, codes: Tensor) -> Tensor:
        tables = self.tables
        vertex = tables.weld[seen.corner]
        if self.flip is not None:
            vertex = torch.where(self.flip[:, None, None, None], tables.mirror[seen.corner], vertex)
        found = codes.index_select(0, vertex.flatten())
        return seen.mix(found.reshape(*seen.shape, 3, codes.shape[1]))

    def _pncc(self, seen: Seen) -> Tensor:
        found = seen.pncc()
        if self.flip is None:
            return found
        # the code's x runs across the head
        turned = torch.cat([(1 - found[:, :1]) * seen.covered, found[:, 1:]], 1)
        return torch.where(self.flip[:, None, None, None], turned, found)


def _mirrored(where: Tensor, flip: Tensor | None) -> Tensor:
    """Places (B, h, w, 2), −1 … 1, as the mirror shows them, where `flip` says so."""
    if flip is None:
        return where
    turned = where.flip(2) * constant([-1.0, 1.0], where)
    return torch.where(flip[:, None, None, None], turned, where)
