"""Bootstrap intervals over people, and paired comparisons with a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.geometry import F64

ROUNDS = 2000
LEAST_SUBJECTS = 3  # fewer people tell nothing of how people differ
Kind = Literal["difference", "ratio"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, difference or ratio with its 95 % interval, over `count` values of `subjects` people.

    The interval is NaN for fewer than three people; everything is NaN for none.
    """

    value: float
    low: float
    high: float
    count: int
    subjects: int

    def excludes(self, value: float) -> bool:
        """Whether the interval lies wholly on one side of `value`."""
        return self.low > value or self.high < value


def with_interval(e: Estimate, digits: int) -> str:
    """A difference with its sign and, where it is known, between what it lies."""
    interval = f" [{e.low:+.{digits}f}, {e.high:+.{digits}f}]" if np.isfinite(e.low) else ""
    return f"{e.value:+.{digits}f}{interval}"


@dataclass(frozen=True, slots=True)
class _Sums:
    """Per subject (S,): sums of the values, of the baseline's, and how many."""

    ours: F64
    theirs: F64
    count: F64


def _sums(ours: F64, theirs: F64, subjects: Sequence[str]) -> _Sums:
    known = np.isfinite(ours) & np.isfinite(theirs)
    names, index = np.unique(np.asarray(subjects)[known], return_inverse=True)
    size = len(names)

    def add(values: F64) -> F64:
        return np.bincount(index, values, size).astype(np.float64)

    return _Sums(add(ours[known]), add(theirs[known]), add(np.ones(int(known.sum()))))


def _draws(subjects: int, rounds: int) -> F64:
    """(rounds, S): how often each subject is drawn; always the same, so that tables repeat."""
    rng = np.random.default_rng(20240501)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), rounds).astype(np.float64)


def mean(values: F64 | Sequence[float], subjects: Sequence[str], rounds: int = ROUNDS) -> Estimate:
    """Mean of `values` (N,), its interval by drawing whole subjects with replacement (Efron & Tibshirani 1993).

    Values that are not finite are left out. Frames of one person are alike, so people are what is drawn.
    """
    zero = np.zeros(len(values))
    return compare(np.asarray(values, np.float64), zero, subjects, "difference", rounds)


def compare(ours: F64, theirs: F64, subjects: Sequence[str], kind: Kind, rounds: int = ROUNDS) -> Estimate:
    """mean(ours) − mean(theirs), or their ratio, over the N pairs in which both are finite.

    Paired: a draw takes a subject with both its values, so what makes a person hard cancels.
    """
    sums = _sums(np.asarray(ours, np.float64), np.asarray(theirs, np.float64), subjects)
    count, people = int(sums.count.sum()), len(sums.count)
    if not count:
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    value = _statistic(sums.ours.sum(), sums.theirs.sum(), sums.count.sum(), kind)
    if people < LEAST_SUBJECTS:
        return Estimate(float(value), np.nan, np.nan, count, people)
    drawn = _draws(people, rounds)
    spread = _statistic(drawn @ sums.ours, drawn @ sums.theirs, drawn @ sums.count, kind)
    low, high = (float(v) for v in np.percentile(spread, [2.5, 97.5]))
    return Estimate(float(value), low, high, count, people)


def _statistic(ours: F64, theirs: F64, count: F64, kind: Kind) -> F64:
    if kind == "ratio":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(theirs == 0, np.inf, ours / theirs)
    return (ours - theirs) / count
