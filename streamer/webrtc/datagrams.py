"""Datagrams off a call's sockets: all that have come, in one turn of the event loop."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none
# (this file exists to reach into aioice and asyncio; tests/test_datagrams.py checks that what it reaches for is there)

from __future__ import annotations

from typing import Any

from aioice.ice import StunProtocol

AT_ONCE = 64  # datagrams of one socket in one turn
_LARGEST = 65_536


def improve() -> None:
    """Patch aioice.

    asyncio reads one datagram a turn. When other threads keep the interpreter busy a turn takes 20 ms, and the socket's
    buffer becomes a queue of seconds whose newest datagrams are lost.
    """
    receive = StunProtocol.datagram_received

    def receive_all(self: StunProtocol, data: bytes | str, addr: tuple[Any, ...]) -> None:
        receive(self, data, addr)
        sock = getattr(self.transport, "_sock", None)  # another event loop than asyncio's reads as it likes
        for _ in range(AT_ONCE - 1 if sock is not None else 0):
            try:
                data, addr = sock.recvfrom(_LARGEST)  # type: ignore[union-attr]
            except OSError:  # nothing more, or an error that asyncio meets in its own turn
                return
            receive(self, data, addr)

    StunProtocol.datagram_received = receive_all
