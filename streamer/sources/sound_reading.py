"""`SoundReading`: one reading of a file's sound from start to end: 16 kHz mono, in time, damage skipped."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import DriverError
from engines.speech.features import RATE_HZ
from streamer.closing import Closing
from streamer.pyav import AudioResampler, av
from streamer.sources.downmix import Downmix
from streamer.sources.media_file import EXACT_LENGTH, open_media, packets_of, stated_length_s
from streamer.sources.outside import length_notice
from streamer.sources.timeline import FORWARD_S
from streamer.sources.tracks import sounds_of

F32 = NDArray[np.float32]

_GAP_S = 0.05  # a longer hole is silence, a shorter one is rounding
_LOST_S = 0.1  # less is not worth a word
_SILENT_LEVEL = 1e-4  # −80 dB: what a converter makes of nothing
_CLIPPED_LEVEL, _CLIPPED_SHARE = 0.999, 0.01


class SoundReading(Closing):
    """Owns the container. Damaged places and holes become silence of their length, changes of format are followed.

    Raises DriverError for a file without sound that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._heard = 0  # samples
        self._lost_s: list[float] = []  # where
        self._silent_s = self._broken_s = 0.0  # silence put in for what was lost, packets that did not decode
        self._downmix = Downmix()
        self._peak = 0.0
        self._clipped = 0
        self._container = open_media(path)
        try:
            self._stream, self._first = self._begin()
        except BaseException:
            self._container.close()
            raise
        self._blocks = self._read()

    @property
    def stated_s(self) -> float | None:
        """The length that the file states; None where it does not."""
        stream = self._stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return stated_length_s(self._container, self.start_s)

    @property
    def heard_s(self) -> float:
        """How much was read so far."""
        return self._heard / RATE_HZ

    @property
    def start_s(self) -> float:
        """The stream's time of the first sample."""
        return self._first[0].time or 0.0

    @property
    def stream(self) -> av.AudioStream:
        """The track that is heard."""
        return self._stream

    def blocks(self) -> Iterator[F32]:
        """(S,) float32 mono blocks at 16 kHz, once; one is in memory at a time."""
        return self._blocks

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._blocks.close()
        self._container.close()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is wrong with the file or its sound, as far as it was read."""
        name = self.path.name
        notes: list[str | None] = []
        lost_s = max(self._silent_s, self._broken_s)
        if lost_s > _LOST_S:
            notes.append(
                f"{name} is damaged at {self._lost_s[0]:.1f} s; {lost_s:.1f} s of its sound are lost"
            )
        notes.append(self._downmix.notice(name))
        return tuple(n for n in notes if n)

    def final_notices(self) -> tuple[str, ...]:
        """All that is to be said once everything was read."""
        name, stated_s = self.path.name, self.stated_s
        notes: list[str | None] = [*self.notices]
        exact = self._container.format.name.startswith(EXACT_LENGTH)
        if outside := length_notice(self.path, self._container.format.name):
            notes.append(outside)
        elif exact and stated_s is not None and self.heard_s < stated_s - max(0.25, 0.02 * stated_s):
            notes.append(f"{name} ends at {self.heard_s:.1f} s of {stated_s:.1f} s; the rest is missing")
        if self._peak < _SILENT_LEVEL:
            notes.append(f"{name} is silent; was the right microphone recorded?")
        elif self._clipped > _CLIPPED_SHARE * self._heard:
            notes.append(f"{name} is clipped; lips may move less well than with a quieter recording")
        return tuple(n for n in notes if n)

    def _begin(self) -> tuple[av.AudioStream, tuple[av.AudioFrame, Iterator[av.AudioFrame]]]:
        """The first track that can be heard, its first frame and the rest."""
        tracks = [s.index for s in sounds_of(self._container)]
        for k, index in enumerate(tracks):
            if k:
                self._container.close()
                self._container = open_media(self.path)
            stream = next(s for s in self._container.streams.audio if s.index == index)
            self._lost_s.clear()
            self._silent_s = self._broken_s = 0.0
            frames = self._decoded(stream)
            if (first := next(frames, None)) is not None:
                return stream, (first, frames)
        name = self.path.name
        if self._container.streams.audio:
            raise DriverError(f"{name} holds no sound that can be decoded; export it again as .wav")
        raise DriverError(f"{name} has no sound; use a .wav, .flac, .mp3 or .m4a file with speech")

    def _decoded(self, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        for packet in packets_of(self._container, [stream]):
            if packet is None:
                self._lost_s.append(self.heard_s)
                continue
            try:
                if packet.is_corrupt:
                    raise av.error.InvalidDataError(0, "half a packet")
                yield from stream.codec_context.decode(packet)  # pyright: ignore[reportArgumentType]
            except (av.error.FFmpegError, OSError):
                self._lost_s.append(self.heard_s)
                self._broken_s += float((packet.duration or 0) * packet.time_base)

    def _read(self) -> Generator[F32]:
        first, rest = self._first
        resampler: AudioResampler | None = None
        now: object = None
        expected_s: float | None = None
        for frame in _chain(first, rest):
            # Python's side of FFmpeg takes these as they were at first, whatever comes later
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != now:
                if resampler is not None:
                    yield from map(self._mono, resampler.resample(None))
                # in one plane: of eight planes and more PyAV reads behind the last one, which ends the program
                resampler, now = AudioResampler("flt", None, RATE_HZ), kind
            assert resampler is not None
            if frame.time is not None and expected_s is not None:
                hole_s = frame.time - expected_s
                if _GAP_S < hole_s < FORWARD_S:
                    yield from self._silence(hole_s)
            if frame.time is not None:
                expected_s = frame.time + frame.samples / frame.sample_rate
            yield from map(self._mono, resampler.resample(frame))
        if resampler is not None:
            yield from map(self._mono, resampler.resample(None))

    def _silence(self, seconds: float) -> Iterator[F32]:
        """In pieces of a second."""
        if self._lost_s:
            self._silent_s += seconds
        left = round(seconds * RATE_HZ)
        while left > 0:
            piece = np.zeros(min(left, RATE_HZ), np.float32)
            left -= len(piece)
            self._heard += len(piece)
            yield piece

    def _mono(self, piece: av.AudioFrame) -> F32:
        packed = np.asarray(piece.to_ndarray(), np.float32)
        samples = np.ascontiguousarray(packed.reshape(-1, len(piece.layout.channels)).T)
        np.nan_to_num(
            samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0
        )  # a file of floats may hold these
        mono, self._downmix = self._downmix.after(samples, RATE_HZ)
        level = np.abs(mono)
        self._heard += len(mono)
        self._peak = max(self._peak, float(level.max(initial=0.0)))
        self._clipped += int(np.count_nonzero(level >= _CLIPPED_LEVEL))
        return mono


def _chain(first: av.AudioFrame, rest: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    yield first
    yield from rest
