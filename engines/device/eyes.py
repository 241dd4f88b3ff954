"""Eyeballs, falling lids and lashes, painted: the twin of `engines.generators.geometric.eyes`."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.device.packet import Told
from engines.device.sampling import Patch, bilinear
from engines.device.sizes import Person, Sizes
from engines.generators.geometric.limits import LID_FROM_ABOVE


def with_eyes(person: Person, told: Told, sizes: Sizes, picture: Tensor) -> Tensor:
    """The right eye, then the left one."""
    for eye in (0, 1):
        picture = _with_lid(told, sizes, picture, eye)
        picture = _with_ball(person, told, sizes, picture, eye)
    return picture


def _with_lid(told: Told, sizes: Sizes, picture: Tensor, eye: int) -> Tensor:
    """Between its fold and its edge a falling lid is drawn anew from the skin over the fold."""
    patch = Patch(told["lid_corner"][:, eye], sizes.eye_px, sizes.height_px, sizes.width_px)
    box = told["lid_box"][:, eye]
    edge, fold, over = told["lid_curves"][:, eye, :, None].unbind(
        1
    )  # (B, 1, side) each, of the patch's columns
    columns, rows = patch.x + 0.5, patch.y + 0.5
    tall = (edge - fold).clamp_min(1e-3)
    down = (rows - fold) / tall
    source = fold - (fold - over) * LID_FROM_ABOVE * (1 - down.clamp(0, 1)) - 0.5
    # as far as the box goes, which lies within the patch
    source = torch.minimum(torch.maximum(source, box[:, 1, None, None]), box[:, 3, None, None] - 1)
    source = (source - patch.y[:, :1]).clamp(0, sizes.eye_px - 1)
    window = patch.read(picture)
    skin = _along_rows(window, source)
    soft = (down / 0.25).clamp(0, 1) * ((edge - rows) / 1.5 + 0.5).clamp(0, 1) * (tall > 1)
    sides = told["lid_sides"][:, eye, :, None, None]
    inside = (torch.minimum(columns - sides[:, 0], sides[:, 1] - columns) / 3).clamp(0, 1)
    share = (soft * inside * told["lid_weight"][:, eye, None, None])[:, None] * patch.within(box)
    return patch.written(picture, (window * (1 - share) + skin * share + 0.5).floor())


def _along_rows(window: Tensor, at: Tensor) -> Tensor:
    """(B, C, s, s), each pixel from the row `at` (B, s, s) of its own column, rounded."""
    first = at.floor()
    share = (at - first)[:, None]
    index = first.long()[:, None].expand(-1, window.shape[1], -1, -1)
    below = (index + 1).clamp_max(window.shape[2] - 1)
    return torch.lerp(window.gather(2, index), window.gather(2, below), share).round()


def _with_ball(person: Person, told: Told, sizes: Sizes, picture: Tensor, eye: int) -> Tensor:
    patch = Patch(told["eye_corner"][:, eye], sizes.eye_px, sizes.height_px, sizes.width_px)
    box, m = told["eye_box"][:, eye], told["eye_affine"][:, eye, :, :, None, None]
    x, y = patch.x - box[:, 0, None, None], patch.y - box[:, 1, None, None]
    ball = bilinear(person.plates[:, eye], *(m[:, k, 0] * x + m[:, k, 1] * y + m[:, k, 2] for k in (0, 1)))
    mask = told["eye_mask"][:, eye, None].float() / 255
    lashes = told["lashes"][:, eye, None].float() / 255
    drawn = patch.read(picture[:, :3]) * (1 - mask) + ball * mask
    drawn = drawn * (1 - lashes) + person.lash_rgb[:, eye, :, None, None] * lashes
    return patch.written(picture, (drawn + 0.5).floor())
