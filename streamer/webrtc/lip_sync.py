"""`LipSync`: how long a call's sound waits, so that it is heard with the picture it belongs to."""

from __future__ import annotations

from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.media import OPUS_MS, PTIME_S, Outgoing, wanted_delay_ms
from streamer.webrtc.messages import SetSound

_FOLLOW = 0.05  # of each new picture's time


class LipSync:
    """Of one call; event-loop only.

    `picture_ms`: smoothed over `timed` pictures, from a moment's arrival to its picture's departure.
    """

    def __init__(self, options: CallOptions) -> None:
        self.picture_ms: float | None = None
        self.timed = 0
        self._mode = options.mode
        self._by_voice = options.drive == "voice"
        self._trim_ms = options.trim_ms
        self._page_waits_ms = 0.0

    def sent(self, outgoing: Outgoing) -> None:
        """Learn from a picture that has left."""
        stamps_ns = outgoing.trace.stamps_ns
        # a picture of sound shows a moment from before the packet that made it known
        came_ns = stamps_ns.get("captured" if self._by_voice else "received")
        sent_ns = stamps_ns.get("sent")
        if outgoing.fresh and "received" in stamps_ns and came_ns and sent_ns:
            self.timed += 1
            took_ms = (sent_ns - came_ns) / 1e6
            before_ms = took_ms if self.picture_ms is None else self.picture_ms
            self.picture_ms = before_ms + _FOLLOW * (took_ms - before_ms)

    def set(self, said: SetSound) -> None:
        """What the page says of its sound."""
        self._trim_ms = self._trim_ms if said.trim_ms is None else said.trim_ms
        self._page_waits_ms = self._page_waits_ms if said.waits_ms is None else said.waits_ms

    def delay_ms(self, current_ms: float) -> float:
        """How long the sound waits from now on; `current_ms`: until now."""
        if self._mode == "echo":
            return 0.0
        if self.picture_ms is None:
            return current_ms
        # a packet leaves when its last sample is there, and is played from its first
        audio_ms = PTIME_S * 1000 + OPUS_MS + self._page_waits_ms
        if not self._by_voice:
            # a camera's frames come past the browser's encoder of sound; the voice is heard behind it
            audio_ms += OPUS_MS
        return wanted_delay_ms(self.picture_ms, audio_ms, current_ms, self._trim_ms)
