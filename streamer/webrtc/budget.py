"""`Budget`: how often something may be done, on a clock of its user's (a token bucket)."""

from __future__ import annotations


class Budget:
    """`per_s` times a second, `burst` at once after a pause. Not thread-safe."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at_ns: int | None = None

    def take(self, now_ns: int) -> bool:
        """Whether one more may be done now; it is then counted."""
        if self._at_ns is not None:
            self._left = min(self._burst, self._left + (now_ns - self._at_ns) / 1e9 * self._per_s)
        self._at_ns = now_ns
        if self._left < 1:
            return False
        self._left -= 1
        return True
