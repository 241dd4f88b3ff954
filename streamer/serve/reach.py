"""How calls get through: the STUN and TURN servers a page is to use, and a connection that tests the way."""

from __future__ import annotations

import secrets
import time
from typing import Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from streamer.clock import SystemClock
from streamer.serve.errors import documented
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served
from streamer.webrtc.offer_sdp import MAX_SDP_CHARS, OfferError, check_offer
from streamer.webrtc.peer import UnreachableError
from streamer.webrtc.reach_peer import ReachPeer

MOST_TESTS = 4  # at once
RETRY_AFTER = {"Retry-After": "5"}

reach = APIRouter(route_class=StrictRoute)


class TestOffer(BaseModel):
    """`POST /api/connection-test`."""

    __test__ = False  # no test of pytest's

    sdp: str = Field(max_length=MAX_SDP_CHARS)
    type: Literal["offer"]


@reach.get("/api/ice", responses=documented())
async def ice(service: Served) -> dict[str, object]:
    """STUN and TURN servers, as a browser takes them, and the server's own UDP ports where they are limited."""
    settings = service.settings.ice
    # who it is told to is nobody: a name that tells two of them apart in the relay's log
    servers = settings.servers(time.time(), f"page-{secrets.token_hex(4)}")
    ports = None if settings.ports is None else str(settings.ports)
    return {"ice_servers": [server.to_dict() for server in servers], "udp_ports": ports}


@reach.post("/api/connection-test", responses=documented(411, 415, 422, 503))
async def connection_test(body: TestOffer, service: Served) -> dict[str, object]:
    """A connection of one data channel that gives back what it is told; no call, and it takes no call's place."""
    check_offer(body.sdp, "test")
    if len(service.tests) >= MOST_TESTS:
        raise HTTPException(
            503, "other pages are testing their connection; try again in a moment", RETRY_AFTER
        )
    peer = ReachPeer(SystemClock(), service.settings.ice, on_closed=service.tests.discard)
    service.tests.add(peer)
    try:
        sdp = await peer.answer(body.sdp)
    except OfferError as error:
        raise HTTPException(400, str(error)) from error
    except UnreachableError as error:
        raise HTTPException(503, str(error), RETRY_AFTER) from error
    return {"sdp": sdp, "type": "answer"}
