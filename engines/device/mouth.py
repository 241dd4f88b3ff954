"""The inside of the mouth, painted: the twin of `engines.generators.geometric.mouth_inside`."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.device.filters import ellipse_most, filtered
from engines.device.packet import Told
from engines.device.rasteriser import rasterise_fixed
from engines.device.sampling import Patch, bilinear
from engines.device.sizes import Grids, Head, Person
from engines.generators.geometric.limits import (
    CAVITY,
    INSIDE_DEEPEST,
    INSIDE_DEPTH_HU,
    INSIDE_NEAREST,
    LOWER_TEETH,
    TONGUE,
    UPPER_TEETH,
)

_PAIRS = 8  # for each pixel of the square


def with_mouth(head: Head, person: Person, told: Told, at: Grids, picture: Tensor) -> tuple[Tensor, Tensor]:
    """The seam of closed lips, then what shows between open ones; and (B,) whether there was no room for it."""
    sizes = at.sizes
    side = sizes.mouth_px
    patch = Patch(told["mouth_corner"], side, sizes.height_px, sizes.width_px)
    box = told["mouth_box"]
    seam = told["seam"][:, None].float() / 255
    opaque = torch.full_like(seam, 255)
    painted = torch.cat([person.seam_rgb[:, :, None, None].expand(-1, -1, side, side), opaque], 1)
    under = (patch.read(picture) * (1 - seam) + painted * seam + 0.5).floor()
    inside, full = _interior(head, person, told, patch, box, at)
    gap, _, _, _, own_lit, left, right, _ = (n[:, None, None] for n in told["mouth_numbers"].unbind(1))
    inside = inside * _lip_shadow(patch, box, gap)[:, None] * _corner_shadow(patch, left, right)[:, None]
    m = told["mouth_affine"][:, :, :, None, None]
    x, y = patch.x - box[:, 0, None, None], patch.y - box[:, 1, None, None]
    place = (m[:, k, 0] * x + m[:, k, 1] * y + m[:, k, 2] for k in (0, 1))
    own = bilinear(person.own_mouth, *place, beyond="zeros") * own_lit[:, None]
    inside = inside * (1 - own[:, 3:] / 255) + own[:, :3]
    mask = told["mouth_mask"][:, None].float() / 255
    drawn = (under * (1 - mask) + torch.cat([inside, opaque], 1) * mask + 0.5).clamp(0, 255).floor()
    return patch.written(picture, drawn), full & (told["mouth_mask"].flatten(1).amax(1) > 0)


def _interior(
    head: Head, person: Person, told: Told, patch: Patch, box: Tensor, at: Grids
) -> tuple[Tensor, Tensor]:
    """Cavity, tongue and teeth (B, 3, side, side) float, not rounded."""
    side = patch.side
    cavity, tongue_rgb = (c[:, :, None, None] for c in (person.cavity_rgb, person.tongue_rgb))
    if not len(head.inner):
        return (cavity * 0.7).expand(-1, -1, side, side), torch.zeros_like(box[:, 0], dtype=torch.bool)
    moved = told["vertices"] + head.upper * told["teeth_px"][:, None]
    moved = moved + head.lower * told["lower_teeth_px"][:, None] + head.tongue * told["tongue_px"][:, None]
    corners = moved.index_select(1, head.inner.flatten()).unflatten(1, (-1, 3))
    corner = torch.cat([patch.x[:, 0, :1], patch.y[:, :1, 0], torch.zeros_like(patch.x[:, 0, :1])], 1)
    chosen = torch.ones(1, len(head.inner), dtype=torch.bool, device=box.device)
    drawn = rasterise_fixed(corners - corner[:, None, None], chosen, side, side, _PAIRS * side * side)
    within = patch.within(box)
    number = drawn.triangle.clamp_min(0)
    kind = torch.where(within & (drawn.triangle >= 0)[:, None], head.kind[number][:, None], 0)
    _, lip, hidden, lit, _, _, _, _ = (n[:, None, None, None] for n in told["mouth_numbers"].unbind(1))
    scale = told["scale"][:, :, None, None]
    light = torch.exp(-(drawn.depth[:, None] - lip).clamp_min(0) / (INSIDE_DEPTH_HU * scale))
    out = (cavity * INSIDE_DEEPEST).expand(-1, -1, side, side)
    out = torch.where(_is(kind, CAVITY), cavity * light, out)
    # the floor before the tongue is as red as it is; no dark thread between it and the wall
    red = _is(kind, TONGUE).int().cumsum(2) > 0
    out = torch.where(red, tongue_rgb * light.clamp_max(INSIDE_NEAREST) ** 2, out)
    out = ellipse_most(torch.where(within, out, -torch.inf), told["thread"])
    out = -ellipse_most(torch.where(within, -out, -torch.inf), told["thread"])
    out = torch.where(within & torch.isfinite(out), out, cavity * INSIDE_DEEPEST)
    arch = (head.arch[number] * drawn.weight[..., None]).sum(3)
    for row, code in ((0, UPPER_TEETH), (1, LOWER_TEETH)):
        texture = person.teeth[:, row]
        high, wide = texture.shape[2:]
        colour = bilinear(texture, arch[..., 0] * wide - 0.5, arch[..., 1] * high - 0.5)
        shown = 1 - hidden if row == 0 else torch.ones_like(hidden)
        colour = cavity + lit * (colour * (0.25 + 0.75 * light * light) - cavity)
        # of teeth that hardly reach out of the gum no thread shows
        own = -ellipse_most(torch.where(within, -_is(kind, code).float(), -torch.inf), told["thread"])
        own = ellipse_most(torch.where(within, own, -torch.inf), told["thread"]) > 0
        out = torch.where(own & _is(kind, code), out + shown * (colour - out), out)
    return filtered(out, at.mouth, at.mouth), drawn.full


def _is(kind: Tensor, code: float) -> Tensor:
    return (kind - code).abs() < 0.1


def _lip_shadow(patch: Patch, box: Tensor, gap_hu: Tensor) -> Tensor:
    """(B, side, 1): the upper lip shades what is right below it."""
    y0, y1 = box[:, 1, None, None], box[:, 3, None, None]
    rows = (patch.y - y0) / (y1 - y0 - 1).clamp_min(1)
    return 1 - torch.where(gap_hu > 0.03, 0.45, 0.25) * torch.exp(-rows.clamp_min(0) / 0.22)


def _corner_shadow(patch: Patch, left: Tensor, right: Tensor) -> Tensor:
    """(B, 1, side): towards the corners it is dark."""
    place = ((patch.x + 0.5 - left) / (right - left).clamp_min(1e-3) * 2 - 1).abs()
    return 1 - 0.6 * ((place - 0.7) / 0.3).clamp(0, 1) ** 2
