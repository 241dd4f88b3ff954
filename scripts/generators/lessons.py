"""A batch of the store → what a blueprint learns from: views and look-ups in torch, nothing that waits for a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engines.generators.networked.blueprint import Blueprint
from engines.generators.networked.constant import indices
from engines.generators.networked.lesson import Lesson
from engines.generators.networked.mirrored import mirrored
from engines.generators.networked.picture import Picture, Size, Tint, place_in_square
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.motion_descriptor import SCALE, SHIFT
from scripts.generators.item import STORED_PX, VERTEX_STEPS

Batch = dict[str, Tensor]

_MIRRORED_POINTS = (1, 0, 2, 4, 3)


def lesson_of(batch: Batch, tables: HeadTables, blueprint: Blueprint[Any], step: int = 0) -> Lesson:
    """`batch`: what `Store.gather` gives, on the device of `tables`."""
    size, crop, flip = blueprint.raster_size(), batch["crop"], batch["flip"]
    tint = Tint(batch["gain"], batch["offset"])
    window, beside = window_in_stored(crop, blueprint.window), place_in_square(blueprint.window, crop)

    def surface(name: str, vertices: str) -> Surface:
        return Surface(batch[name], in_raster(batch[vertices], crop, size))

    own = in_window(batch["own_motion"], crop)
    motions = in_window(batch["motions"], crop[:, None])
    picture, openings = batch.get("picture"), batch.get("openings")
    back = _way_back(batch, tables, blueprint, tint) if blueprint.looks_back() else None
    scene = Scene(
        tables, size, Picture(batch["photo"], window, flip, tint, "straight"),
        surface("posed", "vertices"), surface("own", "own_vertices"),
        batch["maps"],
        mirrored(motions, flip), mirrored(own, flip),
        past=blueprint.past, flip=flip, tint=tint, where=batch.get("where"),
        picture=None if picture is None else Picture(picture, beside, flip, tint),
        openings=None if openings is None else Picture(openings, beside, flip, tint),
    )  # fmt: skip
    return Lesson(
        scene, Picture(batch["truth"], window, flip, tint, "beside"),
        Picture(batch["background"], beside, flip, tint), batch["sharpness"], step,
        points=points_in_window(batch["points"], crop, flip, blueprint.window), back=back,
    )  # fmt: skip


def _way_back(batch: Batch, tables: HeadTables, blueprint: Blueprint[Any], tint: Tint) -> Scene:
    """See `Lesson.back`."""
    size, crop, flip = blueprint.raster_size(), batch["back_crop"], batch["flip"]
    own = Surface(batch["back_own"], in_raster(batch["back_own_vertices"], crop, size))
    motions = in_window(batch["back_motions"], crop[:, None])
    window = window_in_stored(crop, blueprint.window)
    return Scene(
        tables, size, Picture(batch["back_photo"], window, flip, tint, "straight"), own, own, batch["back_maps"],
        mirrored(motions, flip), mirrored(in_window(batch["back_own_motion"], crop), flip),
        past=blueprint.past, flip=flip, tint=tint,
    )  # fmt: skip


def in_raster(vertices: Tensor, crop: Tensor, size: Size) -> Tensor:
    """Vertices (B, N, 3) int16 in steps of a stored pixel → float pixels of a grid of `size` over the window of the
    photo whose square head crop is `crop` (B, 3: left, top, side): as high as the crop, about its middle."""
    left, top, side = crop.unbind(1)
    scale = size.height_px / side
    x = (left + side / 2) * scale - size.width_px / 2
    shift = torch.stack([x, top * scale, torch.zeros_like(x)], 1)
    return vertices.to(crop.dtype) * (scale / VERTEX_STEPS)[:, None, None] - shift[:, None]


def window_in_stored(crop: Tensor, window: Size) -> Tensor:
    """(B, 2, 3) from −1 … 1 over the window to −1 … 1 over the stored picture."""
    left, top, side = crop.unbind(1)
    high, none = side / STORED_PX, torch.zeros_like(side)
    x, y = ((edge + side / 2) * (2 / STORED_PX) - 1 for edge in (left, top))
    rows = [high * (window.width_px / window.height_px), none, x], [none, high, y]
    return torch.stack([torch.stack(r, 1) for r in rows], 1)


def points_in_window(points: Tensor, crop: Tensor, flip: Tensor, window: Size) -> Tensor:
    """Stored pixels (B, 5, 2) of eyes, nose tip and mouth corners → shares (B, 5, 2) of the window's sides, as the
    mirror shows them where `flip` says so; then right and left change places."""
    left, top, side = crop[:, None].unbind(2)
    x = (points[..., 0] - left - side / 2) * (window.height_px / window.width_px) / side + 0.5
    y = (points[..., 1] - top) / side
    turned = torch.stack([1 - x, y], 2).index_select(1, indices(_MIRRORED_POINTS, points))
    return torch.where(flip[:, None, None], turned, torch.stack([x, y], 2))


def in_window(descriptors: Tensor, crop: Tensor) -> Tensor:
    """`engines.motion_descriptor.in_window` in torch: descriptors (…, 65) in stored pixels, told in the window."""
    side = crop[..., 2:]
    middle = crop[..., :2] + side / 2
    scale = (descriptors[..., SCALE : SCALE + 1] / side).clamp_min(1e-6).log()
    shift = (descriptors[..., SHIFT] - middle) * (2 / side)
    return torch.cat([descriptors[..., :SCALE], scale, shift], -1)
