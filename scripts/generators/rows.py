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


TOGETHER_STEPS = 300  # so long rows come from the same few items
_ITEMS_A_ROW = 8  # so many items for each row of a batch


class Draw:
    """Rows to train on, drawn so that an item comes by the square root of its number of rows.

    For `TOGETHER_STEPS` steps they come from a few items, several times as many as a batch has rows: a CPU then uses
    what it has decoded several times, and does not have to keep all.
    """

    def __init__(self, of: Rows, seed: int) -> None:
        self._of, self._seed = of, seed
        self._rows, self._first, self._sum = _items(of.train)

    def rng(self, step: int) -> np.random.Generator:
        """Randomness of a step: the same whenever it is taken."""
        return np.random.default_rng([self._seed, step])

    def rows(self, count: int, step: int, rng: np.random.Generator) -> I64:
        """(count, 2) of a step, `rng` being the step's."""
        if self._of.train is not self._rows:
            self._rows, self._first, self._sum = _items(self._of.train)
        together = np.random.default_rng([self._seed, step // TOGETHER_STEPS, 0])
        items = np.searchsorted(self._sum, together.random(_ITEMS_A_ROW * count))
        item = items[rng.integers(len(items), size=count)]
        first, last = self._first[item], self._first[item + 1]
        return self._rows[first + (rng.random(count) * (last - first)).astype(np.int64)]


def _items(rows: I64) -> tuple[I64, I64, NDArray[np.float64]]:
    """`rows`, which lie item by item; where each item's begin and, last, where they end; weights of items, summed."""
    first = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    ends = np.append(first, len(rows))
    weight = np.sqrt(np.diff(ends))
    total = np.cumsum(weight / weight.sum())
    total[-1] = 1.0
    return rows, ends, total
