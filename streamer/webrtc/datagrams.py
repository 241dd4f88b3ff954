"""Datagrams off a call's sockets: all that have come, in one turn of the event loop, and no hoard of them."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none
# (this file exists to reach into aioice and asyncio; tests/test_datagrams.py checks that what it reaches for is there)

from __future__ import annotations

from typing import Any

from aioice.ice import Connection, StunProtocol

AT_ONCE = 64  # datagrams of one socket in one turn
MOST_WAITING = 1000  # datagrams that nobody takes: they come before a call is connected, from anybody
_LARGEST = 65_536


def improve() -> None:
    """Patch aioice.

    asyncio reads one datagram a turn. When other threads keep the interpreter busy a turn takes 20 ms, and the socket's
    buffer becomes a queue of seconds whose newest datagrams are lost.
    """
    receive, keep = StunProtocol.datagram_received, Connection.data_received

    def receive_all(self: StunProtocol, data: bytes | str, addr: tuple[Any, ...]) -> None:
        receive(self, data, addr)
        sock = getattr(self.transport, "_sock", None)  # another event loop than asyncio's reads as it likes
        for _ in range(AT_ONCE - 1 if sock is not None else 0):
            try:
                data, addr = sock.recvfrom(_LARGEST)  # type: ignore[union-attr]
            except OSError:  # nothing more, or an error that asyncio meets in its own turn
                return
            receive(self, data, addr)

    def keep_some(self: Connection, data: bytes, component: int) -> None:
        if self._queue.qsize() < MOST_WAITING:
            keep(self, data, component)

    StunProtocol.datagram_received = receive_all
    Connection.data_received = keep_some
