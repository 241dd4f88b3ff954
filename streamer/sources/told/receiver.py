"""`Receiver`: datagrams of one sender → told moments. Whom to believe, what is too much, when it was; no sockets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engines.motion import Motion
from streamer.drive.told import Told
from streamer.frame import LatencyTrace
from streamer.sources.told.address import ToldAddress
from streamer.sources.told.axes import flipped, mirrored
from streamer.sources.told.reading import BadDatagram, Dialect, Reading
from streamer.sources.told.timing import SenderClock

# A sender of VMC may give each of a hundred bones and shapes a datagram of its own, sixty times a second.
MOST_PER_S = 12_000
_LEAST_STEP_S = 1e-4  # between two moments


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the datagrams: `taken` moments; `bad`, `late`, from `foreign` senders, too many (`flooded`)."""

    taken: int = 0
    bad: int = 0
    late: int = 0
    foreign: int = 0
    flooded: int = 0


class Receiver:
    """One sender's datagrams in the order in which they come. Used by one thread; `counts` may be read from any.

    Bad ones are counted and forgotten: nothing of them is kept, logged or answered.
    """

    def __init__(self, address: ToldAddress, dialect: Dialect) -> None:
        self._address = address
        self._dialect = dialect
        self._clock = SenderClock()
        self._begin_ns: int | None = None
        self._last_s = -_LEAST_STEP_S
        self._second_ns, self._in_second = 0, 0
        self.counts = Counts()
        self.heard_ns: int | None = None  # when the sender last said something of sense

    def take(self, datagram: bytes, sender: str, now_ns: int) -> Told | None:
        """The moment that a datagram from the address `sender` tells; None for all that tells none."""
        if self._address.sender is not None and sender != self._address.sender:
            self.counts = replace(self.counts, foreign=self.counts.foreign + 1)
            return None
        if not self._has_room(now_ns):
            self.counts = replace(self.counts, flooded=self.counts.flooded + 1)
            return None
        try:
            if len(datagram) > self._dialect.most_bytes:
                raise BadDatagram("too long")
            reading = self._dialect.take(datagram)
        except Exception:  # not `BadDatagram` alone: what a stranger finds in us must not end the stream
            self.counts = replace(self.counts, bad=self.counts.bad + 1)
            return None
        self.heard_ns = now_ns
        return None if reading is None else self._told(reading, now_ns)

    def _has_room(self, now_ns: int) -> bool:
        if not 0 <= now_ns - self._second_ns < 1_000_000_000:
            self._second_ns, self._in_second = now_ns, 0
        self._in_second += 1
        return self._in_second <= MOST_PER_S

    def _told(self, reading: Reading, now_ns: int) -> Told | None:
        captured_ns = now_ns
        if reading.sent_s is not None:
            self._clock, sent_s = self._clock.after(reading.sent_s, now_ns / 1e9)
            if sent_s is None:
                self.counts = replace(self.counts, late=self.counts.late + 1)
                return None
            captured_ns = min(now_ns, round(sent_s * 1e9))
        if self._begin_ns is None:
            self._begin_ns = captured_ns
        # a clock that was set anew must not turn media time back
        self._last_s = pts_s = max((captured_ns - self._begin_ns) / 1e9, self._last_s + _LEAST_STEP_S)
        trace = LatencyTrace().mark("captured", captured_ns).mark("received", now_ns)
        sequence = self.counts.taken
        self.counts = replace(self.counts, taken=sequence + 1)
        motion = None if reading.motion is None else self._seen(replace(reading.motion, time_s=pts_s))
        return Told(pts_s, captured_ns, trace, sequence, motion=motion, is_raw=self._dialect.is_raw)

    def _seen(self, motion: Motion) -> Motion:
        motion = flipped(motion, self._address.flips)
        return mirrored(motion) if self._address.mirror else motion
