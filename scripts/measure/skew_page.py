"""Beep and flash in headless Chromium: the page's own call through a relay, or a film that a WHIP sender plays.

Flashes are what the page sees (`requestVideoFrameCallback`), beeps what its sound card plays (`scripts.measure.heard`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer

from engines.errors import VisavisError
from scripts.measure.bad_link import Faults
from scripts.measure.flash import BEEP_S, GAPS_S, nobody
from scripts.measure.heard import Heard
from scripts.measure.relay_proxy import RelayProxy
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore

SETTLE_S = 8.0  # until delays and bitrates have found their place
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# A camera and a microphone of one clock, that of the sound: white while it beeps.
SENDS = """
navigator.mediaDevices.getUserMedia = async ({ audio, video }) => {
  const context = new AudioContext({ latencyHint: "interactive", sampleRate: 48000 });
  await context.resume();
  const tone = new OscillatorNode(context, { frequency: 1000 });
  const level = new GainNode(context, { gain: 0 });
  const out = context.createMediaStreamDestination();
  tone.connect(level).connect(out);
  tone.start();
  const gaps = %(gaps)s;
  const begins = [];
  for (let at = context.currentTime + 1, k = 0; k < %(count)d; k++, at += gaps[k %% gaps.length]) {
    begins.push(at);
    level.gain.setValueAtTime(0.4, at);
    level.gain.setValueAtTime(0, at + %(beep)f);
  }
  const stream = new MediaStream();
  if (audio) stream.addTrack(out.stream.getAudioTracks()[0]);
  if (video) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [320, 240];
    const pen = canvas.getContext("2d");
    let turn = 0;
    const draw = () => {
      const now = context.currentTime;
      while (begins.length > 1 && begins[1] <= now) begins.shift();
      const white = now >= begins[0] && now < begins[0] + %(beep)f;
      pen.fillStyle = white ? "#fff" : turn++ %% 2 ? "#000" : "#010101";
      pen.fillRect(0, 0, 320, 240);
      requestAnimationFrame(draw);
    };
    draw();
    stream.addTrack(canvas.captureStream(30).getVideoTracks()[0]);
  }
  return stream;
};
"""

# Notes when what `#picture` plays begins to beep and to flash, in seconds since the Unix epoch. That it beeps is right,
# when is not: Web Audio hears it 24 to 38 ms later than a sound card plays it.
WATCHES = """
async () => {
  const video = document.querySelector("#picture");
  video.muted = false;
  const context = new AudioContext({ latencyHint: "interactive" });
  await context.resume();
  const code = `registerProcessor("onset", class extends AudioWorkletProcessor {
    quiet = 1e9;
    process([input]) {
      const samples = input[0] ?? [];
      for (let i = 0; i < samples.length; i++) {
        if (Math.abs(samples[i]) > 0.05) {
          if (this.quiet > sampleRate * 0.1) this.port.postMessage(currentTime + i / sampleRate);
          this.quiet = 0;
        } else this.quiet += 1;
      }
      return true;
    }
  });`;
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const onset = new AudioWorkletNode(context, "onset");
  context.createMediaStreamSource(video.srcObject).connect(onset);
  window.beeps = [];
  window.flashes = [];
  window.told = [];
  onset.port.onmessage = ({ data }) => {
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    window.beeps.push((performance.timeOrigin + performanceTime) / 1000 + data - contextTime);
  };
  const canvas = new OffscreenCanvas(8, 8);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let white = false;
  const watch = (_, { expectedDisplayTime }) => {
    pen.drawImage(video, 0, 0, 8, 8);
    const now = pen.getImageData(4, 4, 1, 1).data[0] > 127;
    if (now && !white) window.flashes.push((performance.timeOrigin + expectedDisplayTime) / 1000);
    white = now;
    video.requestVideoFrameCallback(watch);
  };
  video.requestVideoFrameCallback(watch);
  setInterval(() => {
    const skew = window.visavis?.stats().skew_ms;
    if (skew?.n) window.told.push(skew.p50);
  }, 1000);
}
"""

PLAYS = """
async () => {
  const peer = new RTCPeerConnection();
  const stream = new MediaStream();
  const video = document.createElement("video");
  Object.assign(video, { id: "picture", autoplay: true, muted: true });
  document.body.replaceChildren(video);
  for (const kind of ["video", "audio"]) peer.addTransceiver(kind, { direction: "recvonly" });
  peer.ontrack = ({ track }) => {
    stream.addTrack(track);
    video.srcObject = stream;
  };
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((done) => {
    if (peer.iceGatheringState === "complete") done();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  const headers = { "content-type": "application/sdp" };
  const answer = await fetch("/whep/flash", { method: "POST", headers, body: peer.localDescription.sdp });
  if (!answer.ok) throw new Error(await answer.text());
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  window.peer = peer;
}
"""


@dataclass
class Seen:
    """When beeps and flashes began, in seconds since the Unix epoch, and the skew that the page told each second."""

    beeps_s: list[float] = field(default_factory=list[float])
    flashes_s: list[float] = field(default_factory=list[float])
    told_ms: list[float] = field(default_factory=list[float])
    stats: Any = None


@contextmanager
def serving(app: Any) -> Generator[str]:
    """`app` on a free port of this computer, in a thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def sending(url: str, film: str) -> Generator[None]:
    """A WHIP sender that plays `film`, in a thread."""
    stop = threading.Event()

    async def send() -> None:
        peer, player = RTCPeerConnection(RTCConfiguration(iceServers=[])), MediaPlayer(film)
        for track in (player.video, player.audio):
            assert track is not None
            peer.addTransceiver(track, "sendonly")
        await peer.setLocalDescription(await peer.createOffer())
        async with httpx.AsyncClient(base_url=url) as http:
            headers = {"content-type": "application/sdp"}
            answer = await http.post("/whip/flash", content=peer.localDescription.sdp, headers=headers)
            answer.raise_for_status()
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        while not stop.is_set():
            await asyncio.sleep(0.1)
        await peer.close()

    thread = threading.Thread(target=lambda: asyncio.run(send()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def watched(
    mode: str, seconds: float, faults: Faults, make_avatar: Callable[..., Any], film: str | None
) -> Seen:
    """A call of so many seconds in Chromium. Raises VisavisError where it, its steering or PulseAudio is missing."""
    chromium = next((found for name in _NAMES if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright  # an extra
    except ImportError as error:
        raise VisavisError("playwright is missing; pip install playwright") from error
    if chromium is None:
        raise VisavisError("there is no Chromium; apt-get install chromium")
    store = AvatarStore()
    store.add_public(nobody())
    app = create_app(ServeSettings(max_sessions=4), store, make_avatar=make_avatar)
    sends = SENDS % {"gaps": list(GAPS_S), "count": seconds * 2 + 60, "beep": BEEP_S}
    with (
        Heard() as heard,
        serving(app) as server,
        serving(RelayProxy(server, faults).app) as url,
        sync_playwright() as api,
    ):
        browser = api.chromium.launch(
            executable_path=chromium,
            headless=True,
            args=_FLAGS,
            ignore_default_args=["--mute-audio"],
            env={**os.environ, **heard.environment},
        )
        context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        page = context.new_page()
        page.set_default_timeout(120_000)
        try:
            if mode == "file":
                assert film is not None
                with sending(server, film):
                    page.goto(f"{url}/api/health")
                    time.sleep(2)
                    page.evaluate(PLAYS)
                    return _look(page, heard, seconds)
            page.add_init_script(sends)
            page.goto(f"{url}/?drive={mode}&audio=raw&hud=1")
            return _look(page, heard, seconds)
        finally:
            browser.close()


def _look(page: Any, heard: Heard, seconds: float) -> Seen:
    page.wait_for_function("document.querySelector('#picture')?.srcObject?.getAudioTracks().length")
    page.wait_for_function("document.querySelector('#picture').videoWidth")
    page.evaluate(WATCHES)
    time.sleep(SETTLE_S)
    page.evaluate("() => { for (const list of [window.flashes, window.told]) list.length = 0; }")
    begin_s = time.time()
    time.sleep(seconds)
    beeps_s = heard.beeps_s()
    return Seen(
        beeps_s[beeps_s > begin_s - 1].tolist(),
        page.evaluate("window.flashes"),
        page.evaluate("window.told"),
        page.evaluate("window.visavis ? window.visavis.stats() : null"),
    )
