"""`Guard`: what every request passes before its route, host, token, origin and body; and what answers carry."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.serve.aside import RETRY_AFTER
from streamer.serve.bodies import FORM, Body, bodies, body_of
from streamer.serve.config import ServeSettings
from streamer.serve.errors import answer_of
from streamer.serve.headers import HEADERS
from streamer.serve.upload_places import UploadPlaces

# without the token: the page, which asks for it, and that the server lives
_OPEN = re.compile(r"/|/api/health|/static/[^/]+")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the route's."""

    status: int
    sentence: str
    headers: Mapping[str, str] | None = None

    def answer(self) -> Response:
        """As the pages read it."""
        return answer_of(self.sentence, self.status, self.headers)


class Guard:
    """ASGI around the application: what is refused has not had its body read, and what is longer than it said ends."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, places: UploadPlaces | None = None) -> None:
        self._app = app
        self._settings = settings
        self._bodies = bodies(settings)
        self._places = places or UploadPlaces()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        # the router's own words: `request.url` is built from the Host header in some versions of Starlette
        method, path = str(scope["method"]), str(scope["path"])
        body = body_of(method, path, self._bodies)
        refusal = refused(method, path, Headers(scope=scope), body, self._settings)
        place = None
        if refusal is None and body is not None and body.media_type == FORM:
            place = self._places.take()
            if place is None:
                refusal = Refusal(
                    503, "other pictures are arriving; send yours again in a moment", RETRY_AFTER
                )
        if refusal is not None:
            await refusal.answer()(scope, receive, send_guarded)
            return
        if body is not None:
            receive = bounded(receive, body)
        if place is None:
            await self._app(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, place.receiving(receive), send_guarded)
        finally:
            self._places.leave(place)


def bounded(receive: Receive, body: Body) -> Receive:
    """`receive` that raises HTTPException 413 once more than `body` allows has come."""
    came_bytes = 0

    async def receive_bounded() -> Message:
        nonlocal came_bytes
        message = await receive()
        came_bytes += len(message.get("body", b""))
        if came_bytes > body.limit_bytes:
            raise HTTPException(413, body.too_large)
        return message

    return receive_bounded


def refused(
    method: str, path: str, headers: Mapping[str, str], body: Body | None, settings: ServeSettings
) -> Refusal | None:
    """Why a request goes no further, said from its head alone; else None. `headers`' names are lower case."""
    host, origin = headers.get("host", ""), headers.get("origin")
    # a page elsewhere must not reach us through a name that it points at this computer (DNS rebinding)
    if settings.loopback and host_of(host) not in ("localhost", "127.0.0.1", "::1", settings.host.lower()):
        return Refusal(400, "this server answers to localhost alone; open the address that it printed")
    if settings.token and not _OPEN.fullmatch(path):
        given = headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {settings.token}".encode()):
            sentence = "this server wants a token; open the page with ?token=… in its address"
            return Refusal(401, sentence, {"WWW-Authenticate": "Bearer"})
    # another site's page may not talk to us with the visitor's browser
    if origin and method not in ("GET", "HEAD") and origin.split("://")[-1] != host:
        return Refusal(403, "requests from other sites are refused")
    return _body_refused(headers, body)


def _body_refused(headers: Mapping[str, str], body: Body | None) -> Refusal | None:
    length, chunked = headers.get("content-length", ""), "transfer-encoding" in headers
    if body is None:
        if chunked or length.strip("0"):
            return Refusal(413, "this address takes nothing with a request; send it without a body")
        return None
    # with both, the length says nothing (RFC 9112 § 6.3)
    if chunked or not re.fullmatch("[0-9]+", length):
        return Refusal(411, "say how long the request is (Content-Length)")
    # a number of more digits is one that Python does not read
    if len(length.lstrip("0")) > 12 or int(length.lstrip("0") or "0") > body.limit_bytes:
        return Refusal(413, body.too_large)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != body.media_type:
        return Refusal(415, f"this address takes {body.media_type}; say so as Content-Type")
    return None


def host_of(header: str) -> str | None:
    """The name or address in a Host header, lower case, or None where it is none (RFC 9110 § 7.2)."""
    found = _HOST.fullmatch(header)
    return found[1].lower().strip("[]") if found else None
