"""`Player`: one who watches a call from elsewhere, over a connection of its own that only sends."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine

from aiortc import RTCRtpSender, RTCRtpTransceiver

from streamer.clock import Clock
from streamer.webrtc.aiortc_fixes import leave_playout_to_receiver
from streamer.webrtc.broadcast import Broadcast, Watching
from streamer.webrtc.ice import NOTHING, IceSettings
from streamer.webrtc.peer import Peer, PeerEvents

logger = logging.getLogger(__name__)

CONNECT_WITHIN_S = 8.0
LOOK_EVERY_S = 1.0
# one that only receives says something when we ask whether it is still there, every 4 to 6 s (RFC 7675)
GONE_AFTER_S = 15.0


class Player:
    """From offer to close. Event-loop only. It watches the broadcast once it has connected, and not before."""

    def __init__(
        self,
        broadcast: Broadcast,
        clock: Clock,
        ice: IceSettings = NOTHING,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_closed: Callable[[Player], None] = lambda _: None,
    ) -> None:
        self.name = secrets.token_urlsafe(16)  # who knows it may end it
        self.peer = Peer(
            clock, PeerEvents(lambda c: c.close(), lambda _: None, self._connected, self.end), ice
        )
        self._broadcast = broadcast
        self._watching: Watching | None = None
        self._pictures: RTCRtpSender | None = None
        self._sound: RTCRtpSender | None = None
        self._sleep = sleep
        self._on_closed = on_closed
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def ending(self) -> bool:
        """Whether it is over or about to be."""
        return self._closing is not None

    async def answer(self, sdp: str) -> str:
        """SDP answer for an SDP offer. Raises OfferError for an offer that makes no sense."""
        try:
            answer = await self.peer.answer(sdp, self._send)
        except BaseException:
            await self.close()
            raise
        self._spawn(self._give_up_unless_connected())
        return answer

    def end(self, reason: str) -> None:
        """Begin to close; `reason` is for the log."""
        if self._closing is None:
            logger.info("player %s ends: %s", self.name[:4], reason)
            self._closing = asyncio.create_task(self._close())

    async def close(self) -> None:
        """End it and free everything; returns when that is done, however often it is called."""
        self.end("it was closed")
        assert self._closing is not None
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            for task in list(self._tasks):
                task.cancel()
            if self._watching is not None:
                self._broadcast.leave(self._watching)
        finally:
            try:
                await self.peer.close()
            finally:
                self._on_closed(self)

    def _send(self, video: RTCRtpTransceiver) -> None:
        # who only watches knows of sound and pictures by reports alone, and puts them in step itself in its buffers
        leave_playout_to_receiver(video)
        self._pictures, self._sound = video.sender, self.peer.sender_of("audio")

    def _connected(self) -> None:
        if self._closing is not None or self._pictures is None:
            return
        logger.info("player %s: connected", self.name[:4])
        watching = self._watching = self._broadcast.join()
        self._pictures.replaceTrack(watching.pictures)
        if self._sound is None:
            watching.sound.stop()
        else:
            self._sound.replaceTrack(watching.sound)
        self._spawn(self._look_after())

    async def _look_after(self) -> None:
        while True:
            await self._sleep(LOOK_EVERY_S)
            if self.peer.quiet_s > GONE_AFTER_S:
                self.end(f"nothing came for {GONE_AFTER_S:.0f} s")

    async def _give_up_unless_connected(self) -> None:
        await self._sleep(CONNECT_WITHIN_S)
        if not self.peer.connected:
            self.end(f"it did not connect within {CONNECT_WITHIN_S:.0f} s")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
