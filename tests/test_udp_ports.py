"""Calls keep to a range of UDP ports, and a server of STUN that says nothing does not hold an answer up."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none, reportAttributeAccessIssue=none

from __future__ import annotations

import asyncio
import errno
import inspect
import socket
from collections.abc import Iterator

import aioice.ice
import pytest

from streamer.webrtc.ice import UdpPorts
from streamer.webrtc.udp_ports import GATHER_WITHIN_S, RangedLoop, gather_soon, keep_to


@pytest.fixture
def ranged() -> Iterator[UdpPorts]:
    """Three neighbouring ports that are free now."""
    first = next(p for p in range(40_000, 60_000, 3) if all(is_free(p + k) for k in range(3)))
    ports = UdpPorts(first, first + 2)
    keep_to(ports)
    yield ports
    keep_to(None)


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def gathered(count: int) -> list[int]:
    """The ports of so many connections, all up at once."""
    connections = [aioice.ice.Connection(ice_controlling=True) for _ in range(count)]
    found: list[int] = []
    for connection in connections:
        candidates = await connection.get_component_candidates(1, ["127.0.0.1"])
        found += [candidate.port for candidate in candidates]
    for connection in connections:
        await connection.close()
    return found


def test_each_call_has_a_port_of_the_range_and_what_is_left_over_has_none(ranged: UdpPorts) -> None:
    assert sorted(asyncio.run(gathered(3))) == [ranged.first, ranged.first + 1, ranged.last]
    assert len(asyncio.run(gathered(5))) == 3
    assert len(asyncio.run(gathered(2))) == 2, "ports are free again"


def test_without_a_range_the_system_chooses() -> None:
    assert aioice.ice.asyncio is asyncio
    assert len(set(asyncio.run(gathered(4)))) == 4


def test_an_address_that_cannot_be_had_is_no_reason_to_try_every_port() -> None:
    asked: list[int] = []

    class Loop:
        async def create_datagram_endpoint(self, factory: object, local_addr: tuple[str, int]) -> object:
            asked.append(local_addr[1])
            raise OSError(errno.EADDRNOTAVAIL, "no such address")

    async def ask() -> None:
        loop = RangedLoop(Loop(), UdpPorts(5000, 5009), 3)  # pyright: ignore[reportArgumentType]
        with pytest.raises(OSError, match="no such address"):
            await loop.create_datagram_endpoint(lambda: None, ("127.0.0.1", 0))
        with pytest.raises(OSError, match="no such address"):
            await loop.create_datagram_endpoint(lambda: None, ("127.0.0.1", 77))

    asyncio.run(ask())
    assert asked == [5003, 77]


def test_aioice_asks_the_running_loop_for_its_sockets() -> None:
    """What is replaced is there; so is what names how long a silent server is waited for."""
    source = inspect.getsource(aioice.ice)
    assert "asyncio.get_running_loop()" in source
    assert "create_datagram_endpoint(" in source
    assert "timeout" in inspect.signature(aioice.ice.Connection.get_component_candidates).parameters


def test_a_stun_server_that_says_nothing_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def original(
        self: object, component: int, addresses: list[str], timeout: float = 5
    ) -> list[object]:
        waited.append(timeout)
        return []

    monkeypatch.setattr(aioice.ice.Connection, "get_component_candidates", original)
    gather_soon()
    connection = aioice.ice.Connection(ice_controlling=True)
    asyncio.run(connection.get_component_candidates(component=1, addresses=[]))
    assert waited == [GATHER_WITHIN_S]
