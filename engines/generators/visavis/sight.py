"""What the networks of `visavis` see of a `Scene`: the torch twin of `inputs`, in batches, on any device.

Training sees through these, a call through `inputs`; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engines.generators.networked.constant import constant, indices
from engines.generators.networked.picture import Size, places
from engines.generators.networked.scene import Scene
from engines.generators.visavis import inputs
from engines.generators.visavis.inputs import EYE_PX, MOTION_SIZE, MOUTH_PX, WINDOW_PX
from engines.head.landmark_names import EYE_LEFT, EYE_RIGHT, LIPS_OUTER
from engines.head.model import Part
from engines.motion_descriptor import CLOSURE, EXPRESSION, GAZE, ROTATION, SCALE, SHIFT

WINDOW = Size(WINDOW_PX, WINDOW_PX)
MOUTH, EYE = Size(MOUTH_PX, MOUTH_PX), Size(EYE_PX, EYE_PX)


def photo_input(scene: Scene) -> Tensor:
    """(B, 7, 128, 128): the photo, premultiplied RGBA, and the PNCC at its own pose."""
    return torch.cat([scene.photo_at(WINDOW), scene.thinned(WINDOW).own_pncc()], 1)


def head_guide(scene: Scene) -> Tensor:
    """(B, 10, 128, 128): I_r, PNCC, O_c, then skin, eye and mouth; of the raster the nearest, as a call does it."""
    seen = scene.thinned(WINDOW)
    masks = [
        seen.mask(parts)
        for parts in ((Part.SKIN, Part.SOCKET), (Part.EYE,), (Part.MOUTH, Part.TEETH, Part.TONGUE))
    ]
    return torch.cat([seen.rendered_face(), seen.pncc(), seen.occlusion(), *masks], 1)


def where_in_photo(scene: Scene) -> Tensor:
    """(B, 32, 32, 2): where in the window of the photo each place of the window comes from."""
    assert scene.where is not None
    return scene.where


def motion_vector(own: Tensor, target: Tensor) -> Tensor:
    """(B, 127) of descriptors (B, 65) of the photo and of the frame: as `inputs.motion_vector`."""
    back = _quaternion(own[:, ROTATION]) * constant([1.0, -1.0, -1.0, -1.0], own)
    turn = _rotation_vector(_product(_quaternion(target[:, ROTATION]), back))
    shift = (target[:, SHIFT] - own[:, SHIFT]) * 0.5 * torch.exp(-own[:, SCALE, None])
    grow = target[:, SCALE, None] - own[:, SCALE, None]
    return torch.cat(
        [
            target[:, EXPRESSION], own[:, EXPRESSION], target[:, CLOSURE], own[:, CLOSURE],
            target[:, GAZE] * 2, own[:, GAZE] * 2, turn * 2, own[:, ROTATION] * 2, shift, grow * 4,
        ], 1,
    )  # fmt: skip


def _quaternion(rotation: Tensor) -> Tensor:
    """Rotation vectors (B, 3) → (B, 4): w, x, y, z."""
    angle = rotation.norm(dim=1, keepdim=True)
    half = angle / 2
    # sin(a / 2) / a, which is 1 / 2 at nothing
    share = torch.where(angle > 1e-6, half.sin() / angle.clamp_min(1e-6), torch.full_like(angle, 0.5))
    return torch.cat([half.cos(), rotation * share], 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """`a` after `b`, quaternions (B, 4)."""
    w, v, bw, bv = a[:, :1], a[:, 1:], b[:, :1], b[:, 1:]
    real = w * bw - (v * bv).sum(1, keepdim=True)
    return torch.cat([real, w * bv + bw * v + torch.linalg.cross(v, bv)], 1)


def _rotation_vector(quaternion: Tensor) -> Tensor:
    w, v = quaternion[:, :1], quaternion[:, 1:]
    w, v = torch.where(w < 0, -w, w), torch.where(w < 0, -v, v)
    sine = v.norm(dim=1, keepdim=True)
    angle = 2 * torch.atan2(sine, w)
    return v * torch.where(sine > 1e-6, angle / sine.clamp_min(1e-6), torch.full_like(sine, 2.0))


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # else training could not use it afterwards
def mirror_matrix(device: str) -> Tensor:
    """(127, 127) M: `v @ M` is the motion vector of the mirrored pictures."""
    basis = np.eye(MOTION_SIZE, dtype=np.float32)
    return torch.from_numpy(np.stack([inputs.mirror_motion(b) for b in basis])).to(device)


@dataclass(frozen=True, slots=True)
class Crops:
    """Places (B, 2, 3) of the mouth, (2 B, 2, 3) of both eyes of each row, from −1 … 1 over the crop to −1 … 1 over
    the window. The left eye is seen in a mirror: the network knows right eyes only."""

    mouth: Tensor
    eyes: Tensor


def crops(scene: Scene, *, own: bool = False) -> Crops:
    """Around lips and eyes of the posed head, or (`own`) of the head as the photo shows it."""
    surface, motion = (scene.own, scene.own_motion) if own else (scene.posed, scene.motion)
    steps = constant([2 / scene.size.width_px, 2 / scene.size.height_px], surface.corners)
    points = scene.tables.landmarks(surface.corners[..., :2]) * steps - 1
    # the head's own x axis in the picture, as the first column of its rotation
    axis = _first_column(motion[:, ROTATION])
    axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-6)
    scale = motion[:, SCALE].exp()
    mouth = _place(_middle(points, LIPS_OUTER), axis, scale * inputs.MOUTH_HU)
    right, left = (_middle(points, ring) for ring in (EYE_RIGHT, EYE_LEFT))
    if scene.flip is not None:  # in a mirrored picture they change places, not looks
        flip = scene.flip[:, None]
        right, left = torch.where(flip, left, right), torch.where(flip, right, left)
    side = scale * inputs.EYE_HU
    eyes = torch.stack([_place(right, axis, side), _place(left, axis, side, mirrored=True)], 1)
    return Crops(mouth, eyes.flatten(0, 1))


def _middle(points: Tensor, ring: Sequence[int]) -> Tensor:
    return points.index_select(1, indices(ring, points)).mean(1)


def _first_column(rotation: Tensor) -> Tensor:
    w, x, y, z = _quaternion(rotation).unbind(1)
    return torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z)], 1)


def _place(middle: Tensor, axis: Tensor, side: Tensor, *, mirrored: bool = False) -> Tensor:
    """(B, 2, 3) of a square box: its middle in −1 … 1, the direction of its x axis, its side as a share."""
    down = torch.stack([-axis[:, 1], axis[:, 0]], 1)
    across = -axis if mirrored else axis
    return torch.stack([across * side[:, None], down * side[:, None], middle], 2)


def part_crop(scene: Scene, place: Tensor, size: Size) -> Tensor:
    """(n, h, w) uint8 parts in a crop, nearest; `place` (n, 2, 3), n a multiple of the rows."""
    parts = scene.parts().float()[:, None]
    parts = parts.repeat_interleave(len(place) // len(parts), 0)
    return F.grid_sample(parts, places(place, size), "nearest", "zeros", align_corners=False)[:, 0].to(
        torch.uint8
    )


def mouth_guide(parts: Tensor) -> Tensor:
    """(n, 3, s, s): cavity, teeth and tongue."""
    return torch.stack([parts == int(p) for p in (Part.MOUTH, Part.TEETH, Part.TONGUE)], 1).float()


def eye_guide(parts: Tensor) -> Tensor:
    """(n, 1, s, s): the eyeball."""
    return (parts == int(Part.EYE))[:, None].float()
