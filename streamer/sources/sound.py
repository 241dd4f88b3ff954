"""Sound that drives: files as blocks of 16 kHz mono, however long they are, and `SoundFileSource`, live."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from engines.speech.features import RATE_HZ
from streamer.clock import Clock
from streamer.drive.driver import Heard
from streamer.drive.voice import Voice
from streamer.sources.heard import HeardSource, Piece, heard_info
from streamer.sources.sound_reading import SoundReading
from streamer.sources.source import SourceInfo, SourceState

F32 = NDArray[np.float32]

PIECE = 320  # samples, 20 ms: how a file's sound arrives, as if from a device
_MOST_PIECES = 50  # at once, after a stall


def sound_blocks(path: Path) -> Iterator[F32]:
    """(S,) float32 mono blocks at 16 kHz, from the start to the end; damage is silence, as `SoundReading` has it.

    One block is in memory at a time. Raises DriverError for a file without sound.
    """
    with SoundReading(path) as reading:
        yield from reading.blocks()


class SoundFileSource(HeardSource):
    """A sound file heard at its own pace, from memory of one block; `loop` starts over with times going on.

    Raises DriverError when there is no sound in the file that can be decoded.
    """

    def __init__(
        self, path: Path, voice: Voice | None = None, *, loop: bool = False, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._loop = loop
        self._reading = SoundReading(path)
        try:
            super().__init__(voice or Voice(), clock)
        except BaseException:
            self._reading.close()
            raise
        duration_s = self._reading.stated_s
        self._pending: F32 | None = None
        self._chunks = _cut(self._reading.blocks())
        self._info = heard_info(path.name, is_live=False, duration_s=None if loop else duration_s)
        self._start_ns: int | None = None
        self._samples = 0
        self._end_s: float | None = None  # known at the end
        self._final: tuple[str, ...] = ()
        self._closed = Event()

    @property
    def info(self) -> SourceInfo:
        """Rate and length."""
        return self._info

    @property
    def state(self) -> SourceState:
        """READY until the last moment was read."""
        return SourceState.ENDED if self._closed.is_set() else SourceState.READY

    @property
    def capture_ms(self) -> float:
        """A piece is heard when it is whole."""
        return 1e3 * PIECE / RATE_HZ

    @property
    def notices(self) -> tuple[str, ...]:
        """What is wrong with the file or with what it lets hear, as far as it was heard."""
        if self._final:
            return self._final
        return tuple(dict.fromkeys([*super().notices, *self._reading.notices]))

    def close(self) -> None:
        """Let go of the file."""
        self._closed.set()

    def _is_mute(self) -> bool:
        # pauses of exact zeros are usual in files; a file without anything else is not
        return super()._is_mute() and self._loudness.mute_s >= self.voice.heard_s - PIECE / RATE_HZ

    @property
    def _mute_notice(self) -> str:
        return f"{self._path.name} is silent; was the right microphone recorded?"

    @property
    def _clipped_notice(self) -> str:
        return f"{self._path.name} is clipped; lips may move less well than with a quieter recording"

    def _next(self) -> Heard | None:
        moment = super()._next()
        if moment is not None and self._end_s is not None and moment.pts_s >= self._end_s:
            self.close()
            return None
        return moment

    def _pieces(self, timeout_s: float | None) -> list[Piece]:
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns()
        pieces: list[Piece] = []
        while len(pieces) < _MOST_PIECES and not self._closed.is_set():
            self._pending = self._pending if self._pending is not None else self._take()
            if self._pending is None:
                self.close()
                break
            due_ns = self._start_ns + round((self._samples + len(self._pending)) / RATE_HZ * 1e9)
            wait_s = (due_ns - self._clock.now_ns()) / 1e9
            if wait_s > 0 and pieces:
                break
            if timeout_s is not None and wait_s > timeout_s:
                self._clock.sleep(timeout_s)
                break
            self._clock.sleep(wait_s)
            pieces.append(Piece(self._pending, due_ns))
            self._samples += len(self._pending)
            self._pending = None
        return pieces

    def _take(self) -> F32 | None:
        """The next piece; behind the last one as much silence as the network looks ahead, then None."""
        piece = next(self._chunks, None)
        if piece is None and self._loop:
            self._reading.close()
            self._reading = SoundReading(self._path)
            self._chunks = _cut(self._reading.blocks())
            piece = next(self._chunks, None)
        if piece is None and self._end_s is None:
            self._final = self._reading.final_notices()
            self._end_s = self._samples / RATE_HZ
            silence = np.zeros(round((self.voice.speech.look_ahead_s + 0.06) * RATE_HZ), np.float32)
            self._chunks = _cut(iter([silence]))
            piece = next(self._chunks, None)
        return piece


def _cut(blocks: Iterator[F32]) -> Iterator[F32]:
    """`blocks` cut into pieces of at most `PIECE` samples, none of them empty."""
    for block in blocks:
        for at in range(0, len(block), PIECE):
            yield block[at : at + PIECE]
