"""The relay between real peers: every packet goes through it, faults and all, and nothing is left of it."""

# pyright: reportPrivateUsage=none, reportAttributeAccessIssue=none

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from calls import Camera, Client, Painter, always_in_time, only_loopback, plain_enrollment, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from scripts.measure.bad_link import BadLink, Faults
from scripts.measure.relay_proxy import RelayProxy, faults_of, parse, rewritten
from scripts.measure.udp_relay import Address, Candidate, UdpRelay, with_candidates
from streamer.webrtc import aiortc_fixes
from streamer.webrtc.call_options import CallOptions
from streamer.webrtc.session import Session

HOST = "a=candidate:1 1 UDP 2130706431 192.0.2.7 50000 typ host generation 0"
REFLEXIVE = "a=candidate:2 1 udp 1694498815 198.51.100.1 50001 typ srflx raddr 192.0.2.7 rport 50000"


def test_the_address_of_a_candidate_changes_and_its_rest_stays() -> None:
    assert Candidate(HOST).address == ("192.0.2.7", 50000)
    assert Candidate(HOST).at(("127.0.0.1", 9)) == (
        "a=candidate:1 1 UDP 2130706431 127.0.0.1 9 typ host generation 0"
    )
    assert Candidate(REFLEXIVE).at(("127.0.0.1", 9)) == (
        "a=candidate:2 1 udp 1694498815 127.0.0.1 9 typ srflx raddr 0.0.0.0 rport 0"
    )


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:1 1 tcp 1 192.0.2.7 9 typ host tcptype active",
        "a=candidate:1 1 udp 1 f00d.local 9 typ host",
        "a=candidate:1 1 udp 1 2001:db8::1 9 typ host",
        "a=candidate:1 1 udp 1 192.0.2.7 port typ host",
        "a=candidate:1 1 udp",
    ],
)
def test_a_candidate_that_the_relay_cannot_stand_for(line: str) -> None:
    assert Candidate(line).address is None


async def face(address: Address) -> Address:
    return "127.0.0.1", address[1] + 1


async def test_sdp_keeps_all_but_its_candidates() -> None:
    sdp = f"v=0\r\nm=audio 9 X\r\n{HOST}\r\na=candidate:1 1 tcp 1 192.0.2.7 9 typ host\r\na=end-of-candidates\r\n"
    changed = await with_candidates(sdp, face)
    assert changed == sdp.replace("192.0.2.7 50000", "127.0.0.1 50001").replace(
        "a=candidate:1 1 tcp 1 192.0.2.7 9 typ host\r\n", ""
    )


class Echo(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.came: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.came.append(data)
        if data.startswith(b"?"):
            self.transport.sendto(data[1:], addr)


async def echo() -> tuple[Echo, Address]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    return protocol, transport.get_extra_info("sockname")


async def test_two_senders_each_get_their_answers() -> None:
    relay = UdpRelay(BadLink(), BadLink())
    callee, real = await echo()
    callers = [(await echo())[0] for _ in range(2)]
    line = f"a=candidate:1 1 udp 1 {real[0]} {real[1]} typ host\r\n"
    answer = await relay.answer(line)
    assert answer == await relay.answer(line), "one face for each address"
    shown = Candidate(answer.strip()).address
    assert shown is not None
    assert shown != real
    for name, caller in zip((b"a", b"b"), callers, strict=True):

        def heard(caller: Echo = caller, name: bytes = name) -> bool:
            caller.transport.sendto(b"?" + name, shown)  # the first one opens the way
            return bool(caller.came)

        await until(heard, "an answer")
        assert set(caller.came) == {name}
    relay.up.faults = Faults(loss=1)
    await asyncio.sleep(0.05)  # what is under way
    before = len(callee.came)
    callers[0].transport.sendto(b"?a", shown)
    await until(lambda: relay.up.counts["lost"] == 1, "a loss")
    assert len(callee.came) == before
    relay.close()
    for one in (callee, *callers):
        one.transport.close()


async def test_what_the_proxy_rewrites() -> None:
    async def rewrite(sdp: str) -> str:
        return sdp.upper()

    told = json.dumps({"sdp": "x", "type": "offer"}).encode()
    assert json.loads(await rewritten(told, "application/json; charset=utf-8", rewrite))["sdp"] == "X"
    assert await rewritten(b"x", "application/sdp", rewrite) == b"X"
    assert await rewritten(b'{"a": 1}', "application/json", rewrite) == b'{"a": 1}'
    assert await rewritten(b'{"sdp": 1}', "application/json", rewrite) == b'{"sdp": 1}'
    assert await rewritten(b"x", "text/html", rewrite) == b"x"


def test_faults_of_a_command_line() -> None:
    told = "http://localhost:1 --loss 5 --burst 3 --jitter-ms 50 --late 1 --rate-kbps 500 --blackout-s 2"
    assert faults_of(parse(told.split())) == Faults(
        loss=0.05, burst_packets=3, jitter_ms=50, late=0.01, rate_kbps=500, blackout_s=2
    )


async def test_the_proxy_knows_a_call_by_its_location() -> None:
    """A WHIP server that says what it was told, and is told of a candidate that comes later."""
    told: list[str] = []

    async def whip(request: Request) -> Response:
        told.append((await request.body()).decode())
        if "refuse" in request.url.path:
            return PlainTextResponse("", 400)
        headers = {"Location": "/whip/me/1", "Content-Type": "application/sdp"}
        return Response(HOST + "\r\n", 201, headers)

    async def more(request: Request) -> Response:
        told.append((await request.body()).decode())
        return Response(status_code=204)

    async def page(request: Request) -> JSONResponse:
        return JSONResponse({"query": request.url.query, "host": request.headers["host"]})

    server = Starlette(
        routes=[
            Route("/whip/{name}", whip, methods=["POST"]),
            Route("/whip/me/1", more, methods=["PATCH"]),
            Route("/page", page),
        ]
    )
    client = httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://server")
    proxy = RelayProxy("http://server", Faults(), client=client)
    through = httpx.AsyncClient(transport=httpx.ASGITransport(proxy.app), base_url="http://localhost:8100")
    sdp = {"Content-Type": "application/sdp"}
    answer = await through.post("/whip/me", content=HOST + "\r\n", headers=sdp)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/whip/me/1"
    assert "127.0.0.1" in answer.text
    assert "192.0.2.7" not in answer.text
    fragment = {"Content-Type": "application/trickle-ice-sdpfrag"}
    await through.patch("/whip/me/1", content=REFLEXIVE + "\r\n", headers=fragment)
    assert len(proxy.relays) == 1
    assert all("127.0.0.1" in text for text in told)
    assert (await through.post("/whip/refuse", content="", headers=sdp)).status_code == 400
    assert len(proxy.relays) == 1, "a call that was refused leaves nothing"
    assert (await through.get("/page?a=b")).json() == {"query": "a=b", "host": "localhost:8100"}
    changed = await through.put("/relay", json={"loss": 0.5})
    assert changed.json()["faults"]["loss"] == 0.5
    assert proxy.relays[0].up.faults.loss == 0.5
    assert (await through.put("/relay", json={"loss": 5})).status_code == 400
    assert (await through.put("/relay", json={"gone": 5})).status_code == 400
    await proxy.close()
    await through.aclose()


@pytest.mark.slow
async def test_a_call_goes_through_the_relay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    aiortc_fixes.apply()
    only_loopback(monkeypatch)
    always_in_time(monkeypatch)
    session = Session(plain_enrollment(), CallOptions(), make_avatar=Painter)  # type: ignore[arg-type]
    client = Client(Camera(), audio=True)
    relay = UdpRelay(BadLink(), BadLink())
    try:
        offer = await relay.offer(await client.offer())
        await client.accept(await relay.answer(await session.answer(offer)))
        await until(lambda: len(client.frames) >= 10 and client.audio_frames >= 10, "pictures and sound")
        assert relay.down.counts["sent"] >= 20
        dead = Faults(loss=1)
        relay.up.faults = relay.down.faults = dead
        await asyncio.sleep(0.1)  # what is under way
        lost, shown, heard = relay.down.counts["lost"], len(client.frames), client.audio_frames
        await until(lambda: relay.down.counts["lost"] >= lost + 20, "what is lost")
        assert (len(client.frames), client.audio_frames) == (shown, heard), "no other way around it"
        relay.up.faults = relay.down.faults = Faults(delay_ms=20)
        await until(lambda: len(client.frames) >= shown + 10, "pictures after it")
    finally:
        await client.close()
        await session.close()
        relay.close()
