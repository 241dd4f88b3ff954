"""The measured fixes to aiortc 1.16, all in one place: `apply()` once at start.

Each is guarded: on a version with other internals it is left out with a warning, and calls still work,
only slower. docs/webrtc.md says what each one bought.
"""

# pyright: reportPrivateUsage=none, reportPrivateImportUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aiortc; tests/test_aiortc_fixes.py checks that what it reaches for is there)

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import aioice.ice
import aiortc.codecs.h264 as h264
import aiortc.codecs.opus as opus
import aiortc.codecs.vpx as vpx
import av
import numpy as np
from aiortc import RTCCertificate, RTCPeerConnection, RTCRtpTransceiver, rtp
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.mediastreams import VIDEO_TIME_BASE, MediaStreamError, MediaStreamTrack, convert_timebase
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters
from av.video.frame import PictureType

from streamer.webrtc import datagrams, reception, sender_reports, sending, udp_ports

logger = logging.getLogger(__name__)

SUPPORTED = "1.16."
VIDEO_CLOCK_HZ = 90_000
PLAYOUT_DELAY_URI = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
CLOSE_STEP_WITHIN_S = 2.0
# aiortc's own, and the same for a peer whose certificate is RSA, as GStreamer's is (RFC 8827 § 6.5 asks for both)
CIPHERS = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
    for kind in ("ECDSA", "RSA")
)

# What the browser is told to send: enough to track a face by; every packet costs Python time here.
UPLINK_START_BITRATE, UPLINK_MAX_BITRATE = 1_000_000, 1_500_000


_applied = False


def apply(*, offer_loopback: bool = False) -> None:
    """Patch aiortc and aioice; idempotent. `offer_loopback`: also offer 127.0.0.1 as a host candidate."""
    global _applied
    if offer_loopback:
        _offer_loopback()
    if _applied:
        return
    _applied = True
    installed = version("aiortc")
    if not installed.startswith(SUPPORTED):
        logger.warning("aiortc %s is not %sx: running without its latency fixes", installed, SUPPORTED)
        return
    reception.improve()
    datagrams.improve()
    udp_ports.gather_soon()
    sender_reports.improve()
    sending.improve()
    rtp.compute_audio_level_dbov = audio_level_dbov
    _keep_time(vpx.Vp8Encoder)
    _keep_time(h264.H264Encoder)
    _keep_sound_time()
    _ask_for_immediate_playout()
    _take_rsa_certificates()


def _take_rsa_certificates() -> None:
    """DTLS with a peer that has an RSA certificate: where it is the server, we must have offered ECDHE-RSA."""
    original = RTCCertificate._create_ssl_context

    def create(self: Any, srtp_profiles: Any) -> Any:
        context = original(self, srtp_profiles)
        context.set_cipher_list(CIPHERS.encode())
        return context

    RTCCertificate._create_ssl_context = create


def _ask_for_immediate_playout() -> None:
    """Send playout-delay min = max = 0 with every video packet: the browser shows a frame once it has it.

    Without it Chromium smooths over the jitter that it estimates, a frame period or more.
    (http://www.webrtc.org/experiments/rtp-hdrext/playout-delay: 12 bits each, in steps of 10 ms)
    """
    known = HEADER_EXTENSIONS["video"]
    known.append(RTCRtpHeaderExtensionParameters(id=max(e.id for e in known) + 1, uri=PLAYOUT_DELAY_URI))
    configure, pack = rtp.HeaderExtensionsMap.configure, rtp.HeaderExtensionsMap.set

    def configure_too(self: Any, parameters: Any) -> None:
        configure(self, parameters)
        self.visavis_playout_id = next(
            (e.id for e in parameters.headerExtensions if e.uri == PLAYOUT_DELAY_URI), None
        )

    def pack_too(self: Any, values: Any) -> tuple[int, bytes]:
        profile, value = pack(self, values)
        playout_id = getattr(self, "visavis_playout_id", None)
        if playout_id is None:
            return profile, value
        extensions = rtp.unpack_header_extensions(profile, value) if value else []
        return rtp.pack_header_extensions([*extensions, (playout_id, b"\x00\x00\x00")])

    rtp.HeaderExtensionsMap.configure = configure_too
    rtp.HeaderExtensionsMap.set = pack_too


def leave_playout_to_receiver(video: RTCRtpTransceiver) -> None:
    """Before the answer: these pictures do not ask for immediate playout, which keeps a receiver from lip sync."""
    video._headerExtensions = [e for e in video._headerExtensions if e.uri != PLAYOUT_DELAY_URI]


def audio_level_dbov(frame: av.AudioFrame) -> int:
    """Level of a packet in dBov, −127 … 0 (RFC 6465, appendix A).

    aiortc loops over the samples in Python: 1.3 ms of a blocked event loop for each of 50 packets a second.
    """
    samples = np.frombuffer(bytes(frame.planes[0]), np.int16).astype(np.float64) / 32767
    power = float(np.square(samples).sum()) / frame.samples
    return round(float(np.clip(10 * np.log10(power), -127, 0))) if power > 0 else -127


def _keep_time(encoder: type) -> None:
    """The RTP time that leaves is the frame's own: libvpx counts microseconds, and a third came out a tick early."""
    original = encoder.encode  # type: ignore[attr-defined]

    def encode(self: Any, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        pts, time_base = frame.pts, frame.time_base
        payloads, _ = original(self, frame, force_keyframe)
        frame.pts, frame.time_base = pts, time_base  # the encoder moved them into its own time base
        frame.pict_type = PictureType.NONE  # or each repetition of this picture would be a key frame too
        return payloads, convert_timebase(pts, time_base, VIDEO_TIME_BASE)

    encoder.encode = encode  # type: ignore[attr-defined]


def _keep_sound_time() -> None:
    """The same for sound: libopus looks ahead, so the first packet after a jump in time carried on the old one."""
    original = opus.OpusEncoder.encode

    def encode(self: Any, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        pts, is_whole = frame.pts, frame.samples == opus.SAMPLES_PER_FRAME
        payloads, time = original(self, frame, force_keyframe)
        return payloads, pts if is_whole and len(payloads) == 1 else time

    opus.OpusEncoder.encode = encode


_host_addresses: Callable[[bool, bool], list[str]] = aioice.ice.get_host_addresses


def with_loopback(addresses: list[str], use_ipv4: bool) -> list[str]:
    """127.0.0.1 in front of the addresses that aioice found; it leaves loopback out itself."""
    return ["127.0.0.1", *addresses] if use_ipv4 and "127.0.0.1" not in addresses else addresses


def _offer_loopback() -> None:
    def addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        return with_loopback(_host_addresses(use_ipv4, use_ipv6), use_ipv4)

    aioice.ice.get_host_addresses = addresses


async def close_peer(peer: RTCPeerConnection, step_within_s: float = CLOSE_STEP_WITHIN_S) -> None:
    """Close `peer` and free its threads and sockets, whatever state an offer left it in. Never raises, and ends.

    aiortc's own `close` stops halfway at the first part that never got a transport (a section whose `a=mid` is
    not in the BUNDLE group, RFC 9143 § 7), and a second one waits for the first for ever.
    """
    if await _ends(peer.close, step_within_s):
        return
    pieces = [*peer.getTransceivers()]
    transports = {part.transport for piece in pieces for part in (piece.sender, piece.receiver)}
    transports |= {peer.sctp.transport} if peer.sctp else set()
    for piece in pieces:
        await _ends(piece.stop, step_within_s)
    for transport in transports - {None}:
        await _ends(transport.stop, step_within_s)
        await _ends(transport.transport.stop, step_within_s)


async def _ends(step: Callable[[], Awaitable[object]], within_s: float) -> bool:
    """Whether a step of closing came to its end."""
    try:
        async with asyncio.timeout(within_s):
            await step()
    except Exception as error:  # aiortc raises whatever it stumbles on
        logger.info("a call's connection did not close by itself (%s: %s)", type(error).__name__, error)
        return False
    return True


async def receive_newest(track: MediaStreamTrack) -> tuple[Any, int]:
    """The newest frame of a remote track and how many older ones were skipped.

    aiortc's receive queue is unbounded: whoever reads one frame at a time falls behind for good.
    """
    frame = await track.recv()
    skipped = 0
    waiting = getattr(track, "_queue", None)
    while waiting is not None and not waiting.empty():
        newer = waiting.get_nowait()
        if newer is None:  # the end of the stream: leave it for the next call
            waiting.put_nowait(None)
            break
        frame = newer
        skipped += 1
    if frame is None:
        raise MediaStreamError
    return frame, skipped


def with_start_bitrate(sdp: str) -> str:
    """`sdp` with x-google-start-bitrate for VP8: Chrome then starts sharp instead of climbing for seconds."""
    return re.sub(
        r"(a=rtpmap:(\d+) VP8/90000\r\n)",
        rf"\1a=fmtp:\2 x-google-start-bitrate={UPLINK_START_BITRATE // 1000};"
        rf"x-google-max-bitrate={UPLINK_MAX_BITRATE // 1000}\r\n",
        sdp,
    )
