"""What a sender makes of the loss that a receiver reports: how much FEC sound needs, how many bits a path carries."""

from __future__ import annotations

from math import exp

MOST_LOSS_PERCENT = 20  # beyond it Opus would spend its bits on copies
_FORGOTTEN_S = 10.0
_LOW, _HIGH = 0.02, 0.10  # draft-ietf-rmcat-gcc-02 § 6
_RISE, _FALL = 1.05, 0.5
MOST_REPORTS_PER_S = 1.0  # a rise is for about a second, however often a receiver reports
REMB_HOLDS_S = 5.0


def loss_of(fraction_lost: int) -> float:
    """0 … 1 of a report block's eight bits (RFC 3550 § 6.4.1)."""
    return fraction_lost / 256


class ExpectedLoss:
    """The share of sound packets that will be lost, by what was: believed at once, forgotten in some ten seconds."""

    def __init__(self) -> None:
        self._share = 0.0
        self._at_s = 0.0

    def report(self, share: float, now_s: float) -> None:
        """A receiver lost so much (0 … 1) since its last report."""
        self._share = max(share, self._left(now_s))
        self._at_s = now_s

    def percent(self, now_s: float) -> int:
        """For an encoder, 0 … `MOST_LOSS_PERCENT`; below half a percent it is none."""
        return min(MOST_LOSS_PERCENT, round(100 * self._left(now_s)))

    def _left(self, now_s: float) -> float:
        return self._share * exp(-max(0.0, now_s - self._at_s) / _FORGOTTEN_S)


class PathRate:
    """Bits a second that a path carries: what its receiver says (REMB), and no more than loss allows.

    Loss by the rule of draft-ietf-rmcat-gcc-02 § 6: below 2 % up by 5 %, above 10 % down by half of it, else the same.
    A receiver that has not said anything for `REMB_HOLDS_S` is no bound: some never do.
    """

    def __init__(self, start_bps: int, least_bps: int, most_bps: int) -> None:
        self._by_loss = float(start_bps)
        self._least, self._most = least_bps, most_bps
        self._said_bps: float | None = None
        self._said_s = 0.0
        self._changed_s: float | None = None

    def report(self, share: float, now_s: float) -> None:
        """A receiver lost so much (0 … 1) of the pictures' packets since its last report."""
        if share > _HIGH:
            self._by_loss *= 1 - _FALL * share
        elif share < _LOW and (self._changed_s is None or now_s - self._changed_s >= 1 / MOST_REPORTS_PER_S):
            self._by_loss *= _RISE
        else:
            return
        self._by_loss = min(max(self._by_loss, self._least), self._most)
        self._changed_s = now_s

    def remb(self, bitrate_bps: float, now_s: float) -> None:
        """A receiver's estimate came."""
        self._said_bps, self._said_s = bitrate_bps, now_s

    def bitrate(self, now_s: float) -> int:
        """What to send now, within the bounds."""
        said = self._said_bps
        is_bound = said is not None and now_s - self._said_s < REMB_HOLDS_S
        rate = min(self._by_loss, said) if is_bound and said is not None else self._by_loss
        return round(min(max(rate, self._least), self._most))
