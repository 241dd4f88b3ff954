"""Somebody in a call while a server is attacked: a process of its own, so that the attacker does not slow it down.

`python victim.py URL` calls, lets the demo move the avatar, and prints one line per picture: when it came, on the
clock that all processes of a computer share. `Victim` starts that and reads it.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from fakes import AT_LAST_S


class Victim:
    """When each picture of its call came, seconds of `time.monotonic`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.came_s: list[float] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.came_s.append(float(line))

    def sees(self, more: int) -> None:
        """Wait for so many more pictures; fails when they do not come."""
        wanted, end_s = len(self.came_s) + more, time.monotonic() + AT_LAST_S
        while len(self.came_s) < wanted:
            assert self.process.poll() is None, "the call ended"
            assert time.monotonic() < end_s, f"{len(self.came_s)} of {wanted} pictures came"
            time.sleep(0.02)

    def gaps_s(self, since_s: float, until_s: float) -> list[float]:
        """From picture to picture between two moments, the shortest first."""
        came_s = [t for t in list(self.came_s) if since_s <= t <= until_s]
        edges = [since_s, *came_s, until_s]
        return sorted(b - a for a, b in itertools.pairwise(edges))


@contextmanager
def calling(url: str) -> Generator[Victim]:
    """A victim whose pictures come; the call is hung up at the end."""
    process = subprocess.Popen(
        [sys.executable, __file__, url], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    victim = Victim(process)
    try:
        victim.sees(60)
        yield victim
    finally:
        process.kill()
        process.wait()


async def _call(url: str) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.createDataChannel("visavis", ordered=False, maxRetransmits=0)
    peer.addTransceiver("video", direction="recvonly")
    ended = asyncio.Event()

    async def watch(track: MediaStreamTrack) -> None:
        try:
            while True:
                if isinstance(await track.recv(), av.VideoFrame):
                    print(time.monotonic(), flush=True)
        except MediaStreamError:
            ended.set()

    watching: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: watching.append(asyncio.ensure_future(watch(track))))
    await peer.setLocalDescription(await peer.createOffer())
    async with httpx.AsyncClient(base_url=url, timeout=AT_LAST_S) as http:
        offer = {"sdp": peer.localDescription.sdp, "type": "offer", "drive": "demo", "generator": "geometric"}
        answer = await http.post("/api/offer", json=offer)
        answer.raise_for_status()
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer.json()["sdp"], type="answer"))
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_call(sys.argv[1]))
