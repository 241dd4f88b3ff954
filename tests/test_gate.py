"""Who may send to a call: its browser, wherever it comes from, and nobody else."""

# pyright: reportPrivateUsage=none

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aioice import stun
from aioice.candidate import Candidate
from aioice.ice import Connection, StunProtocol
from calls import JumpingClock

from streamer.webrtc import aiortc_fixes
from streamer.webrtc.gate import MOST_ADDRESSES
from streamer.webrtc.peer_bounds import (
    DATA_PACKETS_PER_S,
    MEDIA_PACKETS_PER_S,
    STUN_PACKETS_PER_S,
    PeerBounds,
)

BROWSER, STRANGER = ("192.0.2.1", 4000), ("192.0.2.66", 6666)
DTLS, MEDIA = b"\x16" + bytes(50), b"\x90" + bytes(50)
UFRAG, PASSWORD = "their", "p" * 22
FLOOD = 20 * MEDIA_PACKETS_PER_S


class Sent(asyncio.DatagramTransport):
    """What the call sends, and to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: list[tuple[bytes, Any]] = []

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.datagrams.append((bytes(data), addr))


class Called:
    """A call's connection, which is connecting, with one candidate of its browser's. Time stands still."""

    def __init__(self) -> None:
        aiortc_fixes.apply()
        self.clock = JumpingClock()
        self.clock.now_ns = lambda: 10**18  # type: ignore[method-assign]
        self.bounds = PeerBounds(self.clock, lambda _: None)
        self.connection = Connection(ice_controlling=False)
        self.bounds._bound_packets(self.connection)
        self.connection.remote_username, self.connection.remote_password = UFRAG, PASSWORD
        self.connection._early_checks_done = True
        self.protocol = StunProtocol(self.connection)
        self.sent = Sent()
        self.protocol.connection_made(self.sent)
        self.protocol.local_candidate = Candidate("1", 1, "udp", 1, "192.0.2.2", 5000, "host")

    async def begin(self) -> None:
        await self.connection.add_remote_candidate(Candidate("1", 1, "udp", 1, *BROWSER, "host"))

    async def close(self) -> None:
        tasks = [pair.task for pair in self.connection._check_list if pair.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def comes(self, data: bytes, address: tuple[Any, ...], times: int = 1) -> None:
        for _ in range(times):
            self.protocol.datagram_received(data, address)

    def check(self, *, password: str | None = None, username: str | None = None) -> bytes:
        """A browser's check, unless something else is said."""
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = username or f"{self.connection.local_username}:{UFRAG}"
        request.attributes["PRIORITY"] = 1
        request.attributes["ICE-CONTROLLING"] = 1
        request.add_message_integrity((password or self.connection.local_password).encode())
        return bytes(request)

    @property
    def waiting(self) -> int:
        return self.connection._queue.qsize()

    @property
    def heard(self) -> bool:
        """Whether the browser was heard since this was last asked."""
        heard = self.bounds.heard_ns is not None
        self.bounds.heard_ns = None
        return heard


@pytest.fixture
async def called() -> AsyncIterator[Called]:
    called = Called()
    await called.begin()
    yield called
    await called.close()


async def test_what_a_stranger_sends_is_not_heard_and_takes_nothing_from_the_browser(called: Called) -> None:
    for data in (DTLS, MEDIA, b"\x16", b"\x90", b"", b"\x00", b"\x01", b"\x00" * 30):
        called.comes(data, STRANGER, FLOOD // 8)
    assert (called.heard, called.waiting, called.bounds.dropped) == (False, 0, 0)
    assert called.bounds.strange == FLOOD
    called.comes(DTLS, BROWSER, 10)
    called.comes(MEDIA, (*BROWSER, 0, 0), 10)
    assert (called.heard, called.waiting) == (True, 20)


async def test_checks_of_a_stranger_are_neither_answered_nor_heard_nor_counted(called: Called) -> None:
    bare = bytes(stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST))
    unsigned = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    unsigned.attributes["USERNAME"] = f"{called.connection.local_username}:{UFRAG}"
    answer = bytes(stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.RESPONSE))
    for data in (
        bare,
        answer,
        bytes(unsigned),
        called.check(password="wrong"),
        called.check(username="who:" + UFRAG),
        called.check(username=f"{called.connection.local_username}:another"),
        called.check()[:-1],
    ):
        for address in (STRANGER, BROWSER):
            called.comes(data, address, 3 * STUN_PACKETS_PER_S)
    assert (called.heard, called.sent.datagrams, called.bounds.dropped) == (False, [], 0)
    assert called.connection._check_list == []
    called.comes(called.check(), BROWSER)
    assert called.heard
    assert [to for _, to in called.sent.datagrams] == [BROWSER]


async def test_a_check_from_a_new_address_makes_it_the_browsers(called: Called) -> None:
    """A browser behind a router that the offer does not name (RFC 8445 § 7.3.1.3)."""
    elsewhere = ("192.0.2.9", 999)
    called.comes(DTLS, elsewhere)
    assert called.waiting == 0
    called.comes(called.check(), elsewhere)
    assert [pair.remote_addr for pair in called.connection._check_list] == [elsewhere]
    assert called.heard
    called.comes(DTLS, elsewhere)
    assert called.waiting == 1


async def test_a_browser_that_comes_from_everywhere_is_remembered_so_often(called: Called) -> None:
    seconds = 0
    for port in range(1, 2 * MOST_ADDRESSES):
        if port % STUN_PACKETS_PER_S == 0:
            seconds += 1
            called.clock.now_ns = lambda now=10**18 + seconds * 10**9: now  # type: ignore[method-assign]
        called.comes(called.check(), ("192.0.2.9", port))
    assert len(called.connection._remote_candidates) == MOST_ADDRESSES
    answered = len(called.sent.datagrams)
    called.comes(called.check(), BROWSER)
    assert len(called.sent.datagrams) == answered + 1


async def test_an_answer_to_our_own_check_is_heard(called: Called) -> None:
    called.comes(called.check(), BROWSER)
    await asyncio.sleep(0)  # our own check in return
    assert called.heard
    number = next(iter(called.protocol.transactions))
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, number)
    answer.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.2", 5000)
    answer.add_message_integrity(PASSWORD.encode())
    called.comes(bytes(answer), BROWSER)
    assert called.heard
    for _ in range(5):
        await asyncio.sleep(0)
    assert [pair.state.name for pair in called.connection._check_list] == ["SUCCEEDED"]


async def test_the_browsers_own_packets_have_their_bounds(called: Called) -> None:
    called.comes(DTLS, BROWSER, 2 * DATA_PACKETS_PER_S)
    assert (called.waiting, called.bounds.dropped) == (DATA_PACKETS_PER_S, DATA_PACKETS_PER_S)
    called.comes(called.check(), BROWSER, 3 * STUN_PACKETS_PER_S)
    assert sum(data[:2] == b"\x01\x01" for data, _ in called.sent.datagrams) == 2 * STUN_PACKETS_PER_S


async def test_a_check_that_is_too_short_within_is_no_error(called: Called) -> None:
    name = f"{called.connection.local_username}:{UFRAG}".encode().ljust(12)
    attributes = struct.pack("!HH", 6, len(name)) + name + struct.pack("!HHI", 0x24, 3, 0)
    called.comes(struct.pack("!HHI12s", 1, len(attributes), stun.COOKIE, bytes(12)) + attributes, BROWSER)
    assert (called.heard, called.sent.datagrams) == (False, [])
