"""`Publication`: one call's pictures and sound on their way to a WHIP server elsewhere (RFC 9725, as its client)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import httpx

from engines.errors import VisavisError
from streamer.clock import Clock
from streamer.webrtc.broadcast import Broadcast, Watching
from streamer.webrtc.ice import NOTHING, IceSettings
from streamer.webrtc.messages import one_line
from streamer.webrtc.offer_sdp import MAX_SDP_CHARS, OfferError
from streamer.webrtc.peer import Peer, PeerEvents, UnreachableError

logger = logging.getLogger(__name__)

HTTP_WITHIN_S = 10.0
DELETE_WITHIN_S = 2.0  # as long as a call has to close
CONNECT_WITHIN_S = 10.0
GONE_AFTER_S = 15.0  # as a player
LOOK_EVERY_S = 0.2
SDP = "application/sdp"
MOST_RETRY_AFTER_S = 300.0


@dataclass(frozen=True, slots=True)
class WhipTarget:
    """Where to: an http or https address, and the Bearer token that its server wants, if any."""

    url: str
    token: str | None = field(default=None, repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """The token, for addresses of the server that it was given for, and for no other."""
        own, other = urlsplit(self.url), urlsplit(url)
        is_own = (own.scheme, own.netloc) == (other.scheme, other.netloc)
        return {"Authorization": f"Bearer {self.token}"} if self.token and is_own else {}


class PublicationError(VisavisError):
    """The server did not take the call, or does no longer; `retry_after_s`: how long it wants to be left alone."""

    def __init__(self, sentence: str, retry_after_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class Publication:
    """From the first picture to DELETE. Event-loop only; to be run once."""

    def __init__(
        self,
        target: WhipTarget,
        broadcast: Broadcast,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        is_over: Callable[[], bool],
        ice: IceSettings = NOTHING,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`is_over`: whether the call has ended, and the publication with it."""
        self.connected = False  # whether it ever was
        self._target = target
        self._broadcast = broadcast
        self._http = http
        self._is_over = is_over
        self._sleep = sleep
        self._ended: str | None = None
        self._location: str | None = None
        self._peer = Peer(
            clock,
            PeerEvents(lambda c: c.close(), lambda _: None, self._connected, self._end),
            ice,
            offers=True,
        )

    async def run(self) -> None:
        """Publish until the call is over. Raises PublicationError where the server ends it, or does not begin."""
        watching = self._broadcast.join()
        try:
            # nothing is published before there is something to see, and by then it is known whether there is sound
            while not self._broadcast.has_pictures:
                if self._is_over():
                    return
                await self._sleep(LOOK_EVERY_S)
            await self._begin(watching)
            await self._go_on()
        finally:
            self._broadcast.leave(watching)
            try:
                await self._delete()  # first: when this program ends, there may be no time for both
            finally:
                await self._peer.close()

    async def _begin(self, watching: Watching) -> None:
        tracks = [watching.pictures, *([watching.sound] if self._broadcast.has_sound else [])]
        try:
            offer = await self._peer.offer(tracks)
        except UnreachableError as error:
            raise PublicationError(str(error)) from error
        answer = await self._post(offer)
        try:
            await self._peer.accept(answer)
        except OfferError as error:
            raise PublicationError(f"{self._named} gave an answer that is none: {one_line(error)}") from error

    async def _go_on(self) -> None:
        waited_s = 0.0
        while not self._is_over():
            if self._ended is not None:
                raise PublicationError(f"{self._named}: {self._ended}")
            if not self.connected and waited_s > CONNECT_WITHIN_S:
                raise PublicationError(f"{self._named} did not connect within {CONNECT_WITHIN_S:.0f} s")
            if self._peer.quiet_s > GONE_AFTER_S:
                raise PublicationError(f"{self._named} has been silent for {GONE_AFTER_S:.0f} s")
            await self._sleep(LOOK_EVERY_S)
            waited_s += LOOK_EVERY_S

    async def _post(self, offer: str) -> str:
        """The answer's SDP."""
        headers = {"Content-Type": SDP, "Accept": SDP} | self._target.headers_for(self._target.url)
        try:
            async with (
                asyncio.timeout(HTTP_WITHIN_S),
                self._http.stream(
                    "POST", self._target.url, content=offer.encode(), headers=headers
                ) as answer,
            ):
                if answer.status_code != 201:
                    raise PublicationError(
                        f"{self._named} refused with {answer.status_code} {answer.reason_phrase}",
                        retry_after_s(answer.headers.get("retry-after")),
                    )
                if location := answer.headers.get("location"):
                    self._location = urljoin(str(answer.url), location)
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MAX_SDP_CHARS:
                        raise PublicationError(f"{self._named} gave an answer that is too long")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise PublicationError(f"{self._named} cannot be reached ({one_line(error)})") from error
        return body.decode("utf-8", "replace")

    async def _delete(self) -> None:
        """Say goodbye, whatever happened before. Never raises but for being cancelled, and ends."""
        if self._location is None:
            return
        location, self._location = self._location, None
        try:
            async with asyncio.timeout(DELETE_WITHIN_S):
                await self._http.delete(location, headers=self._target.headers_for(location))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            logger.info("%s was not told of the end (%s)", self._named, one_line(error))

    def _connected(self) -> None:
        self.connected = True
        logger.info("publishing to %s", self._named)

    def _end(self, reason: str) -> None:
        self._ended = self._ended or reason

    @property
    def _named(self) -> str:
        """The server, for the log: an address may hold a key in its path."""
        return urlsplit(self._target.url).netloc.rpartition("@")[2]


def retry_after_s(said: str | None) -> float:
    """A `Retry-After` header in seconds; 0 for none, and for a date, which our clock may not know."""
    return min(MOST_RETRY_AFTER_S, float(said)) if said and said.isascii() and said.isdigit() else 0.0
