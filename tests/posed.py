"""Scenes of the mean head, posed and seen without a camera: what look-ups need, without a person or a photo."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.geometry import rotation_from_degrees, rotation_matrix
from engines.head.model import load_head_model
from engines.motion import ARKIT_INDEX, EXPRESSION_COUNT
from engines.motion_descriptor import DESCRIPTOR_SIZE, ROTATION
from engines.raster.gbuffer import draw_ids

F32 = NDArray[np.float32]
MODEL = load_head_model()

_SHARE = 0.3  # of the window to a head unit


def surface_of(
    size: int, *, yaw_deg: float = 0, shift_px: tuple[float, float] = (0, 0), **values: float
) -> Surface:
    """The mean head in the middle of `size` × `size` pixels, turned, shifted, with coefficients."""
    expression = np.zeros(EXPRESSION_COUNT, np.float32)
    for name, value in values.items():
        expression[ARKIT_INDEX[name]] = value
    turn = rotation_matrix(rotation_from_degrees(yaw_deg, 0, 0)).astype(np.float32)
    scale = _SHARE * size
    points = MODEL.decode(MODEL.mean_hu, expression) @ turn.T * np.float32(scale)
    points += np.array([size / 2 + shift_px[0], size / 2 + shift_px[1], 0], np.float32)
    triangle, _ = draw_ids(MODEL, points.astype(np.float32), scale, size, size)
    return Surface(torch.from_numpy(triangle)[None], torch.from_numpy(points.astype(np.float32))[None])


def descriptor(yaw_deg: float = 0, **values: float) -> Tensor:
    """(1, 65) of a turn and coefficients; all else 0."""
    out = torch.zeros(1, DESCRIPTOR_SIZE)
    for name, value in values.items():
        out[0, ARKIT_INDEX[name]] = value
    out[0, ROTATION] = torch.from_numpy(rotation_from_degrees(yaw_deg, 0, 0).astype(np.float32))
    return out


def scene_of_heads(
    size: int,
    *,
    yaw_deg: float = 0,
    own_shift_px: tuple[float, float] = (0, 0),
    own_yaw_deg: float = 0,
    flip: bool | None = None,
    seed: int = 0,
    **values: float,
) -> Scene:
    """One frame: the photo shows the head straight, or as `own_…` says; it is drawn turned, with coefficients.

    Photo and UV maps are smooth chance; all of the maps counts as seen.
    """
    draw = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 4, 8, 8, generator=draw)
    photo = torch.nn.functional.interpolate(rough, size=(size, size), mode="bilinear")
    photo[:, :3] *= photo[:, 3:]
    maps = torch.randint(40, 255, (1, 4, 16, 16), generator=draw, dtype=torch.uint8)
    maps[:, 3] = 255
    return Scene(
        HeadTables.of(MODEL), Size(size, size), Picture(photo),
        surface_of(size, yaw_deg=yaw_deg, **values),
        surface_of(size, yaw_deg=own_yaw_deg, shift_px=own_shift_px),
        maps, descriptor(yaw_deg, **values)[:, None], descriptor(own_yaw_deg),
        flip=None if flip is None else torch.tensor([flip]),
    )  # fmt: skip
