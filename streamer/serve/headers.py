"""`HEADERS`: what every answer carries, whoever gives it."""

from __future__ import annotations

import json
from http import HTTPStatus

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob: mediastream:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def raw_answer(status: HTTPStatus, sentence: str, *headers: str) -> bytes:
    """An answer to a client that gets no further than its connection, which ends with it (RFC 9112)."""
    body = json.dumps({"error": sentence}).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
        *headers,
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
