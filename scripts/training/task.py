"""What a network brings to be trained: itself, its batches and its losses. `scripts/training/loop.py` does the rest."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

B = TypeVar("B")  # a batch


class Task(ABC, Generic[B]):
    """One training on `device`; one object serves one `Training`."""

    name: str  # a checkpoint of another name is refused
    device: torch.device
    most_gradient: float = 1.0  # its norm is cut to this

    @abstractmethod
    def network(self) -> nn.Module:
        """Fresh, on the CPU, from torch's current seed."""

    @abstractmethod
    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """Of a network that is on its device."""

    @abstractmethod
    def rate(self, step: int, spent: float) -> float:
        """Learning rate of a step, at `spent` (0 … 1) of the time budget.

        By the step alone where a training that was cut off must go on as if it had not been.
        """

    @abstractmethod
    def batch(self, step: int, rows: int) -> B:
        """What step `step` learns from, `rows` of it. The same whenever, and in whichever thread, it is made."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: B, step: int) -> dict[str, Tensor]:
        """Weighted losses by name, whose sum is made less; never waits for the device."""

    def after_step(self, step: int) -> dict[str, Tensor]:
        """What else learns in a step, once the network has; numbers for the table, left on the device."""
        return {}

    def phase(self, step: int) -> Hashable:
        """Whatever `losses` and `after_step` take from the number of the step, such as which losses count yet.

        Steps of one phase differ by their batch alone.
        """
        return None

    def state(self) -> dict[str, Any]:
        """What else a checkpoint must hold."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""

    def figures(self, average: nn.Module) -> dict[str, float]:
        """How the averaged network does on held-out people; none: it is not judged while it trains."""
        return {}

    def judged_by(self) -> str:
        """Whom the last `figures` are of: scores of others are no measure for theirs."""
        return ""

    def score(self, figures: Mapping[str, float]) -> float:
        """One number to choose the best weights by, lower is better."""
        return math.inf

    def picture(self, average: nn.Module) -> NDArray[np.uint8] | None:
        """(H, W, 3) RGB: what the averaged network does, for people to look at."""
        return None
