"""What steps give, left on the device until somebody wants to know: each fetch from a GPU waits for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.training.errors import TrainingError


class Values:
    """Named numbers of the steps that were not fetched yet."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Sequence[str], Tensor]] = []

    def add(self, step: int, names: Sequence[str], numbers: Tensor) -> None:
        """`numbers` (n,) of step `step`, by `names`."""
        self._waiting.append((step, names, numbers))

    def fetch(self) -> list[dict[str, float]]:
        """Those of each step since the last fetch, in one transfer.

        Raises TrainingError for the first step with a number that is not finite.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return []
        flat: list[float] = torch.cat([numbers for _, _, numbers in waiting]).tolist()
        rows: list[dict[str, float]] = []
        begin = 0
        for step, names, _ in waiting:
            row = dict(zip(names, flat[begin : begin + len(names)], strict=True))
            begin += len(names)
            _require_finite(step, row)
            rows.append(row)
        return rows


def _require_finite(step: int, row: dict[str, float]) -> None:
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        # the sum is bad because one of them is, and so is the gradient
        causes = [name for name in bad if name not in (TOTAL, GRADIENT)]
        raise TrainingError(
            f"step {step}: the loss is not a number ({', '.join(causes or bad)}); the last checkpoint is kept: "
            "run again with a lower --rate (half of it)"
        )


TOTAL, GRADIENT = "total", "gradient"
