"""`coloured`: a flow as colours, for people."""

from __future__ import annotations

import torch
from torch import Tensor


def coloured(flow: Tensor, gain: float) -> Tensor:
    """A flow (B, 2, h, w) in shares of the window → (B, 3, h, w): grey where nothing moves, ± 0.5 / `gain` at most."""
    return torch.cat([flow * gain + 0.5, torch.full_like(flow[:, :1], 0.5)], 1)
