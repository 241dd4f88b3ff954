"""`Calls`: the calls that are up, so many at most."""

from __future__ import annotations

import asyncio

from fastapi import HTTPException

from engines.enrollment import Enrollment
from streamer.latency.metrics import Metrics
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.session import MakeAvatar, Session

CLOSE_WITHIN_S = 2.0


class Calls:
    """The calls that are up. Event-loop only."""

    def __init__(self, metrics: Metrics, limit: int, make_avatar: MakeAvatar | None) -> None:
        self.sessions: set[Session] = set()
        self._metrics = metrics
        self._limit = limit
        self._make_avatar = make_avatar

    def open(self, enrollment: Enrollment, options: CallOptions) -> Session:
        """A new session; raises HTTPException 503 when there are too many."""
        if len(self.sessions) >= self._limit:
            raise HTTPException(
                503,
                f"{self._limit} calls are up already; hang one up or start the server with a higher "
                "VISAVIS_MAX_SESSIONS",
                headers={"Retry-After": "10"},
            )
        session = Session(
            enrollment, options, metrics=self._metrics, on_closed=self._forget, make_avatar=self._make_avatar
        )
        self.sessions.add(session)
        self._metrics.session_opened()
        return session

    def _forget(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.discard(session)
            self._metrics.session_closed()

    async def close_all(self) -> None:
        """Hang up everything within `CLOSE_WITHIN_S`."""
        closing = [asyncio.create_task(s.close()) for s in list(self.sessions)]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_WITHIN_S)
            for task in late:
                task.cancel()
