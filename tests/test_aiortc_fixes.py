"""The fixes to aiortc: each does what it is for, and everything they reach into is still there."""

# pyright: reportPrivateImportUsage=none, reportAttributeAccessIssue=none
# (what the fixes reach into is hidden, and partly untyped)

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import math
import re
from collections.abc import Callable
from contextlib import suppress

import aioice.ice
import aiortc.codecs.h264 as h264
import aiortc.codecs.opus as opus
import aiortc.codecs.vpx as vpx
import aiortc.rtcrtpreceiver as receiver_module
import av
import numpy as np
import pytest
from aiortc import RTCCertificate, RTCPeerConnection, RTCRtpReceiver, rtp
from aiortc.codecs import depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import SRTP_PROFILES, generate_certificate
from aiortc.rtcrtpparameters import (
    RTCRtpHeaderExtensionParameters,
    RTCRtpParameters,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack
from aiortc.rtp import RtpPacket
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from receiving import H264, VP8

from streamer.webrtc import aiortc_fixes as fixes
from streamer.webrtc import sending
from streamer.webrtc.encoded_picture import look
from streamer.webrtc.media import video_frame_of


def test_the_bitrate_follows_in_steps() -> None:
    ladder = sending.BITRATE_LADDER
    assert ladder == tuple(sorted(set(ladder)))
    assert (ladder[0], ladder[-1]) == (sending.MIN_BITRATE, sending.MAX_BITRATE)
    assert sending.START_BITRATE in ladder
    assert sending.step_of(1, ladder[3]) == ladder[0]
    assert sending.step_of(10**9, ladder[0]) == ladder[-1]
    for below, step in itertools.pairwise(ladder):
        assert sending.step_of(step, step) == step
        assert sending.step_of(step - 1, step) == below, "down at once"
        assert sending.step_of(step - 1, below) == below
        assert sending.step_of(round(step * 1.1), below) == below, (
            "not clearly more: no rebuilt encoder for that"
        )
        assert sending.step_of(round(step * 1.16), below) == step


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=50))
def test_the_bitrate_is_always_a_step(wishes: list[int]) -> None:
    current = sending.START_BITRATE
    for wish in wishes:
        current = sending.step_of(wish, current)
        assert current in sending.BITRATE_LADDER
        assert current <= max(wish, sending.MIN_BITRATE)


def test_a_wobbling_wish_does_not_flip_the_encoder() -> None:
    current, changes = sending.BITRATE_LADDER[-2], 0
    for k in range(100):
        step = sending.step_of(round(sending.MAX_BITRATE * (1.03 if k % 2 else 0.97)), current)
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
        RTCRtpReceiver.__init__,
        receiver_module.decoder_worker,
        opus.OpusEncoder.encode,
        aioice.ice.StunProtocol.datagram_received,
        RTCCertificate._create_ssl_context,
    )
    fixes.apply()
    assert before == (
        RTCRtpReceiver._handle_rtp_packet,
        RTCRtpReceiver._handle_rtcp_packet,
        vpx.Vp8Encoder.encode,
        vpx.Vp8Encoder.target_bitrate,
        h264.H264Encoder.encode,
        RTCRtpReceiver.__init__,
        receiver_module.decoder_worker,
        opus.OpusEncoder.encode,
        aioice.ice.StunProtocol.datagram_received,
        RTCCertificate._create_ssl_context,
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


@pytest.mark.parametrize("encoder", [vpx.Vp8Encoder, h264.H264Encoder])
def test_a_key_frame_that_was_asked_for_is_one(encoder: type) -> None:
    """The same picture is sent again while no new one comes, and not as a key frame each time."""
    fixes.apply()
    made, codec = encoder(), VP8 if encoder is vpx.Vp8Encoder else H264
    frame = video_frame_of(np.zeros((64, 64, 3), np.uint8), 0)
    keys: list[bool] = []
    for k in range(6):
        frame.pts = 3000 * k
        payloads, _ = made.encode(frame, k == 2)
        keys.append(look(codec.name, b"".join(depayload(codec, p) for p in payloads)).is_key)
    assert keys == [True, False, True, False, False, False]


def test_h264_holds_its_size_and_its_encoder() -> None:
    """One quick encoder while the size stays, whatever the bitrate; what comes out is as large as what went in."""
    fixes.apply()
    encoder, decoder, codecs, sizes = h264.H264Encoder(), h264.H264Decoder(), list[object](), set[str]()
    for k in range(12):
        side_px = 512 if k < 8 else 256
        picture = np.random.default_rng(k).integers(0, 255, (side_px, side_px, 3), np.uint8)
        if k == 4:
            encoder.target_bitrate = sending.MIN_BITRATE
        payloads, _ = encoder.encode(video_frame_of(picture, 3000 * k))
        codecs.append(encoder.codec)
        data = b"".join(depayload(H264, payload) for payload in payloads)
        # x264 says its settings with the first picture; its usual preset is subme=7
        assert (b"subme=2 " in data) == (k in (0, 8))
        sizes |= {f"{k // 4}: {f.width}x{f.height}" for f in decoder.decode(JitterFrame(data, 3000 * k))}
    assert sizes == {"0: 512x512", "1: 512x512", "2: 256x256"}
    assert len({id(codec) for codec in codecs}) == 2


def sound(pts: int, samples: int = 960) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * samples), np.int16), "s16", "stereo")
    frame.sample_rate, frame.pts = 48_000, pts
    return frame


def test_the_time_of_a_sound_leaves_as_it_is_jumps_included() -> None:
    fixes.apply()
    encoder = opus.OpusEncoder()
    for pts in (0, 960, 1920, 98_000, 98_960, 2**32):
        payloads, time = encoder.encode(sound(pts))
        assert (len(payloads), time) == (1, pts)
    short = opus.OpusEncoder()
    assert [short.encode(sound(480 * k, 480))[1] for k in range(4)] == [None, 0, None, 960], (
        "as aiortc has it"
    )


def test_the_encoders_bitrate_is_ours() -> None:
    fixes.apply()
    for encoder in (vpx.Vp8Encoder(), h264.H264Encoder()):
        assert encoder.target_bitrate == sending.START_BITRATE
        encoder.target_bitrate = 9_000_000
        assert encoder.target_bitrate == sending.MAX_BITRATE
        encoder.target_bitrate = 1
        assert encoder.target_bitrate == sending.MIN_BITRATE


async def test_what_we_reach_into_is_still_there() -> None:
    """An update of aiortc or aioice that moves any of this must fail here and not in a call."""
    assert list(inspect.signature(RTCRtpReceiver._handle_rtcp_packet).parameters) == ["self", "packet"]
    assert hasattr(RemoteStreamTrack("video"), "_queue")
    assert hasattr(vpx.Vp8Encoder(), "_Vp8Encoder__target_bitrate")
    assert hasattr(h264.H264Encoder(), "_H264Encoder__target_bitrate")
    for module in (vpx, h264):
        assert module.DEFAULT_BITRATE == sending.START_BITRATE, (
            "the constants that __init__ reads are the module's"
        )
    assert callable(aioice.ice.get_host_addresses)
    assert "get_host_addresses(" in inspect.getsource(aioice.ice.Connection), "looked up at each call"
    pc = RTCPeerConnection()
    try:
        assert hasattr(pc.addTransceiver("video"), "_offerDirection")
    finally:
        await pc.close()


def rsa_certificate() -> RTCCertificate:
    """As GStreamer and others make theirs."""
    key = rsa.generate_private_key(65537, 2048)
    return RTCCertificate(key, generate_certificate(key))  # type: ignore[arg-type]


@pytest.mark.parametrize("server", [rsa_certificate, RTCCertificate.generateCertificate])
def test_a_peers_certificate_may_be_of_either_kind(server: Callable[[], RTCCertificate]) -> None:
    """The whole handshake, in memory; the peer is the DTLS server, and so chooses among what we offer."""
    fixes.apply()
    ours = SSL.Connection(RTCCertificate.generateCertificate()._create_ssl_context(SRTP_PROFILES))
    peers = SSL.Connection(server()._create_ssl_context(SRTP_PROFILES))
    ours.set_connect_state()
    peers.set_accept_state()
    done = set[SSL.Connection]()
    for _ in range(20):
        for end, other in ((ours, peers), (peers, ours)):
            end.set_ciphertext_mtu(1500)
            with suppress(SSL.WantReadError):
                end.do_handshake()
                done.add(end)
            with suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(1 << 16))
    assert done == {ours, peers}
    assert ours.get_cipher_name() == peers.get_cipher_name()
    assert ours.get_selected_srtp_profile()


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
