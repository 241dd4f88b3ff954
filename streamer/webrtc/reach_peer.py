"""`ReachPeer`: a connection that carries no call: it answers what its data channel says, so that a page can find out
whether packets get through and by which way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiortc import RTCDataChannel

from streamer.clock import Clock
from streamer.webrtc.ice import IceSettings
from streamer.webrtc.peer import Peer, PeerEvents

LASTS_S = 15.0  # a way through a relay over TCP is found in less
MOST_ECHO_CHARS = 256
MOST_ECHOES = 64


class ReachPeer:
    """All methods run on the event loop. It ends by itself `LASTS_S` after its answer."""

    def __init__(
        self,
        clock: Clock,
        ice: IceSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_closed: Callable[[ReachPeer], None] = lambda _: None,
    ) -> None:
        self._sleep, self._on_closed = sleep, on_closed
        events = PeerEvents(self._echo, lambda _: None, lambda: None, lambda _: self._end())
        self._peer = Peer(clock, events, ice)
        self._echoes = 0
        self._lasting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def answer(self, sdp: str) -> str:
        """SDP answer for an SDP offer of a data channel; raises as `Peer.answer`."""
        try:
            answer = await self._peer.answer(sdp, lambda _: None, "recvonly")
        except BaseException:
            await self.close()
            raise
        self._lasting = asyncio.create_task(self._last())
        return answer

    async def close(self) -> None:
        """Free everything; whoever calls, and however often, returns when that is done."""
        self._end()
        assert self._closing is not None
        await asyncio.shield(self._closing)

    def _end(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        if self._lasting is not None:
            self._lasting.cancel()
        try:
            await self._peer.close()
        finally:
            self._on_closed(self)

    async def _last(self) -> None:
        await self._sleep(LASTS_S)
        self._end()

    def _echo(self, channel: RTCDataChannel) -> None:
        def heard(message: object) -> None:
            self._echoes += 1
            if self._echoes > MOST_ECHOES:
                self._end()
            elif isinstance(message, str) and len(message) <= MOST_ECHO_CHARS:
                with suppress(Exception):  # the channel may be shut by now
                    channel.send(message)

        channel.on("message", heard)
        channel.on("close", self._end)
