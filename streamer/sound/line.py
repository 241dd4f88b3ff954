"""`SoundLine`: sound between a microphone and whoever hears it; what was spoken at a moment is heard so much later.

Pure: moments are given, in nanoseconds of one clock. Devices run at rates of their own and tell times that jitter, so
the line plays on at its own pace and moves only when it is clearly wrong, by a short crossfade.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

KEPT_S = 2.0
STEADY_S = 0.008  # as a call's sound (`streamer.webrtc.media.STEADY_MS`): less is jitter
FADE_S = 0.005
LOST_S = 0.05  # a block that comes this far from where it was expected does not follow on
MOST_LATE_S = 0.25  # devices that are slower still are away
MARGIN_S = STEADY_S + 0.002  # behind the newest sound that there is, wherever it is taken for steady
LATELY_S = 3.0  # how long what came late keeps all that follows late
_FOLLOW = 0.05


class SoundLine:
    """Of one microphone, (S,) float32 at `rate_hz`. `put` and `take` from one thread at a time.

    `missing` counts samples that were asked for and were not there; `late_s` is by how much what is heard comes later
    than asked for, because the devices are slower than the picture.
    """

    def __init__(self, rate_hz: int) -> None:
        self.missing = 0
        self.late_s = 0.0
        self._rate_hz = rate_hz
        self._held: F32 = np.zeros(0, np.float32)
        self._begin = 0  # number of the first sample held, of all that were ever put
        self._origin_ns: float | None = None  # when sample 0 was spoken
        self._at: int | None = None  # number of the next sample to be heard
        self._asked: int | None = (
            None  # number behind the last sample that was asked for, had nothing been late
        )
        # the most by which sound came after it was asked for: in the span before this one, and in this one so far
        self._worst_s: tuple[float, float] = (-MOST_LATE_S, -MOST_LATE_S)
        self._seen = 0  # samples of this span
        self._moves = False  # to where it belongs, with the next that is taken
        self._off = 0.0  # smoothed: samples by which it is wrong

    def put(self, samples: F32, spoken_ns: int) -> None:
        """Samples whose first was spoken at `spoken_ns`."""
        end = self._begin + len(self._held)
        seen_ns = spoken_ns - 1e9 * end / self._rate_hz
        if self._origin_ns is None:
            self._origin_ns = seen_ns
        gap_s = (seen_ns - self._origin_ns) / 1e9
        if gap_s > LOST_S:  # silence for what the device lost
            lost = min(round(gap_s * self._rate_hz), round(KEPT_S * self._rate_hz))
            # time beyond what is kept passes without samples
            self._origin_ns = seen_ns - 1e9 * lost / self._rate_hz
            self._held = np.concatenate([self._held, np.zeros(lost, np.float32)])
        elif gap_s < -LOST_S:
            self._origin_ns = seen_ns
        else:
            self._origin_ns += _FOLLOW * (seen_ns - self._origin_ns)
            if self._asked is not None:
                self._see((self._asked - end) / self._rate_hz, len(samples))
        self._held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        over = len(self._held) - round(KEPT_S * self._rate_hz)
        if over > 0:
            self._held, self._begin = self._held[over:], self._begin + over

    def _see(self, short_s: float, count: int) -> None:
        """`count` samples came `short_s` after they were asked for (negative: before): be as late as the worst."""
        if short_s > MOST_LATE_S:
            return
        before_s, worst_s = self._worst_s
        worst_s = max(worst_s, short_s)
        self._seen += count
        over = self._seen >= LATELY_S * self._rate_hz
        if over or worst_s + MARGIN_S > self.late_s:
            self._be_late(worst_s if over else max(before_s, worst_s))
        self._worst_s = (worst_s, -MOST_LATE_S) if over else (before_s, worst_s)
        self._seen = 0 if over else self._seen

    def _be_late(self, worst_s: float) -> None:
        late_s = max(0.0, worst_s + MARGIN_S)
        self._moves = self._moves or abs(late_s - self.late_s) > STEADY_S
        self.late_s = late_s

    def take(self, count: int, heard_ns: int, delay_s: float) -> F32:
        """The next `count` samples, whose first will be heard at `heard_ns`: what was spoken `delay_s` before."""
        if self._origin_ns is None:
            return np.zeros(count, np.float32)
        behind_s = (heard_ns - self._origin_ns) / 1e9 - delay_s
        wanted = round(behind_s * self._rate_hz)
        self._asked = wanted + count
        wanted -= round(self.late_s * self._rate_hz)
        if self._at is None:
            self._at = wanted
        self._off += _FOLLOW * (wanted - self._at - self._off)
        heard = self._read(self._at, count)
        far = self._moves or abs(wanted - self._at) > LOST_S * self._rate_hz
        self._moves = False
        if far or abs(self._off) > STEADY_S * self._rate_hz:
            # what was smoothed says where to, unless something has clearly happened
            there = wanted if far else self._at + round(self._off)
            heard = self._faded(heard, self._read(there, count))
            self._at, self._off = there, 0.0
        self.missing += self._absent(self._at, count)
        self._at += count
        return heard

    def _read(self, first: int, count: int) -> F32:
        """Samples by number; silence where there is none."""
        out = np.zeros(count, np.float32)
        start, stop = max(first, self._begin), min(first + count, self._begin + len(self._held))
        if stop > start:
            out[start - first : stop - first] = self._held[start - self._begin : stop - self._begin]
        return out

    def _absent(self, first: int, count: int) -> int:
        start, stop = max(first, self._begin), min(first + count, self._begin + len(self._held))
        return count - max(0, stop - start)

    def _faded(self, before: F32, after: F32) -> F32:
        """`before` passing into `after` at once, without a click."""
        length = min(len(after), max(1, round(FADE_S * self._rate_hz)))
        share = np.linspace(0, 1, length, dtype=np.float32)
        out = after.copy()
        out[:length] = before[:length] * (1 - share) + after[:length] * share
        return out
