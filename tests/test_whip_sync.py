"""A sender's sound and the picture that it drives reach every player together."""

from __future__ import annotations

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from calls import Client, only_loopback, plain_enrollment, until
from test_voice_call import CAMERA_GAPS_S, CopyPainter, FlashCamera, Listener, Tape, beeps, skews_ms

from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.one_way import Ingest


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class Watcher(Listener):
    """A player that notes when beeps and flashes begin."""

    def __init__(self) -> None:
        Client.__init__(self)
        self.pc.addTransceiver("audio", direction="recvonly")
        self.flashes_s: list[float] = []
        self.beeps_s: list[float] = []
        self._white = self._loud = False
        self._quiet_since_s = 0.0


async def watched(seconds: float, enough: int) -> list[Watcher]:
    """Two players of one sender's call, once each has seen `enough` flashes."""
    samples, begins = beeps(seconds, CAMERA_GAPS_S)
    tape = Tape(samples)
    sender, watchers = RTCPeerConnection(RTCConfiguration(iceServers=[])), [Watcher(), Watcher()]
    sender.addTransceiver(FlashCamera(tape, begins), "sendonly")
    sender.addTransceiver(tape, "sendonly")
    call = Ingest(plain_enrollment(), CallOptions(), make_avatar=CopyPainter, stream="plain")  # type: ignore[arg-type]
    try:
        await sender.setLocalDescription(await sender.createOffer())
        answer = await call.answer(sender.localDescription.sdp)
        await sender.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        for watcher in watchers:
            await watcher.accept(await call.new_player().answer(await watcher.offer()))
        await until(lambda: all(len(w.flashes_s) >= enough for w in watchers), "the flashes")
        await until(lambda: all(len(w.beeps_s) >= 2 for w in watchers), "their beeps")
    finally:
        for watcher in watchers:
            await watcher.close()
        await call.close()
        await sender.close()
    return watchers


@pytest.mark.slow
async def test_beeps_reach_every_player_and_so_do_flashes() -> None:
    for watcher in await watched(30.0, 3):
        assert len(watcher.beeps_s) >= 2


@pytest.mark.timing
async def test_beep_and_flash_reach_every_player_together() -> None:
    """A picture of 100 ms: the sound that came with it waits for it, ±20 ms."""
    for watcher in await watched(16.0, 18):
        skews = skews_ms(watcher.flashes_s[4:], watcher.beeps_s, 0.0)
        print(f"\nflash after beep: median {np.median(skews):.1f} ms, {np.round(skews, 0)}")
        assert len(skews) >= 12
        assert abs(np.median(skews)) <= 20
