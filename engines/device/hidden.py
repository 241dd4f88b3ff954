"""What the photo hides, drawn from the texture: the twin of `_draw_hidden` in the geometric generator."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.device.filters import filtered, least, most
from engines.device.packet import Told
from engines.device.sampling import bilinear_bytes, bytes_at, rounded
from engines.device.sizes import Grids, Head, Person
from engines.generators.geometric.limits import (
    BESIDE_CLEAR,
    BESIDE_PX,
    LEAST_WEIGHT,
    MOVED_FROM,
    MOVED_FULL,
    RIM_PX,
)


def with_hidden(
    head: Head,
    person: Person,
    told: Told,
    uv: Tensor,
    part: Tensor,
    visible: Tensor,
    flow: Tensor,
    picture: Tensor,
    at: Grids,
) -> Tensor:
    """The picture with the texture where the photo does not show what the pose does (O_c = 0), as far as the head
    has turned or moved there."""
    height, width = picture.shape[2:]
    rows, columns = part.shape[2:]
    covered = (part > 0).float()
    hidden = (covered - visible) * head.painted[part]
    inner = filtered(least(covered, RIM_PX), at.mean_rows, at.mean_columns) * covered
    alpha = rounded(filtered(picture[:, 3:], at.small_rows, at.small_columns))
    clear = 1 - alpha / 255
    beside = most(hidden, BESIDE_PX) * covered * (clear / BESIDE_CLEAR).clamp_max(1)
    hidden = torch.maximum(hidden, torch.maximum(inner * clear, beside))
    moved = flow.norm(dim=1, keepdim=True) / height - MOVED_FROM
    moved = torch.maximum(moved / (MOVED_FULL - MOVED_FROM), told["turned"][:, :, None, None]).clamp_max(1)
    hidden = filtered(hidden * moved, at.soft_rows, at.soft_columns)
    # only the box that holds what is hidden
    shown = hidden > LEAST_WEIGHT
    y0, high, inside_y = _extent(shown.any(3).squeeze(1))
    x0, wide, inside_x = _extent(shown.any(2).squeeze(1))
    box = (inside_y[:, :, None] & inside_x[:, None])[:, None].float()
    size = round(person.colour.shape[1] ** 0.5)
    colour = bilinear_bytes(person.colour, (size, size), uv[..., 0] * size - 0.5, uv[..., 1] * size - 0.5)
    colour = colour[:, :3] * covered * box
    # the rim takes a neighbour's colour, so that none of the emptiness beside it blends in
    colour = torch.where(covered > 0, colour, most(colour, 3))
    filled = torch.cat([colour * hidden, hidden * 255], 1).floor().clamp(0, 255)
    # the box has a place of its own in the picture, in whole pixels
    top, bottom = (y0 * (height / rows)).round(), ((y0 + high) * (height / rows)).round()
    left, right = (x0 * (width / columns)).round(), ((x0 + wide) * (width / columns)).round()
    y, within_y = _places(top, bottom, y0, high, height)
    x, within_x = _places(left, right, x0, wide, width)
    ends = (x0, (x0 + wide - 1).clamp_min(0)), (y0, (y0 + high - 1).clamp_min(0))
    over = bytes_at(filled, x, y, *ends) * (within_y[:, :, None] & within_x[:, None])[:, None]
    under = (picture * (255 - over[:, 3:]) / 255).round()
    return (under + over).clamp_max(255)


def _extent(any_there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of (B, n) bool: the first place that is, how many until the last, and which lie between."""
    count = any_there.shape[1]
    steps = torch.arange(count, device=any_there.device)
    first = torch.where(any_there, steps, count).amin(1, keepdim=True)
    last = torch.where(any_there, steps, -1).amax(1, keepdim=True)
    first = first.clamp_max(count - 1)
    return first.float(), (last + 1 - first).clamp_min(0).float(), (steps >= first) & (steps <= last)


def _places(begin: Tensor, end: Tensor, first: Tensor, many: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Along one axis of the picture: where on the grid each pixel lies, and whether it is in the box."""
    steps = torch.arange(count, device=begin.device)
    at = (steps - begin + 0.5).double() * (many.double() / (end - begin).clamp_min(1)) - 0.5 + first
    return at, (steps >= begin) & (steps < end)
