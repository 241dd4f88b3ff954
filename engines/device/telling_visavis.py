"""What the CPU tells a device of a frame of `visavis`, and of its person once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from engines.device import filters
from engines.device.enrolled import person_of, prepared_bytes
from engines.device.telling import NOWHERE, Square, Values, tell_geometric
from engines.device.visavis import WINDOW_PX, VisavisPerson, VisavisSizes
from engines.generators.visavis import inputs
from engines.generators.visavis.generator import VisavisCache
from engines.generators.visavis.inputs import EYE_PX, MOUTH_PX
from engines.head.model import HeadModel
from engines.motion import Motion
from engines.raster.gbuffer import HeadMesh

F32 = NDArray[np.float32]


def visavis_person(
    cache: VisavisCache, model: HeadModel, triangles: NDArray[np.intp], sizes: VisavisSizes
) -> VisavisPerson:
    """As `person_of`. Raises MisfitError."""
    window = cache.window
    across = _low(window.left_px, window.side_px, sizes.base.width_px)
    down = _low(window.top_px, window.side_px, sizes.base.height_px)
    return VisavisPerson(
        person_of(cache.base, model, triangles, sizes.base),
        prepared_bytes(cache.guides, 8),
        torch.tensor([[window.left_px, window.top_px, window.side_px]], dtype=torch.float64),
        torch.from_numpy(down)[None],
        torch.from_numpy(across)[None],
        cache.features,
        cache.mouth_photo,
        cache.eyes_photo[None],
    )


def _low(first: int, side: int, count: int) -> F32:
    """(128, count): `inputs.low_picture` along one axis, the edge repeated beyond the picture."""
    small = filters.area(side, WINDOW_PX) if side >= WINDOW_PX else filters.linear(side, WINDOW_PX)
    out = np.zeros((WINDOW_PX, count), np.float32)
    at = np.clip(first + np.arange(side), 0, count - 1)
    np.add.at(out.T, at, small.T)
    return out


def tell_visavis(cache: VisavisCache, mesh: HeadMesh, motion: Motion, sizes: VisavisSizes) -> Values:
    """The fields of `VisavisSizes.fields`. Raises MisfitError."""
    vector = inputs.motion_vector(cache.motion, motion, cache.pose, mesh.pose)
    base = sizes.base
    told: list[tuple[NDArray[np.float64], Square, tuple[int, int, int, int]]] = []
    boxes = (inputs.mouth_box(mesh), *inputs.eye_boxes(mesh))
    for k, box in enumerate(boxes):
        size, mirrored = EYE_PX if k else MOUTH_PX, k == 2
        across = np.array([np.cos(box.angle_rad), np.sin(box.angle_rad)])
        down = np.array([-across[1], across[0]])
        finer = min(box.finer(size), sizes.finest[1 if k else 0])
        numbers = [*box.centre_px, *(-across if mirrored else across), *down, box.side_px, finer]
        x0, y0, x1, y1 = box.reach(size, base.width_px, base.height_px, mirrored=mirrored)
        reach = NOWHERE if x1 - x0 < 2 or y1 - y0 < 2 else (x0, y0, x1, y1)
        square = Square.around(reach, sizes.patches[1 if k else 0], (base.width_px, base.height_px))
        told.append((np.array(numbers), square, reach))
    return {
        **tell_geometric(cache.base, mesh, motion, base),
        "motions": np.stack([vector, inputs.mirror_motion(vector)]),
        "crops": np.stack([numbers for numbers, _, _ in told]),
        "crop_corner": np.array([(square.x, square.y) for _, square, _ in told]),
        "crop_box": np.array([reach for _, _, reach in told]),
    }
