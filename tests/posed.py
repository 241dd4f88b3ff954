"""Scenes of the mean head, posed and seen without a camera: what look-ups need, without a person or a photo."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engines.generators.networked.picture import Picture, Size
from engines.generators.networked.scene import Scene
from engines.generators.networked.surface import HeadTables, Surface
from engines.geometry import Similarity, rotation_matrix
from engines.head.model import load_head_model
from engines.motion import Motion
from engines.motion_descriptor import describe, in_window
from engines.raster.gbuffer import draw_ids

MODEL = load_head_model()
STRAIGHT = Motion()

_SHARE = 0.3  # of the window to a head unit
Shift = tuple[float, float]  # pixels, right and down


def place(size: int, motion: Motion, shift_px: Shift = (0, 0)) -> Similarity:
    """The head in the middle of `size` × `size` pixels, turned as `motion` says, and shifted."""
    middle = np.array([size / 2 + shift_px[0], size / 2 + shift_px[1], 0])
    return Similarity(_SHARE * size, rotation_matrix(motion.rotation_rad), middle)


def surface_of(size: int, motion: Motion, shift_px: Shift = (0, 0)) -> Surface:
    """The mean head with the expression, gaze and turn of a motion."""
    pose = place(size, motion, shift_px)
    points = pose.apply(MODEL.decode(MODEL.mean_hu, motion.expression, motion.gaze_rad)).astype(np.float32)
    triangle, _ = draw_ids(MODEL, points, pose.scale, size, size)
    return Surface(torch.from_numpy(triangle)[None], torch.from_numpy(points)[None])


def descriptor(size: int, motion: Motion, shift_px: Shift = (0, 0)) -> Tensor:
    """(1, 65)."""
    told = describe(motion, place(size, motion, shift_px))
    middle = np.array([size / 2, size / 2], np.float32)
    return torch.from_numpy(in_window(told, middle, np.array(size, np.float32))[None])


def scene_of_heads(
    size: int,
    motion: Motion = STRAIGHT,
    own: Motion = STRAIGHT,
    *,
    own_shift_px: Shift = (0, 0),
    flip: bool | None = None,
    seed: int = 0,
) -> Scene:
    """One frame: the photo shows the head as `own` says, it is drawn as `motion` says.

    Photo and UV maps are chance, smooth and rough; all of the maps counts as seen.
    """
    draw = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 4, 8, 8, generator=draw)
    photo = torch.nn.functional.interpolate(rough, size=(size, size), mode="bilinear")
    photo[:, :3] *= photo[:, 3:]
    maps = torch.randint(40, 255, (1, 4, 16, 16), generator=draw, dtype=torch.uint8)
    maps[:, 3] = 255
    return Scene(
        HeadTables.of(MODEL), Size(size, size), Picture(photo),
        surface_of(size, motion), surface_of(size, own, own_shift_px), maps,
        descriptor(size, motion)[:, None], descriptor(size, own, own_shift_px),
        flip=None if flip is None else torch.tensor([flip]),
    )  # fmt: skip
