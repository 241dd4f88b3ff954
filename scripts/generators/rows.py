"""Which rows make the batch of a step: the same for the same seed, step and rows."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]


class Rows(Protocol):
    """What there is to train on and to judge by: rows (n, 2) of item and pair.

    More may come; then they are new arrays.
    """

    @property
    def train(self) -> I64: ...
    @property
    def held_out(self) -> I64: ...
    def name_of(self, item: int) -> str:
        """The same whenever and in whichever order items come."""
        ...


class Draw:
    """Rows to train on, drawn so that an item comes by the square root of its number of rows."""

    def __init__(self, of: Rows, seed: int) -> None:
        self._of, self._seed = of, seed
        self._rows, self._sum = _weighted(of.train)

    def rng(self, step: int) -> np.random.Generator:
        """Randomness of a step: the same whenever it is taken."""
        return np.random.default_rng([self._seed, step])

    def rows(self, count: int, rng: np.random.Generator) -> I64:
        """(count, 2)."""
        if self._of.train is not self._rows:
            self._rows, self._sum = _weighted(self._of.train)
        rows, total = self._rows, self._sum
        return rows[np.minimum(np.searchsorted(total, rng.random(count)), len(rows) - 1)]


def _weighted(rows: I64) -> tuple[I64, NDArray[np.float64]]:
    counts = np.bincount(rows[:, 0])
    weight = 1 / np.sqrt(counts[rows[:, 0]])
    return rows, np.cumsum(weight / weight.sum())
