"""What calls leave behind in a server: descriptors, threads and memory before and after many, half of them abrupt.

    python -m scripts.measure.connects --calls 200 [--avatar me.avatar]

The server is a process of its own; without an avatar it draws plain pictures and needs no models. An abrupt end is a
browser that is killed: its sockets are gone, and nothing is said.
"""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none
# (a killed browser is not among what aiortc offers)

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from aiortc import RTCSessionDescription

from scripts.measure.flash import FlashCamera, Flasher, Tape, Watcher, beeps, nobody
from scripts.measure.skew_page import serving
from scripts.measure.watched_server import running_in, tell_when_asked
from streamer.serve.app import create_app
from streamer.serve.config import ServeSettings
from streamer.serve.store import AvatarStore
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.session import GONE_AFTER_S

WARM_UP_CALLS = 24  # what is loaded once, the threads of executors, and the most that is ever at once
AT_ONCE = 4
PICTURES_S = 1.0  # how long each call lasts once it has a picture
CALM_S = GONE_AFTER_S + 4.0
AT_LAST_S = 60.0


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds; `threads` without those that asyncio keeps for what blocks."""

    descriptors: int
    threads: int
    rss_mb: float

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.rss_mb:.0f} MB"


def held_by(process: psutil.Process, counts: Path) -> Held:
    """Now, of a server that tells it in `counts`."""
    return Held(process.num_fds(), running_in(process, counts)["threads"], process.memory_info().rss / 1e6)


async def call(http: httpx.AsyncClient, *, is_abrupt: bool) -> str | None:
    """One call of a camera and a microphone, which shows pictures for a while and ends; why it could not be."""
    samples, begins = beeps(2.0)
    tape = Tape(samples)
    watcher = Watcher([tape, FlashCamera(tape, begins)])
    try:
        await watcher.pc.setLocalDescription(await watcher.pc.createOffer())
        offer = {"sdp": watcher.pc.localDescription.sdp, "type": "offer"}
        answer = await http.post("/api/offer", json=offer)
        deadline_s = time.monotonic() + AT_LAST_S
        # those that were killed keep their place for a while
        while answer.status_code == 503 and time.monotonic() < deadline_s:
            await asyncio.sleep(1.0)
            answer = await http.post("/api/offer", json=offer)
        told = answer.json()
        if not answer.is_success:
            return str(told.get("error", answer.status_code))
        await watcher.pc.setRemoteDescription(RTCSessionDescription(told["sdp"], "answer"))
        deadline_s = time.monotonic() + AT_LAST_S
        while not watcher.pictures and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        await asyncio.sleep(PICTURES_S)
        if is_abrupt:
            kill(watcher)
    finally:
        await watcher.close()
    return None


class _Gone:
    """A socket that is no more: what is still said goes nowhere."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def sendto(self, *_: object) -> None:
        """Lost."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def kill(watcher: Watcher) -> None:
    """Its sockets are gone before it can say anything."""
    transports = {t.receiver.transport.transport for t in watcher.pc.getTransceivers()}
    for transport in transports:
        for protocol in transport._connection._protocols:
            socket, protocol.transport = protocol.transport, _Gone(protocol.transport)
            socket.abort()


async def calls(url: str, count: int) -> Counter[str]:
    """So many calls, some at once, every other one abrupt. What those that could not be were refused with."""
    refused: Counter[str] = Counter()
    gate = asyncio.Semaphore(AT_ONCE)
    # a connection that is kept may be closed just as the next offer begins
    once = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=AT_LAST_S, limits=once) as http:

        async def one(number: int) -> None:
            async with gate:
                why = await call(http, is_abrupt=number % 2 == 1)
                refused.update([] if why is None else [why])

        await asyncio.gather(*(one(number) for number in range(count)))
    return refused


@contextmanager
def server(avatar: Path | None, counts: Path) -> Generator[tuple[str, int]]:
    """A server in a process of its own, which tells what runs in it in `counts`: where it is, and its pid."""
    own = [sys.executable, "-m", "scripts.measure.connects", "--serve", str(counts)]
    real = [sys.executable, "-m", "scripts.measure.watched_server", str(counts)]
    real += ["serve", "--port", "0", "--avatar", str(avatar)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "VISAVIS_MAX_SESSIONS": str(4 * AT_ONCE)}
    command = own if avatar is None else real
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        url = next((found[1] for line in process.stdout if (found := re.search(r"ready: (\S+)", line))), None)
        if url is None:
            raise RuntimeError("the server did not start")
        threading.Thread(target=lambda: [*process.stdout], daemon=True).start()  # type: ignore[misc]
        yield url.replace("localhost", "127.0.0.1"), process.pid
    finally:
        process.terminate()
        process.wait(AT_LAST_S)


def measured(count: int, avatar: Path | None = None) -> tuple[Held, Held]:
    """What a server holds before so many calls, and after them."""
    with TemporaryDirectory() as folder, server(avatar, counts := Path(folder) / "counts.json") as (url, pid):
        process = psutil.Process(pid)
        asyncio.run(calls(url, WARM_UP_CALLS))
        time.sleep(CALM_S)
        before = held_by(process, counts)
        for why, times in asyncio.run(calls(url, count)).items():
            print(f"{times} calls could not be: {why}")
        deadline_s = time.monotonic() + AT_LAST_S
        time.sleep(CALM_S)
        while time.monotonic() < deadline_s:
            after = held_by(process, counts)
            if after.descriptors <= before.descriptors and after.threads <= before.threads:
                break
            time.sleep(1.0)
        return before, held_by(process, counts)


def _serve(counts: Path) -> None:
    tell_when_asked(counts)
    store = AvatarStore()
    store.add_public(nobody())
    settings = ServeSettings(max_sessions=4 * AT_ONCE)
    aiortc_fixes.apply(offer_loopback=True)
    app = create_app(settings, store, make_avatar=lambda session: Flasher(session, 5.0))  # type: ignore[arg-type, return-value]
    with serving(app) as url, contextlib.suppress(KeyboardInterrupt):
        print(f"ready: {url}", flush=True)
        threading.Event().wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when descriptors and threads are back where they began, and memory within a tenth."""
    parser = argparse.ArgumentParser(prog="python -m scripts.measure.connects")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--avatar", type=Path, default=None, help="an .avatar file, for the real server")
    parser.add_argument("--serve", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        _serve(options.serve)
        return 0
    aiortc_fixes.apply(offer_loopback=True)
    before, after = measured(options.calls, options.avatar)
    print(f"before: {before}\nafter {options.calls} calls, half of them abrupt: {after}")
    is_back = after.descriptors <= before.descriptors and after.threads <= before.threads
    return 0 if is_back and after.rss_mb <= 1.1 * before.rss_mb else 1


if __name__ == "__main__":
    sys.exit(main())
