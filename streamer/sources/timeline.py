"""`Timeline`: the times of one stream, always rising, whatever its stamps do."""

from __future__ import annotations

from dataclasses import dataclass, replace

BACK_S = 1.0  # a step back by more is another recording behind the first, or a clock that wrapped
FORWARD_S = 600.0  # and so is a longer hole; a shorter one is a pause


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where the last piece of a stream was put, `last_s`, in seconds; `step_s` is the usual distance.

    `in_order`: its presentation times cannot be believed, as in AVI, which has none, or after one that ran backwards:
    what comes out of the decoder then takes the decoding times in their order.
    """

    step_s: float
    in_order: bool = False
    shift_s: float = 0.0
    last_s: float | None = None

    def after(self, pts_s: float | None, dts_s: float | None) -> Timeline:
        """The timeline after the next piece, in the order of showing; `dts_s` is the next decoding time in order."""
        stamp_s = dts_s if self.in_order or pts_s is None else pts_s
        if self.last_s is None:
            return replace(self, last_s=stamp_s if stamp_s is not None else pts_s or 0.0)
        next_s = self.last_s + self.step_s
        if stamp_s is None:
            return replace(self, last_s=next_s)
        time_s = stamp_s + self.shift_s
        if not self.last_s - BACK_S < time_s < self.last_s + FORWARD_S:
            return replace(self, shift_s=self.shift_s + next_s - time_s, last_s=next_s)
        if time_s > self.last_s:
            return replace(self, last_s=time_s)
        if not self.in_order and dts_s is not None:
            return replace(self, in_order=True).after(pts_s, dts_s)
        return replace(self, last_s=next_s)

    def lasting(self, step_s: float) -> Timeline:
        """The same where the last piece is `step_s` long."""
        return replace(self, step_s=step_s)
