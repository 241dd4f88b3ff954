"""What the CPU tells a device of a frame of a generator that is its blueprint alone, and of its person once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.device.enrolled import MisfitError
from engines.device.packet import Told
from engines.device.sampling import packed
from engines.device.telling import F32, NOWHERE, Square, Values
from engines.device.window import OPENINGS, Inputs, Pasted, WindowPerson, WindowSizes
from engines.generators.networked.blueprint import Blueprint
from engines.generators.networked.paste import Paste
from engines.generators.networked.picture import Picture
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.generators.networked.window import WindowCache, told_in_window
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.motion_window import MotionWindow
from engines.raster.gbuffer import HeadMesh


def window_person(
    cache: WindowCache, model: HeadModel, triangles: NDArray[np.intp], sizes: WindowSizes
) -> WindowPerson:
    """Raises MisfitError."""
    if cache.base is not None:
        raise MisfitError("its networks complete another generator's picture")
    chosen = np.zeros(len(model.triangles), bool)
    chosen[triangles] = True
    photo = cache.photo
    return WindowPerson(
        torch.from_numpy(chosen)[None],
        cache.small,
        tuple(cache.features),
        photo.picture.pixels,
        photo.maps,
        photo.own.triangle.long(),
        photo.own.corners,
        photo.motion,
        _pasted(cache.paste, sizes),
    )


def _pasted(paste: Paste, sizes: WindowSizes) -> Pasted:
    rows, columns = sizes.canvas
    high, wide = paste.canvas.shape[:2]
    if high > rows or wide > columns:
        raise MisfitError(f"the window is {wide} × {high} pixels in the picture; there is room for {columns}")
    canvas = np.pad(paste.canvas, ((0, rows - high), (0, columns - wide), (0, 0)), "edge")
    rim = np.zeros((1, sizes.height_px, sizes.width_px), np.float32)
    y, x = paste.inside
    rim[
        0, y.start + paste.top_px : y.stop + paste.top_px, x.start + paste.left_px : x.stop + paste.left_px
    ] = paste.rim

    def row(values: NDArray[np.generic] | list[Any], kind: type[np.generic] = np.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, kind))[None]

    return Pasted(
        still=row(paste.still.transpose(2, 0, 1), np.uint8),
        canvas=packed(torch.from_numpy(canvas)[None]),
        corner=row([paste.left_px, paste.top_px]),
        step=row([paste.affine[0, 0], paste.affine[1, 1]]),
        first=row([paste.affine[0, 2], paste.affine[1, 2]]),
        rim=row(rim),
    )


def tell_window(cache: WindowCache, mesh: HeadMesh, motions: MotionWindow, sizes: WindowSizes) -> Values:
    """The fields of `WindowSizes.fields`; `mesh` is told in the window's pixels. Raises MisfitError."""
    told = [told_in_window(cache.enrollment, m, cache.photo.window) for m in motions.motions]
    return {
        "vertices": mesh.vertices_px,
        "scale": np.array([mesh.pose.scale]),
        "motions": np.stack(told),
        **_openings(cache, mesh, motions.now, sizes),
    }


def _openings(cache: WindowCache, mesh: HeadMesh, motion: Motion, sizes: WindowSizes) -> Values:
    found = (None,) * 3
    if cache.openings is not None:
        found = cache.openings.drawn(mesh, cache.photo.window, motion)
    values: Values = {}
    for name, side, patch in zip(OPENINGS, sizes.openings_px, found, strict=True):
        box = NOWHERE if patch is None else patch.box
        square = Square.around(box, side, (sizes.width_px, sizes.height_px))
        planes: list[F32 | None] = [None] * 4
        if patch is not None:
            planes = [*(patch.colour[..., k : k + 1] / np.float32(255) for k in range(3)), patch.alpha]
        values[f"{name}_corner"] = np.array([square.x, square.y])
        values[name] = np.stack([square.mask(plane, box) for plane in planes])
    return values


def inputs_of(
    blueprint: Blueprint[Any], networks: nn.Module, model: HeadModel, device: torch.device
) -> Inputs:
    """What the blueprint's networks see; `networks`: a copy on the device."""
    tables, size, past = HeadTables.of(model, device), blueprint.raster_size(), blueprint.past

    def look(person: WindowPerson, triangle: Tensor, told: Told) -> tuple[Tensor, ...]:
        scene = Scene(
            tables, size, Picture(person.photo, alpha="straight"), Surface(triangle, told["vertices"]),
            Surface(person.own_triangle, person.own_corners), person.maps, told["motions"], person.own_motion,
            past=past,
        )  # fmt: skip
        return blueprint.inputs(networks, scene)

    return look
