"""What comes over the wire, through aiortc's receiver with our `Reception` in it, down to decoded frames."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none, reportAttributeAccessIssue=none

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.opus import OpusEncoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from aiortc.rtp import RtpPacket, wrap_rtx
from calls import until
from receiving import H264, OPUS, PCMU, RTX, VP8, code_of, decode_at_once, made_receiver, vp8_delta, vp8_key

from streamer.webrtc import decoding
from streamer.webrtc.decoding import DecoderQueue, Decoding, decoder_worker
from streamer.webrtc.media import video_frame_of
from streamer.webrtc.picture_buffer import EncodedPicture
from streamer.webrtc.reception import (
    MOST_PICTURE_PACKETS_PER_S,
    MOST_SOUND_PACKETS_PER_S,
    Reception,
    reception_of,
    watch,
)
from streamer.webrtc.sound_buffer import EncodedSound
from streamer.webrtc.waiting import KEY_EVERY_MS

PERIOD_MS = 100 / 3
VIDEO_SSRC, RTX_SSRC = 1234, 5678


@dataclass
class Sender:
    """A camera that encodes noise, so that a picture is many packets; a key frame when asked."""

    codec: RTCRtpCodecParameters = field(default_factory=lambda: VP8)
    size: tuple[int, int] = (320, 240)
    fps: float = 30.0
    sequence: int = 65_000
    number: int = 0
    force: bool = False
    seed: int = 0
    encoder: Any = field(init=False)

    def __post_init__(self) -> None:
        self.encoder = Vp8Encoder() if self.codec is VP8 else H264Encoder()

    def picture(self) -> list[RtpPacket]:
        width, height = self.size
        noise = np.random.default_rng(self.number).integers(0, 60, (height, width, 3), np.uint8)
        frame = video_frame_of(noise, round(90_000 / self.fps) * self.number)
        payloads, time = self.encoder.encode(frame, self.force)
        self.force = False
        packets: list[RtpPacket] = []
        for k, payload in enumerate(payloads):
            is_last = k == len(payloads) - 1
            packets.append(
                RtpPacket(
                    self.codec.payloadType or 0,
                    int(is_last),
                    self.sequence,
                    time & 0xFFFFFFFF,
                    VIDEO_SSRC,
                    payload,
                )
            )
            self.sequence = (self.sequence + 1) & 0xFFFF
        self.number += 1
        return packets


@dataclass
class Line:
    """A receiver at the end of a line, with its decoder in step; asked for key frames, the sender gives one."""

    sender: Sender = field(default_factory=Sender)
    answers: bool = True
    lose: Callable[[int, int], bool] = lambda *_: False  # (picture, packet of it)
    dropped: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    refused: list[str] = field(default_factory=list[str])
    shown: list[int] = field(default_factory=list[int])  # numbers of decoded pictures
    now_ms: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.receiver = made_receiver("video", self.sender.codec, RTX)
        self.receiver._RTCRtpReceiver__rtx_ssrc[RTX_SSRC] = VIDEO_SSRC
        self.track = RemoteStreamTrack("video")
        self.reception: Reception = decode_at_once(self.receiver, self.track)
        self.reception.on_dropped = lambda count, stage: self.dropped.append((count, stage))
        self.reception.on_refused = self.refused.append
        self.reception.queue.hand_on = self._show  # type: ignore[method-assign]

    @property
    def asked(self) -> list[tuple[str, Any]]:
        return self.receiver.asked

    async def run(self, pictures: int) -> None:
        for _ in range(pictures):
            number = self.sender.number
            for k, packet in enumerate(self.sender.picture()):
                if not self.lose(number, k):
                    await self.feed(packet)
            self.now_ms += 1000 / self.sender.fps
            if self.answers and any(kind == "pli" for kind, _ in self.asked):
                self.sender.force = True
                self.asked.clear()

    async def feed(self, packet: RtpPacket) -> None:
        await self.receiver._handle_rtp_packet(packet, round(self.now_ms))

    def _show(self, _: object, frame: Any) -> None:
        origin = self.reception.rtp_origin or 0
        self.shown.append(round((frame.pts + origin) / 90_000 * self.sender.fps))


@pytest.mark.parametrize("codec", [VP8, H264], ids=["VP8", "H264"])
async def test_every_picture_comes_with_its_last_packet(codec: RTCRtpCodecParameters) -> None:
    line = Line(Sender(codec))
    for k in range(30):
        await line.run(1)
        assert line.shown == list(range(k + 1))
    assert line.asked == []


@pytest.mark.parametrize("codec", [VP8, H264], ids=["VP8", "H264"])
@pytest.mark.parametrize(("first", "length"), [(10, 1), (10, 5), (10, 40), (0, 3)])
async def test_a_burst_of_lost_pictures_ends_with_a_key_frame(
    codec: RTCRtpCodecParameters, first: int, length: int
) -> None:
    line = Line(Sender(codec), lose=lambda n, _: first <= n < first + length)
    await line.run(first + length + 30)
    # given up after 200 ms, asked for, encoded with the next picture
    assert line.shown[:first] == list(range(first))
    assert first + length <= line.shown[first] <= first + length + 9
    assert line.shown[first:] == list(range(line.shown[first], first + length + 30))


async def test_part_of_a_key_frame_lost_and_lost_again() -> None:
    """Three key frames in a row lose a packet: the fourth is asked for as well."""
    keys: list[int] = []

    def lose(number: int, packet: int) -> bool:
        if packet == 0 and (number == 0 or line.sender.number - 1 in forced):
            keys.append(number)
        return number in keys[:3] and packet == 2

    forced: list[int] = []
    line = Line(lose=lose)
    for _ in range(120):
        if line.sender.force:
            forced.append(line.sender.number)
        await line.run(1)
    assert len(keys) == 4
    assert line.shown == list(range(keys[3], 120))


async def test_lost_packets_are_asked_for_and_fill_the_gap() -> None:
    sender = Sender()
    line = Line(sender)
    await line.run(5)
    first, second, third = sender.picture(), sender.picture(), sender.picture()
    for packet in [*first[:1], *first[2:], *second]:
        await line.feed(packet)
    assert line.asked == [("nack", [first[1].sequence_number])]
    assert line.shown == list(range(5))
    await line.feed(wrap_rtx(first[1], payload_type=98, sequence_number=1, ssrc=RTX_SSRC))
    assert line.shown == list(range(7)), "both at once"
    for packet in third:
        await line.feed(packet)
    assert line.shown == list(range(8))
    assert len(line.asked) == 1


async def test_key_frames_are_asked_for_at_most_so_often() -> None:
    line = Line(lose=lambda n, _: n == 10, answers=False)
    asked_ms: list[float] = []
    for _ in range(100):
        before = len(line.asked)
        await line.run(1)
        asked_ms += [line.now_ms for kind, _ in line.asked[before:] if kind == "pli"]
    assert 3 <= len(asked_ms) <= 1 + 2000 / KEY_EVERY_MS
    assert all(b - a >= KEY_EVERY_MS - 1 for a, b in itertools.pairwise(asked_ms))
    assert line.shown[-1] == 99, "a sender that gives none is decoded as it comes"


async def test_padding_ends_no_decoder() -> None:
    line = Line()
    await line.run(3)
    for _ in range(3):
        sequence, time = line.sender.sequence, 3000 * 2
        await line.feed(RtpPacket(97, 0, sequence, time, VIDEO_SSRC, b""))
        line.sender.sequence += 1
    await line.run(5)
    assert line.shown == list(range(8))


async def test_what_is_no_picture_ends_no_decoder() -> None:
    line = Line()
    await line.run(3)
    junk = vp8_key(320, 240)  # a key frame of nothing
    line.reception.queue.failed()
    with pytest.raises(av.FFmpegError):
        decoding.opened(VP8).decode(JitterFrame(junk, 0))
    await line.run(5)
    assert line.shown == list(range(8))


@pytest.mark.parametrize(("codec", "size"), [(VP8, (2560, 1440)), (H264, (2560, 1440))], ids=["VP8", "H264"])
async def test_pictures_that_are_too_large_are_never_decoded(
    codec: RTCRtpCodecParameters, size: tuple[int, int]
) -> None:
    line = Line(Sender(codec))
    await line.run(5)
    line.sender.size = size
    await line.run(2)
    assert line.shown == list(range(5))
    assert line.reception.buffer is not None
    assert len(line.reception.buffer._waiting) == 0, "nor kept"
    assert len(line.refused) == 1
    assert "choose one of at most 1920 × 1200" in line.refused[0]
    assert f"{size[0]} × " in line.refused[0]
    assert line.asked == [], "a key frame would be as large"
    assert line.dropped == [(1, "received")] * 2, "and counted"
    line.sender.size = (320, 240)
    await line.run(20)
    assert line.shown == [*range(5), *range(7, 27)], "and a smaller one is taken at once"
    line.sender.size = size
    await line.run(2)
    assert len(line.refused) == 1, "told once"


@pytest.mark.parametrize("size", [(8192, 8192), (16_383, 16_383)])
async def test_a_size_that_is_only_claimed_costs_nothing(size: tuple[int, int]) -> None:
    line = Line()
    await line.run(5)
    for k in range(200):
        payload = b"\x10" + (vp8_key(*size) if k % 10 == 0 else vp8_delta(k)) + bytes(1000)
        await line.feed(RtpPacket(97, 1, line.sender.sequence, 3000 * (5 + k), VIDEO_SSRC, payload))
        line.sender.sequence = (line.sender.sequence + 1) & 0xFFFF
        line.now_ms += PERIOD_MS
    assert line.shown == list(range(5))
    assert [kind for kind, _ in line.asked] == []


@pytest.mark.parametrize("codec", [VP8, H264], ids=["VP8", "H264"])
def test_the_decoder_itself_takes_no_larger_picture(codec: RTCRtpCodecParameters) -> None:
    """A second line: whatever the head of a picture says."""
    sender = Sender(codec, (2560, 1440))
    packets = sender.picture()
    data = b"".join(decoding_data(codec, p) for p in packets)
    with pytest.raises(av.FFmpegError):
        decoding.opened(codec).decode(JitterFrame(data, 0))


def decoding_data(codec: RTCRtpCodecParameters, packet: RtpPacket) -> bytes:
    from aiortc.codecs import depayload

    return depayload(codec, packet.payload)


@pytest.mark.parametrize(("kind", "most"), [
    ("video", MOST_PICTURE_PACKETS_PER_S), ("audio", MOST_SOUND_PACKETS_PER_S)
])  # fmt: skip
async def test_more_packets_than_a_call_needs_are_not_looked_at(kind: str, most: int) -> None:
    receiver = made_receiver(kind, VP8 if kind == "video" else PCMU)
    reception = reception_of(receiver)
    assert reception is not None
    looked = 0
    seconds, rate = 5, 20_000
    for k in range(seconds * rate):
        packet = RtpPacket(97 if kind == "video" else 0, 0, k & 0xFFFF, k, 1, b"\x00x")
        looked += reception.admits(packet, 1000 * k / rate)
    assert seconds * most * 0.9 <= looked <= (seconds + 1) * most * 1.1 + 1


async def test_what_nobody_reads_is_not_decoded() -> None:
    """A camera in a call that its voice drives: aiortc keeps every decoded picture for whoever may ask."""
    line = Line()
    line.reception.is_wanted = False
    await line.run(20)
    assert line.shown == []
    assert line.reception.buffer is None


async def test_decoded_pictures_that_nobody_takes_do_not_pile_up() -> None:
    queue, track = (
        DecoderQueue(lambda count, stage: dropped.append((count, stage))),
        RemoteStreamTrack("video"),
    )
    dropped: list[tuple[int, str]] = []
    for k in range(50):
        queue.hand_on(track._queue, video_frame_of(np.zeros((16, 16, 3), np.uint8), k))
    assert track._queue.qsize() == 1
    assert track._queue.get_nowait().pts == 49
    assert dropped == [(1, "decoded")] * 49


async def test_decoded_sound_that_nobody_takes_does_not_pile_up() -> None:
    receiver = made_receiver("audio", PCMU)
    track = RemoteStreamTrack("audio")
    reception = decode_at_once(receiver, track)
    counts: list[int] = []
    reception.on_dropped = lambda count, _: counts.append(count)
    for k in range(200):
        packet = RtpPacket(0, 0, k, 160 * k, 1, bytes([code_of(k)]) * 160)
        await receiver._handle_rtp_packet(packet, 20 * k)
    assert track._queue.qsize() == 10
    assert sum(counts) == 190
    assert track._queue.get_nowait().pts == 190 * 160, "with its own time: who takes it knows what is missing"


CODECS = {"VP8": VP8, "H264": H264, "PCMU": PCMU, "Opus": OPUS}


@pytest.mark.parametrize("name", CODECS)
async def test_whatever_comes_the_receiver_lives_and_stays_small(name: str) -> None:
    """Packets of nonsense: numbers, times, sources, marks and payloads by chance; then an honest stream."""
    codec = CODECS[name]
    is_video = codec.clockRate == 90_000
    receiver = made_receiver("video" if is_video else "audio", codec, *([RTX] if is_video else []))
    receiver._RTCRtpReceiver__rtx_ssrc[3] = 1
    reception = reception_of(receiver)
    assert reception is not None
    queue, frames = reception.queue, Decoding()
    chance = random.Random(11)
    heads = [
        b"",
        b"\x10" + vp8_key(64, 48),
        b"\x10" + vp8_delta(1),
        b"\x67\x42",
        b"\x78\x00\x02\x67\x42",
        b"\x7c\x85",
    ]
    now_ms, sequence, time = 1_000_000.0, 0, 0
    for _ in range(4000):
        now_ms += chance.choice([0, 1, 20, 500, -500])
        sequence = chance.choice([sequence + 1, sequence + 2, sequence, chance.randrange(2**16)]) & 0xFFFF
        time = chance.choice([time, time + 960, chance.randrange(2**32)]) & 0xFFFFFFFF
        payload = chance.choice(heads) + chance.randbytes(chance.choice([0, 1, 2, 40]))
        packet = RtpPacket(
            chance.choice([codec.payloadType or 0, codec.payloadType or 0, 98, 127]),
            chance.randrange(2), sequence, time, chance.choice([1, 1, 1, 2, 3, chance.randrange(2**32)]), payload,
        )  # fmt: skip
        await receiver._handle_rtp_packet(packet, round(now_ms))
        while chance.random() < 0.7 and (task := queue.take_now()) is not None:
            with contextlib.suppress(Exception):  # the decoder's thread goes on, too
                list(frames(*task))
    assert len(reception.buffer._waiting) <= 513 if reception.buffer else True
    while queue.take_now() is not None:
        pass
    now_ms += 10_000
    seen = 0
    sender = Sender(codec, sequence=30_000) if is_video else None
    for k in range(60):
        packets = sender.picture() if sender else [
            RtpPacket(codec.payloadType or 0, 0, 40_000 + k, (123 + codec.clockRate // 50 * k), 1, sounds_of(name)[k])
        ]  # fmt: skip
        if sender and any(kind == "pli" for kind, _ in receiver.asked):
            sender.force = True
            receiver.asked.clear()
        for packet in packets:
            packet.ssrc = 1
            await receiver._handle_rtp_packet(packet, round(now_ms))
        now_ms += PERIOD_MS if is_video else 20.0
        while (task := queue.take_now()) is not None:
            seen += len(list(frames(*task)))
    assert seen >= 40


@lru_cache
def sounds_of(name: str) -> list[bytes]:
    """A second of tone."""
    encoder = OpusEncoder()
    if name == "PCMU":
        return [bytes([code_of(k)]) * 160 for k in range(60)]
    payloads: list[bytes] = []
    for k in range(60):
        frame = av.AudioFrame.from_ndarray(np.full((1, 1920), 99, np.int16), "s16", "stereo")
        frame.sample_rate, frame.pts = 48_000, 960 * k
        payloads += encoder.encode(frame)[0]
    return payloads


class SlowDecoder:
    """Waits at a gate before each frame."""

    gate = threading.Event()
    taken: list[bytes]

    def decode(self, encoded: JitterFrame) -> list[Any]:
        self.gate.wait(60)
        self.taken.append(encoded.data)
        if encoded.data == b"bad":
            raise ValueError("whatever a decoder stumbles on")
        return []


async def worker_run(
    monkeypatch: pytest.MonkeyPatch, tasks: Iterable[Any]
) -> tuple[SlowDecoder, DecoderQueue, threading.Thread, asyncio.Queue[Any]]:
    decoder = SlowDecoder()
    decoder.gate, decoder.taken = threading.Event(), []
    monkeypatch.setattr(decoding, "opened", lambda _: decoder)
    queue, decoded = DecoderQueue(), asyncio.Queue[Any]()
    for task in tasks:
        queue.put(task)
    arguments = (asyncio.get_running_loop(), queue, decoded, threading.Event())
    thread = threading.Thread(target=decoder_worker, args=arguments)
    thread.start()
    return decoder, queue, thread, decoded


async def test_the_end_does_not_wait_for_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [(PCMU, EncodedSound(160 * k, b"%d" % k, 20.0 * k)) for k in range(10)]
    decoder, queue, thread, decoded = await worker_run(monkeypatch, tasks)
    queue.put(None)
    decoder.gate.set()
    assert await asyncio.wait_for(decoded.get(), 60) is None
    thread.join(60)
    assert len(decoder.taken) <= 1


async def test_an_overload_leaves_no_queue() -> None:
    """A minute of sound and pictures for a decoder that stands still."""
    for codec, made, most in (
        (PCMU, lambda k: EncodedSound(160 * k, b"x", 20.0 * k), 11),
        (VP8, lambda k: EncodedPicture(3000 * k, vp8_delta(k) if k else vp8_key(64, 48), 33.3 * k), 6),
    ):  # fmt: skip
        queue = DecoderQueue()
        assert queue.qsize() == 0
        for k in range(1800):
            queue.put((codec, made(k)))
            assert queue.qsize() <= most


def taken_of(
    codecs: list[RTCRtpCodecParameters], each: Callable[[int], EncodedPicture | EncodedSound]
) -> int:
    """Of 500 a second for four seconds, of these codecs in turn: how many a decoder gets."""
    dropped: list[int] = []
    queue, taken = DecoderQueue(lambda count, _: dropped.append(count)), 0
    for k in range(2000):
        queue.put((codecs[k % len(codecs)], each(k)))
        taken += queue.take_now() is not None
    assert taken + sum(dropped) == 2000, "what was dropped was counted"
    return taken


async def test_who_alternates_between_codecs_gets_no_more_decoded() -> None:
    def full_hd(k: int) -> EncodedPicture:
        return EncodedPicture(180 * k, vp8_key(1920, 1080), 2.0 * k)

    def sound(k: int) -> EncodedSound:
        return EncodedSound(160 * k, b"x", 2.0 * k)

    pcma = RTCRtpCodecParameters("audio/PCMA", 8000, channels=1, payloadType=8)
    for first, second, each in ((VP8, H264, full_hd), (PCMU, pcma, sound)):
        alone = taken_of([first], each)
        assert alone >= 4 * 30
        assert 1 <= taken_of([first, second], each) <= alone


async def test_another_codec_is_decoded_at_once() -> None:
    """As in a call whose description changes: no more than the change itself is paid."""
    vp8_again = RTCRtpCodecParameters("video/VP8", 90_000, payloadType=100)
    queue = DecoderQueue()
    for k in range(90):
        codec = VP8 if k < 45 else vp8_again
        queue.put(
            (codec, EncodedPicture(3000 * k, vp8_delta(k) if k % 45 else vp8_key(640, 480), PERIOD_MS * k))
        )
        task = queue.take_now()
        assert task is not None
        assert task[0] is codec


async def test_whatever_one_packet_does_the_next_is_decoded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    datas = [b"1", b"bad", b"", b"bad", b"2"]
    tasks = [(PCMU, EncodedSound(160 * k, data, 20.0 * k)) for k, data in enumerate(datas)]
    decoder, queue, thread, _ = await worker_run(monkeypatch, tasks)
    decoder.gate.set()
    await until(lambda: len(decoder.taken) == 4, "all but the empty one")
    assert decoder.taken == [b"1", b"bad", b"bad", b"2"]
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1, "said once"
    queue.put(None)
    await asyncio.get_running_loop().run_in_executor(None, thread.join, 60)


async def test_a_watched_track_tells() -> None:
    peer = RTCPeerConnection()
    try:
        transceiver = peer.addTransceiver("video")
        told: list[object] = []
        watch(transceiver.receiver, lambda n, s: told.append((n, s)), told.append, is_read=False)
        reception = reception_of(transceiver.receiver)
        assert reception is not None
        reception.on_dropped(3, "received")
        reception.on_refused("too large")
        assert told == [(3, "received"), "too large"]
        assert not reception.is_wanted
    finally:
        await peer.close()


async def test_what_we_reach_into_is_still_there() -> None:
    """An update of aiortc that moves any of this must fail here and not in a call."""
    receiver = made_receiver("video", VP8)
    for name in ("jitter_buffer", "codecs", "decoder_queue", "decoder_thread", "nack_generator"):
        assert hasattr(receiver, f"_RTCRtpReceiver__{name}"), name
    assert receiver._RTCRtpReceiver__jitter_buffer is reception_of(receiver)
    assert next(iter(inspect.signature(decoder_worker).parameters.values())).name == "loop"
    import aiortc.rtcrtpreceiver as theirs

    source = inspect.getsource(theirs.RTCRtpReceiver.receive)
    assert "target=decoder_worker" in source, "looked up in the module, where ours is"
    assert theirs.decoder_worker is decoder_worker
    for name in ("_send_rtcp_nack", "_send_rtcp_pli"):
        assert list(inspect.signature(getattr(RTCRtpReceiver, name)).parameters)[:2] == ["self", "media_ssrc"]
