"""What the papers condition on, each a lookup of a UV map in a G-buffer (NumPy; `conditioning_torch` is its twin).

Papers: 000 IFaceUV, 001 Exploiting Multiple Guidance from 3DMM, 002 Geometry Driven Progressive Warping,
003 one-shot reenactment from PNCC (thesis), 004 Identity-Matched Correspondence Learning. They rasterise each
of these per frame; here the head is rasterised once (`engines.raster.gbuffer`) and the rest is looked up.

All results are float32 on the G-buffer's grid (h, w) and 0 where nothing is drawn. Maps are (S, S[, C]): uint8
0 … 255 counts as 0 … 1, float32 is taken as it is. `prepare_map` does once per photo what is else done per frame.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.head.model import Part
from engines.raster.gbuffer import GBuffer

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PreparedMap:
    """A UV map as OpenCV likes to look it up: float32 `pieces` (S, S[, 3 or 4]) of its channels, in order.

    `channels` is None for a map (S, S).
    """

    pieces: tuple[F32, ...]
    channels: int | None


UvMap = NDArray[np.uint8] | NDArray[np.float32] | PreparedMap

HEAD_PARTS = frozenset(Part) - {Part.NONE, Part.BODY}
_REMAP_CHANNELS = 4  # cv2.remap takes no more


def computed_flow(
    uv_position_px: UvMap,
    gbuffer: GBuffer,
    *,
    origin_px: tuple[float, float] | None = None,
    scale: float | None = None,
    margin_px: float = 0.0,
) -> F32:
    """`F_c = R(V_t, P(V_s)) − G(h, w)` (h, w, 2) in viewport pixels: paper 001, eq. 3; 002, § 3.2 (`V_{d→s}`).

    Where each pixel comes from in the source minus where it is. `uv_position_px` (S, S, 2) holds the source's
    projected positions; `(position − origin_px) · scale − margin_px` must be viewport pixels. By default they
    are photo pixels (`Enrollment.uv_position_px`), with origin and scale of the G-buffer's viewport; a map that
    is made in viewport pixels already has origin (0, 0) and scale 1, one made for a canvas with a margin around
    the viewport that margin as well.
    """
    viewport = gbuffer.viewport
    x, y = (viewport.origin_x_px, viewport.origin_y_px) if origin_px is None else origin_px
    factor = np.float32(viewport.scale if scale is None else scale)
    flow = lookup_map(uv_position_px, gbuffer.uv)
    flow *= factor
    height, width = gbuffer.part.shape
    # the map is linear in position, so origin and margin move into the grid, which is kept
    flow -= _grid(
        width, height, viewport.width_px, viewport.height_px,
        float(x * factor + margin_px), float(y * factor + margin_px),
    )  # fmt: skip
    return _clear_uncovered(flow, gbuffer)


@lru_cache(maxsize=8)
def _grid(width: int, height: int, width_px: float, height_px: float, shift_x: float, shift_y: float) -> F32:
    """`G(h, w)`: viewport position of each grid pixel's centre, shifted; never write to it."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    grid = np.stack([x * (width_px / width) + shift_x, y * (height_px / height) + shift_y], -1)
    grid = grid.astype(np.float32)
    grid.setflags(write=False)
    return grid


def computed_occlusion(uv_visibility: UvMap, gbuffer: GBuffer) -> F32:
    """`O_c = 1(P_t ∈ P_s)` (h, w) in 0 … 1, 1 = visible in the source: paper 001, eq. 4.

    The paper asks whether a pixel's triangle is among those seen in the source; here `uv_visibility` (S, S)
    answers per texel, once per photo, so its border is as fine as the texels and soft between them.
    """
    return _looked_up(uv_visibility, gbuffer)


def rendered_face(uv_colour: UvMap, gbuffer: GBuffer) -> F32:
    """`I_rend = R(M, I_uv)` (h, w, 3) in 0 … 1: paper 000, eq. 6; `I_r` of paper 001, eq. 2 (texture in UV)."""
    return _looked_up(uv_colour, gbuffer)


def pncc(uv_pncc: UvMap, gbuffer: GBuffer) -> F32:
    """Projected normalised coordinate code (h, w, 3) in 0 … 1: paper 003, § 2.2.

    Each point of the head shows its coordinate on the mean head, scaled to 0 … 1. The G-buffer has the source's
    identity with the driver's motion, so this is paper 004's reconstructed PNCC.
    """
    return _looked_up(uv_pncc, gbuffer)


def neural_codes(uv_codes: UvMap, gbuffer: GBuffer) -> F32:
    """Posed neural codes (h, w, d): paper 002, § 3.2, d = 16 there (§ 3.4).

    The paper attaches a learned code to each vertex; here `uv_codes` (S, S, d) attaches one to each texel.
    """
    return _looked_up(uv_codes, gbuffer)


def face_mask(gbuffer: GBuffer, parts: Collection[int] = HEAD_PARTS) -> F32:
    """`I_m` (h, w), 1 where one of `parts` is drawn, else 0: paper 000, eq. 7. By default the head, not the body."""
    chosen = np.zeros(256, np.float32)
    chosen[list(parts)] = 1
    return chosen[gbuffer.part]


def prepare_map(uv_map: UvMap) -> PreparedMap:
    """(S, S[, C]) for many lookups. uint8 becomes 0 … 1."""
    if isinstance(uv_map, PreparedMap):
        return uv_map
    texture = np.asarray(uv_map, np.float32)
    if uv_map.dtype == np.uint8:
        texture = texture / np.float32(255)
    if texture.ndim == 2:
        return PreparedMap((np.ascontiguousarray(texture),), None)
    channels = texture.shape[2]
    pieces: list[F32] = []
    done = 0
    while done < channels:
        some = min(channels - done, _REMAP_CHANNELS)
        # OpenCV 5 rounds where it looks to 1/32 of a texel with two channels, but not with 1, 3 or 4
        some = 1 if some == 2 else some
        piece = texture[..., done] if some == 1 else texture[..., done : done + some]
        pieces.append(np.ascontiguousarray(piece))
        done += some
    return PreparedMap(tuple(pieces), channels)


def lookup_map(uv_map: UvMap, uv: F32) -> F32:
    """Bilinear lookup of a map with any number of channels, the papers' `grid_sample`; uint8 becomes 0 … 1.

    (S, S[, C]) at `uv` (h, w, 2) → (h, w[, C]) float32, a new array.
    """
    ready = prepare_map(uv_map)
    height, width = ready.pieces[0].shape[:2]
    # one number for both axes where it can be: NumPy is ten times slower with a pair
    size = np.float32(width) if width == height else np.array([width, height], np.float32)
    where = uv * size - np.float32(0.5)
    found = [_remap(piece, where) for piece in ready.pieces]
    picture = found[0] if len(found) == 1 else np.asarray(cv2.merge(found), np.float32)
    return picture if ready.channels is None else picture.reshape(*uv.shape[:2], ready.channels)


def _remap(texture: F32, where: F32) -> F32:
    return cv2.remap(texture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # pyright: ignore[reportCallIssue, reportArgumentType, reportReturnType]


def _looked_up(uv_map: UvMap, gbuffer: GBuffer) -> F32:
    return _clear_uncovered(lookup_map(uv_map, gbuffer.uv), gbuffer)


def _clear_uncovered(picture: F32, gbuffer: GBuffer) -> F32:
    # ten times faster than assigning through a mask
    return np.asarray(cv2.copyTo(picture, gbuffer.part), np.float32).reshape(picture.shape)
