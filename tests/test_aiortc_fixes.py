"""The fixes to aiortc: each does what it is for, and everything they reach into is still there."""

# pyright: reportPrivateImportUsage=none, reportAttributeAccessIssue=none
# (what the fixes reach into is hidden, and partly untyped)

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import math
import random
import re
from types import SimpleNamespace

import aioice.ice
import aiortc.codecs.h264 as h264
import aiortc.codecs.vpx as vpx
import aiortc.rtcrtpreceiver as receiver_module
import av
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver, rtp
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import (
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpParameters,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack, TimestampMapper
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from streamer.webrtc import aiortc_fixes as fixes
from streamer.webrtc.media import video_frame_of


def packet(sequence: int, time: int, *, last: bool = False, data: bytes | None = None) -> RtpPacket:
    made = RtpPacket(sequence_number=sequence & 0xFFFF, timestamp=time & 0xFFFFFFFF, marker=int(last))
    made._data = b"%d." % sequence if data is None else data
    return made


def video_buffer(capacity: int = 128) -> fixes.MarkerJitterBuffer:
    return fixes.MarkerJitterBuffer(capacity, is_video=True)


def released(buffer: JitterBuffer, *packets: RtpPacket) -> list[tuple[bytes, int]]:
    """What adding the packets releases, as the patched receiver does it."""
    frames: list[tuple[bytes, int]] = []
    for one in packets:
        _, frame = buffer.add(one)
        while frame is not None:
            frames.append((frame.data, frame.timestamp))
            frame = buffer.take_ready() if isinstance(buffer, fixes.MarkerJitterBuffer) else None
    return frames


def test_a_frame_is_released_by_its_own_last_packet() -> None:
    buffer = video_buffer()
    assert released(buffer, packet(10, 0), packet(11, 0)) == []
    assert released(buffer, packet(12, 0, last=True)) == [(b"10.11.12.", 0)]
    assert released(buffer, packet(13, 3000, last=True)) == [(b"13.", 3000)]


def test_without_the_fix_it_waits_for_the_next_frame() -> None:
    """Why the fix is there; when this fails, aiortc does it by itself and the fix can go."""
    buffer = JitterBuffer(128, is_video=True)
    assert released(buffer, packet(10, 0), packet(11, 0, last=True)) == []
    assert released(buffer, packet(12, 3000)) == [(b"10.11.", 0)]


def test_packets_of_a_frame_come_in_any_order() -> None:
    for seed in range(20):
        buffer = video_buffer()
        assert released(buffer, packet(0, 0, last=True)) == [(b"0.", 0)]
        rest = [packet(k, 3000, last=k == 40) for k in range(1, 41)]
        random.Random(seed).shuffle(rest)
        assert released(buffer, *rest) == [(b"".join(b"%d." % k for k in range(1, 41)), 3000)]


def test_sequence_numbers_wrap() -> None:
    buffer = video_buffer()
    frames = released(buffer, *(packet(65_533 + k, 3000 * (k // 2), last=k % 2 == 1) for k in range(8)))
    assert [t for _, t in frames] == [0, 3000, 6000, 9000]


def test_a_packet_sent_again_frees_every_frame_behind_it_in_order() -> None:
    buffer = video_buffer()
    first = [packet(0, 0), packet(2, 0, last=True)]
    second = [packet(3, 3000), packet(4, 3000, last=True)]
    third = [packet(5, 6000)]
    assert released(buffer, *first, *second, *third) == []
    assert released(buffer, packet(1, 0)) == [(b"0.1.2.", 0), (b"3.4.", 3000)]
    assert released(buffer, packet(6, 6000, last=True)) == [(b"5.6.", 6000)]


def test_a_sender_without_marker_bits_still_works() -> None:
    buffer = video_buffer()
    assert released(buffer, packet(0, 0), packet(1, 0)) == []
    assert released(buffer, packet(2, 3000)) == [(b"0.1.", 0)]
    assert released(buffer, packet(3, 6000)) == [(b"2.", 3000)]


def test_a_lost_last_packet_holds_its_frame() -> None:
    buffer = video_buffer()
    assert released(buffer, packet(0, 0), packet(2, 3000, last=True)) == []
    assert released(buffer, packet(1, 0, last=True)) == [(b"0.1.", 0), (b"2.", 3000)]


def test_duplicates_and_old_packets_change_nothing() -> None:
    buffer = video_buffer()
    assert released(buffer, packet(0, 0), packet(0, 0)) == []
    assert released(buffer, packet(1, 0, last=True)) == [(b"0.1.", 0)]
    assert released(buffer, packet(0, 0), packet(1, 0, last=True)) == []
    assert released(buffer, packet(2, 3000, last=True)) == [(b"2.", 3000)]


def test_a_gap_that_is_never_closed_is_given_up_with_a_key_frame_request() -> None:
    buffer = video_buffer(capacity=16)
    assert released(buffer, packet(0, 0, last=True)) == [(b"0.", 0)]
    asked, frames = False, []
    for k in range(2, 40):  # packet 1 is lost for good
        pli, frame = buffer.add(packet(k, 3000 * k, last=True))
        asked |= pli
        while frame is not None:
            frames.append(frame.timestamp)
            frame = buffer.take_ready()
    assert asked
    assert frames
    assert frames == sorted(frames)
    assert frames[-1] == 3000 * 39


@pytest.mark.slow
@given(st.data())
def test_no_frame_is_mixed_or_out_of_order_whatever_the_network_does(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=10))
    packets: list[RtpPacket] = []
    whole: dict[int, bytes] = {}
    for k, size in enumerate(sizes):
        parts = [packet(len(packets) + i, 3000 * k, last=i == size - 1) for i in range(size)]
        whole[3000 * k] = b"".join(p._data for p in parts)
        packets += parts
    order = [packets[0], *data.draw(st.permutations(packets[1:]))]
    frames = released(video_buffer(), *order)
    assert frames == [(d, t) for t, d in whole.items()], "with nothing lost, everything comes, once, in order"
    dropped = data.draw(st.sets(st.integers(1, len(packets)), max_size=3))
    frames = released(video_buffer(), *(p for p in order if p.sequence_number not in dropped))
    assert all(whole[t] == d for d, t in frames)
    assert [t for _, t in frames] == sorted(t for _, t in frames)


def test_take_ready_on_an_empty_buffer() -> None:
    assert video_buffer().take_ready() is None


def test_sound_waits_for_two_packets_instead_of_four() -> None:
    ours = fixes.MarkerJitterBuffer(capacity=16, prefetch=4)
    theirs = JitterBuffer(capacity=16, prefetch=4)

    def needed(buffer: JitterBuffer) -> int:
        return next(k for k in range(1, 10) if buffer.add(packet(k, 960 * k, last=True))[1] is not None)

    assert needed(ours) == fixes.AUDIO_PREFETCH_PACKETS + 1 == 3
    assert needed(theirs) == 5


NTP_2026 = 3_976_214_400  # seconds since 1900 at 2026-01-01T00:00:00Z


def test_ntp_to_unix() -> None:
    assert fixes.unix_ms(NTP_2026 << 32) == 1_767_225_600_000
    assert fixes.unix_ms((NTP_2026 << 32) + (1 << 31)) == 1_767_225_600_500


@given(rtp=st.integers(0, 2**32 - 1), ticks=st.integers(-(2**31) + 1, 2**31 - 1))
def test_the_senders_clock_at_any_rtp_time_wraps_included(rtp: int, ticks: int) -> None:
    report = fixes.SenderReport(1_767_225_600_000.0, rtp)
    wall_ms = fixes.wall_ms_of(report, (rtp + ticks) & 0xFFFFFFFF)
    assert wall_ms - report.wall_ms == pytest.approx(ticks / 90, abs=1e-3)


def test_capture_time_goes_through_the_mapped_origin() -> None:
    mapper = TimestampMapper()
    start = 2**32 - 4500
    receiver = SimpleNamespace(_RTCRtpReceiver__timestamp_mapper=mapper)
    assert fixes.capture_wall_ms(receiver, 0) is None  # type: ignore[arg-type]
    first = mapper.map(start)
    assert fixes.capture_wall_ms(receiver, first) is None, "no report yet"  # type: ignore[arg-type]
    receiver.visavis_sender_report = fixes.SenderReport(1000.0, start)
    for k in range(5):  # passes 2³² on the way
        pts = mapper.map((start + 3000 * k) & 0xFFFFFFFF)
        assert pts == 3000 * k
        assert fixes.capture_wall_ms(receiver, pts) == pytest.approx(1000 + k * 100 / 3)  # type: ignore[arg-type]


def test_the_bitrate_follows_in_steps() -> None:
    ladder = fixes.BITRATE_LADDER
    assert ladder == tuple(sorted(set(ladder)))
    assert (ladder[0], ladder[-1]) == (fixes.MIN_BITRATE, fixes.MAX_BITRATE)
    assert fixes.START_BITRATE in ladder
    assert fixes.step_of(1, ladder[3]) == ladder[0]
    assert fixes.step_of(10**9, ladder[0]) == ladder[-1]
    for below, step in itertools.pairwise(ladder):
        assert fixes.step_of(step, step) == step
        assert fixes.step_of(step - 1, step) == below, "down at once"
        assert fixes.step_of(step - 1, below) == below
        assert fixes.step_of(round(step * 1.1), below) == below, (
            "not clearly more: no rebuilt encoder for that"
        )
        assert fixes.step_of(round(step * 1.16), below) == step


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=50))
def test_the_bitrate_is_always_a_step(wishes: list[int]) -> None:
    current = fixes.START_BITRATE
    for wish in wishes:
        current = fixes.step_of(wish, current)
        assert current in fixes.BITRATE_LADDER
        assert current <= max(wish, fixes.MIN_BITRATE)


def test_a_wobbling_wish_does_not_flip_the_encoder() -> None:
    current, changes = fixes.BITRATE_LADDER[-2], 0
    for k in range(100):
        step = fixes.step_of(round(fixes.MAX_BITRATE * (1.03 if k % 2 else 0.97)), current)
        changes += step != current
        current = step
    assert changes == 0


ANSWER = (
    "m=video 9 X 97 98\r\na=rtpmap:97 VP8/90000\r\na=rtcp-fb:97 nack\r\n"
    "a=rtpmap:98 rtx/90000\r\na=fmtp:98 apt=97\r\n"
)


def test_the_answer_tells_chrome_where_to_start() -> None:
    sdp = fixes.with_start_bitrate(ANSWER)
    line = re.search(
        r"a=rtpmap:97 VP8/90000\r\n(a=fmtp:97 x-google-start-bitrate=(\d+);x-google-max-bitrate=(\d+)\r\n)",
        sdp,
    )
    assert line
    assert 300 <= int(line[2]) <= int(line[3]) <= 10_000, "kilobits"
    assert sdp.replace(line[1], "") == ANSWER
    h264_only = "m=video 9 X 99\r\na=rtpmap:99 H264/90000\r\n"
    assert fixes.with_start_bitrate(h264_only) == h264_only


def test_loopback_comes_first_and_once() -> None:
    assert fixes.with_loopback(["10.0.0.2"], True) == ["127.0.0.1", "10.0.0.2"]
    assert fixes.with_loopback(["127.0.0.1"], True) == ["127.0.0.1"]
    assert fixes.with_loopback([], True) == ["127.0.0.1"]
    assert fixes.with_loopback(["fe80::1"], False) == ["fe80::1"]


def test_loopback_is_offered_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", fixes._host_addresses)
    fixes.apply()
    assert "127.0.0.1" not in aioice.ice.get_host_addresses(True, True)
    fixes.apply(offer_loopback=True)
    fixes.apply(offer_loopback=True)
    assert aioice.ice.get_host_addresses(True, True).count("127.0.0.1") == 1


async def test_the_newest_frame_is_taken_and_the_rest_counted() -> None:
    track = RemoteStreamTrack("video")
    for k in range(5):
        track._queue.put_nowait(k)
    assert await fixes.receive_newest(track) == (4, 4)
    track._queue.put_nowait(5)
    assert await fixes.receive_newest(track) == (5, 0)


async def test_the_end_of_a_stream_is_not_swallowed() -> None:
    track = RemoteStreamTrack("video")
    for value in (1, 2, None):
        track._queue.put_nowait(value)
    assert await fixes.receive_newest(track) == (2, 1)
    for _ in range(2):
        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(fixes.receive_newest(track), 60)
    assert track.readyState == "ended"


def test_apply_twice_is_apply_once() -> None:
    fixes.apply()
    before = (
        RTCRtpReceiver._handle_rtp_packet,
        RTCRtpReceiver._handle_rtcp_packet,
        vpx.Vp8Encoder.encode,
        vpx.Vp8Encoder.target_bitrate,
        h264.H264Encoder.encode,
        receiver_module.JitterBuffer,
    )
    fixes.apply()
    assert before == (
        RTCRtpReceiver._handle_rtp_packet,
        RTCRtpReceiver._handle_rtcp_packet,
        vpx.Vp8Encoder.encode,
        vpx.Vp8Encoder.target_bitrate,
        h264.H264Encoder.encode,
        receiver_module.JitterBuffer,
    )


def test_another_aiortc_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fixes, "_applied", False)
    monkeypatch.setattr(fixes, "version", lambda _: "9.9.9")
    before = RTCRtpReceiver._handle_rtp_packet
    with caplog.at_level(logging.WARNING):
        fixes.apply()
    assert RTCRtpReceiver._handle_rtp_packet is before
    assert "9.9.9" in caplog.text


@pytest.mark.parametrize("encoder", [vpx.Vp8Encoder, h264.H264Encoder])
def test_the_time_of_a_frame_leaves_as_it_is(encoder: type) -> None:
    fixes.apply()
    made = encoder()
    for pts in (0, 3000, 6001, 9002, 2**32 - 1, 2**32 + 7):
        frame = video_frame_of(np.zeros((64, 64, 3), np.uint8), pts)
        base = frame.time_base
        _, time = made.encode(frame)
        assert time == pts
        assert (frame.pts, frame.time_base) == (pts, base)


def test_the_encoders_bitrate_is_ours() -> None:
    fixes.apply()
    for encoder in (vpx.Vp8Encoder(), h264.H264Encoder()):
        assert encoder.target_bitrate == fixes.START_BITRATE
        encoder.target_bitrate = 9_000_000
        assert encoder.target_bitrate == fixes.MAX_BITRATE
        encoder.target_bitrate = 1
        assert encoder.target_bitrate == fixes.MIN_BITRATE


def receiver_of_video() -> RTCRtpReceiver:
    fixes.apply()
    receiver = RTCRtpReceiver("video", SimpleNamespace(state="new", _stats_id="x"))  # type: ignore[arg-type]
    receiver._RTCRtpReceiver__codecs[97] = RTCRtpCodecParameters("video/VP8", 90_000, payloadType=97)
    receiver._RTCRtpReceiver__decoder_thread = object()
    return receiver


def vp8_packet(sequence: int, time: int, last: bool) -> RtpPacket:
    # RFC 7741 § 4.2: one octet, S set: the start of partition 0
    return RtpPacket(97, int(last), sequence, time, 1234, b"\x10" + b"%d" % sequence)


async def test_the_receiver_decodes_every_frame_that_a_late_packet_frees() -> None:
    receiver = receiver_of_video()
    queue = receiver._RTCRtpReceiver__decoder_queue

    async def feed(*sequence: int) -> list[tuple[int, bytes]]:
        for k in sequence:
            await receiver._handle_rtp_packet(vp8_packet(k, 5000 + 3000 * (k // 2), k % 2 == 1), 0)
        frames: list[tuple[int, bytes]] = []
        while not queue.empty():
            codec, frame = queue.get_nowait()
            assert codec.payloadType == 97
            frames.append((frame.timestamp, frame.data))
        return frames

    assert await feed(0, 1) == [(0, b"01")], "released by its own last packet"
    assert await feed(3, 4, 5, 6, 7) == []
    assert await feed(2) == [(3000, b"23"), (6000, b"45"), (9000, b"67")]


async def test_sender_reports_are_remembered() -> None:
    receiver = receiver_of_video()

    def report(packets: int, ntp: int) -> RtcpSrPacket:
        return RtcpSrPacket(ssrc=1, sender_info=RtcpSenderInfo(ntp, 777, packets, 1))

    await receiver._handle_rtcp_packet(report(0, NTP_2026 << 32))
    assert getattr(receiver, "visavis_sender_report", None) is None, "a report before any packet says nothing"
    await receiver._handle_rtcp_packet(report(5, NTP_2026 << 32))
    assert receiver.visavis_sender_report == fixes.SenderReport(1_767_225_600_000.0, 777)


async def test_what_we_reach_into_is_still_there() -> None:
    """An update of aiortc or aioice that moves any of this must fail here and not in a call."""
    receiver = receiver_of_video()
    for name in ("jitter_buffer", "codecs", "timestamp_mapper", "decoder_queue", "decoder_thread"):
        assert hasattr(receiver, f"_RTCRtpReceiver__{name}"), name
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, fixes.MarkerJitterBuffer)
    assert list(inspect.signature(RTCRtpReceiver._handle_rtcp_packet).parameters) == ["self", "packet"]
    for name in ("_capacity", "_origin", "_packets", "_is_video"):
        assert hasattr(JitterBuffer(16), name), name
    assert list(inspect.signature(JitterBuffer.__init__).parameters) == [
        "self",
        "capacity",
        "prefetch",
        "is_video",
    ]
    assert list(inspect.signature(JitterBuffer._remove_frame).parameters) == ["self", "sequence_number"]
    assert list(inspect.signature(JitterFrame.__init__).parameters) == ["self", "data", "timestamp"]
    assert hasattr(TimestampMapper(), "_origin")
    assert hasattr(RemoteStreamTrack("video"), "_queue")
    assert hasattr(vpx.Vp8Encoder(), "_Vp8Encoder__target_bitrate")
    assert hasattr(h264.H264Encoder(), "_H264Encoder__target_bitrate")
    for module in (vpx, h264):
        assert module.DEFAULT_BITRATE == fixes.START_BITRATE, (
            "the constants that __init__ reads are the module's"
        )
    assert callable(aioice.ice.get_host_addresses)
    assert "get_host_addresses(" in inspect.getsource(aioice.ice.Connection), "looked up at each call"
    pc = RTCPeerConnection()
    try:
        assert hasattr(pc.addTransceiver("video"), "_offerDirection")
    finally:
        await pc.close()


@pytest.mark.parametrize("amplitude", [0, 1, 37, 1000, 32767])
def test_audio_level_is_aiortcs_own(amplitude: int) -> None:
    """The vectorised level equals the RFC's sum over samples, stereo s16 as Opus decodes it."""
    wave = np.rint(amplitude * np.sin(np.arange(1920) / 7)).astype(np.int16).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
    power = sum(int(v) ** 2 for v in wave.ravel()) / (frame.samples * 32767**2)  # RFC 6465, appendix A
    level = max(-127.0, min(0.0, 20 * math.log10(math.sqrt(power)))) if power else -127
    assert fixes.audio_level_dbov(frame) == round(level)


def test_every_video_packet_asks_for_immediate_playout() -> None:
    """playout-delay 0/0 goes out when the browser offered the extension, and only then."""
    fixes.apply()
    offered = RTCRtpParameters(
        headerExtensions=[RTCRtpHeaderExtensionParameters(id=9, uri=fixes.PLAYOUT_DELAY_URI)]
    )
    for parameters, expected in ((offered, [(9, bytes(3))]), (RTCRtpParameters(), [])):
        extensions = rtp.HeaderExtensionsMap()
        extensions.configure(parameters)
        sent = RtpPacket(sequence_number=7, timestamp=8)
        back = RtpPacket.parse(sent.serialize(extensions), rtp.HeaderExtensionsMap())
        assert (back.sequence_number, back.timestamp) == (7, 8)
        profile, value = extensions.set(rtp.HeaderExtensions())
        assert (rtp.unpack_header_extensions(profile, value) if value else []) == expected


def test_the_other_header_extensions_survive() -> None:
    fixes.apply()
    uri = "urn:ietf:params:rtp-hdrext:sdes:mid"
    both = [
        RTCRtpHeaderExtensionParameters(id=1, uri=uri),
        RTCRtpHeaderExtensionParameters(id=9, uri=fixes.PLAYOUT_DELAY_URI),
    ]
    extensions = rtp.HeaderExtensionsMap()
    extensions.configure(RTCRtpParameters(headerExtensions=both))
    profile, value = extensions.set(rtp.HeaderExtensions(mid="0"))
    assert rtp.unpack_header_extensions(profile, value) == [(1, b"0"), (9, bytes(3))]
    assert extensions.get(profile, value).mid == "0"
