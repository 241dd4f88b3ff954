"""RTCP sender reports (RFC 3550 § 6.4.1), both ways: what senders say of their clock, and what we say of capture.

aiortc keeps no report that comes. Those that it sends tell when a packet left; ours tell when what leaves was captured,
for sound and pictures alike, so that a receiver which puts them in step by reports finds the truth.
"""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none
# (this file exists to reach into aiortc; tests/test_sender_reports.py checks that what it reaches for is there)

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiortc import RTCRtpReceiver, RTCRtpSender, clock
from aiortc.rtp import RtcpSrPacket

from streamer.webrtc import reception
from streamer.webrtc.rtp_order import wrapped

_NTP_TO_UNIX_S = 2_208_988_800  # RFC 5905: NTP counts from 1900
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class SenderReport:
    """RTP time ↔ the sender's wall clock."""

    wall_ms: float
    rtp_time: int


class MediaTime(Protocol):
    """What a track knows of the last that left it: see `streamer.webrtc.media.MediaTime`."""

    def ticks_at(self, now_ns: float, rate_hz: int) -> int:
        """The track's time in `rate_hz` of what is captured at `now_ns`."""
        ...

    @property
    def captured_ns(self) -> float:
        """When the last that left was captured."""
        ...


def unix_ms(ntp_timestamp: int) -> float:
    """64-bit NTP time → milliseconds since the Unix epoch."""
    return (ntp_timestamp / (1 << 32) - _NTP_TO_UNIX_S) * 1000


def wall_ms_of(report: SenderReport, rtp_time: int, clock_hz: int = 90_000) -> float:
    """The sender's wall clock at an RTP time (32 bit, wrapping)."""
    return report.wall_ms + wrapped(rtp_time - report.rtp_time, 32) * 1000 / clock_hz


def capture_wall_ms(receiver: RTCRtpReceiver, pts: int) -> float | None:
    """When the browser captured the frame with this `pts`, on its own wall clock; None before the first report."""
    report: SenderReport | None = getattr(receiver, "visavis_sender_report", None)
    received = reception.reception_of(receiver)
    origin = None if received is None else received.rtp_origin
    if report is None or origin is None:
        return None
    return wall_ms_of(report, (pts + origin) & _MASK)


class Reports:
    """The reports of one receiver, each told once."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._receiver = receiver
        self._last: SenderReport | None = None

    def new(self, near_ns: float) -> tuple[float, float] | None:
        """(media time of the stream, the sender's wall clock), in ns, of a report that was not told yet.

        `near_ns`: the media time of what came last, for RTP times wrap.
        """
        report: SenderReport | None = getattr(self._receiver, "visavis_sender_report", None)
        received = reception.reception_of(self._receiver)
        origin = None if received is None else received.rtp_origin
        if report is None or report is self._last or received is None or origin is None:
            return None
        self._last = report
        near = round(near_ns * received.clock_hz / 1e9)
        ticks = near + wrapped(report.rtp_time - origin - near, 32)
        return ticks * 1e9 / received.clock_hz, report.wall_ms * 1e6


def rtp_time_of(sender: RTCRtpSender, media_time: MediaTime) -> int | None:
    """The RTP time of what was captured when the last that left was; None before two packets have left."""
    at: tuple[int, int] | None = getattr(sender, "visavis_rtp", None)
    if at is None:
        return None
    origin, rate_hz = at
    return (origin + media_time.ticks_at(media_time.captured_ns, rate_hz)) & _MASK


def improve() -> None:
    """Remember the reports that come, and tell in those that leave when things were captured."""
    _remember()
    _know_origin()
    _tell_capture()


def _remember() -> None:
    original = RTCRtpReceiver._handle_rtcp_packet

    async def handle(self: Any, packet: Any) -> None:
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            if info.ntp_timestamp and info.packet_count:
                self.visavis_sender_report = SenderReport(unix_ms(info.ntp_timestamp), info.rtp_timestamp)
        await original(self, packet)

    RTCRtpReceiver._handle_rtcp_packet = handle


def _know_origin() -> None:
    """A sender's RTP times begin anywhere, in a variable of its loop: they are known once a frame has left."""
    original = RTCRtpSender._next_encoded_frame

    async def next_frame(self: Any, codec: Any) -> Any:
        before: int | None = getattr(self, "visavis_ticks", None)
        if before is not None:  # asked for the next one, it has sent all packets of this one
            origin = (self._RTCRtpSender__rtp_timestamp - before) & _MASK
            self.visavis_rtp = origin, codec.clockRate
        frame = await original(self, codec)
        if frame is not None and frame.payloads:
            self.visavis_ticks = frame.timestamp
        return frame

    RTCRtpSender._next_encoded_frame = next_frame


def _tell_capture(now_ns: Callable[[], int] = time.monotonic_ns) -> None:
    original = RTCRtpSender._send_rtcp

    async def send(self: Any, packets: list[Any]) -> None:
        media_time: MediaTime | None = getattr(self.track, "newest", None)
        at: tuple[int, int] | None = getattr(self, "visavis_rtp", None)
        if media_time is not None and at is not None:
            origin, rate_hz = at
            for packet in packets:
                if isinstance(packet, RtcpSrPacket):
                    info = packet.sender_info
                    info.ntp_timestamp = clock.current_ntp_time()
                    info.rtp_timestamp = (origin + media_time.ticks_at(now_ns(), rate_hz)) & _MASK
                    # what the answer to this report names it by
                    self._RTCRtpSender__lsr = (info.ntp_timestamp >> 16) & _MASK
        await original(self, packets)

    RTCRtpSender._send_rtcp = send
