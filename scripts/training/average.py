"""The average that follows the weights."""

from __future__ import annotations

import torch
from torch import nn


def follow(average: nn.Module, network: nn.Module, step: int) -> None:
    """Exponential moving average of weights and statistics, quicker at the start."""
    keep = min(0.999, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - keep)
            else:
                slow.copy_(fast)
