"""What one peer may cost: each attack on one call, with another call beside it that must not notice."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pylibsrtp
import pytest
from aiortc import InvalidStateError, RTCPeerConnection
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, SCTP_DATA_UNORDERED, DataChunk, ForwardTsnChunk
from aiortc.rtp import RtcpPsfbPacket, RtcpRtpfbPacket, RtpPacket
from calls import Camera, Client, JumpingClock, Painter, only_loopback, plain_enrollment, until
from fakes import AT_LAST_S

from streamer.webrtc import aiortc_fixes
from streamer.webrtc.budget import Budget
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.messages import MAX_MESSAGE_CHARS
from streamer.webrtc.peer_bounds import (
    KEY_FRAMES_PER_S,
    MAX_MESSAGE_BYTES,
    MOST_CHANNELS,
    MOST_FRAGMENTS,
    MOST_GAPS,
    MOST_SSRCS,
    MOST_STREAMS,
    PeerBounds,
    with_bounded_messages,
)
from streamer.webrtc.session import Session
from streamer.webrtc.talk import MESSAGES_AT_ONCE, MOST_UNHEARD

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


def test_a_budget_is_spent_and_comes_back() -> None:
    budget = Budget(10, 3)
    assert [budget.take(0) for _ in range(5)] == [True, True, True, False, False]
    assert [budget.take(100_000_000) for _ in range(2)] == [True, False], "a tenth of a second: one"
    assert sum(budget.take(10**12) for _ in range(9)) == 3, "never more than at once"


def test_a_message_holds_all_characters_that_are_read() -> None:
    assert MAX_MESSAGE_BYTES >= 4 * MAX_MESSAGE_CHARS
    sdp = "a=mid:0\r\na=max-message-size:262144\r\na=end\r\n"
    assert with_bounded_messages(sdp) == f"a=mid:0\r\na=max-message-size:{MAX_MESSAGE_BYTES}\r\na=end\r\n"


async def test_this_aiortc_has_everything_that_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(Camera(), audio=True)
    peer = RTCPeerConnection()
    bounds = PeerBounds(JumpingClock(), lambda _: None)
    try:
        with caplog.at_level(logging.WARNING):
            bounds.guard(peer)
            await client.offer()
            await peer.setRemoteDescription(client.pc.localDescription)
            bounds.install(peer)
        assert [r.getMessage() for r in caplog.records] == []
    finally:
        await client.close()
        await peer.close()


class Call:
    """Both ends, and what they are made of."""

    def __init__(self, session: Session, client: Client) -> None:
        self.session = session
        self.client = client

    @property
    def sctp(self) -> Any:
        """The attacker's own association."""
        return self.client.pc.sctp

    @property
    def dtls(self) -> Any:
        return self.sctp.transport

    @property
    def sender(self) -> Any:
        """What sends pictures to the attacker."""
        return next(t.sender for t in self.session._peer._pc.getTransceivers() if t.kind == "video")

    @property
    def dropped(self) -> int:
        return self.session._peer._bounds.dropped


@asynccontextmanager
async def calling(client: Client, options: CallOptions | None = None) -> AsyncGenerator[Call]:
    def painter(session: Session) -> Painter:
        return Painter(session)

    session = Session(plain_enrollment(), options or CallOptions(drive="demo"), make_avatar=painter)  # type: ignore[arg-type]
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: client.frames and client.of_type("frame"), "the first picture and its message")
        yield Call(session, client)
    finally:
        await client.close()
        await asyncio.wait_for(session.close(), AT_LAST_S)


@asynccontextmanager
async def attacking(caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Call]:
    """An attacker's call; afterwards the one beside it must have gone on in order, and nothing be logged as broken."""
    wrong: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    with caplog.at_level(logging.INFO):
        async with calling(Client()) as victim:
            async with calling(Client()) as attacker:
                yield attacker
            seen = len(victim.client.frames)
            await until(lambda: len(victim.client.frames) > seen + 10, "the call beside to go on")
            assert not victim.session.ending
            pts = [frame.pts for frame in victim.client.frames]
            assert pts == sorted(set(pts))
            assert victim.dropped == 0
    assert wrong == []
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "aiortc" in r.name]
    ours = [
        text for text in told if "(server)" not in text
    ]  # who answers is the client of DTLS (RFC 5763 § 5)
    assert ours == []


def piece(call: Call, data: bytes, *, stream: int = 1, flags: int = 0, protocol: int = 51) -> DataChunk:
    """One DATA chunk of the attacker's."""
    sctp, chunk = call.sctp, DataChunk()
    chunk.flags, chunk.tsn, chunk.stream_id, chunk.stream_seq = flags, sctp._local_tsn, stream, 0
    chunk.protocol, chunk.user_data = protocol, data
    sctp._local_tsn = (sctp._local_tsn + 1) % 2**32
    return chunk


async def unfinished_messages(call: Call) -> None:
    for _ in range(MOST_FRAGMENTS + 50):
        await call.sctp._send_chunk(piece(call, b"x", flags=SCTP_DATA_FIRST_FRAG))
        await asyncio.sleep(0)


async def an_endless_message(call: Call) -> None:
    for k in range(400):
        flags = SCTP_DATA_FIRST_FRAG if k == 0 else 0
        await call.sctp._send_chunk(piece(call, bytes(1100), flags=flags))
        await asyncio.sleep(0)


async def everything_but_the_first(call: Call) -> None:
    piece(call, b"never sent")
    whole = SCTP_DATA_UNORDERED | SCTP_DATA_FIRST_FRAG | 1
    while not call.session.ending:
        await call.sctp._send_chunk(piece(call, b'{"type":"ping","t":1}', flags=whole))
        await asyncio.sleep(0.001)


async def every_stream(call: Call) -> None:
    for stream in range(MOST_STREAMS + 10):
        await call.sctp._send_chunk(piece(call, b"x", stream=stream, flags=SCTP_DATA_FIRST_FRAG))


async def streams_that_are_skipped(call: Call) -> None:
    chunk = ForwardTsnChunk()
    chunk.cumulative_tsn = call.sctp._local_tsn + 5
    chunk.streams = [(stream, 1) for stream in range(200)]
    await call.sctp._send_chunk(chunk)


async def a_channel_opened_twice(call: Call) -> None:
    opened = b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00x"
    await call.sctp._send_chunk(piece(call, opened, stream=7, flags=3, protocol=50))
    await call.sctp._send_chunk(piece(call, opened, stream=7, flags=3, protocol=50))


async def text_that_is_no_text(call: Call) -> None:
    stream = call.client.channel.id or 0
    await call.sctp._send_chunk(piece(call, b"\xff\xfe\xfd", stream=stream, flags=7))


async def many_channels(call: Call) -> None:
    for k in range(MOST_CHANNELS + 5):
        call.client.pc.createDataChannel(f"more {k}")


async def a_flood_of_messages(call: Call) -> None:
    """As they come out of the channel: what is in the way to it is slower than the attack."""
    for _ in range(MESSAGES_AT_ONCE + 2 * MOST_UNHEARD):
        call.session._talk.heard('{"type":"ping","t":1}')


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (unfinished_messages, "pieces of unfinished messages"),
        (an_endless_message, "unfinished messages"),
        (everything_but_the_first, f"left out the first of {MOST_GAPS}"),
        (every_stream, "streams"),
        (streams_that_are_skipped, "streams"),
        (a_channel_opened_twice, "makes no sense"),
        (text_that_is_no_text, "makes no sense"),
        (many_channels, "channels"),
        (a_flood_of_messages, "messages a second"),
    ],
)  # fmt: skip
async def test_who_does_what_no_browser_does_is_hung_up(
    caplog: pytest.LogCaptureFixture, attack: Callable[[Call], Awaitable[None]], reason: str
) -> None:
    async with attacking(caplog) as call:
        with suppress(ConnectionError, InvalidStateError):  # hung up meanwhile
            await attack(call)
        await until(lambda: call.session.closed, "the attacker's call to end")
    told = [
        r.getMessage() for r in caplog.records if " ends: " in r.getMessage() and reason in r.getMessage()
    ]
    assert len(told) == 1, [r.getMessage() for r in caplog.records if " ends: " in r.getMessage()]


@pytest.mark.slow
async def test_messages_beyond_the_rate_are_not_heard_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with attacking(caplog) as call:
        for _ in range(MESSAGES_AT_ONCE + 100):
            call.session._talk.heard('{"type":"recalibrate"}')
        assert call.session._talk.unheard >= 50
        told = [m for m in call.client.of_type("notice") if "not heard" in m["text"]]
        await until(
            lambda: [m for m in call.client.of_type("notice") if "not heard" in m["text"]], "a notice"
        )
        assert len(told) <= 1
        assert not call.session.ending


@pytest.mark.slow
async def test_a_second_channel_is_closed_and_the_first_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with attacking(caplog) as call:
        second = call.client.pc.createDataChannel("second")
        await until(lambda: second.readyState == "closed", "the second channel to be closed")
        call.client.channel.send('{"type":"ping","t":7}')
        await until(lambda: {"type": "pong", "t": 7} in call.client.messages, "a pong on the first")


@pytest.mark.slow
async def test_no_nack_asks_for_more_than_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    async with attacking(caplog) as call:
        sender = call.sender
        sent: list[int] = []
        send = sender.transport._send_rtp

        async def counted(data: bytes) -> None:
            sent.append(len(data))
            await send(data)

        history = sender._RTCRtpSender__rtp_history
        await until(lambda: len(history) > 20, "pictures that were sent")
        lost = [packet.sequence_number for packet in history.values()] * 300
        sender.transport._send_rtp = counted
        await sender._handle_rtcp_packet(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=2, lost=lost))
        assert 0 < len(sent) <= 200, "and a few new ones meanwhile"


@pytest.mark.slow
async def test_key_frames_are_made_no_more_often_than_a_browser_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with attacking(caplog) as call:
        sender, keys = call.sender, 0
        bounds = call.session._peer._bounds
        bounds._clock = JumpingClock()
        bounds._clock.now_ns = lambda: 10**18  # time stands still
        for _ in range(50):
            sender._RTCRtpSender__force_keyframe = False
            await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=2))
            keys += sender._RTCRtpSender__force_keyframe
        assert keys <= KEY_FRAMES_PER_S
        bounds._clock = call.session.clock


@pytest.mark.slow
async def test_packets_that_make_no_sense_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Media, feedback and checks: the call itself goes on."""
    chance = random.Random(7)
    async with attacking(caplog) as call:
        for k in range(300):
            packet = RtpPacket(payload_type=97, sequence_number=k, timestamp=k)
            packet.ssrc, packet.payload = 4711, chance.randbytes(chance.randrange(40))
            data = bytearray(packet.serialize(call.dtls._rtp_header_extensions_map))
            if k % 3 == 0:
                data[0] |= chance.choice(
                    (0x10, 0x20, 0x0F)
                )  # an extension, padding, sources that are not there
            if k % 3 == 1:  # feedback of random length and kind
                body = chance.randbytes(4 * chance.randrange(1, 20))
                head = bytes([0x80 | chance.randrange(32), chance.randrange(200, 207)])
                data = bytearray(head + (len(body) // 4).to_bytes(2, "big") + body)
            with suppress(pylibsrtp.Error):  # what cannot be encrypted
                await call.dtls._send_rtp(bytes(data))
            if k % 20 == 0:
                await asyncio.sleep(0.01)
        seen = len(call.client.frames)
        await until(lambda: len(call.client.frames) > seen + 10, "the attacker's own pictures")
        assert not call.session.ending


@pytest.mark.slow
async def test_no_more_senders_are_remembered_than_a_browser_has(caplog: pytest.LogCaptureFixture) -> None:
    async with attacking(caplog) as call:
        for k in range(10 * MOST_SSRCS):
            packet = RtpPacket(payload_type=97, sequence_number=k, timestamp=k)
            packet.ssrc, packet.payload = secrets.randbits(32), b"x"
            await call.dtls._send_rtp(packet.serialize(call.dtls._rtp_header_extensions_map))
            await asyncio.sleep(0)
        await until(lambda: call.dropped >= 9 * MOST_SSRCS, "all others to be dropped")
        router = call.sender.transport._rtp_router
        assert len(router.ssrc_table) <= MOST_SSRCS + 4
        assert not call.session.ending


@pytest.mark.slow
async def test_datagrams_beyond_the_rate_are_dropped_before_they_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with attacking(caplog) as call:
        connection: Any = call.sender.transport.transport._connection
        before, waiting = call.dropped, connection._queue.qsize()
        for _ in range(20_000):
            connection.data_received(b"\x80" + bytes(200), 1)
        connection.data_received(b"", 1)
        assert call.dropped - before >= 18_000
        assert connection._queue.qsize() <= waiting + 1100
        assert not call.session.ending
