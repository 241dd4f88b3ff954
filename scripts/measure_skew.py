"""How far sound and picture are apart at a receiver: beeps that flash, through a network that loses packets.

    python -m scripts.measure_skew --mode webcam --receiver chromium --loss 1 --minutes 10

Prints how much later each flash comes than its beep, and the same as the product itself measures it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aioice.ice
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtcpeerconnection
from aiortc.contrib.media import MediaPlayer
from numpy.typing import NDArray

from engines.errors import VisavisError
from scripts.measure import skew_page
from scripts.measure.bad_link import BadLink, Faults
from scripts.measure.flash import (
    HALF_MOMENT_MS,
    FlashCamera,
    Flasher,
    LoudSpeech,
    Tape,
    Watcher,
    beeps,
    nobody,
    skews_ms,
    write_film,
)
from scripts.measure.udp_relay import UdpRelay
from streamer.webrtc import aiortc_fixes, hearing
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.one_way import Ingest
from streamer.webrtc.session import Session

SETTLE_S = skew_page.SETTLE_S
MEDIAN_MS, P95_MS = 20.0, 45.0


@dataclass(frozen=True, slots=True)
class Skew:
    """Milliseconds by which pictures came after their sound: median, and 95 % of their sizes."""

    median_ms: float
    p95_ms: float
    count: int

    def __str__(self) -> str:
        return f"median {self.median_ms:+.1f} ms, p95 {self.p95_ms:.1f} ms either way, {self.count} of them"


def skew_of(values_ms: Sequence[float] | NDArray[np.float64]) -> Skew | None:
    """None of nothing."""
    values = np.asarray(values_ms, np.float64)
    if not len(values):
        return None
    return Skew(float(np.median(values)), float(np.percentile(np.abs(values), 95)), len(values))


class Told:
    """What the calls' ledgers say of each picture that left, from any thread."""

    def __init__(self, work_ms: float) -> None:
        self.values_ms: list[float] = []
        self._work_ms = work_ms

    def avatar(self, call: Session) -> Flasher:
        """For a call, which is listened to from now on."""
        call.ledger.copy_to = self._note
        return Flasher(call, self._work_ms)

    def _note(self, record: Mapping[str, object]) -> None:
        skew = record.get("skew_ms")
        if isinstance(skew, float):
            self.values_ms.append(skew)


async def joined(watcher: Watcher, relay: UdpRelay, answering: Any) -> None:
    """The watcher's call to what answers, through the relay."""
    await watcher.pc.setLocalDescription(await watcher.pc.createOffer())
    answer = await answering.answer(await relay.offer(watcher.pc.localDescription.sdp))
    await watcher.pc.setRemoteDescription(RTCSessionDescription(await relay.answer(answer), "answer"))


async def by_aiortc(mode: str, seconds: float, faults: Faults, told: Told, film: Path) -> Watcher:
    """A call that another aiortc receives."""
    samples, begins = beeps(seconds + SETTLE_S + 3)
    relay = UdpRelay(BadLink(faults, 1), BadLink(faults, 2))
    options: dict[str, Any] = {"make_avatar": told.avatar}
    sender: RTCPeerConnection | None = None
    if mode == "file":
        call = Ingest(nobody(), CallOptions(), stream="flash", **options)
        sender, player = RTCPeerConnection(RTCConfiguration(iceServers=[])), MediaPlayer(str(film))
        for track in (player.video, player.audio):
            assert track is not None
            sender.addTransceiver(track, "sendonly")
        await sender.setLocalDescription(await sender.createOffer())
        answer = await call.answer(sender.localDescription.sdp)
        await sender.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        watcher, answering = Watcher(), call.new_player()
    else:
        tape = Tape(samples)
        call = answering = Session(nobody(), CallOptions(drive=mode), **options)  # type: ignore[arg-type]
        watcher = Watcher([tape, FlashCamera(tape, begins)] if mode == "webcam" else [tape])
    try:
        await joined(watcher, relay, answering)
        await asyncio.sleep(SETTLE_S)
        watcher.flashes_s.clear()
        watcher.beeps_s.clear()
        told.values_ms.clear()
        await asyncio.sleep(seconds)
    finally:
        await watcher.close()
        await call.close()
        if sender is not None:
            await sender.close()
        relay.close()
    return watcher


def _streams_apart() -> None:
    describe = rtcpeerconnection.create_media_description_for_transceiver

    def apart(transceiver: Any, *more: Any, **named: Any) -> Any:
        media = describe(transceiver, *more, **named)
        media.msid = f"{uuid4()} {uuid4()}"
        return media

    rtcpeerconnection.create_media_description_for_transceiver = apart


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.measure_skew", description="Sound against picture at a receiver"
    )
    parser.add_argument("--mode", choices=("webcam", "voice", "file"), default="webcam")
    parser.add_argument("--receiver", choices=("aiortc", "chromium"), default="aiortc")
    parser.add_argument("--loss", type=float, default=0.0, help="%% of the packets, each way")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--apart", action="store_true", help="two streams in the SDP: no receiver puts them in step"
    )
    parser.add_argument("--work-ms", type=float, default=30.0, help="what tracking and drawing take")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when median and p95 are within their bounds."""
    options = parse(arguments)
    aiortc_fixes.apply()
    # every candidate is on loopback: the relay is the only network
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []
    hearing.shared_speech = LoudSpeech  # type: ignore[assignment]
    if options.apart:
        _streams_apart()
    faults, seconds, told = Faults(loss=options.loss / 100), 60 * options.minutes, Told(options.work_ms)
    late_ms = HALF_MOMENT_MS if options.mode == "voice" else 0.0
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "flash.mkv"
        if options.mode == "file":
            write_film(film, *beeps(seconds + 2 * SETTLE_S + 5))
        if options.receiver == "aiortc":
            seen = asyncio.run(by_aiortc(options.mode, seconds, faults, told, film))
            by_page = None
        else:
            seen = skew_page.watched(options.mode, seconds, faults, told.avatar, str(film))
            by_page = skew_of(seen.told_ms)
            print(f"page: {seen.stats}")
    measured = skew_of(skews_ms(seen.flashes_s, seen.beeps_s, late_ms))
    print(f"{options.mode}, {options.receiver}, {options.loss:g} % loss, {options.work_ms:g} ms a picture")
    print(f"flash after beep: {measured} ({len(seen.flashes_s)} flashes, {len(seen.beeps_s)} beeps)")
    print(f"as the server measures it: {skew_of(told.values_ms)}")
    if by_page is not None:
        print(f"as the page measures it, each second's median: {by_page}")
    return 0 if measured and abs(measured.median_ms) <= MEDIAN_MS and measured.p95_ms <= P95_MS else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        try:
            sys.exit(main())
        except VisavisError as error:
            sys.exit(str(error))
