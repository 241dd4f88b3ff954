"""`python -m scripts.measure.relay_proxy http://127.0.0.1:8000 --loss 5`: any page, WHIP or WHEP through a bad network.

An HTTP proxy before a server: it rewrites the candidates of offers and answers, so that each call goes through a
`UdpRelay` of its own. `GET /relay` tells what became of the packets, `PUT /relay` takes other faults (JSON, the names
of `Faults`); it is a tool for measuring on this computer, and answers to nobody else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import urljoin

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scripts.measure.bad_link import BadLink, Faults
from scripts.measure.udp_relay import UdpRelay

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
IDLE_S = 30.0  # a call from which nothing came for so long is over
_TEXTS = ("application/sdp", "application/trickle-ice-sdpfrag")
_OWN = {"content-length", "content-encoding", "transfer-encoding", "connection"}  # of one hop each
Rewrite = Callable[[str], Awaitable[str]]


async def rewritten(body: bytes, media_type: str, rewrite: Rewrite) -> bytes:
    """`body` with its SDP rewritten: one that is SDP, or JSON with an `sdp`; any other as it is."""
    kind = media_type.split(";")[0].strip().lower()
    if kind in _TEXTS:
        return (await rewrite(body.decode())).encode()
    if kind == "application/json" and b'"sdp"' in body:
        told: Any = json.loads(body)
        if isinstance(told, dict) and isinstance(sdp := told.get("sdp"), str):
            return json.dumps({**told, "sdp": await rewrite(sdp)}).encode()
    return body


class RelayProxy:
    """The calls that go through, and the faults of all. On one event loop."""

    def __init__(
        self, server: str, faults: Faults, seed: int = 0, client: httpx.AsyncClient | None = None
    ) -> None:
        """`client`: how to reach `server`."""
        self.faults = faults
        self.relays: list[UdpRelay] = []
        self._by_location: dict[str, UdpRelay] = {}
        self._seed = seed
        self._client = client or httpx.AsyncClient(base_url=server, timeout=120)

    @property
    def app(self) -> Starlette:
        """To be served."""
        return Starlette(
            routes=[
                Route("/relay", self._told, methods=["GET"]),
                Route("/relay", self._change, methods=["PUT"]),
                Route("/{path:path}", self._pass, methods=METHODS),
            ]
        )

    async def close(self) -> None:
        """All calls' sockets."""
        for relay in self.relays:
            relay.close()
        await self._client.aclose()

    async def _told(self, _: Request) -> JSONResponse:
        return JSONResponse(
            {
                "faults": asdict(self.faults),
                "up": sum((r.up.counts for r in self.relays), Counter[str]()),
                "down": sum((r.down.counts for r in self.relays), Counter[str]()),
            }
        )

    async def _change(self, request: Request) -> Response:
        try:
            self.faults = replace(self.faults, **await request.json())
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        for relay in self.relays:
            relay.up.faults = relay.down.faults = self.faults
        return await self._told(request)

    async def _pass(self, request: Request) -> Response:
        path = request.url.path
        relay = self._by_location.get(path)
        body, media_type = await request.body(), request.headers.get("content-type", "")
        is_new = request.method == "POST" and relay is None and _has_sdp(body, media_type)
        if is_new:
            relay = self._new()
        if relay is not None:
            body = await rewritten(body, media_type, relay.offer)
        target = path if not request.url.query else f"{path}?{request.url.query}"
        headers = _passed_on(request.headers)
        answer = await self._client.request(request.method, target, content=body, headers=headers)
        content = answer.content
        if relay is not None and answer.is_success:
            content = await rewritten(content, answer.headers.get("content-type", ""), relay.answer)
            location = answer.headers.get("location")
            if is_new and location:
                self._by_location[urljoin(path, location)] = relay
        elif is_new and relay is not None:
            relay.close()
            self.relays.remove(relay)
        return Response(content, answer.status_code, _passed_on(answer.headers))

    def _new(self) -> UdpRelay:
        for relay in [r for r in self.relays if r.idle_s > IDLE_S]:
            relay.close()
            self.relays.remove(relay)
            self._by_location = {k: r for k, r in self._by_location.items() if r is not relay}
        self._seed += 2
        relay = UdpRelay(BadLink(self.faults, self._seed), BadLink(self.faults, self._seed + 1))
        self.relays.append(relay)
        return relay


def _has_sdp(body: bytes, media_type: str) -> bool:
    return media_type.startswith(_TEXTS) or (media_type.startswith("application/json") and b'"sdp"' in body)


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OWN}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.measure.relay_proxy", description=__doc__)
    parser.add_argument("server", help="the server's address, as it printed it")
    parser.add_argument(
        "--port", type=int, default=8100, help="where the proxy listens, on this computer alone"
    )
    parser.add_argument("--loss", type=float, default=0.0, help="%% of the packets that are lost, each way")
    parser.add_argument("--burst", type=float, default=None, help="packets lost in a row, on average")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument(
        "--late", type=float, default=0.0, help="%% of the packets that come 60 ms out of order"
    )
    parser.add_argument("--rate-kbps", type=float, default=None)
    parser.add_argument("--blackout-s", type=float, default=0.0)
    parser.add_argument("--blackout-every-s", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def faults_of(options: argparse.Namespace) -> Faults:
    """Of a command line. Raises ValueError for what is no network."""
    return Faults(
        loss=options.loss / 100,
        burst_packets=options.burst,
        delay_ms=options.delay_ms,
        jitter_ms=options.jitter_ms,
        late=options.late / 100,
        rate_kbps=options.rate_kbps,
        blackout_s=options.blackout_s,
        blackout_every_s=options.blackout_every_s,
    )


async def _serve(options: argparse.Namespace) -> None:
    proxy = RelayProxy(options.server.replace("localhost", "127.0.0.1"), faults_of(options), options.seed)
    config = uvicorn.Config(proxy.app, "127.0.0.1", options.port, log_level="warning")
    print(f"through a bad network: http://localhost:{options.port}", flush=True)
    try:
        await uvicorn.Server(config).serve()
    finally:
        await proxy.close()


if __name__ == "__main__":
    asyncio.run(_serve(parse()))
