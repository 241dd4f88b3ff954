"""Open Sound Control, read strictly: as python-osc packs it, and whatever else comes."""

from __future__ import annotations

import math
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonosc.osc_packet import OscPacket
from telling import bundled, osc

from streamer.osc import DEEPEST, MOST_MESSAGES, OscError, OscMessage, datagram_of, messages_of

NO_TIME = b"#bundle\0" + b"\0" * 7 + b"\1"
ARGUMENTS = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=12),
    st.binary(max_size=9),
    st.booleans(),
    st.none(),
)
ADDRESSES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map("/".__add__)
MESSAGES = st.lists(
    st.builds(OscMessage, ADDRESSES, st.lists(ARGUMENTS, max_size=6).map(tuple)), min_size=1, max_size=6
)


def test_what_another_library_packs_is_read() -> None:
    one = osc("/VMC/Ext/Bone/Pos", "Head", 0.5, -1.0, 7).build().dgram
    assert messages_of(one) == [OscMessage("/VMC/Ext/Bone/Pos", ("Head", 0.5, -1.0, 7))]
    both = bundled(osc("/a", True, None, b"xyz"), osc("/b"))
    assert messages_of(both) == [OscMessage("/a", (True, None, b"xyz")), OscMessage("/b")]
    assert messages_of(b"/old\0\0\0\0") == [OscMessage("/old")], "without types"


def test_what_we_pack_another_library_reads() -> None:
    datagram = datagram_of([OscMessage("/VMC/Ext/Blend/Val", ("JawOpen", 0.25)), OscMessage("/b", (3, "é"))])
    read = [(m.message.address, m.message.params) for m in OscPacket(datagram).messages]
    assert read == [("/VMC/Ext/Blend/Val", ["JawOpen", 0.25]), ("/b", [3, "é"])]


@settings(max_examples=100)
@given(MESSAGES)
def test_what_is_packed_is_read(messages: list[OscMessage]) -> None:
    assert messages_of(datagram_of(messages)) == messages


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"#bundle\0",
        NO_TIME + struct.pack(">i", -4),  # read for ever by others
        NO_TIME + struct.pack(">i", 0),
        NO_TIME + struct.pack(">i", 5) + b"/a\0\0,",
        NO_TIME + struct.pack(">i", 2**31 - 1) + b"/a\0\0",
        NO_TIME + b"\0\0",
        b"/a\0\0,f\0\0\0\0",
        b"/a\0\0,q\0\0",
        b"/a\0\0,i\0\0\0\0\0\1\0\0\0\0",
        b"/a\0\0f\0\0\0\0\0\0\0",
        b"/a\0\0,b\0\0" + struct.pack(">i", -8),
        b"/a\0\0,b\0\0" + struct.pack(">i", 100),
        b"/\xff\xfe\0",
        b"/no end",
        b"/a\0",
        b"/a\0\0," + b"i" * 39 + b"\0" * 4 + b"\0" * 156,
        b"not a message\0\0\0",
    ],
)
def test_what_is_none_is_refused(datagram: bytes) -> None:
    with pytest.raises(OscError):
        messages_of(datagram)


def test_bundles_nest_a_little_and_hold_so_much() -> None:
    def nested(depth: int) -> bytes:
        inside = b"/a\0\0,\0\0\0"
        for _ in range(depth):
            inside = NO_TIME + struct.pack(">i", len(inside)) + inside
        return inside

    assert messages_of(nested(DEEPEST)) == [OscMessage("/a")]
    with pytest.raises(OscError, match="too deep"):
        messages_of(nested(DEEPEST + 1))
    element = struct.pack(">i", 8) + b"/a\0\0,\0\0\0"
    assert len(messages_of(NO_TIME + MOST_MESSAGES * element)) == MOST_MESSAGES
    with pytest.raises(OscError, match="too many"):
        messages_of(NO_TIME + (MOST_MESSAGES + 1) * element)


def test_numbers_that_are_none_are_told_as_they_are() -> None:
    (message,) = messages_of(b"/a\0\0,ff\0" + struct.pack(">ff", math.nan, math.inf))
    assert math.isnan(float(message.arguments[0] or 0))
    assert message.arguments[1] == math.inf


@settings(max_examples=300)
@given(
    st.binary(max_size=200)
    | st.builds(lambda b: NO_TIME + b, st.binary(max_size=200))
    | st.builds(
        lambda messages, at, new: datagram_of(messages)[:at] + new + datagram_of(messages)[at + len(new) :],
        MESSAGES,
        st.integers(0, 120),
        st.binary(max_size=4),
    )
)
def test_any_bytes_are_read_or_refused(datagram: bytes) -> None:
    with suppress(OscError):
        assert len(messages_of(datagram)) <= MOST_MESSAGES
