"""The average that follows the weights."""

from __future__ import annotations

import torch
from torch import nn


class Follower:
    """Moves `average` after `network` in place: exponential moving average of weights and statistics.

    Both must keep their tensors: what is loaded into them later is copied into these.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
        self._slow = [slow for slow, _ in pairs if slow.is_floating_point()]
        self._fast = [fast for slow, fast in pairs if slow.is_floating_point()]
        self._counts = [(slow, fast) for slow, fast in pairs if not slow.is_floating_point()]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """After step `step`; quicker at the start."""
        keep = min(0.999, (1 + step) / (10 + step))
        # all at once: a launch each would take longer
        torch._foreach_lerp_(self._slow, self._fast, 1 - keep)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        for slow, fast in self._counts:
            slow.copy_(fast)
