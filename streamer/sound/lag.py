"""`PictureLag`: how long a picture takes from its capture until it leaves, smoothed, for the sound to wait as long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from streamer.frame import LatencyTrace

_FOLLOW = 0.05  # of each new picture
MOST_S = 1.0


@dataclass(frozen=True, slots=True)
class PictureLag:
    """`seconds`: None before the first picture."""

    seconds: float | None = None

    def after(self, trace: LatencyTrace) -> PictureLag:
        """With one more picture that has left."""
        captured_ns, sent_ns = trace.stamps_ns.get("captured"), trace.stamps_ns.get("sent")
        if captured_ns is None or sent_ns is None:
            return self
        took_s = min(MOST_S, max(0.0, (sent_ns - captured_ns) / 1e9))
        before_s = took_s if self.seconds is None else self.seconds
        return replace(self, seconds=before_s + _FOLLOW * (took_s - before_s))
