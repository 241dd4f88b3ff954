"""`Lag`: how long sound or pictures take from their capture on, smoothed, for the other to wait as long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamer.frame import LatencyTrace

FOLLOW = 0.05  # of each new one
MOST_S = 1.0
FAR_S = 0.04  # nobody's jitter: something takes another time now …
FAR_SHARE = 0.2
FAR_TIMES = 15  # … once so many in a row say so


@dataclass(frozen=True, slots=True)
class Lag:
    """`seconds`: None before the first. `far_s`: those in a row, on one side, that are far from it.

    It goes `follow` of the way to each new one.
    """

    seconds: float | None = None
    far_s: tuple[float, ...] = ()
    follow: float = FOLLOW
    far_times: int = FAR_TIMES

    def after_s(self, took_s: float) -> Lag:
        """With one more that took so long."""
        took_s = min(MOST_S, max(0.0, took_s))
        if self.seconds is None:
            return replace(self, seconds=took_s)
        off_s = took_s - self.seconds
        same_side = not self.far_s or (self.far_s[-1] - self.seconds) * off_s > 0
        far_s = (*self.far_s, took_s) if abs(off_s) > FAR_S and same_side else ()
        if len(far_s) >= self.far_times:
            return replace(self, seconds=sorted(far_s)[len(far_s) // 2], far_s=())
        # what may be another time altogether is waited for, and not run after in many steps
        share = self.follow if abs(off_s) <= FAR_S else self.follow * FAR_SHARE
        return replace(self, seconds=self.seconds + share * off_s, far_s=far_s)

    def after(self, trace: LatencyTrace) -> Lag:
        """With one more picture that has left."""
        captured_ns, sent_ns = trace.stamps_ns.get("captured"), trace.stamps_ns.get("sent")
        if captured_ns is None or sent_ns is None:
            return self
        return self.after_s((sent_ns - captured_ns) / 1e9)
