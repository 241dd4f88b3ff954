"""Sound that drives: files as blocks of 16 kHz mono, however long they are, and `SoundFileSource`, live."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.clock import Clock
from streamer.drive.driver import Heard
from streamer.drive.voice import Voice
from streamer.pyav import AudioResampler, av
from streamer.sources.heard import HeardSource, Piece, heard_info
from streamer.sources.media_file import open_media
from streamer.sources.source import SourceInfo, SourceState

F32 = NDArray[np.float32]

PIECE = 320  # samples, 20 ms: how a file's sound arrives, as if from a device
_MOST_PIECES = 50  # at once, after a stall


def sound_seconds(path: Path) -> float | None:
    """Length of a sound file, None where it does not say. Raises DriverError when it is none."""
    with _opened(path) as container:
        return None if container.duration is None else container.duration / 1e6


def sound_blocks(path: Path) -> Iterator[F32]:
    """(S,) float32 mono blocks at 16 kHz, from the start to the end or to where the file is damaged.

    One block is in memory at a time. Raises DriverError for a file without sound.
    """
    resampler = AudioResampler("fltp", None, RATE_HZ)
    with _opened(path) as container:
        frames = container.decode(container.streams.audio[0])
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError):
                return  # what was heard until here is kept
            for piece in resampler.resample(frame):
                yield _samples(piece)
        for piece in resampler.resample(None):
            yield _samples(piece)


class SoundFileSource(HeardSource):
    """A sound file heard at its own pace, from memory of one block; `loop` starts over with times going on.

    Raises DriverError when there is no sound in the file that can be decoded.
    """

    def __init__(
        self, path: Path, voice: Voice | None = None, *, loop: bool = False, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._loop = loop
        duration_s = sound_seconds(path)
        chunks = _cut(sound_blocks(path))
        self._pending: F32 | None = next(chunks, None)
        if self._pending is None:
            raise DriverError(f"{path.name} holds no sound that can be decoded; export it again as .wav")
        super().__init__(voice or Voice(), clock)
        self._chunks = chunks
        self._info = heard_info(path.name, is_live=False, duration_s=None if loop else duration_s)
        self._start_ns: int | None = None
        self._samples = 0
        self._end_s: float | None = None  # known at the end
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
            self._chunks = _cut(sound_blocks(self._path))
            piece = next(self._chunks, None)
        if piece is None and self._end_s is None:
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


def _samples(piece: av.AudioFrame) -> F32:
    # the mean: FFmpeg's own way from stereo to mono is 3 dB louder and would clip
    return np.asarray(piece.to_ndarray(), np.float32).mean(0)


def _opened(path: Path) -> av.container.InputContainer:
    container = open_media(path)
    if not container.streams.audio:
        container.close()
        raise DriverError(f"{path.name} has no sound; use a .wav, .flac, .mp3 or .m4a file with speech")
    return container
