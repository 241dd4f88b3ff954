"""How much of one thing is another's, eased over time."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Share:
    """`value` 0 … 1, and when that was; a full way takes `fade_s`. At its first moment it is where it should be."""

    fade_s: float
    value: float = 0.0
    time_s: float | None = None

    def towards(self, wanted: bool, time_s: float) -> Share:
        """At `time_s`, on the way to 1 where `wanted`, else to 0."""
        step = 1.0 if self.time_s is None else max(0.0, time_s - self.time_s) / self.fade_s
        value = min(1.0, self.value + step) if wanted else max(0.0, self.value - step)
        return replace(self, value=value, time_s=time_s)
