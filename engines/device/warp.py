"""The photo moved by the computed flow, head over body (paper 001, equations 3 and 4).

The twin of `engines.generators.geometric.generator` and `layers`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.device.contours import grown, parted, softened, steps_between
from engines.device.filters import filtered
from engines.device.hidden import with_hidden
from engines.device.packet import Told
from engines.device.rasteriser import rasterise_fixed
from engines.device.sampling import bilinear, bilinear_bytes, resized, rounded
from engines.device.sizes import Grids, Head, Person
from engines.generators.geometric.limits import FIXED_POINT_ROUNDS, HEAD_FROM, RIM_MOVES, RIM_STILL


@dataclass(frozen=True, slots=True)
class Seen:
    """The head on the grid: `uv` (B, h, w, 2), `part` (B, 1, h, w) int64 0 none, `depth` (B, 1, h, w), and whether
    there was room for all of it, `full` (B,)."""

    uv: Tensor
    part: Tensor
    depth: Tensor
    full: Tensor


@dataclass(frozen=True, slots=True)
class Warped:
    """`picture` (B, 4, H, W), `flow` (B, 2, h, w): where each place of the grid comes from in the photo minus where it
    is, in the picture's pixels; `visible` (B, 1, h, w): O_c; `seen`: the head on the grid."""

    picture: Tensor
    flow: Tensor
    visible: Tensor
    seen: Seen


def seen_of(head: Head, person: Person, told: Told, at: Grids) -> Seen:
    """The posed head, rasterised once; the mouth's inside lies behind all skin."""
    sizes = at.sizes
    points = told["vertices"] * at.step
    corners = points.index_select(1, head.triangles.flatten()).unflatten(1, (-1, 3))
    push = head.behind * (told["scale"] * at.step[2])  # (B, T)
    corners = torch.cat([corners[..., :2], corners[..., 2:] + push[:, :, None, None]], -1)
    drawn = rasterise_fixed(corners, person.chosen, sizes.rows, sizes.columns, sizes.pairs, nearer=push)
    number = drawn.triangle.clamp_min(0)
    uv = (head.uv[number] * drawn.weight[..., None]).sum(3)
    part = torch.where(drawn.triangle >= 0, head.part[number], 0)
    return Seen(uv, part[:, None], drawn.depth[:, None], drawn.full)


def warped(head: Head, person: Person, told: Told, at: Grids, seen: Seen) -> Warped:
    """Both layers lie in one canvas, one above the other, so that a single look-up per pixel draws them."""
    sizes = at.sizes
    height, width, h, w = sizes.height_px, sizes.width_px, sizes.rows, sizes.columns
    covered = (seen.part > 0).float()
    size = person.source.shape[3], person.source.shape[2]
    found = bilinear(person.source, seen.uv[..., 0] * size[0] - 0.5, seen.uv[..., 1] * size[1] - 0.5)
    flow, visible = (found[:, :2] - at.source) * covered, found[:, 2:3] * covered
    depth = seen.depth + found[:, 3:] * covered * at.behind
    behind = resized(_body_flow(person, told, at), h, w)
    behind = _rim_flow(person, flow, visible, behind, at)
    both = torch.where(covered > 0, flow, behind)
    below = torch.zeros_like(behind)
    below[:, 1] = sizes.canvas[0] // 2
    # up to the lips' edge, and a little beyond, all is lip: the mouth's inside is painted afterwards
    skin = head.skin[seen.part]
    flow = grown(flow * skin, skin)
    steps = steps_between(depth, flow, skin, at.contour)
    full = parted(resized(flow, height, width), flow, depth, steps, skin, visible, at)
    soft = rounded(filtered(covered * 255, at.edge_rows, at.edge_columns))
    is_head = resized(soft, height, width) > HEAD_FROM
    where = torch.where(is_head, full, resized(behind + below, height, width)) + at.base
    picture = rounded(bilinear_bytes(person.canvas, sizes.canvas, where[:, 0], where[:, 1]))
    picture = with_hidden(head, person, told, seen.uv, seen.part, visible, flow, picture, at)
    picture = softened(picture, covered, depth, flow, behind, at.contour)
    return Warped(picture, both, visible, seen)


def _body_flow(person: Person, told: Told, at: Grids) -> Tensor:
    """(B, 2, g, g'): the body at `s` is drawn at `t = s + w(s) · (M s − s)`, turned round by fixed-point steps."""
    m = told["plane"][:, :, :, None, None]
    source = at.body.expand(len(m), -1, -1, -1)
    for _ in range(FIXED_POINT_ROUNDS):
        x, y = source[:, 0], source[:, 1]
        weight = bilinear(person.follow, x / at.body_step[0] - 0.5, y / at.body_step[1] - 0.5)
        moved = torch.stack([m[:, k, 0] * x + m[:, k, 1] * y + m[:, k, 2] for k in (0, 1)], 1)
        source = at.body - weight * (moved - source)
    return source - at.body


def _rim_flow(person: Person, flow: Tensor, visible: Tensor, behind: Tensor, at: Grids) -> Tensor:
    """`behind`, but along the head's contour the head's own flow, fading outwards; see `geometric.layers.rim_flow`."""
    small = filtered(torch.cat([flow * visible, visible], 1), at.half_rows, at.half_columns)
    total = filtered(small, at.rim_rows, at.rim_columns)
    near = total[:, 2:]
    own = total[:, :2] / near.clamp_min(1e-4)
    rows, columns = near.shape[2:]
    step = columns / at.sizes.width_px
    x = torch.arange(columns, device=flow.device) + own[:, 0] * step
    y = torch.arange(rows, device=flow.device)[:, None] + own[:, 1] * step
    there = filtered(person.head, at.half_rows, at.half_columns)
    weight = (near * 4).clamp_max(1) * (1 - bilinear(there, x, y))
    apart = own - filtered(behind, at.half_rows, at.half_columns)
    far = apart.norm(dim=1, keepdim=True) / at.sizes.width_px
    weight = weight * ((far - RIM_STILL) / (RIM_MOVES - RIM_STILL)).clamp(0, 1)
    return behind + resized(weight * apart, *behind.shape[2:])
