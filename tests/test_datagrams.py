"""What comes off a call's socket, when there is much of it."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none

from __future__ import annotations

import asyncio
import asyncio.selector_events
import inspect
import socket

import aioice.ice
from aioice.ice import Connection, StunProtocol
from calls import until

from streamer.webrtc import aiortc_fixes
from streamer.webrtc.datagrams import AT_ONCE


class Opened:
    """A call's socket on loopback, and one to send to it from."""

    async def __aenter__(self) -> Opened:
        aiortc_fixes.apply()
        self.connection = Connection(ice_controlling=True)
        loop = asyncio.get_running_loop()
        _, self.protocol = await loop.create_datagram_endpoint(
            lambda: StunProtocol(self.connection), local_addr=("127.0.0.1", 0)
        )
        self.protocol.local_candidate = aioice.ice.Candidate("1", 1, "udp", 1, "127.0.0.1", 1, "host")
        self.address = self.protocol.transport.get_extra_info("sockname")
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sender.close()
        await self.protocol.close()

    def send(self, count: int) -> None:
        for k in range(count):
            self.sender.sendto(b"\x90" + k.to_bytes(2, "big"), self.address)

    @property
    def came(self) -> list[int]:
        items = list(self.connection._queue._queue)  # type: ignore[attr-defined]
        return [int.from_bytes(item[0][1:], "big") for item in items]


async def test_all_that_has_come_is_read_in_one_turn_of_the_loop() -> None:
    async with Opened() as opened:
        opened.send(AT_ONCE)
        await asyncio.sleep(0)  # the loop looks at its sockets
        await asyncio.sleep(0)
        assert opened.came == list(range(AT_ONCE))
        opened.send(3)
        await until(lambda: len(opened.came) == AT_ONCE + 3, "three more")


async def test_a_socket_that_closes_meanwhile_harms_nothing() -> None:
    async with Opened() as opened:
        opened.send(5)
        opened.protocol.transport.close()
        opened.protocol.datagram_received(b"\x90\x00\x07", ("127.0.0.1", 1))
        assert 7 in opened.came


def test_what_we_reach_into_is_still_there() -> None:
    source = inspect.getsource(vars(asyncio.selector_events)["_SelectorDatagramTransport"])
    assert "self._sock.recvfrom(self.max_size)" in source
