"""`IceSettings`: how a call finds its way through NATs and firewalls: STUN and TURN servers, and a range of UDP ports.

Pure: who signs in to a TURN server, and for how long, is computed from a moment that is given.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from engines.errors import VisavisError

LIFETIME_S = (
    12 * 3600.0
)  # of a credential: longer than a call, for a relay is asked for again every ten minutes
FIRST_PORT, LAST_PORT = 1024, 65_535
DEFAULT_PORTS = {"stun": 3478, "stuns": 5349, "turn": 3478, "turns": 5349}
# RFC 7064 § 3.1 and RFC 7065 § 3.1; a host as a name, an IPv4 or a bracketed IPv6 address
_URL = re.compile(
    r"(stuns?|turns?):(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?(?:\?transport=(udp|tcp))?"
)


class IceError(VisavisError):
    """Settings of STUN, TURN or ports that make no sense."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server as browsers are told of it (W3C WebRTC § 4.2.4, RTCIceServer)."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For `new RTCPeerConnection({iceServers: [...]})`."""
        told: dict[str, object] = {"urls": list(self.urls)}
        if self.username is not None:
            told |= {"username": self.username, "credential": self.credential}
        return told

    def links(self) -> list[str]:
        """For the `Link` header of WHIP and WHEP (RFC 9725 § 4.6)."""
        more = ""
        if self.username is not None:
            user, word = (_quoted(text) for text in (self.username, self.credential or ""))
            more = f'; username={user}; credential={word}; credential-type="password"'
        return [f'<{url}>; rel="ice-server"{more}' for url in self.urls]


@dataclass(frozen=True, slots=True)
class UdpPorts:
    """The ports that calls may take on this computer, both ends included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def beginning_at(self, start: int) -> list[int]:
        """All of them, in a circle from the `start`-th on: a port that has just been freed comes last."""
        return [self.first + (start + k) % len(self) for k in range(len(self))]


@dataclass(frozen=True, slots=True)
class IceSettings:
    """What a server is told of the network; nothing at all is what works on one computer and in one local network.

    `username` and `password` are the TURN server's for everybody; `secret` is shared with it instead, and everybody
    gets credentials of their own that end after `lifetime_s`.
    """

    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    username: str | None = None
    password: str | None = None
    secret: str | None = None
    lifetime_s: float = LIFETIME_S
    ports: UdpPorts | None = None

    def servers(self, now_s: float, who: str) -> list[IceServer]:
        """The servers for `who` at Unix time `now_s`."""
        found = [IceServer((url,)) for url in self.stun]
        if self.turn:
            found.append(IceServer(self.turn, *self._signed_in(now_s, who)))
        return found

    def _signed_in(self, now_s: float, who: str) -> tuple[str | None, str | None]:
        if self.secret is None:
            return self.username, self.password
        return timed_credential(self.secret, now_s + self.lifetime_s, who)


NOTHING = IceSettings()


def _quoted(text: str) -> str:
    """As a quoted-string (RFC 9110 § 5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def timed_credential(secret: str, until_s: float, who: str) -> tuple[str, str]:
    """(username, password) for a TURN server that shares `secret`, good until the Unix time `until_s`.

    draft-uberti-behave-turn-rest-00 § 2.2, which coturn calls `use-auth-secret`: base64(HMAC-SHA1(secret, username)).
    """
    username = f"{int(until_s)}:{who}"
    signed = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(signed).decode()


def read_urls(text: str, schemes: Sequence[str]) -> tuple[str, ...]:
    """Addresses of servers, by commas, each with its port said. Raises IceError naming one that is none."""
    return tuple(_read_url(part.strip(), schemes) for part in text.split(",") if part.strip())


def _read_url(text: str, schemes: Sequence[str]) -> str:
    found = _URL.fullmatch(text)
    example = f"{schemes[0]}:{schemes[0]}.example.org:{DEFAULT_PORTS[schemes[0]]}"
    if found is None or found[1] not in schemes:
        raise IceError(
            f"{text!r:.80} is no address of a {schemes[0].upper()} server; write one such as {example}"
        )
    scheme, host, port, transport = found.groups()
    if port is not None and not 1 <= int(port) <= LAST_PORT:
        raise IceError(f"{text!r:.80} has no port from 1 to {LAST_PORT}; write one such as {example}")
    if scheme.startswith("stun") and transport is not None:
        raise IceError(f"{text!r:.80} names a transport, which a STUN address does not have; write {example}")
    # without a transport TURN over TLS would be DTLS, which neither browsers nor we speak
    transport = transport or {"turn": "udp", "turns": "tcp"}.get(scheme)
    if (scheme, transport) == ("turns", "udp"):
        raise IceError(f"{text!r:.80}: TURN over TLS goes by TCP; write transport=tcp, or leave it out")
    return f"{scheme}:{host}:{port or DEFAULT_PORTS[scheme]}" + (
        f"?transport={transport}" if transport else ""
    )


def read_ports(text: str) -> UdpPorts:
    """`50000-50100` → the range. Raises IceError for what is none, or too few for a call."""
    found = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", text)
    if found is None or not FIRST_PORT <= int(found[1]) <= int(found[2]) <= LAST_PORT:
        raise IceError(
            f"{text!r:.40} is no range of UDP ports; write two from {FIRST_PORT} to {LAST_PORT} such as 50000-50100"
        )
    return UdpPorts(int(found[1]), int(found[2]))


def read_ice(
    stun: str,
    turn: str,
    username: str | None,
    password: str | None,
    secret: str | None,
    ports: str | None,
    lifetime_s: float = LIFETIME_S,
) -> IceSettings:
    """Settings as they are written. Raises IceError naming what does not go together."""
    relays = read_urls(turn, ("turn", "turns"))
    if secret is not None and (username is not None or password is not None):
        raise IceError(
            "a TURN server has either a shared secret or a user and a password; give one of the two"
        )
    if (username is None) != (password is None):
        raise IceError("a TURN server's user and password go together; give both")
    if relays and secret is None and username is None:
        raise IceError(
            "a TURN server lets nobody in without a name; give its shared secret (VISAVIS_TURN_SECRET), or a user and "
            "a password (VISAVIS_TURN_USER, VISAVIS_TURN_PASSWORD)"
        )
    if not relays and (secret is not None or username is not None):
        raise IceError(
            "a secret or a user of a TURN server is given, and no server; give --turn turn:HOST:3478 too"
        )
    return IceSettings(
        read_urls(stun, ("stun",)),
        relays,
        username,
        password,
        secret,
        lifetime_s,
        read_ports(ports) if ports else None,
    )
