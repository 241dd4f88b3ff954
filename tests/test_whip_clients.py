"""Others' clients: FFmpeg sends, GStreamer sends and plays. Each is left out, with the reason, where it is missing."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioice.ice
import av
import httpx
import psutil
import pytest
from calls import HEIGHT_PX, RED, WIDTH_PX, Camera, near, only_loopback, until
from fakes import AT_LAST_S
from raw import Running, running, write_certificate
from whip import OneWayClient

from streamer.webrtc import aiortc_fixes

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
TOKEN = "an-access-token.0"
PACKAGES = (
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-good gstreamer1.0-plugins-base gstreamer1.0-nice python3-gi "
    "gir1.2-gst-plugins-bad-1.0"
)


@pytest.fixture(autouse=True)
def fixes() -> None:
    aiortc_fixes.apply()


@pytest.fixture
def server() -> Iterator[Running]:
    with running(token=TOKEN, max_sessions=8) as server:
        yield server


@pytest.fixture
async def http(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"http://localhost:{server.port}", headers=headers) as http:
        yield http


@asynccontextmanager
async def program(*command: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_ffmpeg_sends_h264(
    server: Running, http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg → WHIP → WHEP: its pictures drive at the size at which it sends them, and its end is the session's."""
    if "whip" not in av.formats_available:
        pytest.skip("this PyAV's FFmpeg has no WHIP muxer; PyAV 18.1's has one")
    only_loopback(monkeypatch)
    cert, key = write_certificate(tmp_path / "p256")
    calls = server.app.state.service.calls
    url = f"http://localhost:{server.port}/whip/red"
    command = [sys.executable, str(HERE / "ffmpeg_whip.py"), url, TOKEN, str(cert), str(key), "512"]
    async with program(*command) as ffmpeg, OneWayClient(http) as player:
        await until(lambda: calls.connected or ffmpeg.returncode is not None, "FFmpeg to connect")
        ingest = calls.ingest("red")
        assert ingest is not None, (await ffmpeg.communicate())[1].decode()[-2000:]
        assert (await player.post("/whep/red")).status_code == 201
        await until(lambda: len(player.frames) > 30 and player.loud > 30, "pictures and sound")
        assert all(near(frame.colour, RED) for frame in player.frames[2:])
        assert ingest._worker.camera_size_px == (512, 512)
        ffmpeg.terminate()
        assert await asyncio.wait_for(ffmpeg.wait(), AT_LAST_S) == 0
        await until(lambda: not calls.sessions, "the session to end with it")


async def test_ffmpeg_without_the_token_is_refused(server: Running, tmp_path: Path) -> None:
    if "whip" not in av.formats_available:
        pytest.skip("this PyAV's FFmpeg has no WHIP muxer; PyAV 18.1's has one")
    cert, key = write_certificate(tmp_path / "p256")
    url = f"http://localhost:{server.port}/whip/red"
    command = [
        sys.executable,
        str(HERE / "ffmpeg_whip.py"),
        url,
        "another-token.0",
        str(cert),
        str(key),
        "64",
    ]
    async with program(*command) as ffmpeg:
        _, said = await asyncio.wait_for(ffmpeg.communicate(), AT_LAST_S)
    assert ffmpeg.returncode
    assert b"401" in said or b"Unauthorized" in said
    assert server.app.state.service.calls.sessions == []


def own_address() -> str | None:
    """This computer's own, which libnice wants: it leaves 127.0.0.1 out. What is sent to it stays here."""
    addresses = [
        one.address
        for interface in psutil.net_if_addrs().values()
        for one in interface
        if one.family == socket.AF_INET and not one.address.startswith("127.")
    ]
    return addresses[0] if addresses else None


@pytest.fixture
def gstreamer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of GStreamer's client."""
    command = [SYSTEM_PYTHON, str(HERE / "gstreamer_whip.py")]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=AT_LAST_S, check=False)
        missing = json.loads(asked.stdout)["missing"] if asked.returncode == 0 else ["gi"]
    except OSError:
        missing = ["python3"]
    if missing:
        pytest.skip(f"GStreamer lacks {', '.join(missing)}: apt-get install {PACKAGES}")
    address = own_address()
    if address is None:
        pytest.skip("GStreamer's ICE leaves 127.0.0.1 out, and this computer has no other address")
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [address])
    return command


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    out, err = await asyncio.wait_for(process.communicate(), AT_LAST_S)
    assert process.returncode == 0, err.decode()[-2000:]
    return json.loads(out)


async def test_gstreamer_sends_vp8(server: Running, http: httpx.AsyncClient, gstreamer: list[str]) -> None:
    """Its certificate is RSA."""
    calls = server.app.state.service.calls
    url = f"http://localhost:{server.port}/whip/red"
    async with program(*gstreamer, "whip", url, TOKEN, "6") as process, OneWayClient(http) as player:
        await until(lambda: calls.connected or process.returncode is not None, "GStreamer to connect")
        ingest = calls.ingest("red")
        assert ingest is not None, await said(process)
        assert (await player.post("/whep/red")).status_code == 201
        await until(lambda: len(player.frames) > 10 and player.loud > 10, "pictures and sound")
        assert ingest._worker.camera_size_px == (512, 512)
        told = await said(process)
        assert (told["status"], told["deleted"]) == (201, 200)
        assert "connected" in told["states"]
        assert calls.sessions == []


async def test_gstreamer_plays_vp8(server: Running, http: httpx.AsyncClient, gstreamer: list[str]) -> None:
    calls = server.app.state.service.calls
    async with OneWayClient(http, Camera()) as sender:
        await sender.post("/whip/red")
        await until(lambda: sender.pc.connectionState == "connected", "the sender to connect")
        url = f"http://localhost:{server.port}/whep/red"
        async with program(*gstreamer, "whep", url, TOKEN, "5") as process:
            told = await said(process)
        assert (told["status"], told["deleted"]) == (201, 200)
        assert told["frames"] > 10
        assert told["sizes"] == [[WIDTH_PX, HEIGHT_PX]]
        assert not calls.sessions[0].players
