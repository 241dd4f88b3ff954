"""`visavis serve` as a process: how it starts, refuses to start, and ends with a call in progress."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from calls import Camera, Client, only_loopback, until
from fakes import AT_LAST_S

from engines.enrollment import Enrollment, save_enrollment
from streamer.serve.listener import listen
from streamer.webrtc import aiortc_fixes

COMMAND = [sys.executable, "-m", "streamer.cli.main"]
END_WITHIN_MS = 3000.0
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_")}


pytestmark = pytest.mark.slow  # real processes


@pytest.fixture(scope="module")
def avatar(astronaut: Enrollment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "astronaut.avatar"
    save_enrollment(astronaut, path)
    return path


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class Server:
    """A running `visavis serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.port = httpx.URL(url).port or 0
        self.url = f"http://127.0.0.1:{self.port}"

    def end(self, how: signal.Signals) -> int:
        """Exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout=AT_LAST_S)


@contextmanager
def serving(avatar: Path, *more: str, port: int = 0) -> Generator[Server]:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--avatar", str(avatar), "--port", str(port), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        assert process.stdout
        lines: queue.Queue[str] = queue.Queue()
        stdout = process.stdout
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        line = lines.get(timeout=AT_LAST_S)
        assert "ready" in line, process.stderr and process.stderr.read()
        yield Server(process, line.split()[-1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=AT_LAST_S)


async def call(url: str, client: Client, **options: object) -> None:
    body = {"sdp": await client.offer(), "type": "offer", "size": 256, **options}
    async with httpx.AsyncClient(timeout=AT_LAST_S) as http:
        answer = await http.post(f"{url}/api/offer", json=body)
        assert answer.status_code == 200, answer.text
    await client.accept(answer.json()["sdp"])
    await until(lambda: len(client.frames) > 10, "pictures")


async def sessions(url: str) -> int:
    async with httpx.AsyncClient(timeout=AT_LAST_S) as http:
        return (await http.get(f"{url}/api/health")).json()["sessions"]


async def ended(server: Server, how: signal.Signals) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, server.end, how)


async def test_sigterm_ends_a_call_in_progress_and_the_port_is_free_at_once(avatar: Path) -> None:
    with serving(avatar) as server:
        first = Client(Camera(), audio=True)
        await call(server.url, first, drive="webcam")
        await first.close()
        deadline_s = time.monotonic() + AT_LAST_S
        while await sessions(server.url):
            assert time.monotonic() < deadline_s, "a call that was hung up is still there"
            await asyncio.sleep(0.05)
        second = Client(Camera(), audio=True)
        await call(server.url, second, drive="webcam")
        watching = Client()
        await call(server.url, watching, drive="demo")
        assert await sessions(server.url) == 2
        assert await ended(server, signal.SIGTERM) == 0
        assert server.process.stderr
        assert server.process.stderr.read() == ""
        with socket.socket() as again:  # without SO_REUSEADDR only what still listens would be in the way
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", server.port))
        await second.close()
        await watching.close()
    with serving(avatar, port=server.port) as successor:
        assert successor.port == server.port
        third = Client()
        await call(successor.url, third, drive="demo")
        # the hard case: the page goes away in the very moment in which the server is told to end
        closing = asyncio.ensure_future(third.close())
        await asyncio.sleep(0.02)
        assert await ended(successor, signal.SIGTERM) == 0
        await closing


@pytest.mark.timing
async def test_a_call_in_progress_ends_with_its_server_in_three_seconds(avatar: Path) -> None:
    with serving(avatar) as server:
        client = Client(Camera(), audio=True)
        await call(server.url, client, drive="webcam")
        begin_s = time.monotonic()
        assert await ended(server, signal.SIGTERM) == 0
        took_ms = 1e3 * (time.monotonic() - begin_s)
        await client.close()
    print(f"\nSIGTERM with a call: ended in {took_ms:.0f} ms")
    assert took_ms < END_WITHIN_MS


def test_ctrl_c_ends_the_server_too(avatar: Path) -> None:
    with serving(avatar, "--token", "s3cret-s3cret") as server:
        assert server.end(signal.SIGINT) == 130
        assert server.process.stderr
        assert server.process.stderr.read().strip() == "visavis: stopped"


def refused(*arguments: str) -> str:
    """The one line that `visavis serve` ends with."""
    done = subprocess.run(
        [*COMMAND, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=AT_LAST_S,
        env=ENVIRONMENT,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("visavis: ")
    return line


def test_a_taken_port_is_one_clear_line() -> None:
    with listen("127.0.0.1", 0) as taken:  # as another server has it that is still starting
        port = taken.getsockname()[1]
        line = refused("--port", str(port))
    assert str(port) in line
    assert "--port" in line


def test_other_computers_are_let_in_only_with_a_token() -> None:
    for host in ("0.0.0.0", "::"):
        line = refused("--host", host, "--port", "0")
        assert "--token" in line
        assert host in line


def test_https_wants_both_files() -> None:
    assert "--tls-key" in refused("--port", "0", "--tls-cert", "cert.pem")


def test_an_avatar_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "none.avatar" in refused("--port", "0", "--avatar", str(tmp_path / "none.avatar"))
