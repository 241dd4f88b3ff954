"""How a user names who tells motion: vts://PHONE, vmc://:PORT and the like; imports nothing slow."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, urlsplit

from engines.errors import DriverError

# kind → its usual port: where a phone is asked, or where a program sends to
TOLD_PORTS = {"vts": 21412, "ifacialmocap": 49983, "vmc": 39539, "openseeface": 11573}
PHONES = ("vts", "ifacialmocap")
TOLD_CHOICES = "vts://PHONE, ifacialmocap://PHONE, vmc://:PORT, openseeface://:PORT"
FLIPS = ("yaw", "pitch", "roll")


@dataclass(frozen=True, slots=True)
class ToldAddress:
    """Who tells, and how it is taken.

    - `host`, `port`: a phone's, where it is asked; else where we listen;
    - `sender`: whose datagrams count, an address (a phone's `host`); None on loopback: any program of this computer;
    - `flips`: turns of the head to be taken the other way round; `mirror`: the sender shows a mirror's picture.
    """

    kind: str
    host: str
    port: int
    sender: str | None = None
    flips: frozenset[str] = frozenset()
    mirror: bool = False

    @property
    def is_phone(self) -> bool:
        """Whether it is asked for its motion."""
        return self.kind in PHONES


def is_told(text: str) -> bool:
    """Whether `text` names, or tries to name, one who tells motion."""
    return text.partition(":")[0].lower() in TOLD_PORTS and ":" in text


def told_address(text: str) -> ToldAddress:
    """The address that `text` is; raises DriverError naming what to write instead."""
    kind = text.partition(":")[0].lower()
    example = f"{kind}://192.168.1.7" if kind in PHONES else f"{kind}://:{TOLD_PORTS.get(kind, 0)}"
    split, port = _split(text, example)
    if kind not in TOLD_PORTS:
        raise DriverError(f"{text!r:.80} names nobody who tells motion; choose {TOLD_CHOICES}")
    sender, flips, mirror = _settings(text, split.query)
    host = split.hostname or ""
    if kind in PHONES:
        if not host:
            raise DriverError(
                f"{text!r:.80} names no phone; write {example} with the address that the app shows"
            )
        if sender is not None:
            raise DriverError(f"{text!r:.80}: only the phone itself is listened to; leave out ?from=…")
        host = _ip(host, text, example)
        return ToldAddress(kind, host, port or TOLD_PORTS[kind], host, flips, mirror)
    host = _ip(host, text, example) if host else "127.0.0.1"
    if not ipaddress.ip_address(host).is_loopback and sender is None:
        raise DriverError(
            f"{text!r:.80} would let all of the network move the face: name who may, "
            f"{kind}://{split.netloc}?from=ADDRESS, or listen to this computer alone with {example}"
        )
    return ToldAddress(kind, host, port or TOLD_PORTS[kind], sender, flips, mirror)


def _split(text: str, example: str) -> tuple[SplitResult, int | None]:
    if "://" not in text:
        raise DriverError(f"{text!r:.80} has no slashes; write {example}")
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError as error:
        raise DriverError(f"{text!r:.80} is no address ({error}); write {example}") from error
    if split.username or split.path not in ("", "/") or split.fragment or port == 0:
        raise DriverError(f"{text!r:.80} is more than an address and a port; write {example}")
    return split, port


def _ip(host: str, text: str, example: str) -> str:
    """Addresses alone: looking names up would tell others whom one waits for."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError as error:
        raise DriverError(f"{text!r:.80}: {host!r:.60} is no address of numbers; write {example}") from error


def _settings(text: str, query: str) -> tuple[str | None, frozenset[str], bool]:
    sender: str | None = None
    flips: frozenset[str] = frozenset()
    mirror = False
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "from":
            sender = _ip(value, text, "?from=192.168.1.7")
        elif name == "flip" and set(value.split(",")) <= set(FLIPS):
            flips = frozenset(value.split(","))
        elif name == "mirror" and not value:
            mirror = True
        else:
            raise DriverError(
                f"{text!r:.80}: there is no setting {name}={value!r:.40}; there are from=ADDRESS, mirror and "
                f"flip with some of {','.join(FLIPS)}"
            )
    return sender, flips, mirror
