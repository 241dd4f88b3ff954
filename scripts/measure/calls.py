"""Calls to measure by: a server, a bad network before it, and two clients, aiortc's and headless Chromium's page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request
import wave
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from numpy.typing import NDArray

from scripts.benchmarks.several_calls import CAMERA_FPS, CAMERA_PX, Clip
from streamer.webrtc.reception import sound_counts_of

SOUND_HZ = 48_000
SOUND_S = 12.0
PTIME = 960


def voice(clip: Path, seconds: float = SOUND_S) -> NDArray[np.int16]:
    """(S,) 48 kHz: the clip's own sound over and over, else a warble in syllables."""
    with av.open(str(clip)) as container:
        if container.streams.audio:
            to_mono = av.AudioResampler("s16", "mono", SOUND_HZ)
            frames = (r for f in container.decode(audio=0) for r in to_mono.resample(f))
            whole = np.concatenate([np.asarray(r.to_ndarray()[0], np.int16) for r in frames])
            return np.resize(whole, round(seconds * SOUND_HZ))
    t = np.arange(round(seconds * SOUND_HZ)) / SOUND_HZ
    phase = 2 * np.pi * np.cumsum(150 + 30 * np.sin(2 * np.pi * 0.7 * t)) / SOUND_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (3000 * tone * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t))).astype(np.int16)


class Voice(MediaStreamTrack):
    """A microphone that hears `samples` over and over, in real time."""

    kind = "audio"

    def __init__(self, samples: NDArray[np.int16]) -> None:
        super().__init__()
        self._samples = samples[: len(samples) // PTIME * PTIME]
        self._count = 0
        self._start_s = time.monotonic()

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when they are over."""
        due_s = self._start_s + (self._count + 1) * PTIME / SOUND_HZ
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        at = self._count * PTIME % len(self._samples)
        frame = av.AudioFrame.from_ndarray(self._samples[None, at : at + PTIME], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._count * PTIME, Fraction(1, SOUND_HZ)
        self._count += 1
        return frame


@dataclass(slots=True)
class Watched:
    """What came to a client; times by its `time.monotonic()`, in seconds.

    `pictures`: when each came. `answers`: when a picture of a new camera frame was told of, and how old it was, in ms.
    `sounds`: when each came.
    """

    pictures: list[float] = field(default_factory=list[float])
    sounds: list[float] = field(default_factory=list[float])
    answers: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])


class AiortcClient:
    """The page's part of a call, without a page."""

    def __init__(self, clip: Path) -> None:
        self.watched = Watched()
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._reading: list[asyncio.Task[None]] = []
        self._hears: object = None
        self._peer.addTrack(Clip(clip))
        self._peer.addTrack(Voice(voice(clip)))
        channel = self._peer.createDataChannel("visavis", ordered=False, maxRetransmits=0)
        channel.on("message", self._told)
        self._peer.on("track", self._read)
        self._channel = channel

    async def call(self, url: str, offer: dict[str, object]) -> None:
        """Begin. Raises what an unreachable server raises."""
        await self._peer.setLocalDescription(await self._peer.createOffer())
        body = {"sdp": self._peer.localDescription.sdp, "type": "offer", **offer}
        answer = await asyncio.to_thread(fetched, f"{url}/api/offer", "POST", body)
        await self._peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        self._reading.append(asyncio.create_task(self._keep_alive()))

    def sound_s(self) -> dict[str, float]:
        """Seconds of the received sound by what became of them."""
        return sound_counts_of(self._hears).told()

    async def close(self) -> None:
        """Hang up."""
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self._peer.close()

    def _read(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._hears = next(t.receiver for t in self._peer.getTransceivers() if t.receiver.track is track)
        came = self.watched.pictures if track.kind == "video" else self.watched.sounds
        self._reading.append(asyncio.create_task(self._note(track, came)))

    @staticmethod
    async def _note(track: MediaStreamTrack, came: list[float]) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                await track.recv()
                came.append(time.monotonic())

    async def _keep_alive(self) -> None:
        """Say something twice a second, as a page does."""
        while True:
            await asyncio.sleep(0.5)
            if self._channel.readyState == "open":
                self._channel.send(json.dumps({"type": "ping", "t": 0}))

    def _told(self, text: str) -> None:
        message = json.loads(text)
        if message["type"] == "frame" and message["capture_ms"] is not None:
            self.watched.answers.append((time.monotonic(), time.time() * 1000 - message["capture_ms"]))


@asynccontextmanager
async def aiortc_call(url: str, clip: Path, offer: dict[str, object]) -> AsyncGenerator[AiortcClient]:
    """A call that has begun to be answered."""
    client = AiortcClient(clip)
    try:
        await client.call(url, offer)
        end_s = time.monotonic() + 60
        while len(client.watched.answers) < 10:
            if time.monotonic() > end_s:
                raise TimeoutError("no pictures within a minute")
            await asyncio.sleep(0.1)
        yield client
    finally:
        await client.close()


def fetched(url: str, method: str = "GET", body: object = None) -> Any:
    """JSON there and back."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def through_a_bad_network(server: str, seed: int = 0) -> Generator[str]:
    """The address of a proxy before `server`, in a process of its own; `PUT /relay` there makes it bad."""
    command = [
        sys.executable,
        "-m",
        "scripts.measure.relay_proxy",
        server,
        "--port",
        "0",
        "--seed",
        str(seed),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1].replace("localhost", "127.0.0.1")
    finally:
        process.terminate()
        process.wait(20)


CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# keeps each peer connection where statistics can be asked for
REMEMBER_PEERS = """
    window.peers = [];
    const Original = RTCPeerConnection;
    window.RTCPeerConnection = new Proxy(Original, {
        construct(target, given) { const peer = new target(...given); window.peers.push(peer); return peer; },
    });
"""
STATISTICS = """async () => {
    const found = {};
    for (const peer of window.peers) {
        if (peer.connectionState !== "connected") continue;
        for (const entry of (await peer.getStats()).values())
            if (entry.type.endsWith("bound-rtp")) found[`${entry.type} ${entry.kind}`] = entry;
    }
    return found;
}"""


@contextmanager
def chromium_page(clip: Path, folder: Path) -> Generator[Any]:
    """A page of a headless Chromium whose camera and microphone play `clip`. Raises RuntimeError without Chromium."""
    path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise RuntimeError("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # of the "dev" extra

    camera, sound = write_camera(clip, folder)
    with sync_playwright() as api:
        browser = api.chromium.launch(
            executable_path=path,
            headless=True,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--autoplay-policy=no-user-gesture-required",
                "--allow-loopback-in-peer-connection",
                "--disable-features=WebRtcHideLocalIpsWithMdns",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={camera}",
                f"--use-file-for-fake-audio-capture={sound}",
            ],
        )
        page = browser.new_page()
        page.add_init_script(REMEMBER_PEERS)
        yield page
        browser.close()


def write_camera(clip: Path, folder: Path, seconds: float = 6.0) -> tuple[Path, Path]:
    """A camera (.y4m) and a microphone (.wav) that play the clip."""
    camera, sound = folder / "camera.y4m", folder / "sound.wav"
    width_px, height_px = CAMERA_PX
    with av.open(str(clip)) as container, camera.open("wb") as out:
        out.write(f"YUV4MPEG2 W{width_px} H{height_px} F{CAMERA_FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for count, frame in enumerate(container.decode(video=0)):
            if count >= seconds * CAMERA_FPS:
                break
            planes = frame.reformat(width_px, height_px, "yuv420p").to_ndarray()
            out.write(b"FRAME\n" + np.ascontiguousarray(planes).tobytes())
    with wave.open(str(sound), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SOUND_HZ)
        out.writeframes(voice(clip).tobytes())
    return camera, sound
