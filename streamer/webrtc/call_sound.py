"""The sound of a call as a driver: `CallSound` hears what the browser sends, in the worker's thread."""

from __future__ import annotations

import threading

import av
import numpy as np

from engines.motion import Motion
from engines.speech.speech_to_motion import motion_of
from streamer.clock import Clock
from streamer.drive.voice import Voice
from streamer.drive.voice_helps import Said
from streamer.sources.blocks import Block, RingSource
from streamer.sources.heard import heard_info
from streamer.sources.source import SourceInfo, SourceState
from streamer.webrtc.media import start_of

_FRESH_NS = 300_000_000


def block_of(
    frame: av.AudioFrame, arrived_ns: int, lost_s: float = 0.0, captured_ns: float | None = None
) -> Block:
    """(S, C) float32 of a decoded packet, interleaved or in planes, 16 bit or float; `lost_s` is missing before it.

    `captured_ns`: when its first sample was, if that is known.
    """
    raw = frame.to_ndarray()
    channels = len(frame.layout.channels)
    samples = raw.T if frame.format.is_planar else raw.reshape(-1, channels)
    scale = 1 / 32768 if np.issubdtype(samples.dtype, np.integer) else 1.0
    ended_ns = None
    if captured_ns is not None:
        ended_ns = min(arrived_ns, round(captured_ns + 1e9 * len(samples) / frame.sample_rate))
    scaled = (samples * np.float32(scale)).astype(np.float32)
    return Block(scaled, frame.sample_rate, arrived_ns, 0, lost_s, ended_ns)


class CallSound(RingSource):
    """`put` on the event loop, `read` in the worker; a worker that is late loses the oldest sound."""

    def __init__(self, voice: Voice | None = None, clock: Clock | None = None) -> None:
        """Raises WeightsError when the network's weights are missing or damaged."""
        super().__init__(voice or Voice(), clock)
        self._closed = threading.Event()
        self._comes_at: int | None = None  # where the next packet begins if nothing is missing
        self._rate_hz = 0

    def put(self, frame: av.AudioFrame, captured_ns: float | None = None) -> None:
        """A decoded packet of the call, now, and when its first sample was captured; waits for nothing."""
        start = start_of(frame)
        lost = 0
        if start is not None and self._comes_at is not None and frame.sample_rate == self._rate_hz:
            lost = max(0, start - self._comes_at)
        self._comes_at = None if start is None else start + frame.samples
        self._rate_hz = frame.sample_rate
        self._ring.put(block_of(frame, self._clock.now_ns(), lost / frame.sample_rate, captured_ns))

    @property
    def info(self) -> SourceInfo:
        """Rate."""
        return heard_info("the call's sound", is_live=True)

    @property
    def state(self) -> SourceState:
        """READY until `close`; a call without sound gives no frames."""
        return SourceState.ENDED if self._closed.is_set() else SourceState.READY

    @property
    def is_fresh(self) -> bool:
        """Whether sound has come within the last moments."""
        return self._heard is not None and self._clock.now_ns() - self._heard.arrived_ns < _FRESH_NS

    def said(self, rest: Motion) -> Said | None:
        """For a `Driver`: hears what has come, and gives what is being said now; None while nobody speaks."""
        self.read(0.0)
        newest_s = self.voice.answered_s
        spoken = None if newest_s is None else self.voice.at(newest_s)
        if newest_s is None or spoken is None or not self.is_fresh:
            return None
        return Said(motion_of(spoken, rest), self._when(newest_s)[1])

    @property
    def capture_ms(self) -> float:
        """Unknown: what the browser needs is its own."""
        return 0.0

    def close(self) -> None:
        """End a waiting `read`."""
        self._closed.set()
        self._ring.close()

    @property
    def _mute_notice(self) -> str:
        return "your microphone gives nothing but silence: unmute it, or choose another one in the browser"

    @property
    def _clipped_notice(self) -> str:
        return "your microphone is too loud and clips; turn its level down"
