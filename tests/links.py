"""A network between two peers of this process that loses, doubles, swaps and delays what they send."""

# pyright: reportPrivateUsage=none

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from aiortc import RTCPeerConnection
from aiortc.rtp import is_rtcp


@dataclass(frozen=True, slots=True)
class Impairment:
    """Shares of the packets of sound and picture (not of their handshake), 0 … 1."""

    loss: float = 0.0
    twice: float = 0.0
    swap: float = 0.0
    delay: float = 0.0  # share that comes 60 ms later than the rest


GOOD = Impairment()
BAD = Impairment(loss=0.05, twice=0.05, swap=0.05, delay=0.02)
DEAD = Impairment(loss=1.0)


def is_media(data: bytes) -> bool:
    """Whether a datagram is RTP or RTCP (RFC 7983)."""
    return 127 < data[0] < 192


@dataclass
class Link:
    """One direction: what `peer` sends. `spares` names datagrams that always get through."""

    peer: RTCPeerConnection
    seed: int
    impairment: Impairment = GOOD
    loses: Callable[[bytes], bool] = lambda _: False
    counts: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._held: bytes | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        seen: set[int] = set()
        for transceiver in self.peer.getTransceivers():
            transport = transceiver.sender.transport.transport
            if id(transport) not in seen:
                seen.add(id(transport))
                self._through = transport._send
                transport._send = self._send  # type: ignore[method-assign]
        assert len(seen) == 1, "BUNDLE: one transport for all"

    async def _send(self, data: bytes) -> None:
        if not is_media(data):
            await self._through(data)
            return
        self.counts["rtcp" if is_rtcp(data) else "rtp"] += 1
        bad = self.impairment
        if self.loses(data) or self._chance.random() < bad.loss:
            self.counts["lost"] += 1
            return
        if self._chance.random() < bad.delay:
            self.counts["delayed"] += 1
            asyncio.get_running_loop().call_later(0.06, self._later, data)
            return
        if self._held is None and self._chance.random() < bad.swap:
            self._held = data
            self.counts["swapped"] += 1
            return
        await self._through(data)
        if self._chance.random() < bad.twice:
            self.counts["twice"] += 1
            await self._through(data)
        held, self._held = self._held, None
        if held is not None:
            await self._through(held)

    def _later(self, data: bytes) -> None:
        async def send() -> None:
            try:
                await self._through(data)
            except ConnectionError:
                return  # the call is over

        sending = asyncio.ensure_future(send())
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)
