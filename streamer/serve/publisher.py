"""`Publisher`: pushes the oldest call that is up to a WHIP server, for as long as this server runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

import httpx

from streamer.clock import Clock, SystemClock
from streamer.serve.calls import Calls
from streamer.webrtc.ice import NOTHING, IceSettings
from streamer.webrtc.publication import Publication, PublicationError, WhipTarget
from streamer.webrtc.session import Session

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0


def chosen(calls: Sequence[Session]) -> Session | None:
    """Whose picture is pushed: of the calls that are up, in the order in which they began, the first avatar's.

    It stays until it ends; then the next oldest follows. An echo is never pushed: it is somebody's own camera.
    """
    return next((s for s in calls if s.options.mode == "avatar" and not s.failed and not s.ending), None)


def wait_s(failures: int, retry_after_s: float, chance: float) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4 … 60 s, a quarter more or less by `chance` (0 … 1).

    Never less than what the server asked for.
    """
    doubled = min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 16))
    return max(retry_after_s, doubled * (0.75 + chance / 2))


class Publisher:
    """Event-loop only. One call at a time; each has a publication of its own, from its first picture to its end."""

    def __init__(
        self,
        target: WhipTarget,
        calls: Calls,
        ice: IceSettings = NOTHING,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport`: another way to the server, for tests."""
        self._target = target
        self._calls = calls
        self._ice = ice
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._chance = chance
        self._transport = transport
        self._said: str | None = None

    async def run(self) -> None:
        """Push until cancelled; what is being pushed then is ended with DELETE."""
        failures = 0
        async with httpx.AsyncClient(
            transport=self._transport, follow_redirects=True, max_redirects=3
        ) as http:
            while True:
                session = chosen(self._calls.connected)
                if session is None:
                    await self._sleep(LOOK_EVERY_S)
                    continue
                publication = Publication(
                    self._target,
                    session.broadcast,
                    http,
                    self._clock,
                    is_over=lambda s=session: s.ending or s.failed,
                    ice=self._ice,
                    sleep=self._sleep,
                )
                try:
                    await publication.run()
                    failures, self._said = 0, None
                except PublicationError as error:
                    failures = 1 if publication.connected else failures + 1
                    self._say(str(error))
                    await self._sleep(wait_s(failures, error.retry_after_s, self._chance()))

    def _say(self, sentence: str) -> None:
        """In the log, once for the same reason in a row."""
        if sentence != self._said:
            logger.warning("publishing: %s; it is tried again and again", sentence)
        self._said = sentence
