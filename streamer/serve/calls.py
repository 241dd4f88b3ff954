"""`Calls`: the calls that are up, and who may begin one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import HTTPException

from engines.enrollment import Enrollment
from streamer.clock import Clock
from streamer.latency.metrics import Metrics
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.offer_sdp import check_offer
from streamer.webrtc.session import MakeAvatar, Session

CLOSE_WITHIN_S = 2.0
# An offer is answered long before its browser is there. Those that wait cost a socket each and take nobody's place;
# who floods the server with more needs seconds to, and a browser needs less.
MOST_WAITING = 32


class Calls:
    """The calls that are up. Event-loop only."""

    def __init__(
        self,
        metrics: Metrics,
        limit: int,
        make_avatar: MakeAvatar | None,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.sessions: list[Session] = []  # in the order of their offers
        self._admitted: list[Session] = []  # those whose browser is there
        self._metrics = metrics
        self._limit = limit
        self._make_avatar = make_avatar
        self._clock = clock
        self._sleep = sleep

    async def begin(self, enrollment: Enrollment, options: CallOptions, sdp: str) -> tuple[Session, str]:
        """A new session and its SDP answer to an SDP offer.

        Raises OfferError for an offer that makes no sense, HTTPException 503 when there is no room for one more call.
        """
        check_offer(sdp)
        refusal = self._refusal()
        if refusal is not None:
            raise HTTPException(503, refusal, headers={"Retry-After": "10"})
        self._make_room()
        session = Session(
            enrollment,
            options,
            metrics=self._metrics,
            clock=self._clock,
            sleep=self._sleep,
            on_connected=self._connected,
            on_closed=self._forget,
            make_avatar=self._make_avatar,
        )
        self.sessions.append(session)
        self._metrics.session_opened()
        return session, await session.answer(sdp)

    def _refusal(self) -> str | None:
        if len(self._admitted) < self._limit:
            return None
        return (
            f"{self._limit} calls are up already; hang one up or start the server with a higher "
            "VISAVIS_MAX_SESSIONS"
        )

    def _make_room(self) -> None:
        """The oldest offers whose browsers never came give way, at last those that are just connecting."""
        waiting = [s for s in self.sessions if not s.connected and not s.ending]
        waiting.sort(key=lambda session: session.heard)  # stable: the oldest first
        for session in waiting[: max(0, len(waiting) + 1 - MOST_WAITING)]:
            session.end("a newer offer took its place before it connected")

    def _connected(self, session: Session) -> str | None:
        """Asked again: others may have connected since the offer."""
        refusal = self._refusal()
        if refusal is None:
            self._admitted.append(session)
        return refusal

    def _forget(self, session: Session) -> None:
        if session in self._admitted:
            self._admitted.remove(session)
        if session in self.sessions:
            self.sessions.remove(session)
            self._metrics.session_closed()

    async def close_all(self) -> None:
        """Hang up everything within `CLOSE_WITHIN_S`."""
        closing = [asyncio.create_task(s.close()) for s in list(self.sessions)]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_WITHIN_S)
            for task in late:
                task.cancel()
