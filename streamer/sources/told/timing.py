"""When a told motion was true, by our clock, and when a phone is to be asked again: pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace

_WINDOW_S = 5.0  # the quickest datagram of the last one or two such spans says how clocks differ
_OUT_OF_ORDER_S = (
    1.0  # so much older than the newest: late; older still: the sender's clock was set, or it began anew
)
_ASTRAY_S = 5.0  # no network keeps a datagram for so long

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0
FLOWS_S = 2.0  # nothing for so long: it does not flow


@dataclass(frozen=True, slots=True)
class SenderClock:
    """How a sender's clock and ours differ: by as much as the quickest datagram of late took.

    What that one took itself cannot be told from one side: times are early by the way's least delay, and steady.
    """

    newest_s: float | None = None
    least_s: float = 0.0  # arrival − sending, in the window that runs
    before_s: float | None = None  # the same, in the window before
    began_s: float = 0.0

    def after(self, sent_s: float, arrived_s: float) -> tuple[SenderClock, float | None]:
        """The same after a datagram, and when by our clock it was sent; None for one that is late or came twice."""
        took_s = arrived_s - sent_s
        if self.newest_s is None:
            return SenderClock(sent_s, took_s, None, arrived_s), arrived_s
        if sent_s <= self.newest_s and self.newest_s - sent_s <= _OUT_OF_ORDER_S:
            return self, None
        if sent_s < self.newest_s or abs(took_s - self._least_s) > _ASTRAY_S:
            return SenderClock(sent_s, took_s, None, arrived_s), arrived_s
        now = replace(self, newest_s=sent_s, least_s=min(self.least_s, took_s))
        if arrived_s - self.began_s >= _WINDOW_S:
            now = SenderClock(sent_s, took_s, now.least_s, arrived_s)
        return now, sent_s + now._least_s

    @property
    def _least_s(self) -> float:
        return self.least_s if self.before_s is None else min(self.least_s, self.before_s)


@dataclass(frozen=True, slots=True)
class Asking:
    """When a phone was asked last. While it answers, each `keep_s` (None: not at all), else ever less often."""

    keep_s: float | None
    asked_s: float | None = None
    wait_s: float = 0.0  # of silence since it was asked, until it is asked again

    def after(self, now_s: float, heard_s: float | None) -> tuple[Asking, bool]:
        """The same at `now_s`, and whether it is to be asked now; it was heard last at `heard_s`."""
        flows = heard_s is not None and now_s - heard_s < FLOWS_S
        calm = replace(self, wait_s=0.0) if flows else self
        wait_s = self.keep_s if flows else self.wait_s
        if wait_s is None or (self.asked_s is not None and now_s - self.asked_s < wait_s):
            return calm, False
        if flows:
            return replace(calm, asked_s=now_s), True
        return Asking(self.keep_s, now_s, min(max(2 * self.wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)), True
