"""What goes out, adjusted as it goes: bitrates without key frames, sound with FEC, feedback that is followed."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none, reportAttributeAccessIssue=none

from __future__ import annotations

import inspect
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import aiortc.codecs.h264 as h264
import aiortc.codecs.opus as opus
import aiortc.codecs.vpx as vpx
import aiortc.rtcrtpsender as sender_module
import av
import numpy as np
import pytest
from aiortc import RTCRtpSender
from aiortc.codecs import depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtpPacket,
    pack_remb_fci,
)
from receiving import H264, OPUS, VP8, on_virtual_time

from streamer.webrtc import aiortc_fixes, libopus, libvpx, sending
from streamer.webrtc.encoded_picture import look
from streamer.webrtc.libopus import has_fec
from streamer.webrtc.libvpx import Vp8Codec, VpxError
from streamer.webrtc.sending import MAX_BITRATE, MIN_BITRATE, START_BITRATE, LiveOpus, path_of, with_fec

SIDE_PX = 256


@pytest.fixture(autouse=True)
def applied() -> None:
    aiortc_fixes.apply()


def picture(number: int) -> av.VideoFrame:
    """Noise that moves: more bits are always welcome."""
    noise = np.random.default_rng(number % 7).integers(0, 60, (SIDE_PX * 3 // 2, SIDE_PX), np.uint8)
    frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1) + 90, format="yuv420p")
    frame.pts, frame.time_base = 3000 * number, Fraction(1, 90_000)
    return frame


BOTH = pytest.mark.parametrize(
    ("encoder", "decoder", "codec"),
    [(vpx.Vp8Encoder, vpx.Vp8Decoder, VP8), (h264.H264Encoder, h264.H264Decoder, H264)],
    ids=["VP8", "H264"],
)


@BOTH
def test_the_bitrate_changes_without_a_key_frame(encoder: Any, decoder: Any, codec: Any) -> None:
    """Down to a fifth and up again: the same encoder, whose pictures are as large as they may be."""
    made, reader = encoder(), decoder()
    kbps: list[float] = []
    keys: list[int] = []
    for k in range(270):
        made.target_bitrate = 500_000 if 90 <= k < 180 else START_BITRATE
        payloads, _ = made.encode(picture(k))
        data = b"".join(depayload(codec, p) for p in payloads)
        kbps.append(len(data) * 8 * 30 / 1000)
        if look(codec.name, data).is_key:
            keys.append(k)
        assert len(reader.decode(JitterFrame(data, 3000 * k))) == 1
    assert keys == [0]
    assert np.mean(kbps[45:90]) > 1500
    assert np.mean(kbps[135:180]) == pytest.approx(500, rel=0.3)
    assert np.mean(kbps[225:]) > 1500


def test_another_size_is_another_encoder() -> None:
    encoder = vpx.Vp8Encoder()
    encoder.encode(picture(0))
    first = encoder.codec
    small = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
    small.pts, small.time_base = 3000, Fraction(1, 90_000)
    payloads, _ = encoder.encode(small)
    assert encoder.codec is not first
    assert look("VP8", b"".join(depayload(VP8, p) for p in payloads)).size_px == (64, 64)


def test_a_libvpx_of_another_kind_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its structures are others than those known here, nothing is written into them."""
    monkeypatch.setattr(libvpx._Configuration, "is_known", False)
    with pytest.raises(VpxError, match="no libvpx that can be used"):
        Vp8Codec(64, 64, 100_000, 1)


def test_no_version_of_the_interface_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvpx, "_MOST_ABI", 3)
    with pytest.raises(VpxError, match="another kind"):
        Vp8Codec(64, 64, 100_000, 1)


def sound(number: int) -> av.AudioFrame:
    t = (np.arange(960) + 960 * number) / 48_000
    wave = 6000 * sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 9)) * (0.6 + 0.4 * np.sin(19 * t))
    frame = av.AudioFrame.from_ndarray(np.repeat(wave.astype(np.int16), 2)[None], "s16", "stereo")
    frame.sample_rate, frame.pts = 48_000, 960 * number
    return frame


def test_sound_repeats_itself_while_loss_is_expected() -> None:
    encoder = opus.OpusEncoder()
    assert isinstance(encoder.codec, LiveOpus)
    fec: list[bool] = []
    for k in range(150):
        encoder.visavis_loss_percent = 10 if 50 <= k < 100 else 0
        payloads, time = encoder.encode(sound(k))
        assert time == 960 * k
        fec.append(has_fec(payloads[0]))
    assert not any(fec[:50])
    assert sum(fec[55:100]) > 25
    assert not any(fec[105:])


def test_without_libopus_it_always_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libopus, "_library", lambda: None)
    encoder = opus.OpusEncoder()
    encoder.visavis_loss_percent = 10
    payloads = [p for k in range(50) for p in encoder.encode(sound(k))[0]]
    assert sum(has_fec(p) for p in payloads) > 5


def a_sender(kind: str) -> Any:
    sender: Any = RTCRtpSender(kind, SimpleNamespace(state="new", _stats_id="x"))  # type: ignore[arg-type]
    sender._RTCRtpSender__encoder = vpx.Vp8Encoder() if kind == "video" else opus.OpusEncoder()
    return sender


def report(sender: Any, share: float) -> RtcpRrPacket:
    about = RtcpReceiverInfo(
        ssrc=sender._ssrc, fraction_lost=round(share * 256), packets_lost=0,
        highest_sequence=0, jitter=0, lsr=0, dlsr=0,
    )  # fmt: skip
    return RtcpRrPacket(ssrc=1, reports=[about])


def test_reports_and_estimates_set_the_bitrate() -> None:
    async def run() -> list[int]:
        sender = a_sender("video")
        encoder = sender._RTCRtpSender__encoder
        rates = [encoder.target_bitrate]
        remb = RtcpPsfbPacket(
            fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=pack_remb_fci(1_000_000, [sender._ssrc])
        )
        others = RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=pack_remb_fci(400_000, [7]))
        for packet in (report(sender, 0.5), report(sender, 0.05), remb, others):
            await sender._handle_rtcp_packet(packet)
            rates.append(encoder.target_bitrate)
        return rates

    lowered = round(START_BITRATE * 0.75)
    said = on_virtual_time(run)
    assert said[:3] == [START_BITRATE, lowered, lowered]
    assert said[3] == said[4] == pytest.approx(1_000_000, rel=0.01)


def test_reports_set_what_sound_expects() -> None:
    async def run() -> list[int]:
        sender = a_sender("audio")
        codec = sender._RTCRtpSender__encoder.codec
        expected = [codec.loss_percent]
        for share in (0.1, 0.0):
            await sender._handle_rtcp_packet(report(sender, share))
            expected.append(codec.loss_percent)
        other = report(sender, 1.0)
        other.reports[0].ssrc = sender._ssrc ^ 1
        await sender._handle_rtcp_packet(other)
        return [*expected, codec.loss_percent]

    assert on_virtual_time(run) == [0, 10, 10, 10]


def nack_of(*lost: int) -> RtcpRtpfbPacket:
    return RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=1, lost=list(lost))


def test_what_cannot_be_sent_again_is_replaced_by_a_key_frame() -> None:
    async def run(work: Callable[[Any, list[bytes]], Any]) -> None:
        sender = a_sender("video")
        sent: list[bytes] = []

        async def send(data: bytes) -> None:
            sent.append(data)

        sender.setTransport(SimpleNamespace(_send_rtp=send))
        await work(sender, sent)

    async def asked(sender: Any, sent: list[bytes]) -> None:
        kept = RtpPacket(payload_type=97, sequence_number=700, timestamp=1)
        sender._RTCRtpSender__rtp_history[700 % sending.HISTORY_PACKETS] = kept
        await sender._handle_rtcp_packet(nack_of(700))
        assert (len(sent), sender._RTCRtpSender__force_keyframe) == (1, False)
        await sender._handle_rtcp_packet(nack_of(188, 189, 190))  # 188: the same place
        assert (len(sent), sender._RTCRtpSender__force_keyframe) == (1, True)
        sender._RTCRtpSender__force_keyframe = False
        await sender._handle_rtcp_packet(nack_of(191))
        assert not sender._RTCRtpSender__force_keyframe, "not again so soon"
        path_of(sender)._key_frame_s = -1.0 * sending.KEY_FRAME_EVERY_S
        await sender._handle_rtcp_packet(nack_of(192))
        assert sender._RTCRtpSender__force_keyframe

    on_virtual_time(lambda: run(asked))


def test_the_offer_and_the_answer_ask_for_fec() -> None:
    plain = "m=audio 9 X 96 0\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:0 PCMU/8000\r\n"
    asked = with_fec(plain)
    assert asked == plain.replace(
        "opus/48000/2\r\n", "opus/48000/2\r\na=fmtp:96 minptime=10;useinbandfec=1\r\n"
    )
    assert with_fec(asked) == asked


async def test_what_we_reach_into_is_still_there() -> None:
    assert inspect.getsource(sender_module).count("% RTP_HISTORY_SIZE") == 2, "looked up at each packet"
    assert sender_module.RTP_HISTORY_SIZE == sending.HISTORY_PACKETS
    sender = a_sender("video")
    assert {"_RTCRtpSender__rtp_history", "_RTCRtpSender__force_keyframe"} <= vars(sender).keys()
    assert vpx.MAX_BITRATE == MAX_BITRATE
    assert h264.MIN_BITRATE == MIN_BITRATE
    assert OPUS.clockRate == libopus.RATE_HZ
