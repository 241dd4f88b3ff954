"""Candidates that come after the offer: what is read of a fragment, and that nothing in one can hurt."""

from __future__ import annotations

import re

import pytest
from aiortc.sdp import candidate_from_sdp
from hypothesis import given
from hypothesis import strategies as st

from streamer.webrtc.offer_sdp import MAX_CANDIDATES, IceLogin
from streamer.webrtc.sdp_fragment import Fragment, FragmentError, Trickled, read_candidate, read_fragment

HOST = "1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1"
LOCAL = "1 1 UDP 2122260223 4f4a6cd2-1b41-4b47-9b8a-0a0d0bd4f2f2.local 50000 typ host"
RELAY = "2 1 udp 41885439 203.0.113.7 3478 typ relay raddr 198.51.100.1 rport 5000"
SIX = "3 1 udp 1 2001:db8::1 9 typ srflx raddr :: rport 0"
# as RFC 9725's own example has it
WHOLE = (
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    f"a=candidate:{HOST}\r\na=candidate:{RELAY}\r\na=end-of-candidates\r\n"
)


def test_a_whole_fragment_is_read() -> None:
    assert read_fragment(WHOLE) == Fragment(
        IceLogin("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"), [Trickled("0", (HOST, RELAY), is_last=True)]
    )


def test_each_section_has_its_own_candidates() -> None:
    text = (
        f"a=candidate:{HOST}\r\nm=audio 9 X 0\r\na=mid:a\r\nm=video 9 X 0\r\na=mid:v\r\na=candidate:{SIX}\r\n"
    )
    assert read_fragment(text).sections == [Trickled(None, (HOST,)), Trickled("v", (SIX,))]
    assert read_fragment(text).login is None
    assert read_fragment(text).count == 2


def test_a_login_alone_is_a_fragment_and_what_is_unknown_is_left_out() -> None:
    only = "a=ice-options:trickle\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nb=AS:5\r\n"
    assert read_fragment(only).login == IceLogin("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1")
    assert read_fragment(only).sections == []


@pytest.mark.parametrize("text", [HOST, LOCAL, RELAY, SIX])
def test_what_is_taken_can_be_read_behind(text: str) -> None:
    taken = read_candidate(text)
    assert taken == text
    assert candidate_from_sdp(text).port > 0


@pytest.mark.parametrize(
    "text",
    [
        HOST.replace(" udp ", " tcp "), HOST.replace(" 1 udp", " 2 udp"),
        "1 1 tcp 1 192.0.2.1 9 typ host tcptype active", HOST.replace("61764", "0"),
    ],
)  # fmt: skip
def test_what_we_cannot_use_is_left_out(text: str) -> None:
    assert read_candidate(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1 1 udp", HOST.replace("61764", "65536"), HOST.replace("61764", "-1"), HOST.replace(" 1 ", " x "),
        HOST.replace("2122260223", str(1 << 31)), HOST.replace("typ host", "host"), HOST.replace("192.0.2.1", "a b"),
        HOST.replace("192.0.2.1", "a" * 256), f"{HOST} odd", HOST.replace("1387637174", "é"),
        RELAY.replace("5000", "x"),
        HOST.replace("192.0.2.1", "١٩٢"), HOST.replace("61764", "٦"), RELAY.replace("5000", "9" * 4000),
    ],
)  # fmt: skip
def test_what_is_no_candidate_is_refused(text: str) -> None:
    with pytest.raises(FragmentError):
        read_fragment(f"a=candidate:{text}\r\n")


@pytest.mark.parametrize(
    "text",
    [
        "", "v=0\r\n", "m=audio\r\n", "a=ice-ufrag:EsAw\r\n", "a=ice-ufrag:EsAw\r\na=ice-pwd:short\r\n",
        "a=ice-ufrag:E s\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", "m=a\r\n" * 5 + "a=end-of-candidates\r\n",
        f"a={'x' * 3000}\r\n", "\x00", "a=candidate\r\n",
        "".join(f"a=candidate:{k} 1 udp 1 192.0.2.1 9 typ host\r\n" for k in range(MAX_CANDIDATES + 1)),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(FragmentError) as caught:
        read_fragment(text)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_candidates_as_an_offer_may_have_are_taken() -> None:
    text = "".join(f"a=candidate:{k} 1 udp 1 192.0.2.1 9 typ host\r\n" for k in range(MAX_CANDIDATES))
    assert read_fragment(text).count == MAX_CANDIDATES


PARTS = st.sampled_from([*re.split(r"(?<=\r\n)", WHOLE), "a=candidate:", HOST, " ", "\r\n", "a=mid:", "m="])


@given(st.one_of(st.text(), st.lists(PARTS, max_size=40).map("".join)))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    try:
        fragment = read_fragment(text)
    except FragmentError:
        return
    for section in fragment.sections:
        for candidate in section.candidates:
            parsed = candidate_from_sdp(candidate)
            assert parsed.component == 1
            assert 0 < parsed.port < 65_536
