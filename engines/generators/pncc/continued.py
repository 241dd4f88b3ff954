"""A flow that is known where the head is drawn, continued to where it is not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_COARSEST_PX = 4


def continued(flow: Tensor, covered: Tensor) -> Tensor:
    """`flow` (B, 2, h, w) as it is where `covered` (B, 1, h, w) is 1, elsewhere as what lies nearest moves.

    Hair goes with the head, shoulders stay with the base of the neck. Push and pull over halved sizes.
    """
    levels = [torch.cat([flow * covered, covered], 1)]
    while min(levels[-1].shape[2:]) > _COARSEST_PX:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    found = levels[-1][:, :-1] / levels[-1][:, -1:].clamp_min(1e-3)
    for level in reversed(levels[:-1]):
        below = F.interpolate(found, size=level.shape[2:], mode="bilinear", align_corners=False)
        found = level[:, :-1] + (1 - level[:, -1:]) * below
    return found
