"""`Gate`: what a call's sockets take: data from its browser's addresses, and checks that know its password."""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aioice; tests/test_gate.py checks that what it reaches for is there)

from __future__ import annotations

from typing import Any

MOST_ADDRESSES = 192  # an offer's candidates, the checks that came before it was read, and new ones meanwhile
_HEADER_BYTES = 20  # RFC 8489 § 5
_CLASS = 0x0110
_REQUEST, _INDICATION = 0x0000, 0x0010


class Gate:
    """That of one `aioice.Connection`, which asks nobody who sent what. Event-loop only.

    Who sends is known by address: that of a candidate in the offer, or one whose check was authentic (RFC 8445
    § 7.3.1.3). Raises AttributeError where aioice is another one.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._known: set[tuple[str, int]] = set()
        self._count = 0
        self._candidates: list[Any] = connection._remote_candidates  # never replaced
        self._named = f"{connection.local_username}:".encode()
        self._password = connection.local_password.encode()
        self._names_us = connection._valid_username

    def admits(self, protocol: Any, data: bytes, address: tuple[Any, ...]) -> bool:
        """Whether `data` is worth reading: cheap, before any of it is parsed."""
        if not is_stun(data):
            # what is no media and no DTLS either is nothing (RFC 7983 § 7)
            return len(data) > 0 and data[0] > 19 and self.knows(address)
        if is_answer(data):
            return len(data) >= _HEADER_BYTES and data[8:_HEADER_BYTES] in protocol.transactions
        return _class_of(data) == _REQUEST and self._named in data

    def knows(self, address: tuple[Any, ...]) -> bool:
        """Whether `address`, as a socket gives it, is one of the browser's."""
        if len(self._candidates) != self._count:
            self._count = len(self._candidates)
            self._known = {(c._network_host, c.port) for c in self._candidates}
        return address[:2] in self._known

    def has_room(self, address: tuple[Any, ...]) -> bool:
        """Whether a check may come from `address`: each new one is remembered, and checked in turn."""
        return self.knows(address) or self._count < MOST_ADDRESSES

    def authentic(self, message: Any) -> bool:
        """Whether a check was made with what this call's answer said (RFC 8445 § 7.3)."""
        return bool(
            self._names_us(message.attributes.get("USERNAME", ""))
            and message.check_message_integrity(self._password)
        )


def is_stun(data: bytes) -> bool:
    """Whether it can be a STUN message that aioice knows: its types are below 0x200."""
    return len(data) > 1 and data[0] < 2


def is_answer(data: bytes) -> bool:
    """Whether a STUN message says that it answers a request."""
    return _class_of(data) not in (_REQUEST, _INDICATION)


def _class_of(data: bytes) -> int:
    return (data[0] << 8 | data[1]) & _CLASS
