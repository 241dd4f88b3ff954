"""What every request passes before its route: the token, its length, where it comes from; and the page's policy."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from streamer.serve.config import ServeSettings

FORM_BYTES = 1 << 20  # what a form may hold besides its photo
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob: mediastream:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_guard(app: FastAPI, settings: ServeSettings) -> None:
    """Put the guard before all routes of `app`."""
    if settings.loopback:
        # a page elsewhere must not reach us through a name that it points at this computer (DNS rebinding)
        hosts = ["localhost", "127.0.0.1", "[::1]", settings.host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)

    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        refusal = refused(request, settings)
        if refusal is not None:
            status, sentence = refusal
            response: Response = JSONResponse({"error": sentence}, status)
        else:
            response = await go_on(request)
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    app.middleware("http")(guard)


def refused(request: Request, settings: ServeSettings) -> tuple[int, str] | None:
    """Status and sentence for a request that goes no further, looked at before its body is read; else None."""
    # what the router goes by; `request.url` is built from the Host header in some versions of Starlette
    path = str(request.scope["path"])
    protected = (path.startswith("/api/") and path != "/api/health") or path in ("/metrics", "/openapi.json")
    if settings.token and protected:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {settings.token}".encode()):
            return 401, "this server wants a token; open the page with ?token=… in its address"
    if request.method in ("POST", "PUT"):
        # what is too large must not be spooled to the disk first
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "say how long the request is (Content-Length)"
        if float(length) > settings.max_photo_mb * 1e6 + FORM_BYTES:
            return 413, settings.too_large
    # another site's page may not talk to us with the visitor's browser
    origin = request.headers.get("origin")
    if (
        origin
        and request.method not in ("GET", "HEAD")
        and origin.split("://")[-1] != request.headers.get("host")
    ):
        return 403, "requests from other sites are refused"
    return None
