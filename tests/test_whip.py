"""WHIP in and WHEP out over real HTTP: a sender drives an avatar, players watch it, and nothing of them stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from calls import GREEN, RED, Camera, Client, near, only_loopback, until
from raw import Running, running
from whip import SDP, OneWayClient, Tone

from streamer.webrtc import aiortc_fixes

TOKEN = "an-access-token.0"


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)


@pytest.fixture
def server() -> Iterator[Running]:
    with running(token=TOKEN, max_sessions=8) as server:
        yield server


@pytest.fixture
async def http(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(server) as http:
        yield http


def client_of(server: Running, token: str = TOKEN) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"http://localhost:{server.port}", headers=headers, timeout=30)


async def test_what_a_sender_sends_drives_what_players_see(http: httpx.AsyncClient) -> None:
    camera = Camera()
    async with (
        OneWayClient(http, camera, sound=Tone()) as sender,
        OneWayClient(http) as one,
        OneWayClient(http) as other,
    ):
        answer = await sender.post("/whip/red")
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"] == SDP
        assert answer.headers["location"].startswith("/whip/red/")
        assert "access-control-allow-origin" not in answer.headers
        assert "a=recvonly" in answer.text
        assert "a=send" not in answer.text
        await until(lambda: sender.pc.connectionState == "connected", "the sender to connect")
        assert (await one.post("/whep/red")).status_code == 201
        assert (await other.post("/whep/red")).status_code == 201
        for player in (one, other):
            await until(lambda p=player: len({f.number for f in p.frames}) > 20, "pictures")
            await until(lambda p=player: p.loud > 20, "the sender's sound")
            assert all(near(f.colour, RED) for f in player.frames[2:]), "the avatar and never the camera"
            newest = len(camera.sent_s)
            assert (newest - player.frames[-1].number) % 256 < 60, "the picture that was sent just now"


async def test_a_call_is_pushed_to_another_server(http: httpx.AsyncClient, server: Running) -> None:
    """A page's call on one server, pushed to another one, watched there; and the end of it is told."""
    url = f"http://localhost:{server.port}/whip/green"
    with running(publish=url, publish_token=TOKEN) as pushing:
        page = Client(Camera(), audio=True)
        async with httpx.AsyncClient(base_url=f"http://localhost:{pushing.port}") as near_by:
            body = {"sdp": await page.offer(), "type": "offer"}
            await page.accept((await near_by.post("/api/offer", json=body)).json()["sdp"])
            ingests = server.app.state.service.calls.sessions
            await until(lambda: any(s.connected for s in ingests), "the other server to be reached")
            async with OneWayClient(http) as player:
                assert (await player.post("/whep/green")).status_code == 201
                await until(lambda: len({f.number for f in player.frames}) > 20, "pictures there")
                assert all(near(f.colour, GREEN) for f in player.frames[2:])
                await page.close()
                await until(lambda: not ingests, "the other server to be told of the end")
