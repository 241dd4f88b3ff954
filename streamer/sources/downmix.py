"""`Downmix`: several channels of sound as one, without what opposite channels would take from each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_MEMORY_S = 1.0
# energy of the sum to the sum of energies: 0 for opposite channels, 1 for unrelated ones, their number for equal ones
_CANCEL, _AGREE = 0.3, 0.6
_NOTICED_S = 1.0
_AUDIBLE = 1e-7  # mean square, −70 dB


@dataclass(frozen=True, slots=True)
class Downmix:
    """What was heard of a stream's channels: energies of the last second, and whether they take each other away.

    `opposite_s` counts the seconds in which they did.
    """

    energies: tuple[float, ...] = ()
    of_the_sum: float = 0.0
    loudest: int = 0
    opposite: bool = False
    opposite_s: float = 0.0

    def after(self, samples: F32, rate_hz: float) -> tuple[F32, Downmix]:
        """(S,) float32 of (C, S) samples, and what is known after them: their mean, or the loudest of opposite ones."""
        count, length = samples.shape
        if count == 1 or not length:
            return samples.mean(0, dtype=np.float32), self
        before = self if len(self.energies) == count else Downmix((0.0,) * count, opposite_s=self.opposite_s)
        seconds = length / rate_hz
        old = math.exp(-seconds / _MEMORY_S)
        each = np.square(samples, dtype=np.float64).mean(1)
        total = float(np.square(samples.sum(0, dtype=np.float64)).mean())
        energies = tuple(old * a + (1 - old) * float(b) for a, b in zip(before.energies, each, strict=True))
        of_the_sum = old * before.of_the_sum + (1 - old) * total
        opposite = before.opposite
        if sum(energies) > (1 - old) * _AUDIBLE:  # silence says nothing
            opposite = of_the_sum < (_AGREE if opposite else _CANCEL) * sum(energies)
        loudest = int(np.argmax(energies))
        if energies[loudest] < 2 * energies[before.loudest]:
            loudest = before.loudest  # of two that are equally loud always the same
        heard = opposite and float(each.sum()) > _AUDIBLE
        now = replace(
            before,
            energies=energies,
            of_the_sum=of_the_sum,
            loudest=loudest,
            opposite=opposite,
            opposite_s=before.opposite_s + (seconds if heard else 0.0),
        )
        mono = samples[loudest] if opposite else samples.mean(0, dtype=np.float32)
        return mono, now

    def notice(self, what: str) -> str | None:
        """What to tell of the sound of `what`; None while all is well."""
        if self.opposite_s < _NOTICED_S:
            return None
        return f"the channels of {what} are each other's opposite (swapped wires in a cable?); only one was heard"
