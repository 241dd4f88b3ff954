"""Where one surface passes before another: the twin of `engines.generators.geometric.contours`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engines.device.filters import filtered, least, most, summed
from engines.device.sampling import nearest, resized
from engines.device.sizes import Grids
from engines.generators.geometric.limits import CONTOUR_PX, SEEN, STEP_PX


def grown(values: Tensor, covered: Tensor) -> Tensor:
    """Values (B, C, h, w), 0 where not covered, continued by two pixels beyond the covered ones."""
    rim = (most(covered, 5) != covered).float()
    mean = summed(values, 5) / summed(covered, 5).clamp_min(1e-6)
    return torch.where(rim > 0, mean, values)


def steps_between(depth: Tensor, flow: Tensor, skin: Tensor, contour: float) -> Tensor:
    """(B, 1, h, w) 1 where one surface of the head passes before another and the two move apart."""
    near, far = _range(depth, skin, 2)
    return ((far - near > contour) & (_steepness(flow) > STEP_PX)).float()


def _steepness(flow: Tensor) -> Tensor:
    """The most that `flow` (B, 2, h, w) changes over two grid pixels, in either direction: (B, 1, h, w)."""
    return (most(flow, 2) - least(flow, 2)).amax(1, keepdim=True)


def _range(depth: Tensor, skin: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Nearest and furthest skin around each place; what is no skin is neither."""
    near = least(torch.where(skin > 0, depth, torch.inf), side)
    far = most(torch.where(skin > 0, depth, -torch.inf), side)
    return near, far


def parted(
    full: Tensor, flow: Tensor, depth: Tensor, steps: Tensor, skin: Tensor, visible: Tensor, at: Grids
) -> Tensor:
    """`full` (B, 2, H, W), which is `flow` (B, 2, h, w) enlarged, but along `steps` each side has its own flow."""
    near, far = _range(depth, skin, 5)
    band = most(steps, 5) * skin
    before = (depth < near * 0.5 + far * 0.5).float() * band
    after = band - before
    unknown = most(after * (visible < SEEN).float(), 5)
    chosen = steps * (1 - unknown)
    sides = torch.cat([_without(flow, skin, after), _without(flow, skin, before)], 1)
    sharper = filtered(before - after, at.side_rows, at.side_columns)
    height, width = full.shape[2:]
    beside = nearest(most(chosen, 3), height, width) > 0
    found, side = resized(sides, height, width), resized(sharper, height, width)
    return torch.where(beside, torch.where(side >= 0, found[:, :2], found[:, 2:]), full)


def _without(flow: Tensor, skin: Tensor, side: Tensor) -> Tensor:
    """`flow` but for one side of a contour, over which the other's goes on."""
    kept = skin * (1 - side)
    return grown(flow * kept, kept)


def softened(
    picture: Tensor, covered: Tensor, depth: Tensor, flow: Tensor, behind: Tensor, contour: float
) -> Tensor:
    """The picture, anti-aliased where one surface occludes another, or the body, and both move apart."""
    inner = (most(depth, 2) - least(depth, 2) > contour) & (least(covered, 3) > 0)
    inner = inner & (_steepness(flow) > CONTOUR_PX)
    rim = most(covered, 2) - least(covered, 2) > 0
    jump = inner | (rim & ((flow - behind).abs().amax(1, keepdim=True) > CONTOUR_PX))
    rows, columns = (
        _beside(*sides, jump.device) for sides in zip(picture.shape[2:], jump.shape[2:], strict=True)
    )
    mask = jump.index_select(2, rows).index_select(3, columns)
    mean = functional.avg_pool2d(functional.pad(picture, (1, 1, 1, 1), mode="reflect"), 3, 1)
    return torch.where(mask, mean.round(), picture)


def _beside(size_px: int, count: int, device: torch.device) -> Tensor:
    """(size_px,): of `count` grid pixels the one whose beginning, between it and the one before, is nearest."""
    at = (torch.arange(size_px, device=device, dtype=torch.float64) + 0.5) * count / size_px + 0.5
    return at.clamp_max(count - 1).long()
