"""What an encoded picture says of itself is what its encoder was told."""

# pyright: reportPrivateUsage=none

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from aiortc.codecs import depayload
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from hypothesis import given
from hypothesis import strategies as st
from receiving import H264, VP8

from streamer.webrtc import encoded_picture
from streamer.webrtc.encoded_picture import Look, begins, look
from streamer.webrtc.media import video_frame_of

SIZES = [(64, 48), (640, 480), (1280, 720), (720, 1280), (1920, 1080), (3840, 2160)]


def picture(width: int, height: int, pts: int = 0) -> av.VideoFrame:
    return video_frame_of(np.full((height, width, 3), (pts // 30) % 200, np.uint8), pts)


@pytest.mark.parametrize("size", SIZES)
def test_vp8(size: tuple[int, int]) -> None:
    encoder = Vp8Encoder()
    payloads, _ = encoder.encode(picture(*size))
    assert [begins("VP8", p) for p in payloads] == [True] + [False] * (len(payloads) - 1)
    assert look("VP8", b"".join(depayload(VP8, p) for p in payloads)) == Look(True, size)
    assert look("VP8", depayload(VP8, payloads[0])) == Look(True, size), "its first packet is enough"
    payloads, _ = encoder.encode(picture(*size, 3000))
    assert look("VP8", b"".join(depayload(VP8, p) for p in payloads)) == Look(False)


@pytest.mark.parametrize("size", SIZES)
def test_h264(size: tuple[int, int]) -> None:
    encoder = H264Encoder()
    payloads, _ = encoder.encode(picture(*size))
    assert begins("H264", payloads[0]) is True
    whole = look("H264", b"".join(depayload(H264, p) for p in payloads))
    assert whole.is_key
    assert whole.size_px == tuple(-(-n // 16) * 16 for n in size), "in whole macroblocks"
    assert look("H264", depayload(H264, payloads[0])).size_px == whole.size_px
    payloads, _ = encoder.encode(picture(*size, 3000))
    assert look("H264", b"".join(depayload(H264, p) for p in payloads)) == Look(False)


@pytest.mark.parametrize("profile", ["baseline", "main", "high", "high10", "high422", "high444"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_profile_of_h264_tells_its_size(profile: str, interlaced: bool) -> None:
    if interlaced and profile == "baseline":
        pytest.skip("has no fields")
    formats = {"high10": "yuv420p10le", "high422": "yuv422p", "high444": "yuv444p"}
    codec: Any = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.time_base = 1280, 736, Fraction(1, 30)
    codec.pix_fmt = formats.get(profile, "yuv420p")
    codec.options = {"tune": "zerolatency", "x264-params": f"cqm=jvt:interlaced={int(interlaced)}"} | (
        {} if profile != "baseline" else {"x264-params": ""}
    )
    codec.profile = {"high10": "High 10", "high422": "High 4:2:2", "high444": "High 4:4:4 Predictive"}.get(
        profile, profile.capitalize()
    )
    frame = picture(1280, 736).reformat(format=codec.pix_fmt)
    data = b"".join(bytes(p) for p in [*codec.encode(frame), *codec.encode(None)])
    assert look("H264", data) == Look(True, (1280, 736))


HIGH_WITH_SCALING = b"\x67\x64\x00\x1f\xb7" + b"\xff" * 56


@pytest.mark.parametrize("unit", [
    b"\x67", b"\x67\x42\x00\x1f\xff\xff", HIGH_WITH_SCALING, b"\x09", b"\x06" + b"\xff" * 300, b"", b"\x65", b"\x41",
])  # fmt: skip
def test_a_picture_of_units_without_end_is_hardly_looked_at(
    unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """512 packets of nothing but start codes and parameter sets: counted, what Python looks at of them."""
    read, units, codes = list[bytes](), list[bytes](), [0]
    size_of, units_of = encoded_picture._size_of_parameters, encoded_picture._units

    def counted_size(one: bytes) -> tuple[int, int] | None:
        read.append(one)
        return size_of(one)

    def counted_units(data: bytes) -> Iterator[bytes]:
        for one in units_of(data):
            units.append(one)
            yield one

    golomb = encoded_picture._Bits.golomb

    def counted_golomb(bits: Any) -> int:
        codes[0] += 1
        return golomb(bits)

    monkeypatch.setattr(encoded_picture._Bits, "golomb", counted_golomb)
    monkeypatch.setattr(encoded_picture, "_size_of_parameters", counted_size)
    monkeypatch.setattr(encoded_picture, "_units", counted_units)
    start = b"\x00\x00\x01"
    data = (start + unit) * (512 * 1180 // (len(unit) + 3)) + start + b"\x65\x88"
    assert look("H264", data).is_key == (unit == b"\x65")
    assert len(read) <= 2
    assert len(units) <= 16
    assert sum(map(len, read)) <= 2 * 64
    assert codes[0] <= 2 * 65
    if unit[:1] in (b"\x65", b"\x41"):
        assert len(units) == 1, "no further than the first slice"


def test_what_encoders_put_before_a_slice_is_no_hindrance() -> None:
    """A delimiter, parameters, and remarks of x264's length, with either start code."""
    payloads, _ = H264Encoder().encode(picture(640, 480))
    whole = b"".join(depayload(H264, p) for p in payloads)
    head = b"\x00\x00\x00\x01\x09\x10" + b"\x00\x00\x00\x01\x06\x05" + b"\xff" * 700
    assert look("H264", head + whole) == Look(True, (640, 480))
    again = (
        whole.index(b"\x00\x00\x01\x65") if b"\x00\x00\x01\x65" in whole else whole.index(b"\x00\x00\x01\x25")
    )
    assert look("H264", whole[:again] + whole) == Look(True, (640, 480)), "parameters twice"


@given(st.sampled_from(["VP8", "H264"]), st.binary(max_size=200))
def test_nonsense_is_no_key_frame_and_harms_nothing(codec: str, data: bytes) -> None:
    assert isinstance(look(codec, data), Look)
    assert begins(codec, data) in (True, False, None)
    start = b"\x00\x00\x01\x67"
    assert isinstance(look("H264", start + data), Look)
