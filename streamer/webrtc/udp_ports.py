"""Calls keep to one range of UDP ports, so that a firewall or a container lets just those through."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aioice; tests/test_udp_ports.py checks that what it reaches for is there)

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import aioice.ice

from streamer.webrtc.ice import UdpPorts

# aioice waits five seconds for a STUN or TURN server that says nothing, and an answer must not take that long
GATHER_WITHIN_S = 2


class RangedLoop:
    """An event loop whose datagram sockets of no particular port take one of `ports`; all else is the loop's own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ports: UdpPorts, start: int) -> None:
        self._loop, self._ports, self._start = loop, ports, start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_datagram_endpoint(
        self, factory: Callable[[], Any], local_addr: tuple[str, int] | None = None, **more: Any
    ) -> tuple[Any, Any]:
        """As asyncio's. Raises OSError (EADDRINUSE) when all are taken."""
        if local_addr is None or local_addr[1] != 0:
            return await self._loop.create_datagram_endpoint(factory, local_addr=local_addr, **more)
        for port in self._ports.beginning_at(self._start):
            try:
                return await self._loop.create_datagram_endpoint(
                    factory, local_addr=(local_addr[0], port), **more
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"all UDP ports of {self._ports} are taken")


class _RangedAsyncio:
    """The module `asyncio` as aioice sees it: its event loop keeps to a range."""

    def __init__(self, ports: UdpPorts) -> None:
        self._ports = ports
        self._turns: Iterator[int] = count()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def get_running_loop(self) -> Any:
        """The running loop, which begins one port further each time."""
        return RangedLoop(asyncio.get_running_loop(), self._ports, next(self._turns))


def keep_to(ports: UdpPorts | None) -> None:
    """From now on calls take `ports`; None: whatever the system gives."""
    aioice.ice.asyncio = asyncio if ports is None else _RangedAsyncio(ports)


def gather_soon() -> None:
    """Patch aioice: a STUN or TURN server that does not answer costs `GATHER_WITHIN_S`."""
    original = aioice.ice.Connection.get_component_candidates

    async def gather(self: Any, component: int, addresses: list[str], timeout: int = GATHER_WITHIN_S) -> Any:
        return await original(self, component, addresses, timeout)

    aioice.ice.Connection.get_component_candidates = gather
