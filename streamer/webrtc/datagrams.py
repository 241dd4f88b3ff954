"""Datagrams off a call's sockets: all that have come, in one turn of the event loop."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none
# (this file exists to reach into aioice and asyncio; tests/test_datagrams.py checks that what it reaches for is there)

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

from aioice.ice import StunProtocol

AT_ONCE = 64  # datagrams of one socket in one turn
_LARGEST = 65_536


def improve() -> None:
    """Patch aioice.

    asyncio reads one datagram a turn. When other threads keep the interpreter busy a turn takes 20 ms, and the socket's
    buffer becomes a queue of seconds whose newest datagrams are lost. Where a connection has `visavis_admits`, it
    is asked which are worth reading.
    """
    read = StunProtocol.datagram_received

    def receive(self: StunProtocol, data: bytes | str, addr: tuple[Any, ...]) -> None:
        admits = getattr(self.receiver, "visavis_admits", None)
        if admits is None or admits(self, data, addr):
            with suppress(struct.error):  # aioice expects ValueError alone of what is too short
                read(self, data, addr)

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
