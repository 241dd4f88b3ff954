"""`Soundtrack`: the driver's audio in a written file, copied where the container takes its codec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from streamer.pyav import AudioResampler, av
from streamer.sources.audio_track import AudioTrack, audio_of
from streamer.sources.media_file import open_media

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """What a container's players take: codecs that are copied, and the encoder, with its rates, for all others."""

    copied: frozenset[str]
    encoder: str
    rates_hz: frozenset[int]


_AAC_RATES_HZ = frozenset({16000, 22050, 24000, 32000, 44100, 48000})
MP4_SOUND = SoundFormat(frozenset({"aac", "mp3", "ac3", "opus"}), "aac", _AAC_RATES_HZ)
WEBM_SOUND = SoundFormat(frozenset({"opus", "vorbis"}), "libopus", frozenset({48000}))
_MOST_MIXED = 8  # channels that FFmpeg knows how to mix; of more the mean is taken
_GAP_S = 0.05  # a longer hole in the audio is filled with silence, a shorter one is rounding


class Soundtrack(ABC):
    """Audio on its way into `container`, kept just behind the video so that the file interleaves well."""

    def __init__(self, track: AudioTrack) -> None:
        self._track = track

    @abstractmethod
    def pump(self, until_s: float) -> None:
        """Write audio that starts before `until_s` (media time of the video)."""

    @abstractmethod
    def finish(self, end_s: float) -> None:
        """Write the rest up to `end_s`, the end of the video, and drop what is later."""

    def close(self) -> None:
        """Let go of the driver's file."""
        self._track.close()


def open_soundtrack(
    path: Path,
    container: av.container.OutputContainer,
    sound: SoundFormat = MP4_SOUND,
    delay_s: float = 0.0,
) -> Soundtrack | None:
    """Adds the audio of `path` to `container`, before its first packet; None when `path` has none.

    It is heard `delay_s` later than in `path`, or earlier where that is below 0.

    Raises DriverError when `path` cannot be read.
    """
    track = audio_of(path)
    if track is None:
        return None
    track.start_s -= delay_s
    try:
        context = track.stream.codec_context
        codec = context.codec.canonical_name  # `name` is the decoder's, such as mp3float
        # AAC without its header record (ADTS, as in .ts files) cannot be described in an MP4 header.
        describable = codec != "aac" or bool(context.extradata)
        if codec in sound.copied and describable and _is_of_one_kind(track, path):
            return _Copied(track, container)
        return _Encoded(track, container, sound)
    except BaseException:
        track.close()
        raise


def _is_of_one_kind(track: AudioTrack, path: Path) -> bool:
    """Whether all of the track can be described once: a file that is nothing but frames may hold different ones."""
    kind_of = _FRAME_KINDS.get(track.container_name)
    if kind_of is None:
        return True
    with AudioTrack(open_media(path), track.stream.index, 0.0) as all_of_it:
        return len({kind_of(bytes(p)[:8]) for p in all_of_it.packets() if p.size}) == 1


def mp3_kind(header: bytes) -> tuple[int, ...] | None:
    """What may not change from frame to frame of a copied MP3: version, rate, one channel or two; None for no frame.

    ISO/IEC 11172-3 § 2.4.2.3.
    """
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    return header[1] >> 3 & 3, header[2] >> 2 & 3, int(header[3] >> 6 == 3)


def ac3_kind(header: bytes) -> tuple[int, ...] | None:
    """The same of AC-3: rate and channels (ETSI TS 102 366 § 4.3)."""
    if len(header) < 7 or header[:2] != b"\x0b\x77":
        return None
    return header[4] >> 6, header[6] >> 5


_FRAME_KINDS = {"mp3": mp3_kind, "ac3": ac3_kind}


class _Copied(Soundtrack):
    def __init__(self, track: AudioTrack, container: av.container.OutputContainer) -> None:
        super().__init__(track)
        self._container = container
        self._stream = container.add_stream_from_template(track.stream)
        self._packets = track.packets()
        self._pending: av.Packet[av.AudioStream] | None = None
        self._last_dts: int | None = None

    def pump(self, until_s: float) -> None:
        while (packet := self._peek()) is not None and self._start_s(packet) < until_s:
            self._write(packet)

    def finish(self, end_s: float) -> None:
        while (packet := self._peek()) is not None:
            # A packet cannot be cut: keep it when most of it is heard.
            if self._start_s(packet) + self._length_s(packet) / 2 > end_s:
                return
            self._write(packet)

    def _peek(self) -> av.Packet[av.AudioStream] | None:
        while self._pending is None:
            packet = next(self._packets, None)
            if packet is None:
                return None
            if packet.pts is None or packet.dts is None:
                continue
            late = self._last_dts is not None and packet.dts <= self._last_dts
            # One packet from before the start goes along: it primes the decoder and is not heard.
            if not late and self._start_s(packet) + 2 * self._length_s(packet) > 0:
                self._pending = packet
        return self._pending

    def _start_s(self, packet: av.Packet[av.AudioStream]) -> float:
        return float((packet.pts or 0) * packet.time_base) - self._track.start_s

    @staticmethod
    def _length_s(packet: av.Packet[av.AudioStream]) -> float:
        return float((packet.duration or 0) * packet.time_base)

    def _write(self, packet: av.Packet[av.AudioStream]) -> None:
        self._pending = None
        self._last_dts = packet.dts
        shift = round(self._track.start_s / packet.time_base)
        packet.pts = (packet.pts or 0) - shift
        packet.dts = (packet.dts or 0) - shift
        packet.stream = self._stream
        self._container.mux(packet)


class _Encoded(Soundtrack):
    def __init__(
        self, track: AudioTrack, container: av.container.OutputContainer, sound: SoundFormat
    ) -> None:
        super().__init__(track)
        self._container = container
        source = track.stream.codec_context
        self._rate_hz = source.sample_rate if source.sample_rate in sound.rates_hz else 48000
        self._layout = "mono" if source.channels == 1 else "stereo"
        self._stream = cast(
            av.AudioStream,
            container.add_stream(sound.encoder, rate=self._rate_hz, options={"b": "160000"}),
        )
        self._stream.layout = self._layout
        self._written = 0  # samples of output so far, counted from media time 0
        self._chunks = self._decode()
        self._pending: tuple[int, F32] | None = None

    def pump(self, until_s: float) -> None:
        until = round(until_s * self._rate_hz)
        while (chunk := self._peek()) is not None and chunk[0] + chunk[1].shape[1] <= until:
            self._write(*chunk)

    def finish(self, end_s: float) -> None:
        end = round(end_s * self._rate_hz)
        while (chunk := self._peek()) is not None and chunk[0] < end:
            self._write(chunk[0], chunk[1][:, : end - chunk[0]])
        for packet in self._stream.encode(None):
            self._container.mux(packet)

    def _peek(self) -> tuple[int, F32] | None:
        if self._pending is None:
            self._pending = next(self._chunks, None)
        return self._pending

    def _decode(self) -> Iterator[tuple[int, F32]]:
        """(first sample's place in the output, (channels, N) float32) of each decoded piece."""
        resampler: AudioResampler | None = None
        now: object = None
        base_s: float | None = None
        end, end_s, changed = 0, 0.0, False
        for packet in self._track.packets():
            try:
                frames = self._track.stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue  # the hole becomes silence
            for frame in frames:
                if base_s is None:
                    base_s = (frame.time or 0.0) - self._track.start_s
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None or kind != now:
                    wide = len(frame.layout.channels) > _MOST_MIXED
                    packing = ("flt", None) if wide else ("fltp", self._layout)
                    changed = resampler is not None
                    resampler, now = AudioResampler(*packing, self._rate_hz), kind
                for piece in resampler.resample(frame):
                    at_s = (piece.time or 0.0) - self._track.start_s if piece.pts is not None else base_s
                    samples = cast(F32, piece.to_ndarray())
                    if (channels := len(piece.layout.channels)) > _MOST_MIXED:
                        mono = samples.reshape(-1, channels).mean(1, dtype=np.float32)
                        samples = np.repeat(mono[None], 1 if self._layout == "mono" else 2, 0)
                    place = round(at_s * self._rate_hz)
                    if (
                        changed
                    ):  # the stamps still count frames of the first rate: only holes in them are true
                        hole_s = at_s - end_s
                        place = end + (round(hole_s * self._rate_hz) if hole_s > _GAP_S else 0)
                    end, end_s = place + samples.shape[1], at_s + samples.shape[1] / self._rate_hz
                    yield place, samples

    def _write(self, place: int, samples: F32) -> None:
        self._pending = None
        early = self._written - place
        if early > 0:
            # Before the video's first frame, or a few samples of rounding.
            samples = samples[:, early:]
        elif -early > _GAP_S * self._rate_hz or (self._written == 0 and early < 0):
            self._encode(np.zeros((samples.shape[0], -early), np.float32))
        if samples.shape[1]:
            self._encode(samples)

    def _encode(self, samples: F32) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", self._layout)
        frame.sample_rate = self._rate_hz
        frame.pts = self._written
        frame.time_base = Fraction(1, self._rate_hz)
        self._written += samples.shape[1]
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
