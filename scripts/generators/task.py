"""What a generator brings to be trained by `scripts/train.py`: networks, batches, losses, figures, pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from engines.generators.networked.lesson import Outcome, Teaching
from scripts.generators.rows import Rows

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Before:
    """What was spent on weights that a training begins from: all trainings before it together."""

    steps: int = 0
    samples: int = 0
    minutes: float = 0.0


class GeneratorTask(ABC):
    """One generator's training. Stateless but for its settings."""

    name: str
    teaching: Teaching = Teaching()
    # size of the window, (w, h): figures at one size say nothing of those at another
    window_px: tuple[int, int] = (0, 0)
    # what the weights had learned before this training, to be told in what it saves; kept in its checkpoints
    before: Before = Before()

    @abstractmethod
    def networks(self) -> nn.Module:
        """Fresh networks, from torch's current seed."""

    @abstractmethod
    def batch(self, pairs: Rows, rows: NDArray[np.int64], rng: np.random.Generator | None) -> Batch:
        """Rows (n, 2) as tensors on the CPU or the device, augmented when `rng` is given."""

    @abstractmethod
    def outcome(self, networks: nn.Module, batch: Batch, step: int) -> Outcome:
        """Forward and losses, without waiting for the device. `step` lets some losses begin later: see `phase`."""

    @abstractmethod
    def figures(self, networks: nn.Module, batch: Batch) -> dict[str, NDArray[np.float64]]:
        """Figures of each row, in pairs `x` of the networks and `x_base` of what they must beat; lower is better."""

    @abstractmethod
    def grid(self, networks: nn.Module, batch: Batch) -> NDArray[np.uint8]:
        """A picture for people: photo, ours, truth …; RGB."""

    def discriminators(self) -> dict[str, nn.Module]:
        """Fresh discriminators by the name of what they tell real from made; none by default."""
        return {}

    def phase(self, step: int) -> Hashable:
        """Whatever `outcome` takes from the number of the step: it gives the same for all steps of one phase."""
        return None
