"""Where a packet stands: RTP's 16-bit sequence numbers and 32-bit times, unwrapped, restarts and jumps included."""

from __future__ import annotations

MOST_MISORDER = 100  # RFC 3550 § A.1
MOST_DROPOUT = 3000
JUMP_S = 2.0  # a time that runs ahead of the receiver's clock by more is no pause but another time


def wrapped(difference: int, bits: int) -> int:
    """A difference of two counters of so many bits, taken the short way round."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half


class Sequence:
    """16-bit sequence numbers → places, which never wrap: one more for each packet that was sent."""

    def __init__(self) -> None:
        self.newest: int | None = None  # place
        self.restarts = 0
        self._sequence = self._rtp_time = self._source = 0  # of the newest
        self._believed_next: int | None = None

    def place(self, sequence: int, rtp_time: int, source: int) -> int | None:
        """The packet's place; None for a stray one.

        A number far from the others', or one from behind whose time is ahead, starts a new count if its successor
        comes next (RFC 3550 § A.1); another `source` (SSRC) starts one at once. A new count goes on behind the old.
        """
        if self.newest is None:
            return self._advance(0, sequence, rtp_time, source)
        if source != self._source:
            return self._restart(sequence, rtp_time, source)
        ahead = wrapped(sequence - self._sequence, 16)
        misplaced = ahead < 0 and wrapped(rtp_time - self._rtp_time, 32) > 0
        if misplaced or not -MOST_MISORDER <= ahead <= MOST_DROPOUT:
            if sequence == self._believed_next:
                return self._restart(sequence, rtp_time, source)
            self._believed_next = (sequence + 1) & 0xFFFF
            return None
        if ahead > 0:
            return self._advance(self.newest + ahead, sequence, rtp_time, source)
        return self.newest + ahead

    def _restart(self, sequence: int, rtp_time: int, source: int) -> int:
        assert self.newest is not None
        self.restarts += 1
        return self._advance(self.newest + 1, sequence, rtp_time, source)

    def _advance(self, place: int, sequence: int, rtp_time: int, source: int) -> int:
        self.newest = place
        self._sequence, self._rtp_time, self._source = sequence, rtp_time, source
        self._believed_next = None
        return place

    def number_at(self, place: int) -> int:
        """The 16-bit number of a place near the newest."""
        assert self.newest is not None
        return (self._sequence + place - self.newest) & 0xFFFF


class RtpTime:
    """32-bit RTP times of packets in order → ticks since the first, which only rise."""

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._last: tuple[int, int, float] | None = None  # RTP time, ticks, arrival
        self._step = 0
        self.origin = 0  # the RTP time of tick 0, as the newest packets tell it

    def at(self, rtp_time: int, arrived_ms: float) -> int:
        """The packet's time in ticks.

        A step back, or one of more than `JUMP_S` beyond what has passed since the packet before, is no time: the
        sender counts from elsewhere now. Then the time since that packet's arrival counts, in whole steps.
        """
        if self._last is None:
            self._last, self.origin = (rtp_time, 0, arrived_ms), rtp_time
            return 0
        before, ticks, before_ms = self._last
        passed = max(0.0, arrived_ms - before_ms) * self._clock_hz / 1000
        step = wrapped(rtp_time - before, 32)
        if 0 <= step <= passed + JUMP_S * self._clock_hz:
            self._step = step or self._step
        else:
            usual = self._step or self._clock_hz // 50
            step = max(1, round(passed / usual)) * usual
        self._last = (rtp_time, ticks + step, arrived_ms)
        self.origin = (rtp_time - ticks - step) & 0xFFFFFFFF
        return ticks + step
