"""The average that follows the weights."""

from __future__ import annotations

import torch
from torch import nn

_DIRECTIONS = (".0._u", ".0._v")  # of torch.nn.utils.parametrizations.spectral_norm


class Follower:
    """Moves `average` after `network` in place: exponential moving average of weights and statistics.

    The directions of a spectral norm are copied: the average of two unit vectors is none, and the norm would be taken
    for smaller than it is.
    Both must keep their tensors: what is loaded into them later is copied into these.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        slow, fast = average.state_dict(), network.state_dict()
        taken = {name for name in slow if not slow[name].is_floating_point() or name.endswith(_DIRECTIONS)}
        self._slow = [slow[name] for name in slow if name not in taken]
        self._fast = [fast[name] for name in slow if name not in taken]
        self._taken = [(slow[name], fast[name]) for name in slow if name in taken]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """After step `step`; quicker at the start."""
        keep = min(0.999, (1 + step) / (10 + step))
        # all at once: a launch each would take longer
        torch._foreach_lerp_(self._slow, self._fast, 1 - keep)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        for slow, fast in self._taken:
            slow.copy_(fast)
