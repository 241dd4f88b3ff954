"""WHIP in and WHEP out over real HTTP: a sender drives an avatar, players watch it, and nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import psutil
import pytest
from calls import (
    GREEN,
    HEIGHT_PX,
    RED,
    WIDTH_PX,
    Camera,
    Client,
    Painter,
    near,
    only_loopback,
    plain_enrollment,
    silence,
    until,
)
from fakes import AT_LAST_S
from fastapi import FastAPI
from hearing import EchoSpeech
from raw import Running, running
from whip import FRAGMENT, SDP, OneWayClient, Tone

from streamer.serve.calls import MOST_PLAYERS
from streamer.serve.capacity import USABLE_SHARE, CallKind, Capacity
from streamer.serve.service import Service
from streamer.webrtc import aiortc_fixes, hearing
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.peer import TRICKLES_AT_ONCE, Peer
from streamer.webrtc.session import GONE_AFTER_S, QUIET_AFTER_S, Session

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


async def test_players_may_put_sound_and_pictures_in_step_themselves(http: httpx.AsyncClient) -> None:
    """Immediate playout is for the page that drives: it would keep a receiver's own lip sync from working."""
    async with OneWayClient(http, Camera()) as sender, OneWayClient(http) as player:
        assert (await sender.post("/whip/red")).status_code == 201
        await until(lambda: sender.pc.connectionState == "connected", "the sender to connect")
        answer = await player.post("/whep/red")
        assert aiortc_fixes.PLAYOUT_DELAY_URI in player.pc.localDescription.sdp
        assert aiortc_fixes.PLAYOUT_DELAY_URI not in answer.text
        assert "abs-send-time" in answer.text, "the others stay"
    page, call = Client(Camera()), Session(plain_enrollment(), CallOptions(), make_avatar=Painter)  # type: ignore[arg-type]
    try:
        assert aiortc_fixes.PLAYOUT_DELAY_URI in await call.answer(await page.offer())
    finally:
        await page.close()
        await call.close()


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


def kinds_of(peer: Peer) -> set[str]:
    """Of the other end's candidates; `prflx` are those that were found by its checks."""
    transport = peer._pc.getTransceivers()[0].receiver.transport.transport
    return {candidate.type for candidate in transport.getRemoteCandidates()}


async def test_candidates_may_come_after_the_offer(http: httpx.AsyncClient, server: Running) -> None:
    """What is sent for another ICE session, or for none, is refused and changes nothing."""
    async with (
        OneWayClient(http, Camera(), trickles=True) as sender,
        OneWayClient(http, trickles=True) as player,
    ):
        assert (await sender.post("/whip/red")).status_code == 201
        assert (await sender.patch("a=candidate:nonsense\r\n")).status_code == 400
        assert (await sender.patch(sender.fragment(), If_Match='"another"')).status_code == 412
        assert (await sender.patch(sender.fragment(), If_Match=f"W/{sender.tag}")).status_code == 412
        bare = await http.patch(
            sender.location, content=sender.fragment().encode(), headers={"Content-Type": FRAGMENT}
        )
        assert bare.status_code == 428
        restarted = re.sub("a=ice-ufrag:.*", "a=ice-ufrag:another", sender.fragment())
        refused = await sender.patch(restarted, If_Match="*")
        assert refused.status_code == 422
        assert "POST" in refused.json()["error"]
        ingest = server.app.state.service.calls.ingest("red")
        assert "host" not in kinds_of(ingest.peer)
        taken = await sender.patch(sender.fragment())
        assert (taken.status_code, taken.content) == (204, b"")
        assert "host" in kinds_of(ingest.peer)
        await until(lambda: sender.pc.connectionState == "connected", "the sender to connect")
        assert (await player.post("/whep/red")).status_code == 201
        assert (await player.patch(player.fragment(), If_Match="*")).status_code == 204
        await until(lambda: player.frames, "pictures")


async def test_too_many_candidates_and_too_many_requests_are_refused(http: httpx.AsyncClient) -> None:
    async with OneWayClient(http, Camera(), trickles=True) as sender:
        await sender.post("/whip/red")

        def many(first: int) -> str:
            return "".join(f"a=candidate:1 1 udp 1 127.0.0.1 {first + k} typ host\r\n" for k in range(40))

        assert (await sender.patch(many(20_000))).status_code == 204
        assert (await sender.patch(many(30_000))).status_code == 400
        status = 400
        for _ in range(10 * TRICKLES_AT_ONCE):
            if (status := (await sender.patch(f"a={'x' * 9}")).status_code) != 400:
                break
        assert status == 429


async def test_a_session_that_is_deleted_is_free_at_once(http: httpx.AsyncClient, server: Running) -> None:
    """Its address is gone, its place is free, and with it go those who watch."""
    calls = server.app.state.service.calls
    async with OneWayClient(http, Camera()) as sender, OneWayClient(http) as player:
        await sender.post("/whip/red")
        await until(lambda: calls.connected, "the sender to connect")
        await player.post("/whep/red")
        await until(lambda: player.frames, "pictures")
        async with OneWayClient(http, Camera()) as second:
            busy = await second.post("/whip/red")
            assert busy.status_code == 409
            assert int(busy.headers["retry-after"]) > 0
        gone = await sender.delete()
        assert (gone.status_code, gone.content) == (200, b"")
        assert calls.sessions == []
        for client in (sender, player):
            assert (await client.delete()).status_code == 404
            assert (await client.patch(client.fragment())).status_code == 404
            await until(lambda c=client: c.pc.connectionState == "closed", "it to be told")
        again = OneWayClient(http, Camera())
        async with again:
            assert (await again.post("/whip/red")).status_code == 201
            assert (await again.delete()).status_code == 200


async def test_a_player_that_is_deleted_leaves_the_others(http: httpx.AsyncClient, server: Running) -> None:
    async with OneWayClient(http, Camera()) as sender, OneWayClient(http) as one, OneWayClient(http) as other:
        await sender.post("/whip/red")
        calls = server.app.state.service.calls
        await until(lambda: calls.connected, "the sender to connect")
        for player in (one, other):
            await player.post("/whep/red")
            await until(lambda p=player: p.frames, "pictures")
        assert (await one.delete()).status_code == 200
        assert len(calls.sessions[0].players) == 1
        seen = len(other.frames)
        await until(lambda: len(other.frames) > seen + 20, "pictures to go on")
        # who led is gone: latency is measured by the one that is left
        work = calls.sessions[0].work.drawn
        await until(lambda: calls.sessions[0].work.drawn > work, "what is sent to be counted")


async def test_nothing_is_drawn_for_nobody(http: httpx.AsyncClient, server: Running) -> None:
    async with OneWayClient(http, Camera()) as sender:
        await sender.post("/whip/red")
        calls = server.app.state.service.calls
        await until(lambda: calls.connected and calls.sessions[0]._worker.resting, "it to rest")
        assert not calls.sessions[0].resting, "its place is kept"
        async with OneWayClient(http) as player:
            await player.post("/whep/red")
            await until(lambda: player.frames, "pictures")
            assert not calls.sessions[0]._worker.resting
        await until(lambda: not calls.sessions[0].players, "the player to be missed")
        await until(lambda: calls.sessions[0]._worker.resting, "it to rest again")


async def test_a_microphone_alone_drives_by_voice(
    http: httpx.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "shared_speech", lambda: EchoSpeech())
    async with OneWayClient(http, sound=Tone()) as sender, OneWayClient(http) as player:
        assert (await sender.post("/whip/red")).status_code == 201
        calls = server.app.state.service.calls
        await until(lambda: calls.connected, "the sender to connect")
        assert calls.sessions[0].options.drive == "voice"
        await player.post("/whep/red")
        await until(lambda: len(player.frames) > 5 and player.loud > 5, "pictures and sound")


async def test_the_demo_can_be_played_and_nothing_else_without_a_sender(
    http: httpx.AsyncClient, server: Running
) -> None:
    async with OneWayClient(http) as player:
        nobody = await player.post("/whep/green")
        assert nobody.status_code == 409
        assert int(nobody.headers["retry-after"]) > 0
        assert (await player.post("/whep/green?drive=demo")).status_code == 201
        await until(lambda: len(player.frames) > 10, "pictures of the demo")
        assert near(player.frames[-1].colour, GREEN)
        assert (await player.delete()).status_code == 200
        assert server.app.state.service.calls.sessions == []


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_both_codecs_are_taken_and_given(http: httpx.AsyncClient, codec: str) -> None:
    async with OneWayClient(http, Camera(), only=codec) as sender, OneWayClient(http, only=codec) as player:
        answer = await sender.post("/whip/red?size=96")
        other = {"VP8": "H264", "H264": "VP8"}[codec]
        assert f"{codec}/90000" in answer.text
        assert f"{other}/90000" not in answer.text
        await until(lambda: sender.pc.connectionState == "connected", "the sender to connect")
        assert f"{codec}/90000" in (await player.post("/whep/red")).text
        await until(lambda: len({f.number for f in player.frames}) > 10, "pictures")
        assert player.sizes == {(WIDTH_PX, HEIGHT_PX)}


async def test_a_sender_that_comes_back_takes_the_place_of_its_silent_self(
    http: httpx.AsyncClient, server: Running
) -> None:
    calls = server.app.state.service.calls
    async with OneWayClient(http, Camera()) as first, OneWayClient(http, Camera()) as second:
        await first.post("/whip/red")
        await until(lambda: calls.connected, "the first to connect")
        earlier = calls.sessions[0]
        silence(first.pc)
        await until(lambda: earlier.quiet_s > QUIET_AFTER_S / 3, "what was on its way to have come")
        earlier._peer._bounds.heard_ns -= int(QUIET_AFTER_S * 1e9)
        assert earlier.resting
        assert (await second.post("/whip/red")).status_code == 201
        assert earlier.ending, "at once, and not when it has been silent for long enough"
        assert calls.ingest("red") is not earlier


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/whip/red", "/whep/red", "/whip/red/x", "/whep/red/x"])
async def test_the_token_is_needed_everywhere(server: Running, path: str) -> None:
    for token in ("a", "another-token.000"):
        async with client_of(server, token) as stranger:
            for method in ("POST", "PATCH", "DELETE", "OPTIONS", "GET"):
                kind = SDP if method == "POST" else FRAGMENT
                answer = await stranger.request(method, path, content=b"v=0", headers={"Content-Type": kind})
                assert answer.status_code == 401, method
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/whip/red", "/whep/red"])
async def test_what_is_no_offer_is_refused_by_its_own_status(http: httpx.AsyncClient, path: str) -> None:
    async def post(content: bytes, **headers: str) -> int:
        named = {"Content-Type": SDP} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await http.post(path, content=content, headers=named)
        assert set(answer.json()) - {"what"} == {"error"}
        return answer.status_code

    async with OneWayClient(http, Camera()) as sender, OneWayClient(http) as player:
        right, wrong = (sender, player) if "whip" in path else (player, sender)
        honest, other = (await right.offer()).encode(), (await wrong.offer()).encode()
    assert await post(honest, Content_Type="application/json") == 415
    assert await post(honest, Accept="text/html") == 406
    assert await post(honest, Origin="https://elsewhere.example") == 403
    assert await post(b"\xff\xfe") == 400
    assert await post(b"v=0\r\n") in (400, 422)
    assert await post(other) == 422, "the other way round"
    assert await post(honest.replace(b"sendonly", b"inactive").replace(b"recvonly", b"inactive")) == 422
    assert await post(re.sub(rb"a=ice-pwd.*\r\n", b"", honest)) == 400
    assert await post(honest + b" " * (70 << 10)) == 413
    unknown = re.sub(rb" (VP8|H264)/", b" AV1/", honest)
    if "whip" in path:
        assert await post(unknown) == 422
    assert (await http.post(f"{path}r", content=honest, headers={"Content-Type": SDP})).status_code == 404
    assert (
        await http.post(f"{path}?size=9", content=honest, headers={"Content-Type": SDP})
    ).status_code == 422
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        assert (await http.request(method, path)).status_code == 405, method
    for method in ("GET", "HEAD", "PUT", "POST"):
        assert (await http.request(method, f"{path}/x")).status_code == 405, method
    asked = await http.options(path)
    assert asked.status_code == 204
    assert asked.headers["accept-post"] == SDP
    assert (await http.options(f"{path}/x")).headers["accept-patch"] == FRAGMENT


async def test_a_full_server_says_when_to_come_again() -> None:
    with running(token=TOKEN, max_sessions=1) as server:
        async with (
            client_of(server) as http,
            OneWayClient(http, Camera()) as one,
            OneWayClient(http, Camera()) as two,
        ):
            await one.post("/whip/red")
            await until(lambda: one.pc.connectionState == "connected", "the first to connect")
            full = await two.post("/whip/green")
            assert full.status_code == 503
            assert int(full.headers["retry-after"]) > 0
            players: list[OneWayClient] = [OneWayClient(http) for _ in range(MOST_PLAYERS + 1)]
            try:
                statuses = [(await player.post("/whep/red")).status_code for player in players[:-1]]
                assert statuses == [201] * MOST_PLAYERS
                for player in players[:-1]:
                    await until(lambda p=player: p.pc.connectionState == "connected", "a player to connect")
                last = await players[-1].post("/whep/red")
                assert last.status_code == 503
                assert int(last.headers["retry-after"]) > 0
            finally:
                for player in players:
                    await player.close()


async def test_players_count_when_it_is_asked_whether_there_is_room(
    http: httpx.AsyncClient, server: Running
) -> None:
    """The first call always may; who watches it costs a core's share, which is not there, or is no longer."""
    calls = server.app.state.service.calls
    calls._limit = None
    async with OneWayClient(http, Camera()) as sender, OneWayClient(http) as one, OneWayClient(http) as other:
        calls.capacity = Capacity(0.1)
        await sender.post("/whip/red")
        await until(lambda: calls.connected, "the sender to connect")
        refused = await one.post("/whep/red")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        options = calls.sessions[0].options
        needed = CallKind.of(options).guessed_cores + 1.5 * CallKind.watching(options).guessed_cores
        calls.capacity = Capacity(needed / USABLE_SHARE)
        assert (await one.post("/whep/red")).status_code == 201
        assert (await other.post("/whep/red")).status_code == 503


async def test_players_that_never_come_give_way_to_one_that_does(
    http: httpx.AsyncClient, server: Running
) -> None:
    async with (
        OneWayClient(http, Camera()) as sender,
        OneWayClient(http) as dead,
        OneWayClient(http) as player,
    ):
        await sender.post("/whip/red")
        await until(lambda: sender.pc.connectionState == "connected", "the sender to connect")
        offer = await dead.offer()
        calls = server.app.state.service.calls
        for _ in range(MOST_PLAYERS + 3):
            answer = await http.post("/whep/red", content=offer.encode(), headers={"Content-Type": SDP})
            assert answer.status_code == 201
            await until(lambda: len(calls.sessions[0].players) <= MOST_PLAYERS, "the oldest to go")
        assert (await player.post("/whep/red")).status_code == 201
        await until(lambda: player.frames, "pictures")


async def test_links_to_ice_servers_are_told_where_there_are_any() -> None:
    def with_servers(app: FastAPI) -> None:
        """Told to others, and not asked by this test's own calls."""
        service: Service = app.state.service
        told = {"stun": "stun:192.0.2.9", "turn": "turn:b", "turn_user": "u", "turn_password": "p"}
        app.state.service = replace(service, settings=service.settings.model_copy(update=told))

    with running(change=with_servers) as server:
        async with client_of(server) as http, OneWayClient(http, Camera()) as sender:
            answer = await sender.post("/whip/red")
            assert answer.headers.get_list("link") == [
                '<stun:192.0.2.9:3478>; rel="ice-server"',
                '<turn:b:3478?transport=udp>; rel="ice-server"; username="u"; credential="p"; '
                'credential-type="password"',
            ]


# --- what stays -----------------------------------------------------------------------------------------


def of_the_server(server: Running) -> tuple[int, int, int]:
    """This process' descriptors and threads, but those that a loop keeps for the next call; the server's tasks."""
    counted: list[int] = []
    done = threading.Event()

    def count() -> None:
        counted.append(len(asyncio.all_tasks()))
        done.set()

    server.run(count)
    assert done.wait(AT_LAST_S)
    threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio_")]
    return psutil.Process().num_fds(), len(threads), counted[0]


@pytest.mark.slow
async def test_nothing_of_sessions_stays(http: httpx.AsyncClient, server: Running) -> None:
    """They end by DELETE of either, by a sender that hangs up, or by one that is gone without a word."""
    calls = server.app.state.service.calls

    async def one(how: str) -> None:
        async with OneWayClient(http, Camera(), sound=Tone()) as sender, OneWayClient(http) as player:
            await sender.post("/whip/red")
            await until(lambda: calls.connected, "the sender to connect")
            await player.post("/whep/red")
            await until(lambda: player.frames, "pictures")
            session = calls.sessions[0]
            if how == "delete both":
                assert (await player.delete()).status_code == 200
            if how.startswith("delete"):
                assert (await sender.delete()).status_code == 200
            elif how == "gone":
                silence(sender.pc)

                def gone() -> bool:
                    session._peer._bounds.heard_ns -= int(GONE_AFTER_S * 1e9)
                    return session.closed

                await until(gone, "it to be missed")
        await until(lambda: not calls.sessions, "the session to end")

    await one("delete")
    before = of_the_server(server)
    for how in ("delete both", "delete", "hang up", "gone", "delete"):
        await one(how)

    def left() -> bool:
        gc.collect()
        now = of_the_server(server)
        return all(a <= b for a, b in zip(now, before, strict=True))

    await until(left, f"all to be as it was: {before}, now {of_the_server(server)}")
