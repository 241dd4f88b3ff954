"""A receiver of aiortc on a virtual clock: made packets in, what its track and the call's sound make of them out."""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, TypeVar

import av
import numpy as np
from aiortc import RTCRtpReceiver
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from aiortc.rtp import RtpPacket
from numpy.typing import NDArray

from streamer.webrtc import aiortc_fixes
from streamer.webrtc.decoding import Decoding
from streamer.webrtc.media import DelayedAudioTrack
from streamer.webrtc.reception import Reception, reception_of

T = TypeVar("T")

VP8 = RTCRtpCodecParameters("video/VP8", 90_000, payloadType=97)
RTX = RTCRtpCodecParameters("video/rtx", 90_000, payloadType=98, parameters={"apt": 97})
H264 = RTCRtpCodecParameters("video/H264", 90_000, payloadType=99)
PCMU = RTCRtpCodecParameters("audio/PCMU", 8000, channels=1, payloadType=0)
OPUS = RTCRtpCodecParameters("audio/opus", 48_000, channels=2, payloadType=96)

PACKET = 160  # samples of PCMU in 20 ms
RATE_HZ = 8000


class _InstantSelector(selectors.DefaultSelector):
    """Waits by moving the loop's time on."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.loop.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody waits: no test is faster or slower than another."""

    def __init__(self) -> None:
        selector = _InstantSelector()
        super().__init__(selector)
        selector.loop = self
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s


def on_virtual_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work())


def made_receiver(kind: str, *codecs: RTCRtpCodecParameters) -> RTCRtpReceiver:
    """A receiver that decodes nothing by itself; what it sends goes into its `asked`."""
    aiortc_fixes.apply()
    receiver = RTCRtpReceiver(kind, SimpleNamespace(state="new", _stats_id="x"))  # type: ignore[arg-type]
    for codec in codecs:
        receiver._RTCRtpReceiver__codecs[codec.payloadType] = codec
    receiver._RTCRtpReceiver__decoder_thread = object()
    asked: list[tuple[str, Any]] = []

    async def nack(_: int, lost: list[int]) -> None:
        asked.append(("nack", lost))

    async def pli(_: int) -> None:
        asked.append(("pli", None))

    receiver._send_rtcp_nack, receiver._send_rtcp_pli = nack, pli  # type: ignore[method-assign]
    receiver.asked = asked
    return receiver


def decode_at_once(receiver: RTCRtpReceiver, track: RemoteStreamTrack) -> Reception:
    """Let what is put into the decoder's queue be decoded there and then, into the track."""
    reception = reception_of(receiver)
    assert reception is not None
    queue, decoding = reception.queue, Decoding()
    put = queue.put

    def put_and_decode(task: Any) -> None:
        put(task)
        while (waiting := queue.take_now()) is not None:
            for frame in decoding(*waiting):
                queue.hand_on(track._queue, frame)

    queue.put = put_and_decode  # type: ignore[method-assign]
    return reception


def vp8_key(width_px: int, height_px: int) -> bytes:
    """The head of a key frame that nobody decodes (RFC 6386 § 9.1)."""
    sizes = width_px.to_bytes(2, "little") + height_px.to_bytes(2, "little")
    return b"\x50\x02\x00\x9d\x01\x2a" + sizes + bytes(8)


def vp8_delta(number: int) -> bytes:
    """The head of a frame that needs others."""
    return b"\x31\x02\x00" + number.to_bytes(4, "big") + bytes(8)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Packet `number` of a sender, and when it comes."""

    number: int
    at_s: float
    sequence: int
    rtp_time: int
    payload: bytes
    source: int = 1


def sound_packet(
    number: int, delay_s: float = 0.03, *, sequence0: int = 65_500, time0: int = 2**32 - 9000
) -> Arrival:
    """20 ms of PCMU that hold `number` in every sample, leaving when the last one was heard; both counters wrap."""
    at_s = (number + 1) * PACKET / RATE_HZ + delay_s
    sequence, rtp_time = (sequence0 + number) & 0xFFFF, (time0 + PACKET * number) & 0xFFFFFFFF
    return Arrival(number, at_s, sequence, rtp_time, bytes([code_of(number)]) * PACKET)


NUMBERS = 250  # what an octet of PCMU can tell apart, with neither of its two zeros


def code_of(number: int) -> int:
    """The octet for a packet's number."""
    code = number % NUMBERS
    return code + (code >= 0x7F)


@lru_cache(1)
def level_numbers() -> dict[int, int]:
    """What each octet of PCMU decodes to → the numbers it stands for, modulo `NUMBERS`."""
    decoder: Any = av.CodecContext.create("pcm_mulaw", "r")
    decoder.format, decoder.layout, decoder.sample_rate = "s16", "mono", RATE_HZ
    decoded = decoder.decode(av.Packet(bytes(code_of(k) for k in range(NUMBERS))))[0].to_ndarray()[0]
    return {int(level): number for number, level in enumerate(decoded)}


@dataclass(slots=True)
class Played:
    """What left: pieces of sound (S,), when, and their RTP time in samples."""

    pieces: list[tuple[float, int, NDArray[np.int16]]] = field(
        repr=False
    )  # asyncio looks at what a task gave
    reception: Reception

    def numbers(self) -> list[tuple[int, float, int]]:
        """(packet number, its lag in seconds, its shift in samples) of each piece that is one packet's alone.

        The lag is between the moment its first sample was heard and the moment it left; the shift is between its
        time in the stream that left and in the one that came.
        """
        numbers = level_numbers()
        found: list[tuple[int, float, int]] = []
        before = 0
        for at_s, pts, samples in self.pieces:
            level = int(samples[0])
            if len(samples) == PACKET and (samples == level).all() and level in numbers:
                before += (numbers[level] - before) % NUMBERS
                found.append((before, at_s - before * PACKET / RATE_HZ, pts - before * PACKET))
        return found


def play(
    arrivals: Iterable[Arrival],
    *,
    delay_ms: float = 0.0,
    heard: Callable[[av.AudioFrame], None] = lambda _: None,
    codec: RTCRtpCodecParameters = PCMU,
) -> Played:
    """Feed packets as they arrive, through aiortc's receiver, decoder, and the track that sends sound back."""

    async def run() -> Played:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        receiver = made_receiver("audio", codec)
        track = RemoteStreamTrack("audio")
        played = Played([], decode_at_once(receiver, track))
        back = DelayedAudioTrack(track, lambda _: delay_ms, heard)

        async def send_back() -> None:
            while True:
                frame = await back.recv()
                channels = len(frame.layout.channels)
                samples = np.asarray(frame.to_ndarray(), np.int16).reshape(-1, channels)[:, 0]
                played.pieces.append((loop.time() - start_s, frame.pts or 0, samples))

        sending = asyncio.create_task(send_back())
        for arrival in sorted(arrivals, key=lambda a: a.at_s):
            await asyncio.sleep(start_s + arrival.at_s - loop.time())
            packet = RtpPacket(
                codec.payloadType or 0, 1, arrival.sequence, arrival.rtp_time, arrival.source, arrival.payload
            )
            await receiver._handle_rtp_packet(packet, round(loop.time() * 1000))
        await asyncio.sleep(1.0)
        sending.cancel()
        return played

    return on_virtual_time(run)
