"""`MediaClock`: when sound and pictures of one sender were captured, on one time line. Pure.

What arrives has a media time of its own stream. A delay only ever makes it later, so the earliest arrivals say best
when it was captured; and where the sender tells of both streams at what time of its own clock they were (RTCP sender
reports, RFC 3550 § 6.4.1), they lie on one line exactly, whatever their encoders and the network did to each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["sound", "pictures"]

RISE = 2e-4  # clocks of computers differ by less: so fast the earliest is forgotten
JUMP_NS = 5e8  # further off than this is another clock, and no correction
CLOCK_SET_NS = 1e9  # a sender's wall clock that moves by more was set
SLEW_S = 1.0  # time constant of corrections
_REPORT_SHARE = 0.25  # of each new report: one is off by what keeps its sender busy


@dataclass(frozen=True, slots=True)
class Line:
    """Media time ↔ this computer's monotonic time, in ns: `origin_ns` is when media time 0 was."""

    origin_ns: float

    def at_ns(self, media_ns: float) -> float:
        """When `media_ns` was."""
        return self.origin_ns + media_ns

    def media_ns(self, at_ns: float) -> float:
        """Which media time it was at `at_ns`."""
        return at_ns - self.origin_ns

    def towards(self, origin_ns: float, share: float) -> Line:
        """Moved by `share` of the way to another origin; at once where that is another clock's."""
        off_ns = origin_ns - self.origin_ns
        return Line(origin_ns if abs(off_ns) > JUMP_NS else self.origin_ns + share * off_ns)


@dataclass(frozen=True, slots=True)
class Earliest:
    """The least of differences that delays can only enlarge, seen last at `at_ns`."""

    least_ns: float
    at_ns: float

    def after(self, seen_ns: float, at_ns: float) -> Earliest:
        """With one more: less is believed at once, more hardly."""
        risen_ns = self.least_ns + RISE * max(0.0, at_ns - self.at_ns)
        return Earliest(min(risen_ns, seen_ns), at_ns)


def earliest(before: Earliest | None, seen_ns: float, at_ns: float) -> Earliest:
    """`before` with one more, or the first one."""
    return Earliest(seen_ns, at_ns) if before is None else before.after(seen_ns, at_ns)


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of a sender; the time of sound is that of the sample that is captured when its packet leaves.

    `lead_ns`: how long its encoder holds it back without saying so.

    `arrival`: arrival − media time; `reported_ns`: the sender's wall clock at media time 0; `line`: what is told.
    """

    lead_ns: float = 0.0
    arrival: Earliest | None = None
    reported_ns: float | None = None
    line: Line | None = None
    moved_ns: float = 0.0


@dataclass(frozen=True, slots=True)
class MediaClock:
    """Both streams of a sender; `offset`: this computer's monotonic time − the sender's wall clock."""

    sound: Stream = Stream()
    pictures: Stream = Stream()
    offset: Earliest | None = None

    def reported(self, kind: Kind, media_ns: float, wall_ns: float) -> MediaClock:
        """With a sender report: `media_ns` of that stream was, or left, at `wall_ns` of the sender's clock."""
        stream = self.of(kind)
        seen_ns = wall_ns - media_ns
        before_ns = stream.reported_ns
        if before_ns is None or abs(seen_ns - before_ns) > JUMP_NS:
            moved = self._with(kind, replace(stream, reported_ns=seen_ns))
            was_set = before_ns is not None and abs(seen_ns - before_ns) > CLOCK_SET_NS
            return replace(moved, offset=None) if was_set else moved
        return self._with(
            kind, replace(stream, reported_ns=before_ns + _REPORT_SHARE * (seen_ns - before_ns))
        )

    def arrived(self, kind: Kind, media_ns: float, at_ns: float) -> MediaClock:
        """With what has this media time having arrived at `at_ns`."""
        stream = self.of(kind)
        stream = replace(stream, arrival=earliest(stream.arrival, at_ns - media_ns, at_ns))
        offset = self.offset
        if stream.reported_ns is not None:
            offset = earliest(offset, at_ns - media_ns - stream.reported_ns, at_ns)
        moved = replace(self._with(kind, stream), offset=offset)
        return moved._with(kind, _settled(stream, moved._origin_ns(stream), at_ns))

    def captured_ns(self, kind: Kind, media_ns: float) -> float | None:
        """When what has this media time was captured; None before anything of the stream arrived."""
        stream = self.of(kind)
        return None if stream.line is None else stream.line.at_ns(media_ns) - stream.lead_ns

    def of(self, kind: Kind) -> Stream:
        """That stream."""
        return self.sound if kind == "sound" else self.pictures

    def _with(self, kind: Kind, stream: Stream) -> MediaClock:
        return replace(self, sound=stream) if kind == "sound" else replace(self, pictures=stream)

    def _origin_ns(self, stream: Stream) -> float:
        """Where media time 0 of `stream` should lie: by reports once all streams that came have them."""
        assert stream.arrival is not None
        come = [s for s in (self.sound, self.pictures) if s.arrival is not None]
        if self.offset is None or stream.reported_ns is None or any(s.reported_ns is None for s in come):
            return stream.arrival.least_ns
        return stream.reported_ns + self.offset.least_ns


def _settled(stream: Stream, origin_ns: float, at_ns: float) -> Stream:
    """`stream` with its line moved to where it should lie, smoothly: nobody hears or sees a correction."""
    if stream.line is None:
        return replace(stream, line=Line(origin_ns), moved_ns=at_ns)
    share = 1 - math.exp(-max(0.0, at_ns - stream.moved_ns) / 1e9 / SLEW_S)
    return replace(stream, line=stream.line.towards(origin_ns, share), moved_ns=at_ns)
