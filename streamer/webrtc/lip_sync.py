"""`LipSync`: how long a call's sound waits, so that it is heard with the picture it belongs to, and how well it is."""

from __future__ import annotations

from streamer.sound.lag import Lag
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.media import OPUS_MS, PTIME_S, STEADY_MS, Outgoing, wanted_delay_ms
from streamer.webrtc.messages import SetSound

_FOLLOW = 0.05  # of each new picture's time
FRESH_NS = 1_000_000_000  # sound that left longer ago is heard with no picture of now
# A picture that would be shown before its sound waits no longer: less than from one picture to the next, so that none
# is lost by it, and less than people see (ITU-R BT.1359: sound may be 125 ms late).
MOST_HOLD_MS = 30.0
# What the page measures holds more than its buffers tell: its screen, its sound card.
_LEARN = 0.25  # of each second's difference
MOST_UNTOLD_MS = 150.0


class LipSync:
    """Of one call; event-loop only. Times of capture are a call's `MediaClock`'s, in ns of the monotonic clock.

    `picture_ms`: smoothed over `timed` pictures, from a moment's arrival to its picture's departure.
    """

    def __init__(self, options: CallOptions) -> None:
        self.picture_ms: float | None = None
        self.timed = 0
        self._mode = options.mode
        self._trim_ms = options.trim_ms
        self._page_waits_ms = 0.0
        self._untold_ms = 0.0  # pictures later in the page than all that is told explains
        self._reckoned_ms: float | None = None  # smoothed skew without it
        self._is_heard = True  # until the page says that it is silent
        # from capture to departure, and to arrival; sound that comes in bursts is played evenly all the same
        self._pictures, self._sound = Lag(), Lag(follow=0.01, far_times=50)
        self._sending = Lag(follow=0.01, far_times=50)  # to encode sound and hand it to the network
        self._left: tuple[float, int] | None = (
            None  # when the newest sound that left was captured, and when it did
        )

    def came(self, captured_ns: float, now_ns: int) -> None:
        """Sound has come whose first sample was captured at `captured_ns`."""
        self._sound = self._sound.after_s((now_ns - captured_ns) / 1e9)

    def left(self, captured_ns: float, given_ns: int, now_ns: int) -> None:
        """Sound has left whose first sample was captured at `captured_ns`; at `given_ns` its encoder was given it."""
        self._sending = self._sending.after_s((now_ns - given_ns) / 1e9)
        self._left = captured_ns, now_ns

    def sent(self, outgoing: Outgoing) -> None:
        """Learn from a picture that has left."""
        stamps_ns = outgoing.trace.stamps_ns
        came_ns, sent_ns = stamps_ns.get("received"), stamps_ns.get("sent")
        if not outgoing.fresh or sent_ns is None:
            return
        skew_ms = self.skew_ms(outgoing)
        if skew_ms is not None:
            reckoned_ms = skew_ms - self._untold_ms
            before_ms = reckoned_ms if self._reckoned_ms is None else self._reckoned_ms
            self._reckoned_ms = before_ms + _FOLLOW * (reckoned_ms - before_ms)
        if came_ns is not None:
            self.timed += 1
            took_ms = (sent_ns - came_ns) / 1e6 - outgoing.held_ms
            before_ms = took_ms if self.picture_ms is None else self.picture_ms
            self.picture_ms = before_ms + _FOLLOW * (took_ms - before_ms)
        if outgoing.moved_by_ns is not None:
            took_s = (sent_ns - outgoing.moved_by_ns) / 1e9
            self._pictures = self._pictures.after_s(took_s - outgoing.held_ms / 1e3)

    def set(self, said: SetSound) -> None:
        """What the page says of its sound."""
        self._trim_ms = self._trim_ms if said.trim_ms is None else said.trim_ms
        self._page_waits_ms = self._page_waits_ms if said.waits_ms is None else said.waits_ms
        self._is_heard = self._is_heard if said.heard is None else said.heard
        if said.skew_ms is not None and self._reckoned_ms is not None:
            untold_ms = said.skew_ms + self._trim_ms - self._reckoned_ms
            learnt_ms = self._untold_ms + _LEARN * (untold_ms - self._untold_ms)
            self._untold_ms = max(-MOST_UNTOLD_MS, min(MOST_UNTOLD_MS, learnt_ms))

    @property
    def sound_ms(self) -> float:
        """From a sound's capture until it is heard, if nothing here delays it."""
        came_ms = PTIME_S * 1000 + OPUS_MS if self._sound.seconds is None else self._sound.seconds * 1000
        sending_ms = 0.0 if self._sending.seconds is None else self._sending.seconds * 1000
        return came_ms + sending_ms + OPUS_MS + self._page_waits_ms - self._untold_ms

    def delay_ms(self, current_ms: float) -> float:
        """How long the sound waits from now on; `current_ms`: until now."""
        if self._mode == "echo":
            return 0.0
        if self._pictures.seconds is None:
            return current_ms
        return wanted_delay_ms(self._pictures.seconds * 1000, self.sound_ms, current_ms, self._trim_ms)

    def hold_ms(self, now_ns: int, *, is_watched: bool = False) -> float:
        """How long a picture waits so that it is not shown before its sound, which cannot be sooner; at most a little.

        Nobody waits for sound that nobody hears; `is_watched`: there is somebody beside the page, who may.
        """
        if self._mode == "echo" or not (self._is_heard or is_watched) or self._pictures.seconds is None:
            return 0.0
        if self._left is None or now_ns - self._left[1] > FRESH_NS:
            return 0.0
        early_ms = self.sound_ms - self._trim_ms - self._pictures.seconds * 1000
        return min(MOST_HOLD_MS, early_ms) if early_ms > STEADY_MS else 0.0

    def skew_ms(self, outgoing: Outgoing) -> float | None:
        """How much later than its sound a picture that has left is seen (> 0), or sooner; None without sound.

        It holds what the page says. A shift by hand is meant, and so is none of it.
        """
        sent_ns, moved_ns = outgoing.trace.stamps_ns.get("sent"), outgoing.moved_by_ns
        if not outgoing.fresh or sent_ns is None or moved_ns is None or self._left is None:
            return None
        captured_ns, left_ns = self._left
        if sent_ns - left_ns > FRESH_NS:
            return None
        sound_ms = (left_ns - captured_ns) / 1e6 + OPUS_MS + self._page_waits_ms - self._trim_ms
        return (sent_ns - moved_ns) / 1e6 - sound_ms + self._untold_ms
