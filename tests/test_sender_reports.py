"""RTCP sender reports: what senders say of their clock is understood, and what we say of capture is true."""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none
# (what is reached into is hidden, and partly untyped)

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiortc import RTCRtpSender
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket, RtpPacket
from calls import Camera, Client, Painter, always_in_time, only_loopback, plain_enrollment, until
from fakes import AT_LAST_S
from hypothesis import given
from hypothesis import strategies as st
from receiving import VP8, made_receiver, vp8_delta, vp8_key

from streamer.webrtc import aiortc_fixes, sender_reports
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.media import MediaTime
from streamer.webrtc.reception import reception_of
from streamer.webrtc.sender_reports import Reports
from streamer.webrtc.session import Session

NTP_2026 = 3_976_214_400  # seconds since 1900 at 2026-01-01T00:00:00Z


@pytest.fixture(autouse=True)
def fixes() -> None:
    aiortc_fixes.apply()


def test_ntp_to_unix() -> None:
    assert sender_reports.unix_ms(NTP_2026 << 32) == 1_767_225_600_000
    assert sender_reports.unix_ms((NTP_2026 << 32) + (1 << 31)) == 1_767_225_600_500


@given(rtp=st.integers(0, 2**32 - 1), ticks=st.integers(-(2**31) + 1, 2**31 - 1))
def test_the_senders_clock_at_any_rtp_time_wraps_included(rtp: int, ticks: int) -> None:
    report = sender_reports.SenderReport(1_767_225_600_000.0, rtp)
    wall_ms = sender_reports.wall_ms_of(report, (rtp + ticks) & 0xFFFFFFFF)
    assert wall_ms - report.wall_ms == pytest.approx(ticks / 90, abs=1e-3)


async def test_capture_time_is_the_senders_whatever_wraps() -> None:
    receiver = made_receiver("video", VP8)
    start = 2**32 - 4500
    assert sender_reports.capture_wall_ms(receiver, 0) is None
    seen: list[int] = []
    for k in range(5):  # passes 2³² on the way
        payload = b"\x10" + (vp8_key(64, 48) if k == 0 else vp8_delta(k))
        one = RtpPacket(97, 1, k, (start + 3000 * k) & 0xFFFFFFFF, 1234, payload)
        await receiver._handle_rtp_packet(one, 1000 + 33 * k)
        task = reception_of(receiver).queue.take_now()  # type: ignore[union-attr]
        assert task is not None
        seen.append(task[1].time)
        if k == 0:
            assert sender_reports.capture_wall_ms(receiver, 0) is None, "no report yet"
            receiver.visavis_sender_report = sender_reports.SenderReport(1000.0, start)
        assert sender_reports.capture_wall_ms(receiver, seen[-1]) == pytest.approx(1000 + k * 100 / 3)
    assert seen == [3000 * k for k in range(5)]


def test_without_the_fixes_no_capture_time_is_known() -> None:
    assert sender_reports.capture_wall_ms(SimpleNamespace(), 0) is None  # type: ignore[arg-type]


async def test_sender_reports_are_remembered() -> None:
    receiver = made_receiver("video", VP8)

    def report(packets: int, ntp: int) -> RtcpSrPacket:
        return RtcpSrPacket(ssrc=1, sender_info=RtcpSenderInfo(ntp, 777, packets, 1))

    await receiver._handle_rtcp_packet(report(0, NTP_2026 << 32))
    assert getattr(receiver, "visavis_sender_report", None) is None, "a report before any packet says nothing"
    await receiver._handle_rtcp_packet(report(5, NTP_2026 << 32))
    assert receiver.visavis_sender_report == sender_reports.SenderReport(1_767_225_600_000.0, 777)


async def test_a_report_is_told_once_in_the_streams_own_time_whatever_wraps() -> None:
    receiver = made_receiver("video", VP8)
    reports = Reports(receiver)
    start = 2**32 - 4500
    for k in range(3):
        payload = b"\x10" + (vp8_key(64, 48) if k == 0 else vp8_delta(k))
        one = RtpPacket(97, 1, k, (start + 3000 * k) & 0xFFFFFFFF, 1234, payload)
        await receiver._handle_rtp_packet(one, 1000 + 33 * k)
    assert reports.new(0.0) is None
    receiver.visavis_sender_report = sender_reports.SenderReport(5000.0, (start + 9000) & 0xFFFFFFFF)
    assert reports.new(6000 / 90e3 * 1e9) == (pytest.approx(1e8), 5e9)
    assert reports.new(0.0) is None, "it was told"
    hours_ns = 2**31 / 90e3 * 1e9 * 3
    receiver.visavis_sender_report = sender_reports.SenderReport(6000.0, (start + 3 * 2**31) & 0xFFFFFFFF)
    told = reports.new(hours_ns)
    assert told is not None
    assert told[0] == pytest.approx(hours_ns), "after hours RTP time has wrapped"


class Wire:
    """What a sender hands to its transport."""

    def __init__(self) -> None:
        self.packets: list[Any] = []

    async def send(self, packets: list[Any]) -> None:
        self.packets += packets


def sender_at(media_time: MediaTime | None, rtp: tuple[int, int] | None) -> tuple[Any, Wire]:
    """What the fix looks at of a sender, and what then leaves."""
    wire = Wire()
    sender = SimpleNamespace(track=SimpleNamespace(newest=media_time))
    if rtp is not None:
        sender.visavis_rtp = rtp
    return sender, wire


def report(rtp_time: int = 11) -> RtcpSrPacket:
    return RtcpSrPacket(ssrc=1, sender_info=RtcpSenderInfo(NTP_2026 << 32, rtp_time, 5, 1))


async def told_by(monkeypatch: pytest.MonkeyPatch, sender: Any, wire: Wire, now_ns: int) -> RtcpSenderInfo:
    monkeypatch.setattr(RTCRtpSender, "_send_rtcp", lambda _, packets: wire.send(packets))
    sender_reports._tell_capture(lambda: now_ns)
    await RTCRtpSender._send_rtcp(sender, [report()])
    return wire.packets[0].sender_info


async def test_a_report_tells_which_rtp_time_is_captured_now(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, wire = sender_at(MediaTime(4800, 48_000, 2e9), (2**32 - 4800, 48_000))
    info = await told_by(monkeypatch, sender, wire, 2_500_000_000)
    # half a second after the sample whose RTP time is 0
    assert info.rtp_timestamp == 24_000
    assert abs(sender_reports.unix_ms(info.ntp_timestamp) - time.time() * 1e3) < 60_000, "now"
    assert sender._RTCRtpSender__lsr == info.ntp_timestamp >> 16 & 0xFFFFFFFF, "or no round trip is measured"


@pytest.mark.parametrize(("media_time", "rtp"), [(None, (0, 48_000)), (MediaTime(0, 48_000, 0.0), None)])
async def test_a_report_without_capture_stays_as_it_was(
    monkeypatch: pytest.MonkeyPatch, media_time: MediaTime | None, rtp: tuple[int, int] | None
) -> None:
    sender, wire = sender_at(media_time, rtp)
    info = await told_by(monkeypatch, sender, wire, 2_500_000_000)
    assert (info.ntp_timestamp, info.rtp_timestamp) == (NTP_2026 << 32, 11)


class Speaker(Client):
    """A client that sends sound, and keeps the reports that come."""

    def reports(self) -> dict[str, sender_reports.SenderReport | None]:
        return {t.kind: getattr(t.receiver, "visavis_sender_report", None) for t in self.pc.getTransceivers()}


@pytest.mark.slow
async def test_a_call_reports_sound_and_pictures_by_one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports that its page gets are of the RTP times that leave, and of the clock that its messages tell by."""
    only_loopback(monkeypatch)
    always_in_time(monkeypatch)
    session = Session(plain_enrollment(), CallOptions(), make_avatar=Painter)  # type: ignore[arg-type]
    client = Speaker(Camera(), audio=True)
    try:
        await client.accept(await session.answer(await client.offer()))
        await until(lambda: len(client.of_type("sound")) > 2, "what sound is of when")
        await until(lambda: all(client.reports().values()), "reports of both")
        sound = client.of_type("sound")[-1]
        picture = [m for m in client.of_type("frame") if m["clock_ms"] is not None][-1]
        pts = {"audio": sound["rtp"], "video": picture["pts"] + sending_origin(session, "video")}
        clock_ms = {"audio": sound["clock_ms"], "video": picture["clock_ms"]}
        # the wall clock against the one that messages tell by; a report of another origin is hours away
        ahead_ms = time.time() * 1e3 - time.monotonic_ns() / 1e6
        for kind, report in client.reports().items():
            assert report is not None
            hz = 48_000 if kind == "audio" else 90_000
            wall_ms = sender_reports.wall_ms_of(report, pts[kind] & 0xFFFFFFFF, hz)
            assert abs(wall_ms - ahead_ms - clock_ms[kind]) < AT_LAST_S * 1e3
    finally:
        await client.close()
        await session.close()


def sending_origin(session: Session, kind: str) -> int:
    """The RTP time at which a session's track is at 0."""
    return next(t.sender.visavis_rtp[0] for t in session._peer._pc.getTransceivers() if t.kind == kind)
