"""A flow that is known where the head is drawn, told beyond it too: hair goes with the head, far away nothing moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# what it counts, and (B, 3, h, w): flow where it is known, and how much is known
Level = tuple[float, Tensor]


def carried(flow: Tensor, covered: Tensor, levels: Iterator[Level], still: float) -> Tensor:
    """`flow` (B, 2, h, w) as it is where `covered` (B, 1, h, w) is 1, and elsewhere the mean of what lies around.

    `levels` look ever farther around, of `known(flow, covered)`; `still` is how much "nothing moves" counts.
    """
    total = sum((counts * seen for counts, seen in levels), torch.zeros_like(flow[:, :1]))
    return flow * covered + (1 - covered) * total[:, :2] / (total[:, 2:] + still)


def known(flow: Tensor, covered: Tensor) -> Tensor:
    """(B, 3, h, w): the flow where it is known, and where that is."""
    return torch.cat([flow * covered, covered], 1)


def in_boxes(seen: Tensor, boxes: Sequence[tuple[int, float]]) -> Iterator[Level]:
    """Means over boxes, each taken of the means before: (how far it reaches, what it counts)."""
    for reach, counts in boxes:
        seen = F.avg_pool2d(seen, 2 * reach + 1, 1, reach)
        yield counts, seen


def in_halves(seen: Tensor, finer: float, coarsest: int) -> Iterator[Level]:
    """The grid, and it halved down to `coarsest` places; each counts `finer` as much as the one before."""
    size, counts = seen.shape[2:], 1.0
    yield counts, seen
    while min(seen.shape[2:]) > coarsest:
        seen, counts = F.avg_pool2d(seen, 2), counts * finer
        yield counts, F.interpolate(seen, size=size, mode="bilinear", align_corners=False)


def filled(flow: Tensor, covered: Tensor, coarsest: int = 4) -> Tensor:
    """`flow` (B, 2, h, w) as it is where `covered` (B, 1, h, w) is 1, elsewhere as what lies nearest moves.

    However far away: shoulders stay with the base of the neck. Push and pull over halved sizes.
    """
    levels = [known(flow, covered)]
    while min(levels[-1].shape[2:]) > coarsest:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    found = levels[-1][:, :-1] / levels[-1][:, -1:].clamp_min(1e-3)
    for level in reversed(levels[:-1]):
        below = F.interpolate(found, size=level.shape[2:], mode="bilinear", align_corners=False)
        found = level[:, :-1] + (1 - level[:, -1:]) * below
    return found
