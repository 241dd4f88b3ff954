"""`BadLink`: one direction of a bad network, on a virtual clock: which packet is lost, and when the others leave."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

_QUEUE_MS = 300.0
_APART_S = 1e-9  # so that timers keep the order too


@dataclass(frozen=True, slots=True)
class Faults:
    """What a network does to packets. Shares are 0 … 1.

    `burst_packets`: how many are lost in a row on average (Gilbert's model); without it each is lost by itself.
    `jitter_ms`: on top of `delay_ms`, wandering between none and all of it; packets keep their order.
    `late`: the share that comes `late_ms` after its turn, and so out of order. `twice`: comes doubled.
    `rate_kbps`: what gets through; more of it waits, and is lost where it would wait longer than `queue_ms`.
    Blackouts: everything is lost for `blackout_s`, every `blackout_every_s` at its end, by the link's clock.
    """

    loss: float = 0.0
    burst_packets: float | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    late: float = 0.0
    late_ms: float = 60.0
    twice: float = 0.0
    rate_kbps: float | None = None
    queue_ms: float = _QUEUE_MS
    blackout_s: float = 0.0
    blackout_every_s: float = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError for what is no network."""
        if not all(0 <= share <= 1 for share in (self.loss, self.late, self.twice)):
            raise ValueError("loss, late and twice are shares: 0 … 1")
        if min(self.delay_ms, self.jitter_ms, self.late_ms, self.queue_ms, self.blackout_s) < 0:
            raise ValueError("times are not negative")
        if self.burst_packets is not None and self.burst_packets < 1:
            raise ValueError("a burst has at least one packet")
        if self.rate_kbps is not None and self.rate_kbps <= 0:
            raise ValueError("a rate is more than 0 kbit/s")
        if self.blackout_s >= self.blackout_every_s:
            raise ValueError("a blackout is shorter than the time from one to the next")

    def is_out(self, now_s: float) -> bool:
        """Whether there is a blackout, so many seconds after the link began."""
        return now_s % self.blackout_every_s >= self.blackout_every_s - self.blackout_s


class BadLink:
    """All times in seconds since it began; they never go back. The same `seed` and packets give the same faults."""

    def __init__(self, faults: Faults | None = None, seed: int = 0) -> None:
        self.faults = faults or Faults()  # may be replaced at any time
        self.counts: Counter[str] = Counter()  # sent, lost, out, full, late, twice
        self._chance, self._wandering = random.Random(seed), random.Random(seed)
        self._is_in_burst = False
        self._free_s = 0.0  # when the last packet has gone through the bottleneck
        self._last_s = 0.0  # when the last one leaves
        self._wander = (0.0, 0.0, 0.0, 0.0)  # jitter from (s, share) to (s, share)

    def send(self, now_s: float, size_bytes: int) -> list[float]:
        """When a packet leaves: once, twice, or never."""
        faults = self.faults
        self.counts["sent"] += 1
        is_lost = self._loses()  # asked in any case, so that one fault changes nothing of the others
        is_late, is_twice = (self._chance.random() < share for share in (faults.late, faults.twice))
        if faults.is_out(now_s):
            return self._gone("out")
        if is_lost:
            return self._gone("lost")
        through_s = self._through(now_s, size_bytes)
        if through_s is None:
            return self._gone("full")
        leaves_s = through_s + (faults.delay_ms + faults.jitter_ms * self._jitter(now_s)) / 1000
        leaves_s = self._last_s = max(leaves_s, self._last_s + _APART_S)
        if is_late:
            self.counts["late"] += 1
            leaves_s += faults.late_ms / 1000
        if is_twice:
            self.counts["twice"] += 1
            return [leaves_s, leaves_s]
        return [leaves_s]

    def _gone(self, why: str) -> list[float]:
        self.counts[why] += 1
        return []

    def _loses(self) -> bool:
        draw, faults = self._chance.random(), self.faults
        if faults.burst_packets is None or faults.loss in (0.0, 1.0):
            return draw < faults.loss
        ends = 1 / faults.burst_packets
        begins = ends * faults.loss / (1 - faults.loss)
        self._is_in_burst = draw >= ends if self._is_in_burst else draw < begins
        return self._is_in_burst

    def _through(self, now_s: float, size_bytes: int) -> float | None:
        """When the packet has passed the bottleneck; None where too much waits before it."""
        if self.faults.rate_kbps is None:
            return now_s
        begins_s = max(now_s, self._free_s)
        if (begins_s - now_s) * 1000 > self.faults.queue_ms:
            return None
        self._free_s = begins_s + size_bytes * 8 / (self.faults.rate_kbps * 1000)
        return self._free_s

    def _jitter(self, now_s: float) -> float:
        """Share of the jitter: straight from one value by chance to the next, too slowly for packets to overtake."""
        step_s = max(0.02, 2 * self.faults.jitter_ms / 1000)
        begin_s, begin, end_s, end = self._wander
        while now_s >= end_s:
            if now_s > end_s + 10 * step_s:  # nothing was sent for long
                end_s = now_s
            begin_s, begin, end_s, end = end_s, end, end_s + step_s, self._wandering.random()
        self._wander = begin_s, begin, end_s, end
        return begin + (end - begin) * (now_s - begin_s) / (end_s - begin_s)
