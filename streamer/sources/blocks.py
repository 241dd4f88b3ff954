"""`RingSource`: sound that another thread brings in blocks, of any rate and channels, heard by whoever reads."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.speech.features import RATE_HZ
from streamer.clock import Clock
from streamer.drive.voice import Voice
from streamer.pyav import AudioResampler, av
from streamer.sources.downmix import Downmix
from streamer.sources.heard import HeardSource, Piece

F32 = NDArray[np.float32]

RING_S = 2.0  # sound that nobody read is kept this long


@dataclass(frozen=True, slots=True)
class Block:
    """What a device gave: `samples` (S, C) at `rate_hz`, when it came, and in which opening of the device.

    `lost_s`: what the device says is missing before them. `ended_ns`: as a `Piece`'s.
    """

    samples: F32
    rate_hz: float
    arrived_ns: int
    opening: int
    lost_s: float = 0.0
    ended_ns: int | None = None

    @property
    def length_s(self) -> float:
        return len(self.samples) / self.rate_hz


class SoundRing:
    """Blocks between a device's thread and a reader; the oldest go when more than `limit_s` lie unread."""

    def __init__(self, limit_s: float = RING_S) -> None:
        self._limit_s = limit_s
        self._changed = threading.Condition(threading.Lock())
        self._blocks: deque[Block] = deque()
        self._length_s = 0.0
        self._lost_s = 0.0
        self._closed = False
        self.dropped = 0  # blocks

    def put(self, block: Block) -> None:
        """Leave a block; waits for nobody but for a reader's moment of taking."""
        with self._changed:
            if self._closed:
                return
            self._blocks.append(block)
            self._length_s += block.length_s
            while self._length_s > self._limit_s + 1e-6 and len(self._blocks) > 1:
                old = self._blocks.popleft()
                self._length_s -= old.length_s
                self._lost_s += old.lost_s + old.length_s
                self.dropped += 1
            self._changed.notify()

    def take(self, timeout_s: float | None) -> tuple[list[Block], float]:
        """All unread blocks, and seconds lost before them; waits up to `timeout_s` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._closed, timeout_s)
            blocks, lost_s = list(self._blocks), self._lost_s
            self._blocks.clear()
            self._length_s = self._lost_s = 0.0
            return blocks, lost_s

    def close(self) -> None:
        """Every waiting reader gets nothing. Idempotent."""
        with self._changed:
            self._closed = True
            self._blocks.clear()
            self._changed.notify_all()


class Resampler:
    """(S,) mono float32 at `rate_hz` → 16 kHz, piece by piece."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = round(rate_hz)
        self._resampler = AudioResampler("fltp", "mono", RATE_HZ) if self._rate_hz != RATE_HZ else None

    def __call__(self, samples: F32) -> F32:
        if self._resampler is None:
            return samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "fltp", "mono")
        frame.sample_rate = self._rate_hz
        pieces = [np.asarray(p.to_ndarray(), np.float32)[0] for p in self._resampler.resample(frame)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


class RingSource(HeardSource):
    """Base of sources whose blocks a thread puts into `_ring`; nothing waits for the reader."""

    def __init__(self, voice: Voice, clock: Clock | None = None) -> None:
        super().__init__(voice, clock)
        self._ring = SoundRing()
        self._heard: Block | None = None  # the last one
        self._to_16_khz = Resampler(RATE_HZ)
        self._downmix = Downmix()

    @property
    def dropped(self) -> int:
        """Blocks that were not read in time."""
        return self._ring.dropped

    def _pieces(self, timeout_s: float | None) -> list[Piece]:
        blocks, lost_s = self._ring.take(timeout_s)
        pieces: list[Piece] = []
        for block in blocks:
            before = self._heard
            if before is None or (block.opening, block.rate_hz) != (before.opening, before.rate_hz):
                self._to_16_khz = Resampler(block.rate_hz)
            if before is not None and block.opening != before.opening:
                gap_ns = block.arrived_ns - before.arrived_ns
                lost_s = max(0.0, gap_ns / 1e9 - block.length_s)
            self._heard = block
            lost_s += block.lost_s
            mono, self._downmix = self._downmix.after(block.samples.T, block.rate_hz)
            samples = self._to_16_khz(mono)
            pieces.append(Piece(samples, block.arrived_ns, lost_s, block.ended_ns))
            lost_s = 0.0
        return pieces
