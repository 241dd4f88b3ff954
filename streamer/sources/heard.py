"""`HeardSource`: sound as a source of moments whose motion a `Voice` knows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.motion import Motion
from engines.speech.features import RATE_HZ
from engines.speech.speech_to_motion import motion_of
from streamer.clock import Clock, SystemClock
from streamer.drive.driver import Heard
from streamer.drive.voice import Voice
from streamer.frame import LatencyTrace
from streamer.sources.source import Source, SourceInfo, SourceState

F32 = NDArray[np.float32]

# two answers of a network at 50 Hz for every picture; `animate` shows sound at the same rate
HEARD_FPS = 25.0

MUTE_S = 5.0  # exact zeros for this long: muted, or the system refuses the sound
CLIPPED_LEVEL = 0.999
CLIPPED_SHARE = 0.01  # of the last seconds of sound
_SHARE_S = 3.0

_STAMPS_S = 2.0  # how long it is remembered when a piece of sound arrived


@dataclass(frozen=True, slots=True)
class Piece:
    """Sound as it arrives: `samples` (S,) float32 at 16 kHz, when the last of them came, what was lost before.

    `ended_ns`: when the last of them was in the air, where that is known better than by its arrival.
    """

    samples: F32
    arrived_ns: int
    lost_s: float = 0.0
    ended_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Loudness:
    """What a stream says of its level: seconds of exact zeros up to now, share of clipped samples."""

    mute_s: float = 0.0
    clipped: float = 0.0

    def after(self, samples: F32) -> Loudness:
        """The same after the next (S,) samples at 16 kHz."""
        if not len(samples):
            return self
        seconds = len(samples) / RATE_HZ
        loud = np.flatnonzero(samples)
        mute_s = self.mute_s + seconds if not len(loud) else (len(samples) - 1 - int(loud[-1])) / RATE_HZ
        share = float(np.count_nonzero(np.abs(samples) >= CLIPPED_LEVEL)) / len(samples)
        weight = math.exp(-seconds / _SHARE_S)
        return Loudness(mute_s, weight * self.clipped + (1 - weight) * share)


class HeardSource(Source):
    """Base of sources that are heard: `_pieces` says what sound has come, `read` gives the newest known moment.

    Moments lie on a grid of `HEARD_FPS` in the sound's own time: `sequence` counts its ticks, `pts_s` is their
    time. `captured` is when the sound of that moment was in the air, as far as its arrival tells; what the
    network looks ahead comes after it. Moments that a late reader missed are left out.
    """

    def __init__(self, voice: Voice, clock: Clock | None = None) -> None:
        self.voice = voice
        self._clock = clock or SystemClock()
        self._tick = -1
        # (seconds heard, when they had come, when the last of them was in the air)
        self._stamps: deque[tuple[float, int, int]] = deque()
        self._loudness = Loudness()
        self._was_clipped = False

    @property
    @abstractmethod
    def capture_ms(self) -> float:
        """How long sound waits in the device before it is heard, in ms; 0 for a file."""

    @property
    def notices(self) -> tuple[str, ...]:
        """That the sound is muted or clipped, with what to do."""
        if self._is_mute():
            return (self._mute_notice,)
        return (self._clipped_notice,) if self._was_clipped else ()

    def _is_mute(self) -> bool:
        return self._loudness.mute_s >= MUTE_S

    @property
    @abstractmethod
    def _mute_notice(self) -> str: ...

    @property
    @abstractmethod
    def _clipped_notice(self) -> str: ...

    @abstractmethod
    def _pieces(self, timeout_s: float | None) -> list[Piece]:
        """The sound that has come since the last call, waiting up to `timeout_s` for some; [] when none did."""

    def read(self, timeout_s: float | None = None) -> Heard | None:
        """The newest moment of the grid whose motion is known; None when none came up within `timeout_s`."""
        deadline_ns = None if timeout_s is None else self._clock.now_ns() + round(timeout_s * 1e9)
        while self.state is not SourceState.ENDED:
            moment = self._next()
            if moment is not None:
                return moment
            left_s = None
            if deadline_ns is not None:
                left_s = max(0.0, (deadline_ns - self._clock.now_ns()) / 1e9)
            pieces = self._pieces(left_s)
            if not pieces and left_s is not None:
                return None
            for piece in pieces:
                self._hear(piece)
        return None

    def _hear(self, piece: Piece) -> None:
        if piece.lost_s > 0:
            self.voice.skip(piece.lost_s)
        self.voice.hear(piece.samples)
        self._loudness = self._loudness.after(piece.samples)
        self._was_clipped = self._was_clipped or self._loudness.clipped > CLIPPED_SHARE
        ended_ns = piece.arrived_ns if piece.ended_ns is None else piece.ended_ns
        self._stamps.append((self.voice.heard_s, piece.arrived_ns, ended_ns))
        while len(self._stamps) > 1 and self._stamps[0][0] < self.voice.heard_s - _STAMPS_S:
            self._stamps.popleft()

    def _next(self) -> Heard | None:
        answered_s = self.voice.answered_s
        # answers lie on a grid of their own, of which ours is a part: rounding must not put us one tick late
        tick = -1 if answered_s is None else math.floor(answered_s * HEARD_FPS + 1e-6)
        if tick <= self._tick:
            return None
        self._tick = tick
        pts_s = tick / HEARD_FPS
        arrived_ns, captured_ns = self._when(pts_s)
        trace = LatencyTrace().mark("captured", captured_ns).mark("received", arrived_ns)
        trace = trace.mark("decoded", self._clock.now_ns())
        spoken = self.voice.at(pts_s)
        motion = motion_of(spoken) if spoken else Motion()
        return Heard(pts_s, captured_ns, trace, tick, motion=motion)

    def _when(self, pts_s: float) -> tuple[int, int]:
        """When the sound of a moment had come, and when it was in the air, in ns."""
        stamps = self._stamps
        heard_s, arrived_ns, ended_ns = next((s for s in stamps if s[0] >= pts_s), stamps[-1])
        return arrived_ns, ended_ns - round(max(0.0, heard_s - pts_s) * 1e9)


def heard_info(name: str, *, is_live: bool, duration_s: float | None = None) -> SourceInfo:
    """What a heard source delivers: moments at `HEARD_FPS`, without pictures."""
    return SourceInfo(None, HEARD_FPS, is_live, duration_s, has_audio=True, name=name)


def latency_text(source: HeardSource) -> str:
    """How much later than a sound its picture can be, but for the drawing."""
    own_ms, frame_ms = source.voice.speech.latency_ms, 1e3 / HEARD_FPS
    return (
        f"lips follow the voice by {own_ms:.0f} ms (features and look-ahead), up to {frame_ms:.0f} ms to the next "
        f"picture, and {source.capture_ms:.0f} ms in the sound device"
        if source.info.is_live
        else f"lips follow the voice by {own_ms:.0f} ms (features and look-ahead) and up to {frame_ms:.0f} ms to the "
        "next picture"
    )
