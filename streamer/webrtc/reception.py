"""`Reception`: what an `RTCRtpReceiver` has instead of aiortc's jitter buffer, decoder queue and key frame requests."""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aiortc; tests/test_reception.py checks that what it reaches for is there)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiortc.rtcrtpreceiver as receiver_module
from aiortc import RTCRtpReceiver
from aiortc.codecs import depayload
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket

from streamer.webrtc.budget import Budget
from streamer.webrtc.decoding import DecoderQueue, decoder_worker
from streamer.webrtc.encoded_picture import begins, look
from streamer.webrtc.picture_buffer import EncodedPicture, PictureBuffer, PicturePacket
from streamer.webrtc.sound_buffer import EncodedSound, SoundBuffer, SoundPacket
from streamer.webrtc.sound_filler import SoundCounts
from streamer.webrtc.waiting import Refused, refused

MOST_SOUND_PACKETS_PER_S = 500  # Opus' shortest frames are 2.5 ms
MOST_PICTURE_PACKETS_PER_S = 1500  # 15 Mbit/s


class Reception:
    """Of one track: the buffer that orders its packets, the queue of its decoder, and what was left out.

    `on_dropped` is told how many pictures or sounds were dropped, and before which stage ("received": before
    they were decoded; "decoded": before anybody took them). `on_refused` is told once, in a sentence for the
    page, that the pictures are too large. Both are called on the event loop.
    """

    def __init__(self, receiver: RTCRtpReceiver, kind: str) -> None:
        self.on_dropped: Callable[[int, str], None] = lambda *_: None
        self.on_refused: Callable[[str], None] = lambda _: None
        self.is_wanted = True  # what nobody reads is not decoded
        self.queue = DecoderQueue(lambda count, stage: self.on_dropped(count, stage))
        self.buffer: SoundBuffer | PictureBuffer | None = None
        self._receiver: Any = receiver
        self._is_video = kind == "video"
        most = MOST_PICTURE_PACKETS_PER_S if self._is_video else MOST_SOUND_PACKETS_PER_S
        self._budget = Budget(most, most)
        self._arrived_ms = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_shut = False
        self._has_told = False

    @property
    def rtp_origin(self) -> int | None:
        """The RTP time of a picture or sound whose `pts` is 0; None before the first packet."""
        return None if self.buffer is None else self.buffer.rtp_origin

    @property
    def clock_hz(self) -> int:
        """The rate of its RTP times; 0 before the first packet."""
        return 0 if self.buffer is None else self.buffer.clock_hz

    def admits(self, packet: RtpPacket, arrived_ms: float) -> bool:
        """Whether a packet is looked at: there are not too many of them, nor is their picture too large."""
        self._arrived_ms = arrived_ms
        if not self.is_wanted or not self._budget.take(round(arrived_ms * 1e6)):
            return False
        codec = self._codecs.get(packet.payload_type)
        if self._is_video and codec is not None and begins(codec.name, packet.payload):
            try:
                size = look(codec.name, depayload(codec, packet.payload)).size_px
            except ValueError:
                return False
            if size is not None:
                self._shut(refused(*size))
        if self._is_shut and packet.marker:
            self.on_dropped(1, "received")
        return not self._is_shut

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        """In place of aiortc's `JitterBuffer.add`: no request for a key frame and no frame to decode; both are ours."""
        codec = self._codecs[packet.payload_type]
        data: bytes = packet._data  # type: ignore[attr-defined]
        if self._is_video:
            picture = PicturePacket(
                packet.sequence_number,
                packet.timestamp,
                bool(packet.marker),
                self._arrived_ms,
                data,
                begins=begins(codec.name, packet.payload),
                source=packet.ssrc,
                payload_type=packet.payload_type,
            )
            self._decode(self._pictures(codec).add(picture))
        else:
            sound = SoundPacket(
                packet.sequence_number,
                packet.timestamp,
                self._arrived_ms,
                data,
                source=packet.ssrc,
                payload_type=packet.payload_type,
            )
            self._decode(self._sounds(codec).add(sound))
            self._wait()
        return False, None

    async def answer(self, packet: RtpPacket) -> None:
        """Ask for what is missing: packets, or a key frame."""
        if isinstance(self.buffer, PictureBuffer):
            missing = self.buffer.wanted(self._arrived_ms)
            if missing:
                await self._receiver._send_rtcp_nack(packet.ssrc, missing)
            if self.queue.wants_key(self._arrived_ms):
                await self._receiver._send_rtcp_pli(packet.ssrc)

    @property
    def _codecs(self) -> dict[int, RTCRtpCodecParameters]:
        return self._receiver._RTCRtpReceiver__codecs

    def _pictures(self, codec: RTCRtpCodecParameters) -> PictureBuffer:
        if not isinstance(self.buffer, PictureBuffer):
            self.buffer = PictureBuffer(codec.clockRate)
        return self.buffer

    def _sounds(self, codec: RTCRtpCodecParameters) -> SoundBuffer:
        if not isinstance(self.buffer, SoundBuffer) or self.buffer.clock_hz != codec.clockRate:
            self.buffer = SoundBuffer(codec.clockRate)
        return self.buffer

    def _decode(self, encoded: list[EncodedPicture] | list[EncodedSound]) -> None:
        if self._receiver._RTCRtpReceiver__decoder_thread:
            for one in encoded:
                self.queue.put((self._codecs[one.payload_type], one))
        if encoded and (size := self.queue.refused) is not None:
            self._shut(size)

    def _wait(self) -> None:
        """See that a gap is given up in time though no packet comes."""
        due_ms = self.buffer.due_ms if isinstance(self.buffer, SoundBuffer) else None
        if due_ms is not None and self._timer is None:
            delay_s = max(0.0, due_ms - self._arrived_ms) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._give_up, due_ms)

    def _give_up(self, now_ms: float) -> None:
        self._timer = None
        if isinstance(self.buffer, SoundBuffer):
            self._decode(self.buffer.pass_time(now_ms))

    def _shut(self, size: Refused | None) -> None:
        self._is_shut = size is not None
        if size is None:
            return
        if isinstance(self.buffer, PictureBuffer):
            self.buffer.clear()
        if not self._has_told:
            self._has_told = True
            self.on_refused(
                f"the camera's picture ({size.width_px} × {size.height_px}) is too large for a call; "
                f"choose one of at most 1920 × 1200"
            )


def reception_of(receiver: object) -> Reception | None:
    """What `improve` gave a receiver that was made after it; None for any other."""
    return getattr(receiver, "visavis_reception", None)


def watch(
    receiver: RTCRtpReceiver,
    on_dropped: Callable[[int, str], None],
    on_refused: Callable[[str], None],
    *,
    is_read: bool = True,
) -> None:
    """Hear what of a received track is dropped, and why. One that is not `is_read` is not even decoded."""
    reception = reception_of(receiver)
    if reception is not None:
        reception.on_dropped, reception.on_refused, reception.is_wanted = on_dropped, on_refused, is_read


def sound_counts_of(receiver: object) -> SoundCounts:
    """What becomes of the sound of a receiver, as it goes on."""
    reception = reception_of(receiver)
    return SoundCounts() if reception is None else reception.queue.sound_counts


def improve() -> None:
    """Give every `RTCRtpReceiver` made from now on a `Reception`."""
    begin, handle = RTCRtpReceiver.__init__, RTCRtpReceiver._handle_rtp_packet

    def begin_with(self: Any, kind: str, transport: Any) -> None:
        begin(self, kind, transport)
        reception = self.visavis_reception = Reception(self, kind)
        self._RTCRtpReceiver__jitter_buffer = reception
        self._RTCRtpReceiver__decoder_queue = reception.queue
        self._RTCRtpReceiver__nack_generator = None

    async def handle_with(self: Any, packet: Any, arrival_time_ms: int) -> None:
        reception: Reception = self.visavis_reception
        if reception.admits(packet, arrival_time_ms):
            await handle(self, packet, arrival_time_ms)
            await reception.answer(packet)

    RTCRtpReceiver.__init__ = begin_with
    RTCRtpReceiver._handle_rtp_packet = handle_with
    receiver_module.decoder_worker = decoder_worker
