"""`Person` and `Head` out of what the geometric generator has prepared of a photo, on the CPU, once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from engines.device.sampling import packed
from engines.device.sizes import Head, Person, Sizes
from engines.errors import EngineError
from engines.generators.geometric.generator import OUTSIDE, PAINTED, GeometricCache
from engines.generators.geometric.mouth import interior_of
from engines.head.model import HeadModel, Part
from engines.raster.conditioning import PreparedMap
from engines.raster.gbuffer import BEHIND_HU, mouth_interior

F32 = NDArray[np.float32]


class MisfitError(EngineError):
    """What is to be drawn is larger than a device's fixed shapes; the CPU draws it."""


def person_of(cache: GeometricCache, model: HeadModel, triangles: NDArray[np.intp], sizes: Sizes) -> Person:
    """`triangles`: those that ever show. Raises MisfitError when an eye or the mouth is larger than there is room."""
    height, width = cache.base_grid.shape[:2]
    if (width, height) != (sizes.width_px, sizes.height_px) or cache.canvas.shape[:2] != sizes.canvas:
        raise MisfitError(
            f"the picture is {width} × {height} pixels, not {sizes.width_px} × {sizes.height_px}"
        )
    source = _channels(cache.source.pieces)
    chosen = np.zeros(len(model.triangles), bool)
    chosen[triangles] = True
    mouth = cache.mouth
    plates, lids = (
        np.stack([_padded(image, sizes.plate_px, "edge") for image in images])
        for images in ([e.image for e in cache.eyes], [e.lid for e in cache.eyes])
    )
    own = _padded(mouth.photo, sizes.own_mouth_px, "constant")
    return Person(
        canvas=packed(torch.from_numpy(cache.canvas)[None]),
        source=_tensor(np.stack(source)),
        colour=prepared_bytes(cache.colour, 4)[:, 0],
        chosen=torch.from_numpy(chosen)[None],
        follow=_tensor(cache.body.follow[None]),
        head=_tensor(cache.body.head[None]),
        plates=_tensor(plates),
        lids=_tensor(lids),
        lash_rgb=_tensor(np.stack([e.lash_rgb for e in cache.eyes])),
        cavity_rgb=_tensor(mouth.cavity_rgb),
        tongue_rgb=_tensor(mouth.tongue_rgb),
        seam_rgb=_tensor(mouth.seam_rgb),
        teeth=_tensor(np.stack([t.transpose(2, 0, 1) for t in mouth.teeth])),
        own_mouth=_tensor(own),
        folds=packed(torch.from_numpy(cache.folds.smooth)[None]),
    )


def prepared_bytes(prepared: PreparedMap, channels: int) -> torch.Tensor:
    """(1, channels / 4, S · S) int32: a map of bytes that was prepared for look-ups, four of its channels a number."""
    found = np.rint(np.stack(_channels(prepared.pieces), -1) * 255).astype(np.uint8)
    room = np.zeros((*found.shape[:2], channels), np.uint8)
    room[..., : found.shape[2]] = found
    return torch.cat([packed(torch.from_numpy(room[None, ..., k : k + 4])) for k in range(0, channels, 4)])[
        None
    ]


_KINDS = (
    (Part.SKIN, Part.SOCKET), (Part.EYE,), (Part.MOUTH, Part.TEETH, Part.TONGUE),
    (Part.MOUTH,), (Part.TEETH,), (Part.TONGUE,),
)  # fmt: skip


@lru_cache(maxsize=4)
def head_of(model: HeadModel) -> Head:
    """On the CPU, made once."""
    inside = interior_of(model)
    flags = np.zeros((3, model.vertex_count, 1), np.float32)
    flags[0, inside.upper_teeth] = 1
    flags[1, inside.lower_teeth] = 1
    flags[2, inside.tongue] = 1
    parts = np.arange(256)

    def plain(values: NDArray[np.generic], kind: type[np.generic] = np.float32) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, kind))

    with torch.inference_mode(False):
        return Head(
            triangles=plain(model.triangles, np.int64),
            uv=plain(model.uv[model.triangles]),
            part=plain(model.part, np.int64),
            behind=plain(mouth_interior(model) * np.float32(BEHIND_HU)),
            skin=plain(OUTSIDE),
            painted=plain(PAINTED),
            kinds=plain(np.stack([np.isin(parts, [int(p) for p in kind]) for kind in _KINDS], 1)),
            inner=plain(inside.triangles, np.int64),
            arch=plain(inside.colours[..., :2]),
            kind=plain(inside.colours[:, 0, 2]),
            upper=plain(flags[0]),
            lower=plain(flags[1]),
            tongue=plain(flags[2]),
        )


def _channels(pieces: tuple[F32, ...]) -> list[F32]:
    """Each channel of a prepared map (S, S)."""
    return [
        c for piece in pieces for c in (piece[..., None] if piece.ndim == 2 else piece).transpose(2, 0, 1)
    ]


def _padded(image: F32, side: int, how: str) -> F32:
    """(h, w, C) → (C, side, side): beyond it its edge goes on ("edge"), or nothing is ("constant")."""
    height, width = image.shape[:2]
    if max(height, width) > side:
        raise MisfitError(f"a part of the face is {width} × {height} pixels; there is room for {side}")
    pad = ((0, side - height), (0, side - width), (0, 0))
    out = np.pad(image, pad, "edge") if how == "edge" else np.pad(image, pad)
    return np.ascontiguousarray(out.transpose(2, 0, 1), np.float32)


def _tensor(values: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
