"""Between the event loop and a decoder's thread: what waits for it, and what it does with that."""

# pyright: reportMissingTypeStubs=none

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc.codecs import get_decoder
from aiortc.codecs.base import Decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from streamer.webrtc.libopus import RATE_HZ as OPUS_RATE_HZ
from streamer.webrtc.libopus import has_libopus
from streamer.webrtc.opus_sound import OpusSound
from streamer.webrtc.picture_buffer import EncodedPicture
from streamer.webrtc.sound_buffer import EncodedSound
from streamer.webrtc.sound_filler import Sound, SoundCounts, SoundFiller
from streamer.webrtc.waiting import (
    MOST_PIXELS,
    MOST_SOUND_MS,
    Allowance,
    PicturesWaiting,
    Refused,
    SoundWaiting,
)

logger = logging.getLogger(__name__)

Encoded = EncodedSound | EncodedPicture
CHANGE_S = 0.1  # what another codec costs of a decoder's second, so that nobody alternates
Task = tuple[RTCRtpCodecParameters, Encoded]


class DecoderQueue:
    """Stands in for the `queue.Queue` between an `RTCRtpReceiver` and its decoder; the newest wins."""

    def __init__(self, on_dropped: Callable[[int, str], None] = lambda *_: None) -> None:
        """`on_dropped` is told how many were dropped, and before which stage; on the event loop."""
        self._on_dropped = on_dropped
        self.sound_counts = SoundCounts()
        self._changed = threading.Condition(threading.Lock())
        self._seconds = Allowance()  # one for all codecs
        self._codec: RTCRtpCodecParameters | None = None
        self._sound: SoundWaiting | None = None
        self._pictures: PicturesWaiting | None = None
        self._has_ended = False

    def put(self, task: Task | None) -> None:
        """Leave something encoded for the decoder, or None: the end, at once."""
        dropped = 0
        with self._changed:
            if task is None:
                self._has_ended = True
            elif task[1].data:  # libavcodec takes an empty packet for the end of the stream
                dropped = self._put(*task)
            self._changed.notify()
        if dropped:
            self._on_dropped(dropped, "received")

    def _put(self, codec: RTCRtpCodecParameters, encoded: Encoded) -> int:
        dropped = 0
        if self._codec is None or codec.payloadType != self._codec.payloadType:
            if self._codec is not None and not self._seconds.take(_came_ms(encoded), CHANGE_S):
                return 1
            dropped = self._count()
            self._codec, self._sound, self._pictures = codec, None, None
            if isinstance(encoded, EncodedSound):
                self._sound = SoundWaiting(codec.clockRate, self._seconds)
            else:
                self._pictures = PicturesWaiting(codec.name, codec.clockRate, self._seconds)
        if isinstance(encoded, EncodedSound):
            return dropped + (0 if self._sound is None else self._sound.put(encoded))
        return dropped + (0 if self._pictures is None else self._pictures.put(encoded))

    def _count(self) -> int:
        waiting = self._pictures if self._sound is None else self._sound
        return 0 if waiting is None else len(waiting)

    def get(self) -> Task | None:
        """The next task; waits for it. None at the end."""
        with self._changed:
            while not self._has_ended:
                task = self._take()
                if task is not None:
                    return task
                self._changed.wait()
            return None

    def qsize(self) -> int:
        """How many wait."""
        with self._changed:
            return self._count()

    def take_now(self) -> Task | None:
        """The next task if there is one."""
        with self._changed:
            return self._take()

    def _take(self) -> Task | None:
        waiting = self._pictures if self._sound is None else self._sound
        encoded = None if waiting is None else waiting.take()
        return None if encoded is None or self._codec is None else (self._codec, encoded)

    def failed(self) -> None:
        """The decoder could not decode what it took."""
        with self._changed:
            if self._pictures is not None:
                self._pictures.has_failed = True

    def wants_key(self, now_ms: float) -> bool:
        """Whether to ask for a key frame now."""
        with self._changed:
            return self._pictures is not None and self._pictures.wants_key(now_ms)

    @property
    def refused(self) -> Refused | None:
        """The size of pictures that are too large to be decoded, while they come."""
        with self._changed:
            return None if self._pictures is None else self._pictures.refused

    def hand_on(self, decoded: asyncio.Queue[Any], frame: av.AudioFrame | av.VideoFrame) -> None:
        """Give a decoded frame to who waits for it; older ones that nobody took go. Called on the event loop."""
        decoded.put_nowait(frame)
        dropped = 0
        while decoded.qsize() > 1 and _span_ms(decoded) > MOST_SOUND_MS:
            decoded.get_nowait()
            dropped += 1
        if dropped:
            self._on_dropped(dropped, "decoded")


def _came_ms(encoded: Encoded) -> float:
    return encoded.released_ms if isinstance(encoded, EncodedSound) else encoded.arrived_ms


def _span_ms(decoded: asyncio.Queue[Any]) -> float:
    """What lies in a queue of decoded frames: sound by its length, every picture as if too long."""
    frames: Any = getattr(decoded, "_queue")  # noqa: B009
    return sum(
        1000 * f.samples / f.sample_rate if isinstance(f, av.AudioFrame) else MOST_SOUND_MS for f in frames
    )


def opened(codec: RTCRtpCodecParameters) -> Decoder:
    """aiortc's decoder, which takes no picture of more than `MOST_PIXELS`."""
    decoder = get_decoder(codec)
    if codec.mimeType.lower().startswith("video/"):
        decoder.codec.options = {"max_pixels": str(MOST_PIXELS)}  # type: ignore[attr-defined]
    return decoder


def decoder_worker(
    loop: asyncio.AbstractEventLoop,
    waiting: DecoderQueue,
    decoded: asyncio.Queue[Any],
    decode_error: threading.Event,
) -> None:
    """Stands in for aiortc's: a decoder's thread. `decode_error` is aiortc's way to ask for a key frame, not ours."""
    del decode_error
    decode = Decoding(waiting.sound_counts)
    while (task := waiting.get()) is not None:
        try:
            frames = list(decode(*task))
        except Exception as error:
            # whatever one packet does, the next one is tried
            logger.log(decode.level, "%s cannot be decoded: %s", task[0].mimeType, error)
            waiting.failed()
            continue
        for frame in frames:
            _tell(loop, waiting.hand_on, decoded, frame)
    _tell(loop, decoded.put_nowait, None)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
        loop.call_soon_threadsafe(call, *arguments)


class Decoding:
    """Encoded → decoded, in order, with a decoder that changes with the codec."""

    def __init__(self, counts: SoundCounts | None = None) -> None:
        self._counts = counts or SoundCounts()
        self._codec: RTCRtpCodecParameters | None = None
        self._decoder: Decoder | OpusSound | None = None
        self._filler: SoundFiller | None = None
        self._has_complained = False

    def __call__(
        self, codec: RTCRtpCodecParameters, encoded: Encoded
    ) -> Iterator[av.AudioFrame | av.VideoFrame]:
        """The frames of it. Raises what the codec raises."""
        if self._decoder is None or self._codec is None or codec.mimeType != self._codec.mimeType:
            is_opus = codec.mimeType.lower() == "audio/opus" and has_libopus()
            self._decoder = OpusSound(self._counts) if is_opus else opened(codec)
            self._codec, self._filler = codec, None
        if isinstance(self._decoder, OpusSound):
            at = encoded.time * OPUS_RATE_HZ // codec.clockRate
            for sound in self._decoder.next(encoded.data, at):
                yield frame_of(sound, "stereo", OPUS_RATE_HZ)
            return
        at = None
        for frame in self._decoder.decode(JitterFrame(encoded.data, encoded.time)):
            if isinstance(frame, av.AudioFrame):
                if at is None:
                    at = encoded.time * frame.sample_rate // codec.clockRate
                filled = self._filled(frame, at)
                at += frame.samples
                if filled is not None:
                    yield filled
            elif isinstance(frame, av.VideoFrame):
                yield frame

    @property
    def level(self) -> int:
        """How loudly to complain: once is enough."""
        level = logging.DEBUG if self._has_complained else logging.WARNING
        self._has_complained = True
        return level

    def _filled(self, frame: av.AudioFrame, at: int) -> av.AudioFrame | None:
        if self._filler is None:
            self._filler = SoundFiller(frame.sample_rate, self._counts)
        channels = len(frame.layout.channels)
        sound = self._filler.next(np.asarray(frame.to_ndarray(), np.int16).reshape(-1, channels), at)
        if not len(sound.samples):
            return None
        return frame_of(sound, frame.layout.name, frame.sample_rate)


def frame_of(sound: Sound, layout: str, rate_hz: int) -> av.AudioFrame:
    """For who listens to a track."""
    made = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound.samples.reshape(1, -1)), format="s16", layout=layout
    )
    made.sample_rate = rate_hz
    made.pts, made.time_base = sound.at, Fraction(1, rate_hz)
    return made
