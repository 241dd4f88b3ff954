"""`/whep/AVATAR`: plays the avatar that a sender drives, or its demo (WHEP, draft-ietf-wish-whep)."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.responses import Response

from streamer.serve.avatars import found
from streamer.serve.bodies import FRAGMENT, SDP
from streamer.serve.errors import documented, no_longer
from streamer.serve.offer import Asked, options_for
from streamer.serve.requests import StrictRoute
from streamer.serve.sdp_http import (
    SdpResponse,
    created,
    options,
    refused,
    require_acceptance,
    takes,
    text_of,
    trickled,
)
from streamer.serve.service import Served, Service
from streamer.webrtc.offer_sdp import OfferError, check_offer
from streamer.webrtc.one_way import DemoPlay, Ingest
from streamer.webrtc.player import Player
from streamer.webrtc.session import RETRY_AFTER_S

NOBODY = "nobody drives this avatar; send a camera to its /whip address first, or play ?drive=demo"

whep = APIRouter(route_class=StrictRoute)


class PlayerAsked(Asked):
    """What stands behind `?` in a player's address. How it looks is the sender's to say, but for the demo."""

    drive: Literal["demo"] | None = None


@whep.post(
    "/whep/{avatar}",
    status_code=201,
    response_class=SdpResponse,
    responses=documented(404, 406, 409, 410, 411, 415, 422, 503),
    openapi_extra=takes(SDP),
)
async def play(
    avatar: str, request: Request, service: Served, asked: Annotated[PlayerAsked, Query()]
) -> Response:
    """Begin to watch an avatar."""
    require_acceptance(request)
    entry = found(avatar, service)
    sdp = await text_of(request)
    try:
        if asked.drive == "demo":
            how = options_for(asked, service, "demo")
            demo, answer = await service.calls.begin(entry.enrollment, how, sdp, DemoPlay, "player")
            return created(answer, "whep", avatar, demo.name, demo.peer, service)
        check_offer(sdp, "player")  # what is wrong with it is told before that nobody drives
        ingest = service.calls.ingest(avatar)
        if ingest is None or not ingest.connected:
            raise HTTPException(409, NOBODY, headers={"Retry-After": str(RETRY_AFTER_S)})
        player, answer = await service.calls.begin_player(ingest, sdp)
    except OfferError as error:
        raise refused(error) from error
    return created(answer, "whep", avatar, player.name, player.peer, service)


@whep.patch(
    "/whep/{avatar}/{session}",
    status_code=204,
    responses=documented(404, 411, 412, 415, 422, 428, 429),
    openapi_extra=takes(FRAGMENT),
)
async def trickle(
    avatar: str,
    session: str,
    request: Request,
    service: Served,
    if_match: Annotated[str | None, Header()] = None,
) -> Response:
    """More candidates of a player."""
    return await trickled(request, if_match, played(avatar, session, service).peer)


@whep.delete("/whep/{avatar}/{session}", responses=documented(404), response_class=Response)
async def end(avatar: str, session: str, service: Served) -> Response:
    """End a player's session."""
    await played(avatar, session, service).close()
    return Response()


@whep.options("/whep/{avatar}", status_code=204, responses=documented())
async def ask(avatar: str) -> Response:
    """What this address takes."""
    del avatar
    return options("OPTIONS, POST", takes_offers=True)


@whep.options("/whep/{avatar}/{session}", status_code=204, responses=documented())
async def ask_session(avatar: str, session: str) -> Response:
    """What a session's address takes."""
    del avatar, session
    return options("DELETE, OPTIONS, PATCH", takes_offers=False)


def played(avatar: str, name: str, service: Service) -> Player | DemoPlay:
    """The player's session of that address. Raises 404 where there is none any more."""
    for session in service.calls.sessions:
        for player in session.players if isinstance(session, Ingest) else ():
            if player.name == name and not player.ending:
                return player
        if isinstance(session, DemoPlay) and session.name == name and not session.ending:
            return session
    raise no_longer("call", f"this session is over; POST a new offer to /whep/{avatar}")
