"""What an `RTCRtpSender` has on top of aiortc's: encoders adjusted as they run, by what receivers report."""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aiortc; tests/test_sending.py checks that what it reaches for is there)

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import aiortc.codecs.h264 as h264
import aiortc.codecs.opus as opus
import aiortc.codecs.vpx as vpx
import aiortc.rtcrtpsender as sender_module
import av
import numpy as np
from aiortc import RTCRtpSender
from aiortc.rtp import RTCP_PSFB_APP, RtcpPsfbPacket, RtcpRrPacket, RtcpSrPacket, unpack_remb_fci

from streamer.webrtc.libopus import OpusEncoder, has_libopus
from streamer.webrtc.libvpx import Vp8Codec, has_libvpx
from streamer.webrtc.loss_control import ExpectedLoss, PathRate, loss_of

MIN_BITRATE, START_BITRATE, MAX_BITRATE = 300_000, 2_500_000, 4_000_000
# Where an encoder has to be made anew, with a key frame, at each change: in few, large steps.
BITRATE_LADDER = (300_000, 600_000, 1_000_000, 1_500_000, 2_500_000, 4_000_000)
SOUND_BITRATE = 96_000  # as aiortc has it
USUAL_LOSS_PERCENT = 5  # for an encoder that cannot be told
HISTORY_PACKETS = 512  # what can be sent again: more than a second of the highest bitrate (aiortc: a third)
KEY_FRAME_EVERY_PICTURES = 3000  # unless somebody asks: it takes many times the bits
KEY_FRAME_EVERY_S = 0.5  # for what cannot be sent again any more


def step_of(bitrate: int, current: int) -> int:
    """The ladder step for a wanted bitrate; stays at `current` until the wish is a clear step away."""
    wanted = max((b for b in BITRATE_LADDER if b <= bitrate), default=MIN_BITRATE)
    if wanted > current and bitrate < wanted * 1.15:
        return current
    return wanted


class Path:
    """What a sender knows of the way to its receiver. Event-loop only."""

    def __init__(self) -> None:
        self.rate = PathRate(START_BITRATE, MIN_BITRATE, MAX_BITRATE)
        self.loss = ExpectedLoss()
        self._key_frame_s: float | None = None

    def wants_key_frame(self, now_s: float) -> bool:
        """Whether to send a key frame for what cannot be sent again: the receiver may wait seconds before it asks."""
        if self._key_frame_s is not None and now_s - self._key_frame_s < KEY_FRAME_EVERY_S:
            return False
        self._key_frame_s = now_s
        return True

    def hear(self, packet: object, ssrc: int, now_s: float) -> bool:
        """Take in what one RTCP packet says of `ssrc`; whether it said anything."""
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            ours = [r for r in packet.reports if r.ssrc == ssrc]
            for report in ours:
                self.rate.report(loss_of(report.fraction_lost), now_s)
                self.loss.report(loss_of(report.fraction_lost), now_s)
            return bool(ours)
        if isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                bitrate, sources = unpack_remb_fci(packet.fci)
            except ValueError:  # another application's
                return False
            if ssrc in sources:
                self.rate.remb(bitrate, now_s)
                return True
        return False


def path_of(sender: object) -> Path:
    """Made when it is first asked for."""
    path = getattr(sender, "visavis_path", None)
    if path is None:
        path = sender.visavis_path = Path()  # type: ignore[attr-defined]
    return path


def improve() -> None:
    """Give every `RTCRtpSender` that is made from now on, and its encoders, the above."""
    for module in (vpx, h264):
        module.MIN_BITRATE, module.DEFAULT_BITRATE, module.MAX_BITRATE = (
            MIN_BITRATE,
            START_BITRATE,
            MAX_BITRATE,
        )
    sender_module.RTP_HISTORY_SIZE = HISTORY_PACKETS
    if has_libvpx():
        _adjust_vp8()
    else:
        _step_bitrate(vpx.Vp8Encoder, "_Vp8Encoder__target_bitrate")
    _adjust_h264()
    _adjust_opus()
    _follow_reports()
    _replace_what_is_gone()


def _follow_reports() -> None:
    handle = RTCRtpSender._handle_rtcp_packet

    async def handle_and_follow(self: Any, packet: Any) -> None:
        now_s = asyncio.get_running_loop().time()
        path = path_of(self)
        said = path.hear(packet, self._ssrc, now_s)
        await handle(self, packet)  # which sets the bitrate to what REMB says
        encoder = self._RTCRtpSender__encoder
        if said and isinstance(encoder, opus.OpusEncoder):
            encoder.visavis_loss_percent = path.loss.percent(now_s)
        elif said and hasattr(encoder, "target_bitrate"):
            encoder.target_bitrate = path.rate.bitrate(now_s)

    RTCRtpSender._handle_rtcp_packet = handle_and_follow


def _replace_what_is_gone() -> None:
    resend = RTCRtpSender._retransmit

    async def resend_or_replace(self: Any, sequence_number: int) -> None:
        kept = self._RTCRtpSender__rtp_history.get(sequence_number % HISTORY_PACKETS)
        if kept is not None and kept.sequence_number == sequence_number:
            await resend(self, sequence_number)
        elif self.kind == "video" and path_of(self).wants_key_frame(asyncio.get_running_loop().time()):
            self._send_keyframe()

    RTCRtpSender._retransmit = resend_or_replace


class _OpusPacket(bytes):
    """As aiortc takes them from libavcodec."""

    pts: int


class LiveOpus:
    """Stands in for the `CodecContext` in aiortc's encoder of sound. But for `loss_percent` it is one thread's."""

    def __init__(self) -> None:
        """Raises OpusError where there is no libopus."""
        self.loss_percent = 0
        self._encoder = OpusEncoder(2, SOUND_BITRATE)

    def encode(self, frame: av.AudioFrame) -> list[_OpusPacket]:
        """One packet of a packed stereo frame."""
        self._encoder.expect(self.loss_percent)
        packet = _OpusPacket(self._encoder.encode(np.asarray(frame.to_ndarray(), np.int16).reshape(-1, 2)))
        packet.pts = frame.pts or 0
        return [packet]


def _adjust_opus() -> None:
    begin = opus.OpusEncoder.__init__

    def begin_adjustable(self: Any) -> None:
        begin(self)
        if has_libopus():
            self.codec = LiveOpus()
        else:
            self.codec.options = {**self.codec.options, "fec": "1", "packet_loss": str(USUAL_LOSS_PERCENT)}

    def set_loss(self: Any, percent: int) -> None:
        if isinstance(self.codec, LiveOpus):
            self.codec.loss_percent = percent

    opus.OpusEncoder.__init__ = begin_adjustable
    opus.OpusEncoder.visavis_loss_percent = property(None, set_loss)


def _adjust_vp8() -> None:
    """libvpx itself in place of libavcodec's."""
    encode = vpx.Vp8Encoder.encode

    def encode_adjusted(
        self: Any, frame: av.VideoFrame, force_keyframe: bool = False
    ) -> tuple[list[bytes], int]:
        codec = self.codec
        if codec is None or (codec.width, codec.height) != (frame.width, frame.height):
            threads = vpx.number_of_threads(frame.width * frame.height, multiprocessing.cpu_count())
            self.codec = Vp8Codec(frame.width, frame.height, self.target_bitrate, threads)
        self.codec.bit_rate = self.target_bitrate
        return encode(self, frame, force_keyframe)

    vpx.Vp8Encoder.encode = encode_adjusted


def _adjust_h264() -> None:
    """libx264's own preset takes 12.9 ms for 512², "veryfast" 2.6 ms and 0.4 dB less; libvpx 3.3 ms."""
    encode_frame = h264.H264Encoder._encode_frame

    def encode_frame_adjusted(self: Any, frame: av.VideoFrame, force_keyframe: bool) -> Iterator[bytes]:
        codec = self.codec
        if codec is None or (codec.width, codec.height) != (frame.width, frame.height):
            self.buffer_data, self.buffer_pts = b"", None
            self.codec = h264_codec(frame.width, frame.height)
        self.codec.bit_rate = self.target_bitrate  # libavcodec passes it on with the next picture
        return encode_frame(self, frame, force_keyframe)

    h264.H264Encoder._encode_frame = encode_frame_adjusted


def h264_codec(width_px: int, height_px: int) -> Any:
    """libx264 as aiortc opens it, but faster, and at a constant bitrate of the most that will be asked for.

    That is the one way to open it that lets the bitrate be changed later.
    """
    codec: Any = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.bit_rate, codec.pix_fmt = width_px, height_px, MAX_BITRATE, "yuv420p"
    codec.gop_size = KEY_FRAME_EVERY_PICTURES
    codec.framerate, codec.time_base = Fraction(h264.MAX_FRAME_RATE), Fraction(1, h264.MAX_FRAME_RATE)
    codec.options = {
        "level": "31",
        "tune": "zerolatency",
        "preset": "veryfast",
        "maxrate": str(MAX_BITRATE),
        "bufsize": str(MAX_BITRATE // 2),
        "sc_threshold": "0",  # a cut is drawn anew without one, too
    }
    codec.profile = "Baseline"
    codec.open()
    return codec


def _step_bitrate(encoder: type, field: str) -> None:
    def get(self: Any) -> int:
        return getattr(self, field)

    def set_(self: Any, bitrate: int) -> None:
        setattr(self, field, step_of(bitrate, getattr(self, field)))

    encoder.target_bitrate = property(get, set_)  # type: ignore[attr-defined]


def with_fec(sdp: str) -> str:
    """`sdp` that asks for Opus with in-band FEC (RFC 7587 § 6.1), which a browser else does not send."""

    def asked(found: re.Match[str]) -> str:
        line, payload_type = found[0], found[1]
        is_told = f"a=fmtp:{payload_type} " in sdp
        return line if is_told else f"{line}a=fmtp:{payload_type} minptime=10;useinbandfec=1\r\n"

    return re.sub(r"a=rtpmap:(\d+) opus/48000/2\r\n", asked, sdp)
