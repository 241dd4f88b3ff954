"""What the data channel says and hears, without a call."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import VisavisError
from streamer.webrtc.messages import (
    MAX_ANSWER_CHARS,
    MAX_MESSAGE_CHARS,
    MESH_UNITS,
    MessageError,
    Ping,
    Recalibrate,
    SetControls,
    SetSound,
    mesh_message,
    one_line,
    read_command,
    refusal,
    text_of,
)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"type":"ping","t":12.5}', Ping(12.5)),
        ('{"type":"recalibrate"}', Recalibrate()),
        ('{"type":"controls","lips":0.5,"preset":"sad"}', SetControls({"lips": 0.5, "preset": "sad"})),
        ('{"type":"sound","trim_ms":-20}', SetSound(-20.0, None)),
        ('{"type":"sound","waits_ms":60}', SetSound(None, 60.0)),
        ('{"type":"sound","heard":false,"skew_ms":-7.5}', SetSound(None, None, False, -7.5)),
        ('{"type":"sound"}', SetSound(None, None)),
    ],
)
def test_every_command_is_read(text: str, command: object) -> None:
    assert read_command(text) == command


def test_a_message_of_which_a_part_makes_no_sense_asks_for_nothing() -> None:
    with pytest.raises(MessageError, match="waits_ms must be a number"):
        read_command('{"type":"sound","trim_ms":50,"waits_ms":"long"}')


@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
            lambda x: st.one_of(
                st.lists(x), st.dictionaries(st.sampled_from(["type", "t", "trim_ms", "waits_ms"]), x)
            ),
        ).map(json.dumps),
        st.builds(
            lambda kind, value: json.dumps({"type": kind, "t": value, "trim_ms": value, "waits_ms": value}),
            st.sampled_from(["ping", "sound", "controls", "recalibrate", "frob"]),
            st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
        ),
    )
)
def test_whatever_comes_is_a_command_or_told(message: object) -> None:
    with suppress(MessageError):
        assert isinstance(read_command(message), Ping | Recalibrate | SetControls | SetSound)


def test_a_message_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(MessageError, match="send less"):
        read_command('{"type":"recalibrate"' + " " * MAX_MESSAGE_CHARS + "}")


def test_a_refusal_is_one_line_that_the_page_can_hold() -> None:
    told = refusal(VisavisError("no\nsuch thing " * 1000))
    text = told["text"]
    assert isinstance(text, str)
    assert "\n" not in text
    assert len(text) <= MAX_ANSWER_CHARS
    assert json.loads(text_of(told)) == told
    assert one_line(ZeroDivisionError()) == "ZeroDivisionError"


def test_the_mesh_lies_in_the_picture() -> None:
    points = np.array([[0, 0, 9], [64, 24, 0], [640, -5, 0]], np.float32)
    assert mesh_message(points, (128, 48)) == {
        "type": "mesh",
        "points": [0, 0, round(MESH_UNITS / 2), round(MESH_UNITS / 2), MESH_UNITS, 0],
    }


@pytest.mark.parametrize("part", ['"heard":1', '"heard":"yes"', '"skew_ms":true', '"skew_ms":1e9'])
def test_sound_that_is_told_wrongly_is_refused(part: str) -> None:
    with pytest.raises(MessageError, match=part.split('"')[1]):
        read_command('{"type":"sound",' + part + "}")
