"""Eyeballs, falling lids and lashes, painted: the twin of `engines.generators.geometric.eyes`."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.device.packet import Told
from engines.device.sampling import Patch, bilinear
from engines.device.sizes import Person, Sizes


def with_eyes(person: Person, told: Told, sizes: Sizes, picture: Tensor) -> Tensor:
    """The right eye, then the left one."""
    for eye in (0, 1):
        picture = _with_lid(person, told, sizes, picture, eye)
        picture = _with_ball(person, told, sizes, picture, eye)
    return picture


def _with_lid(person: Person, told: Told, sizes: Sizes, picture: Tensor, eye: int) -> Tensor:
    patch = Patch(told["lid_corner"][:, eye], sizes.eye_px, sizes.height_px, sizes.width_px)
    skin = _warped(person.lids[:, eye], told["lid_affine"][:, eye], told["lid_box"][:, eye], patch)
    mask, line = (told[name][:, eye, None].float() / 255 for name in ("lid_mask", "lid_line"))
    return _laid(person, patch, picture, eye, skin, mask, line)


def _with_ball(person: Person, told: Told, sizes: Sizes, picture: Tensor, eye: int) -> Tensor:
    patch = Patch(told["eye_corner"][:, eye], sizes.eye_px, sizes.height_px, sizes.width_px)
    ball = _warped(person.plates[:, eye], told["eye_affine"][:, eye], told["eye_box"][:, eye], patch)
    mask, lashes = (told[name][:, eye, None].float() / 255 for name in ("eye_mask", "lashes"))
    return _laid(person, patch, picture, eye, ball, mask, lashes)


def _warped(plate: Tensor, affine: Tensor, box: Tensor, patch: Patch) -> Tensor:
    """A plate (B, 3, P, P) as the patch sees it, by an affine map (B, 2, 3) from pixels of the box (B, 4)."""
    m = affine[..., None, None]
    x, y = patch.x - box[:, 0, None, None], patch.y - box[:, 1, None, None]
    return bilinear(plate, *(m[:, k, 0] * x + m[:, k, 1] * y + m[:, k, 2] for k in (0, 1)))


def _laid(
    person: Person, patch: Patch, picture: Tensor, eye: int, over: Tensor, mask: Tensor, lashes: Tensor
) -> Tensor:
    """`over` as far as `mask` says, and lashes on it."""
    opaque = torch.full_like(mask, 255)
    lash = person.lash_rgb[:, eye, :, None, None].expand_as(over)
    drawn = patch.read(picture) * (1 - mask) + torch.cat([over, opaque], 1) * mask
    drawn = drawn * (1 - lashes) + torch.cat([lash, opaque], 1) * lashes
    return patch.written(picture, (drawn + 0.5).floor())
