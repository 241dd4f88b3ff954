"""A page tests its way to the server: packets that come back, relays that let in, and bounds on who asks."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aioice.ice
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from calls import only_loopback
from fakes import AT_LAST_S
from test_server import error_of, serving

from streamer.clock import SystemClock
from streamer.serve.reach import MOST_TESTS
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.ice import IceServer, IceSettings, read_ice
from streamer.webrtc.offer_sdp import OfferError, check_offer
from streamer.webrtc.peer import configuration_of
from streamer.webrtc.reach_peer import MOST_ECHO_CHARS, MOST_ECHOES, ReachPeer


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


class Visitor:
    """A browser's part: a data channel, and what comes back on it."""

    def __init__(self, servers: list[IceServer] | None = None) -> None:
        configuration = configuration_of(servers) if servers else RTCConfiguration(iceServers=[])
        self.pc = RTCPeerConnection(configuration)
        self.channel = self.pc.createDataChannel("reach", ordered=False, maxRetransmits=0)
        self.back: asyncio.Queue[str] = asyncio.Queue()
        self.open = asyncio.Event()
        self.shut = asyncio.Event()
        self.channel.on("open", self.open.set)
        self.channel.on("close", self.shut.set)
        self.channel.on("message", self.back.put_nowait)

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def meet(self, peer: ReachPeer) -> None:
        answer = await peer.answer(await self.offer())
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(AT_LAST_S):
            await self.open.wait()


@asynccontextmanager
async def visiting(servers: list[IceServer] | None = None) -> AsyncGenerator[Visitor]:
    visitor = Visitor(servers)
    try:
        yield visitor
    finally:
        await visitor.pc.close()


class Hours:
    """Sleeps until it is told that the time is over."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def __call__(self, _: float) -> None:
        await self.over.wait()


def test_what_is_said_comes_back_and_the_end_is_the_servers() -> None:
    async def go() -> None:
        gone: list[ReachPeer] = []
        hours = Hours()
        peer = ReachPeer(SystemClock(), IceSettings(), sleep=hours, on_closed=gone.append)
        async with visiting() as visitor:
            await visitor.meet(peer)
            for text in ("0", "1", "x" * MOST_ECHO_CHARS):
                visitor.channel.send(text)
                assert await asyncio.wait_for(visitor.back.get(), AT_LAST_S) == text
            visitor.channel.send("x" * (MOST_ECHO_CHARS + 1))
            visitor.channel.send("after")
            assert await asyncio.wait_for(visitor.back.get(), AT_LAST_S) == "after", (
                "what is long is left out"
            )
            assert not gone
            hours.over.set()
            async with asyncio.timeout(AT_LAST_S):
                await visitor.shut.wait()
            await peer.close()
            assert gone == [peer]

    asyncio.run(go())


def test_who_talks_on_and_on_is_hung_up() -> None:
    async def go() -> None:
        peer = ReachPeer(SystemClock(), IceSettings(), sleep=Hours())
        async with visiting() as visitor:
            await visitor.meet(peer)
            async with asyncio.timeout(AT_LAST_S):
                while not visitor.shut.is_set():
                    for _ in range(MOST_ECHOES if visitor.channel.readyState == "open" else 0):
                        visitor.channel.send("again")
                    await asyncio.sleep(0.02)
        await peer.close()

    asyncio.run(go())


def test_nonsense_frees_what_it_took() -> None:
    async def go() -> None:
        gone: list[ReachPeer] = []
        peer = ReachPeer(SystemClock(), IceSettings(), on_closed=gone.append)
        with pytest.raises(OfferError):
            await peer.answer("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n")
        assert gone == [peer]

    asyncio.run(go())


async def data_offer() -> str:
    async with visiting() as visitor:
        return await visitor.offer()


def test_the_page_is_told_servers_and_ports() -> None:
    given: dict[str, Any] = {
        "stun": "stun:s.example",
        "turn": "turn:t.example",
        "turn_secret": "secret",
        "udp_ports": "50000-50010",
    }
    with serving(**given) as client:
        told = client.get("/api/ice").json()
        assert told["udp_ports"] == "50000-50010"
        assert told["ice_servers"][0] == {"urls": ["stun:s.example:3478"]}
        turn = told["ice_servers"][1]
        assert turn["urls"] == ["turn:t.example:3478?transport=udp"]
        assert turn["username"].split(":")[1].startswith("page-")
        assert "secret" not in str(told)
        assert client.get("/api/ice").json()["ice_servers"][1]["username"] != turn["username"]
    aioice.ice.asyncio = asyncio  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
    with serving(token="123456789abc") as client:
        assert client.get("/api/ice").status_code == 401
        assert client.post("/api/connection-test", json={}).status_code == 401


def test_a_test_takes_no_calls_place_and_only_a_few_are_made_at_once() -> None:
    sdp = asyncio.run(data_offer())
    check_offer(sdp, "test")
    with pytest.raises(OfferError, match="no video section"):
        check_offer(sdp)
    with serving(max_sessions=1) as client:
        for _ in range(MOST_TESTS):
            answered = client.post("/api/connection-test", json={"sdp": sdp, "type": "offer"})
            assert answered.status_code == 200
            assert "a=candidate:" in answered.json()["sdp"]
        refused = client.post("/api/connection-test", json={"sdp": sdp, "type": "offer"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert "testing their connection" in error_of(refused)
        assert client.get("/api/health").json()["sessions"] == 0
        nonsense = client.post("/api/connection-test", json={"sdp": "v=0\r\n", "type": "offer"})
        assert nonsense.status_code == 400
        assert "application" in error_of(nonsense)


# --- a real relay ------------------------------------------------------------------------------------

SECRET = "a secret that the relay shares"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[int]:
    """coturn on loopback; the port it listens on."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("no turnserver here: `apt install coturn` tests calls through a real relay")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    told = [
        program, "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}", "--no-tls",
        "--no-dtls", "--no-cli", "--allow-loopback-peers", "--fingerprint", "--use-auth-secret",
        f"--static-auth-secret={SECRET}", "--realm=visavis", "--log-file=stdout", "--min-port=49160",
        "--max-port=49199", f"--pidfile={tmp_path / 'pid'}", f"--userdb={tmp_path / 'db'}",
    ]  # fmt: skip
    process = subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(AT_LAST_S)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_where_udp_is_blocked_a_relay_carries_it(
    relay: int, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visitor has no address of its own to offer; who does not know the secret gets nowhere."""

    async def relayed(secret: str) -> bool:
        url = f"turn:127.0.0.1:{relay}?transport={transport}"
        settings = read_ice("", url, None, None, secret, None)
        async with visiting(settings.servers(2e9, "page-1")) as visitor:
            monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: [])
            offered = await visitor.offer()
            only_loopback(monkeypatch)
            if " typ relay" not in offered:
                return False
            assert " typ host" not in offered
            peer = ReachPeer(SystemClock(), IceSettings(), sleep=Hours())
            answer = await peer.answer(offered)
            await visitor.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            async with asyncio.timeout(AT_LAST_S):
                await visitor.open.wait()
                visitor.channel.send("hello")
                assert await visitor.back.get() == "hello"
            await peer.close()
            return True

    async def go() -> None:
        async with asyncio.timeout(AT_LAST_S):
            while not await relayed(SECRET):  # until it listens
                await asyncio.sleep(0.2)
        assert not await relayed("another secret")

    asyncio.run(go())
