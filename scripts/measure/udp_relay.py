"""`UdpRelay`: a bad network between two ICE peers, put there by rewriting the candidates that they tell each other.

Each peer is told addresses of the relay in place of the other's. What comes to one is passed on from a socket of its
own for each sender, as a NAT does: the other peer answers there, and takes it for a peer-reflexive candidate (RFC 8445
§ 7.3.1.3). STUN, DTLS, sound, pictures and data channels all go that way. IPv4 and UDP alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from scripts.measure.bad_link import BadLink

Address = tuple[str, int]
Send = Callable[[bytes], None]
MOST_SENDERS = 64  # of one candidate
_PREFIX = "a=candidate:"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of SDP, with or without `a=` before it (RFC 8839 § 5.1)."""

    line: str

    @property
    def address(self) -> Address | None:
        """Where it leads; None for one of TCP, of a name (mDNS), or of IPv6."""
        fields = self.line.split()
        if len(fields) < 8 or fields[2].lower() != "udp":
            return None
        try:
            return str(ipaddress.IPv4Address(fields[4])), int(fields[5])
        except ValueError:
            return None

    def at(self, address: Address) -> str:
        """The same line for another address."""
        fields = self.line.split()
        fields[4:6] = address[0], str(address[1])
        if "raddr" in fields:  # the related address is nobody's business
            place = fields.index("raddr")
            fields[place + 1], fields[place + 3] = "0.0.0.0", "0"
        return " ".join(fields)


async def with_candidates(sdp: str, face_of: Callable[[Address], Awaitable[Address]]) -> str:
    """`sdp`, or a fragment of it, whose candidates lead to `face_of` their address; others are left out."""
    lines: list[str] = []
    for line in sdp.splitlines():
        if not line.startswith(_PREFIX):
            lines.append(line)
            continue
        candidate = Candidate(line)
        if (address := candidate.address) is not None:
            lines.append(candidate.at(await face_of(address)))
    return "".join(line + "\r\n" for line in lines)


class _Socket(asyncio.DatagramProtocol):
    """Tells where each datagram came from."""

    def __init__(self, came: Callable[[bytes, Address], None]) -> None:
        self._came = came

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._came(data, addr[:2])

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there (any more)."""


@dataclass
class _Face:
    """Where a candidate is told to be: what comes there goes on to `real`, by a socket for each sender."""

    real: Address
    transport: asyncio.DatagramTransport | None = None
    ways: dict[Address, asyncio.DatagramTransport | None] = field(default_factory=dict)


class UdpRelay:
    """Between a caller (who offers) and a callee (who answers). On one event loop.

    `up`: what the caller sends; `down`: what the callee sends. Give `offer` and `answer` what each says, and pass on
    what they give back; then `close`.
    """

    def __init__(self, up: BadLink, down: BadLink, host: str = "127.0.0.1") -> None:
        """`host`: the address of its sockets, which both must reach."""
        self.up, self.down = up, down
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._transports: list[asyncio.DatagramTransport] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._faces: dict[tuple[Address, int], Address] = {}
        self._is_closed = False
        self._passed_s = 0.0

    @property
    def idle_s(self) -> float:
        """How long nothing has come."""
        return self.now_s - self._passed_s

    @property
    def now_s(self) -> float:
        """The clock of its links."""
        return self._loop.time() - self._start_s

    async def offer(self, sdp: str) -> str:
        """What the callee is to be told of the caller's offer, or of candidates that came after it."""
        return await with_candidates(sdp, partial(self._face, to=self.down, back=self.up))

    async def answer(self, sdp: str) -> str:
        """What the caller is to be told of the callee's answer, or of candidates that came after it."""
        return await with_candidates(sdp, partial(self._face, to=self.up, back=self.down))

    def close(self) -> None:
        """All sockets."""
        self._is_closed = True
        for task in self._opening:
            task.cancel()
        for transport in self._transports:
            transport.close()

    async def _face(self, real: Address, *, to: BadLink, back: BadLink) -> Address:
        """The relay's address for a candidate; `to`: the link towards it."""
        known = self._faces.get((real, id(to)))
        if known is not None:
            return known
        face = _Face(real)
        face.transport = await self._open(lambda data, sender: self._came(face, to, back, data, sender))
        address: Address = face.transport.get_extra_info("sockname")[:2]
        self._faces[real, id(to)] = address
        return address

    def _came(self, face: _Face, to: BadLink, back: BadLink, data: bytes, sender: Address) -> None:
        if sender not in face.ways:
            if len(face.ways) >= MOST_SENDERS:
                return
            face.ways[sender] = None  # what comes meanwhile is lost: a check comes again
            task = self._loop.create_task(self._open_way(face, back, sender))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        way = face.ways[sender]
        if way is not None:
            self._pass(to, data, partial(self._sendto, way, face.real))

    async def _open_way(self, face: _Face, back: BadLink, sender: Address) -> None:
        def answered(data: bytes, source: Address) -> None:
            if source == face.real and face.transport is not None:
                self._pass(back, data, partial(self._sendto, face.transport, sender))

        face.ways[sender] = await self._open(answered)

    def _pass(self, link: BadLink, data: bytes, send: Send) -> None:
        now_s = self._passed_s = self.now_s
        for leaves_s in link.send(now_s, len(data) + 28):  # IP's and UDP's heads
            if leaves_s <= now_s:
                send(data)
            else:
                self._loop.call_at(self._start_s + leaves_s, send, data)

    @staticmethod
    def _sendto(transport: asyncio.DatagramTransport, address: Address, data: bytes) -> None:
        if not transport.is_closing():
            transport.sendto(data, address)

    async def _open(self, came: Callable[[bytes, Address], None]) -> asyncio.DatagramTransport:
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Socket(came), local_addr=(self._host, 0)
        )
        self._transports.append(transport)
        if self._is_closed:
            transport.close()
        return transport
