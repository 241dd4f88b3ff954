"""read_fragment: candidates that came after the offer, as `application/trickle-ice-sdpfrag` (RFC 8840) says them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engines.errors import VisavisError
from streamer.webrtc.offer_sdp import MAX_CANDIDATES, MAX_LINE_CHARS, IceLogin

MAX_FRAGMENT_BYTES = 16 << 10
MAX_SECTIONS = 3  # of an offer: audio, video, data
_ICE_CHARS = "[A-Za-z0-9+/]"
_UFRAG, _PWD = re.compile(f"{_ICE_CHARS}{{4,256}}"), re.compile(f"{_ICE_CHARS}{{22,256}}")
# RFC 8839 § 5.1; what may follow is read as pairs of a name and a value
_CANDIDATE = re.compile(
    rf"(?P<foundation>{_ICE_CHARS}{{1,32}}) (?P<component>[0-9]{{1,3}}) (?P<transport>[A-Za-z0-9-]{{1,8}}) "
    r"(?P<priority>[0-9]{1,10}) (?P<host>[A-Za-z0-9.:-]{1,255}) (?P<port>[0-9]{1,5}) typ (?P<kind>[a-z]{1,8})"
    r"(?P<more>( [!-~]+ [!-~]+)*)"
)


class FragmentError(VisavisError):
    """A fragment that makes no sense."""


@dataclass(frozen=True, slots=True)
class Trickled:
    """Candidates of one section (`mid`; None: of the first one), as `a=candidate:` says them; `is_last`: all of them.

    Only those over UDP, which are the only ones that we use.
    """

    mid: str | None = None
    candidates: tuple[str, ...] = ()
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Fragment:
    """A whole fragment. `login`: whose candidates they are; None where it does not say."""

    login: IceLogin | None
    sections: Sequence[Trickled]

    @property
    def count(self) -> int:
        """How many candidates it holds."""
        return sum(len(section.candidates) for section in self.sections)


def read_fragment(text: str) -> Fragment:
    """What `text` says. Raises FragmentError with what is wrong and what would be right.

    Lines that this does not know are left out, as RFC 8866 § 5 wants it.
    """
    sections, said = [Trickled()], dict[str, str]()
    if any(len(line) > MAX_LINE_CHARS for line in text.splitlines()):
        raise FragmentError(f"a line of the fragment has more than {MAX_LINE_CHARS} characters; send less")
    for line in (line.strip() for line in text.splitlines()):
        name, _, value = line.removeprefix("a=").partition(":")
        if line.startswith("m="):
            sections.append(Trickled())
        elif not line.startswith("a="):
            continue
        elif name == "mid":
            sections[-1] = replace(sections[-1], mid=value)
        elif name in ("ice-ufrag", "ice-pwd"):
            said.setdefault(name, value)
        elif name == "end-of-candidates":
            sections[-1] = replace(sections[-1], is_last=True)
        elif name == "candidate" and (candidate := read_candidate(value)):
            sections[-1] = replace(sections[-1], candidates=(*sections[-1].candidates, candidate))
    if len(sections) > MAX_SECTIONS + 1:
        raise FragmentError(f"the fragment has more than {MAX_SECTIONS} sections; send those of the offer")
    fragment = Fragment(_login_of(said), [s for s in sections if s.candidates or s.is_last])
    if fragment.count > MAX_CANDIDATES:
        raise FragmentError(f"the fragment has more than {MAX_CANDIDATES} candidates; send fewer")
    if fragment.login is None and not fragment.sections:
        raise FragmentError("the fragment says nothing; send a=candidate lines (RFC 8840)")
    return fragment


def read_candidate(text: str) -> str | None:
    """A candidate as it was written, or None for one that we do not use. Raises FragmentError for none at all."""
    found = _CANDIDATE.fullmatch(text)
    if found is None or int(found["priority"]) >= 1 << 31 or int(found["port"]) > 65_535:
        raise FragmentError(
            f"the fragment has no candidate in {text!r:.80}; write it as in RFC 8839, section 5.1"
        )
    pairs = found["more"].split()
    ports = [value for name, value in zip(pairs[::2], pairs[1::2], strict=True) if name == "rport"]
    if any(not re.fullmatch("[0-9]{1,5}", port) for port in ports):
        raise FragmentError(f"the fragment has an rport that is no number in {text!r:.80}; write it as one")
    is_ours = found["transport"].lower() == "udp" and found["component"] == "1" and int(found["port"]) > 0
    return text if is_ours else None


def _login_of(said: dict[str, str]) -> IceLogin | None:
    if not said:
        return None
    ufrag, pwd = said.get("ice-ufrag", ""), said.get("ice-pwd", "")
    if not _UFRAG.fullmatch(ufrag) or not _PWD.fullmatch(pwd):
        raise FragmentError("the fragment's a=ice-ufrag and a=ice-pwd belong together; send both, or neither")
    return IceLogin(ufrag, pwd)
