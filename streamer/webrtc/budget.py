"""`Budget`: how often something may be done, on a clock of its user's (a token bucket)."""

from __future__ import annotations


class Budget:
    """`per_s` times a second, `burst` at once after a pause. Not thread-safe."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at_ns: int | None = None

    def take(self, now_ns: int, cost: float = 1.0) -> bool:
        """Whether one more may be done now, or what costs as much as `cost` of them; it is then counted."""
        if self._at_ns is not None:
            passed_s = max(0, now_ns - self._at_ns) / 1e9  # a wall clock may be set back
            self._left = min(self._burst, self._left + passed_s * self._per_s)
        self._at_ns = now_ns
        if self._left < cost:
            return False
        self._left -= cost
        return True
