"""`/whip/AVATAR`: a sender's camera or microphone drives an avatar (WHIP, RFC 9725); `/whep/AVATAR` shows it."""

from __future__ import annotations

from functools import partial
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
from streamer.webrtc.offer_sdp import OfferError, sends
from streamer.webrtc.one_way import Ingest
from streamer.webrtc.session import RETRY_AFTER_S

BUSY = "another sender drives this avatar; end it, or send to another avatar's address"

whip = APIRouter(route_class=StrictRoute)


class SenderAsked(Asked):
    """What stands behind `?` in a sender's address: as an offer of the page has it.

    `drive`: what moves the face; the camera where one is offered, else the microphone.
    """

    drive: Literal["webcam", "voice"] | None = None


@whip.post(
    "/whip/{avatar}",
    status_code=201,
    response_class=SdpResponse,
    responses=documented(404, 406, 409, 410, 411, 415, 422, 503),
    openapi_extra=takes(SDP),
)
async def begin(
    avatar: str, request: Request, service: Served, asked: Annotated[SenderAsked, Query()]
) -> Response:
    """Begin to drive an avatar."""
    require_acceptance(request)
    entry = found(avatar, service)
    sdp = await text_of(request)
    drive = asked.drive or ("webcam" if sends(sdp, "video") else "voice")
    earlier = service.calls.ingest(avatar)
    if earlier is not None and not earlier.resting:
        raise HTTPException(409, BUSY, headers={"Retry-After": str(RETRY_AFTER_S)})
    try:
        session, answer = await service.calls.begin(
            entry.enrollment,
            options_for(asked, service, drive),
            sdp,
            partial(Ingest, stream=avatar),
            "sender",
        )
    except OfferError as error:
        raise refused(error) from error
    if earlier is not None:
        earlier.end("its sender came back")
    return created(answer, "whip", avatar, session.name, session.peer, service)


@whip.patch(
    "/whip/{avatar}/{session}",
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
    """More candidates of a sender."""
    return await trickled(request, if_match, ingest_of(avatar, session, service).peer)


@whip.delete("/whip/{avatar}/{session}", responses=documented(404), response_class=Response)
async def end(avatar: str, session: str, service: Served) -> Response:
    """End a sender's session, and with it those who watch."""
    await ingest_of(avatar, session, service).close()
    return Response()


@whip.options("/whip/{avatar}", status_code=204, responses=documented())
async def ask(avatar: str) -> Response:
    """What this address takes."""
    del avatar
    return options("OPTIONS, POST", takes_offers=True)


@whip.options("/whip/{avatar}/{session}", status_code=204, responses=documented())
async def ask_session(avatar: str, session: str) -> Response:
    """What a session's address takes."""
    del avatar, session
    return options("DELETE, OPTIONS, PATCH", takes_offers=False)


def ingest_of(avatar: str, name: str, service: Service) -> Ingest:
    """The sender's session of that address. Raises 404 where there is none any more."""
    session = service.calls.called(name)
    if not isinstance(session, Ingest) or session.stream != avatar:
        raise no_longer("call", "this session is over; POST a new offer")
    return session
