"""check_offer: what an offer's SDP may hold, looked at before any of it is parsed or answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from engines.errors import VisavisError

MAX_SDP_CHARS = 65_536  # a browser's offer of sound, picture and data is a tenth of it
MAX_LINES = 1000
MAX_LINE_CHARS = 2048
MAX_CANDIDATES = 64
MAX_FORMATS = 64  # of one section; Chrome offers about 40 of video
MAX_FEEDBACK = 256  # of one section, over all its formats; Chrome offers about 100
KINDS = ("audio", "video", "application")
# what calls: a page, which receives pictures and may send; WHIP's sender; WHEP's player; a test of the connection
Caller = Literal["page", "sender", "player", "test"]
_MAX_MID_CHARS = 64  # it travels with every packet, in at most 255 bytes (RFC 8285 § 4.3)


class OfferError(VisavisError):
    """An offer that cannot be answered."""


class UnfitOfferError(OfferError):
    """An offer that can be read, of what does not happen here."""


@dataclass(frozen=True, slots=True)
class IceLogin:
    """By what one end's connectivity checks are known: another one is another ICE session (RFC 8839 § 5.4)."""

    ufrag: str
    pwd: str


_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_RECEIVES = ("sendrecv", "recvonly")


@dataclass(frozen=True, slots=True)
class _Section:
    """One `m=` section: its kind, transport and formats, and its attributes as written."""

    kind: str
    protocol: str
    formats: Sequence[str]
    attributes: Sequence[str]

    def has(self, name: str) -> bool:
        """Whether `a=name:…` is there and says something."""
        return any(self.values(name))

    def direction(self, session: _Section) -> str:
        """Which way its media goes, as said here or for all sections."""
        for part in (self, session):
            for line in part.attributes:
                if line.strip().removeprefix("a=") in _DIRECTIONS:
                    return line.strip().removeprefix("a=")
        return "sendrecv"

    def values(self, name: str) -> list[str]:
        """What `a=name:…` says, each time."""
        return [line[len(name) + 3 :].strip() for line in self.attributes if line.startswith(f"a={name}:")]


def login_of(sdp: str) -> IceLogin | None:
    """The ICE login of the first section of an offer; None where it says none."""
    session, sections = _sections(sdp.splitlines())
    said = [*sections[:1], session]
    ufrag, pwd = (
        next((v for part in said for v in part.values(name) if v), "") for name in ("ice-ufrag", "ice-pwd")
    )
    return IceLogin(ufrag, pwd) if ufrag and pwd else None


def sends(sdp: str, kind: str) -> bool:
    """Whether an offer sends sound or pictures: RFC 8866 § 6.7, `sendrecv` where nothing is said."""
    session, sections = _sections(sdp.splitlines())
    return any(s.kind == kind and s.direction(session) in ("sendrecv", "sendonly") for s in sections)


def check_offer(sdp: str, caller: Caller = "page") -> None:
    """Raises OfferError for an offer that is too large, or that could not become a call (RFC 8866, 8829, 8839).

    What passes may still not be readable. At most `MAX_SDP_CHARS` are expected.
    """
    lines = sdp.splitlines()
    if len(lines) > MAX_LINES or any(len(line) > MAX_LINE_CHARS for line in lines):
        raise OfferError(
            f"the offer's SDP has more than {MAX_LINES} lines of {MAX_LINE_CHARS} characters; reload the page"
        )
    if sum(line.startswith("a=candidate:") for line in lines) > MAX_CANDIDATES:
        raise OfferError(
            f"the offer has more than {MAX_CANDIDATES} candidates; switch some of the computer's networks off"
        )
    session, sections = _sections(lines)
    kinds = [section.kind for section in sections]
    strange = sorted(set(kinds) - set(KINDS))
    if strange or len(set(kinds)) < len(kinds):
        what = f"a section {strange[0]!r:.40}" if strange else "two sections of one kind"
        raise OfferError(f"the offer has {what}; offer one each of {', '.join(KINDS)} at most")
    if caller == "sender":
        if not any(sends(sdp, kind) for kind in ("video", "audio")):
            raise UnfitOfferError("the offer sends nothing; offer to send a camera, a microphone or both")
    elif caller == "test":
        if "application" not in kinds:
            raise UnfitOfferError("the offer has no application section; open a data channel first")
    elif "video" not in kinds:
        raise UnfitOfferError("the offer has no video section; offer at least to receive video")
    for section in sections:
        _check_section(section, session)
        if section.kind == "video" and caller != "sender" and section.direction(session) not in _RECEIVES:
            raise UnfitOfferError(
                "the offer's video section does not receive; offer at least to receive video"
            )


def _check_section(section: _Section, session: _Section) -> None:
    for name in ("ice-ufrag", "ice-pwd", "fingerprint"):
        if not section.has(name) and not session.has(name):
            raise OfferError(f"the offer's {section.kind} section has no a={name}; reload the page")
    if any(len(mid) > _MAX_MID_CHARS for mid in section.values("mid")):
        raise OfferError(f"an a=mid of the offer has more than {_MAX_MID_CHARS} characters; reload the page")
    _check_formats(section)
    for said in section.values("extmap"):
        if not _is_number(said.split(" ", 1)[0].split("/", 1)[0], 1, 255):
            raise OfferError(f"the offer's a=extmap:{said:.40} has no number from 1 to 255; reload the page")
    if section.kind == "application":
        ports = section.formats[:1] if section.protocol == "DTLS/SCTP" else section.values("sctp-port")
        if not ports or not all(_is_number(port, 1, 65_535) for port in ports):
            raise OfferError("the offer's application section has no port of SCTP; reload the page")
        if not all(_is_number(size, 0, 2**32) for size in section.values("max-message-size")):
            raise OfferError("the offer's a=max-message-size is no number of bytes; reload the page")


def _check_formats(section: _Section) -> None:
    """What aiortc multiplies: each line of feedback is copied to every format that it names."""
    formats = [said.split(" ", 1)[0] for said in section.values("rtpmap")]
    strange = next((name for name in formats if not _is_number(name, 0, 127)), None)
    if strange is not None:
        raise OfferError(f"the offer's a=rtpmap:{strange:.40} has no number from 0 to 127; reload the page")
    if len(formats) > MAX_FORMATS or len({int(name) for name in formats}) < len(formats):
        raise OfferError(
            f"the offer's {section.kind} section has more than {MAX_FORMATS} a=rtpmap, or two of one number; "
            "reload the page"
        )
    feedback = (said.split(" ", 1)[0] for said in section.values("rtcp-fb"))
    if sum(max(1, len(formats)) if name == "*" else 1 for name in feedback) > MAX_FEEDBACK:
        raise OfferError(
            f"the offer's {section.kind} section has more than {MAX_FEEDBACK} a=rtcp-fb over its formats; "
            "reload the page"
        )


def _sections(lines: Sequence[str]) -> tuple[_Section, list[_Section]]:
    """What stands before the first `m=` line, and each section behind one."""
    borders = [k for k, line in enumerate(lines) if line.startswith("m=")] + [len(lines)]
    sections: list[_Section] = []
    for start, end in pairwise(borders):
        kind, _, protocol, *formats = [*lines[start][2:].split(" "), "", "", ""]
        sections.append(_Section(kind, protocol, [f for f in formats if f], lines[start + 1 : end]))
    return _Section("session", "", (), lines[: borders[0]]), sections


def _is_number(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most
