"""Percentiles of many times: exact ones, and sketched ones in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds below which 50, 95 and 99 % of `count` samples lie."""

    p50: float
    p95: float
    p99: float
    count: int


def percentiles(values_ms: Iterable[float]) -> Percentiles | None:
    """`Percentiles` of the values, linearly interpolated; None when there are none."""
    values = np.fromiter(values_ms, dtype=np.float64)
    if values.size == 0:
        return None
    p50, p95, p99 = (float(p) for p in np.percentile(values, (50, 95, 99)))
    return Percentiles(p50, p95, p99, int(values.size))


class QuantileSketch:
    """Percentiles of any number of values in constant memory, each within 0.5 %.

    Logarithmic bins, as in DDSketch (Masson, Rim and Lee 2019): a bin is 1 % wide, so its middle is within
    0.5 % of whatever fell into it. Values are clamped to 1 µs ... 1000 s.
    """

    _LOW_MS, _HIGH_MS = 1e-3, 1e6
    _LOG_GAMMA = math.log(1.01)
    _LOG_LOW = math.log(_LOW_MS)
    _BINS = int((math.log(_HIGH_MS) - _LOG_LOW) / _LOG_GAMMA) + 1

    def __init__(self) -> None:
        self._counts = [0] * self._BINS  # a list: single increments are several times faster than numpy's
        self._total = 0

    def add(self, value_ms: float) -> None:
        """Count one value."""
        if value_ms <= self._LOW_MS:
            index = 0
        else:
            index = min(int((math.log(value_ms) - self._LOG_LOW) / self._LOG_GAMMA), self._BINS - 1)
        self._counts[index] += 1
        self._total += 1

    def copy(self) -> QuantileSketch:
        """An independent sketch of the same values."""
        twin = QuantileSketch()
        twin._counts, twin._total = self._counts.copy(), self._total
        return twin

    def percentiles(self) -> Percentiles | None:
        """`Percentiles` of everything added so far (nearest rank); None before the first value."""
        if self._total == 0:
            return None
        cumulative = np.cumsum(self._counts)
        ranks = np.ceil(np.array((0.50, 0.95, 0.99)) * self._total)
        middles = np.searchsorted(cumulative, ranks) + 0.5
        p50, p95, p99 = (float(v) for v in np.exp(middles * self._LOG_GAMMA + self._LOG_LOW))
        return Percentiles(p50, p95, p99, self._total)
