"""Several calls on one server: rate and lag of the first, the pages in processes of their own on the same computer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import psutil
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from engines.enrollment import Enrollment, save_enrollment
from scripts.benchmarks.measured import Measured

CALLS = (1, 2, 4)
WARM_UP_S = 4.0
CAMERA_FPS = 30
CAMERA_PX = (640, 480)


@dataclass(frozen=True, slots=True)
class Watched:
    """New pictures of one call after its warm-up: how many a second, and how old when they came (50 and 95 %).

    `pictures`: all new ones, those of the warm-up too.
    """

    pictures: int
    fps: float
    lag_ms: float
    lag_p95_ms: float


class Clip(MediaStreamTrack):
    """A camera that shows a clip, over and over, in real time."""

    kind = "video"

    def __init__(self, path: Path) -> None:
        super().__init__()
        with av.open(str(path)) as container:
            width_px, height_px = CAMERA_PX
            self._frames = [f.reformat(width_px, height_px, "yuv420p") for f in container.decode(video=0)]
        self._count = 0
        self._start_s = time.monotonic()

    async def recv(self) -> av.VideoFrame:
        """The next frame, when it is due."""
        await asyncio.sleep(max(0.0, self._start_s + self._count / CAMERA_FPS - time.monotonic()))
        frame = self._frames[self._count % len(self._frames)]
        frame.pts, frame.time_base = self._count * 90_000 // CAMERA_FPS, Fraction(1, 90_000)
        self._count += 1
        return frame


async def watch(url: str, clip: Path, seconds: float, offer: dict[str, object]) -> Watched:
    """One call of so many seconds. What the server says of each picture tells when the camera saw it."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    came: list[tuple[float, float]] = []  # at, lag

    def heard(text: str) -> None:
        message = json.loads(text)
        if message["type"] == "frame" and message["capture_ms"] is not None:
            came.append((time.monotonic(), time.time() * 1000 - message["capture_ms"]))

    async def consume(track: MediaStreamTrack) -> None:
        while True:
            await track.recv()

    reading: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: reading.append(asyncio.create_task(consume(track))))
    peer.addTrack(Clip(clip))
    peer.createDataChannel("visavis", ordered=False, maxRetransmits=0).on("message", heard)
    try:
        await peer.setLocalDescription(await peer.createOffer())
        body = json.dumps({"sdp": peer.localDescription.sdp, "type": "offer", **offer}).encode()
        request = urllib.request.Request(f"{url}/api/offer", body, {"Content-Type": "application/json"})
        answer = json.load(await asyncio.to_thread(urllib.request.urlopen, request, timeout=30))
        await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        await asyncio.sleep(WARM_UP_S + seconds)
    finally:
        for task in reading:
            task.cancel()
        await peer.close()
    end_s = time.monotonic()
    late = [lag for at, lag in came if at > end_s - seconds]
    if not late:
        return Watched(len(came), 0.0, float("inf"), float("inf"))
    return Watched(len(came), len(late) / seconds, float(np.median(late)), float(np.percentile(late, 95)))


def watched(url: str, clip: Path, seconds: float, offer: dict[str, object]) -> Watched:
    """`watch`, in a process of its own."""
    from streamer.webrtc import aiortc_fixes

    aiortc_fixes.apply(offer_loopback=True)
    return asyncio.run(watch(url, clip, seconds, offer))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def serving(avatar: Path) -> Generator[tuple[str, psutil.Process]]:
    """The address of a server that takes any number of calls, and its process."""
    command = [sys.executable, "-m", "streamer.cli.main", "serve", "--avatar", str(avatar), "--port", "0"]
    environment = {**os.environ, "VISAVIS_MAX_SESSIONS": "64"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1].replace("localhost", "127.0.0.1")
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def measure_several_calls(
    enrollment: Enrollment, clip: Path, folder: Path, *, generator: str, size_px: int, seconds: float
) -> list[Measured]:
    """Rate and lag of the first of 1, 2 and 4 calls of `seconds` each, and the server's CPU for each new picture."""
    avatar = folder / "several.avatar"
    save_enrollment(enrollment, avatar)
    out: list[Measured] = []
    offer: dict[str, object] = {"generator": generator, "size": size_px}
    with serving(avatar) as (url, server), ProcessPoolExecutor(max(CALLS), get_context("spawn")) as pages:
        for count in CALLS:
            before_s = _cpu_s(server)
            calls = [pages.submit(watched, url, clip, seconds, offer) for _ in range(count)]
            all_of_them = [call.result() for call in calls]
            first, pictures = all_of_them[0], sum(call.pictures for call in all_of_them)
            cpu_ms = 1e3 * (_cpu_s(server) - before_s) / max(1, pictures)
            name = f"{count} call{'s' * (count > 1)}"
            out += [
                Measured(f"calls_{count}_fps", f"{name}: new pictures of the first", first.fps, "fps"),
                Measured(
                    f"calls_{count}_cpu_ms", f"{name}: CPU of the server for a new picture", cpu_ms, "ms"
                ),
                Measured(f"calls_{count}_lag_ms", f"{name}: lag of the first, p50", first.lag_ms, "ms"),
                Measured(
                    f"calls_{count}_lag_p95_ms", f"{name}: lag of the first, p95", first.lag_p95_ms, "ms"
                ),
            ]
    return out
