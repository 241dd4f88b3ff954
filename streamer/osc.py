"""Open Sound Control 1.0, as much of it as the VMC protocol needs: datagrams ↔ messages. Strict, bounded, pure.

The format: https://opensoundcontrol.stanford.edu/spec-1_0.html. Ours and not python-osc's, for that one (1.10.2) reads
a bundle with an element of size −4 for ever, nests without bound, and logs the bytes that it does not know: a port
that strangers reach must do none of these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Argument = int | float | str | bytes | bool | None

MOST_MESSAGES = 512  # in a datagram: a body's 55 bones and a face's 52 shapes are a fifth of it
DEEPEST = 4  # bundles within bundles; senders use one
_MOST_ARGUMENTS = 32
_BUNDLE = b"#bundle\0"
_IMMEDIATELY = b"\0\0\0\0\0\0\0\1"
_NUMBERS = {"i": ">i", "f": ">f", "h": ">q", "d": ">d", "t": ">Q"}
_CONSTANTS: dict[str, bool | None] = {"T": True, "F": False, "N": None}


class OscError(ValueError):
    """A datagram is no OSC; the message says what is wrong and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class OscMessage:
    """One message: its `address` and its `arguments` (i, h and t int, f and d float, s str, b bytes, T, F and N)."""

    address: str
    arguments: tuple[Argument, ...] = ()


def messages_of(datagram: bytes) -> list[OscMessage]:
    """All messages of a datagram in their order, those of bundles too (time tags do not count). Raises OscError."""
    messages: list[OscMessage] = []
    for message in _elements(datagram, 0):
        if len(messages) == MOST_MESSAGES:
            raise OscError("too many messages")
        messages.append(message)
    return messages


def _elements(packet: bytes, depth: int) -> Iterator[OscMessage]:
    if not packet.startswith(_BUNDLE):
        yield _message(packet)
        return
    if depth == DEEPEST:
        raise OscError("too deep")
    if len(packet) < 16:
        raise OscError("a bundle without a time")
    at = 16
    while at < len(packet):
        size = _int32(packet, at)
        at += 4
        if size <= 0 or size % 4 or at + size > len(packet):
            raise OscError("an element of a wrong size")
        yield from _elements(packet[at : at + size], depth + 1)
        at += size


def _message(packet: bytes) -> OscMessage:
    if not packet.startswith(b"/"):
        raise OscError("neither a message nor a bundle")
    address, at = _string(packet, 0)
    if at == len(packet):  # old senders leave out the types where there are no arguments
        return OscMessage(address)
    types, at = _string(packet, at)
    if not types.startswith(",") or len(types) > _MOST_ARGUMENTS + 1:
        raise OscError("no types, or too many")
    arguments: list[Argument] = []
    for kind in types[1:]:
        argument, at = _argument(packet, at, kind)
        arguments.append(argument)
    if at != len(packet):
        raise OscError("more bytes than types")
    return OscMessage(address, tuple(arguments))


def _argument(packet: bytes, at: int, kind: str) -> tuple[Argument, int]:
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind == "s":
        return _string(packet, at)
    if kind == "b":
        size = _int32(packet, at)
        end = at + 4 + size
        if size < 0 or end > len(packet):
            raise OscError("a blob of a wrong size")
        return packet[at + 4 : end], end + -size % 4
    if kind not in _NUMBERS:
        raise OscError("an unknown type")
    size = struct.calcsize(_NUMBERS[kind])
    if at + size > len(packet):
        raise OscError("cut off")
    return struct.unpack_from(_NUMBERS[kind], packet, at)[0], at + size


def _string(packet: bytes, at: int) -> tuple[str, int]:
    """The text that begins at `at`, and where what follows its padding begins."""
    end = packet.find(b"\0", at)
    if end < 0:
        raise OscError("a text without an end")
    after = end + 4 - (end - at) % 4
    if after > len(packet):
        raise OscError("cut off")
    try:
        return packet[at:end].decode("utf-8"), after
    except UnicodeDecodeError as error:
        raise OscError("a text that is none") from error


def _int32(packet: bytes, at: int) -> int:
    if at + 4 > len(packet):
        raise OscError("cut off")
    return int(struct.unpack_from(">i", packet, at)[0])


def datagram_of(messages: Iterable[OscMessage]) -> bytes:
    """One bundle of these messages, to be acted on immediately."""
    parts = [_BUNDLE, _IMMEDIATELY]
    for message in messages:
        packet = _packed(message)
        parts += [struct.pack(">i", len(packet)), packet]
    return b"".join(parts)


def _packed(message: OscMessage) -> bytes:
    types, data = ",", b""
    for argument in message.arguments:
        if argument is None or isinstance(argument, bool):
            types += "N" if argument is None else "T" if argument else "F"
        elif isinstance(argument, str):
            types, data = types + "s", data + _padded(argument.encode("utf-8"))
        elif isinstance(argument, bytes):
            size = struct.pack(">i", len(argument))
            types, data = types + "b", data + size + argument + b"\0" * (-len(argument) % 4)
        elif isinstance(argument, int):
            types, data = types + "i", data + struct.pack(">i", argument)
        else:
            types, data = types + "f", data + struct.pack(">f", argument)
    return _padded(message.address.encode("utf-8")) + _padded(types.encode("ascii")) + data


def _padded(text: bytes) -> bytes:
    return text + b"\0" * (4 - len(text) % 4)
