"""link_headers: STUN and TURN servers as WHIP and WHEP tell them to who calls, in `Link` headers (RFC 9725)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IceServer:
    """One address, such as `stun:stun.example:3478` (RFC 7064) or `turn:turn.example?transport=udp` (RFC 7065).

    TURN wants `username` and `credential`; the latter is a password (or one that lasts an hour).
    """

    url: str
    username: str | None = None
    credential: str | None = field(default=None, repr=False)


def link_headers(servers: Iterable[IceServer]) -> list[str]:
    """The values of as many `Link` headers. What cannot stand in one is escaped (RFC 8288 § 3, RFC 9110 § 5.6.4)."""
    return [_link(server) for server in servers]


def _link(server: IceServer) -> str:
    # what ends the address, or the header, never stands in one
    url = "".join(c for c in server.url if c.isascii() and c.isprintable() and c not in '<>" ')
    parts = [f"<{url}>", 'rel="ice-server"']
    if server.username is not None and server.credential is not None:
        parts += [f"username={_quoted(server.username)}", f"credential={_quoted(server.credential)}"]
        parts.append('credential-type="password"')
    return "; ".join(parts)


def _quoted(text: str) -> str:
    shown = "".join(c for c in text if " " <= c <= "~")
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
