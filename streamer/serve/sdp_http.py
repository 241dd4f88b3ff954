"""What WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) share as HTTP: offers, answers, fragments, entity tags."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from urllib.parse import quote

from fastapi import HTTPException, Request
from fastapi.responses import Response

from streamer.serve.bodies import FRAGMENT, SDP
from streamer.serve.service import Service
from streamer.webrtc.messages import one_line
from streamer.webrtc.offer_sdp import OfferError, UnfitOfferError
from streamer.webrtc.peer import Peer
from streamer.webrtc.sdp_fragment import FragmentError, read_fragment

TRICKLED_TOO_OFTEN = "candidates come too often; send them together in a moment"
NO_RESTART = "ICE does not restart here: end this session with DELETE and POST a new offer"


class SdpResponse(Response):
    """An SDP answer."""

    media_type = SDP


def takes(media_type: str) -> dict[str, object]:
    """For a route: what it takes with a request."""
    content = {media_type: {"schema": {"type": "string"}}}
    return {"requestBody": {"required": True, "content": content}}


async def text_of(request: Request) -> str:
    """What came with a request. Raises HTTPException 400 for what is no UTF-8."""
    try:
        return (await request.body()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise HTTPException(400, "the request is no UTF-8; send SDP as text") from error


def require_acceptance(request: Request) -> None:
    """Raises HTTPException 406 for a client that takes no SDP for an answer (RFC 9110 § 12.5.1)."""
    accept = request.headers.get("accept", "*/*")
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if not ranges & {SDP, "application/*", "*/*", ""}:
        raise HTTPException(406, f"the answer is {SDP}; accept it")


def refused(error: OfferError) -> HTTPException:
    """400 for an offer that cannot be read, 422 for one of what does not happen here."""
    return HTTPException(422 if isinstance(error, UnfitOfferError) else 400, one_line(error, 600))


def created(answer: str, path: str, avatar: str, name: str, peer: Peer, service: Service) -> Response:
    """201 for an offer that was answered. The session's address is relative: where to is the client's to know."""
    response = SdpResponse(answer, 201)
    response.headers["Location"] = f"/{path}/{quote(avatar, safe='')}/{name}"
    response.headers["ETag"] = f'"{peer.tag}"'
    response.headers["Accept-Patch"] = FRAGMENT
    # who it is told to is nobody: a name that tells two of them apart in the relay's log
    for server in service.settings.ice.servers(time.time(), f"{path}-{secrets.token_hex(4)}"):
        for link in server.links():
            response.headers.append("Link", link)
    return response


async def trickled(request: Request, if_match: str | None, peer: Peer) -> Response:
    """The answer to a PATCH: candidates are taken; what would restart ICE, which aiortc cannot, is refused with 422.

    Raises HTTPException 400, 412, 422, 428 or 429.
    """
    if if_match is None:
        raise HTTPException(428, "say which ICE session this is for: If-Match with the ETag of the answer")
    if not matches(if_match, peer.tag):
        raise HTTPException(412, "this is for another ICE session; If-Match takes the ETag of the answer")
    if not peer.may_trickle():
        raise HTTPException(429, TRICKLED_TOO_OFTEN, headers={"Retry-After": "1"})
    try:
        fragment = read_fragment(await text_of(request))
        if fragment.login is not None and fragment.login != peer.login:
            raise HTTPException(422, NO_RESTART)
        with suppress(TimeoutError):  # it goes on with those that were found
            await peer.trickle(fragment)
    except FragmentError as error:
        raise HTTPException(400, str(error)) from error
    return Response(status_code=204)


def matches(if_match: str, tag: str) -> bool:
    """Whether an If-Match header names `tag` or any (RFC 9110 § 13.1.1). A weak tag (`W/…`) never does."""
    if if_match.strip() == "*":
        return True
    return tag in re.findall(r'(?<![/\w])"([^"]*)"', if_match)


def options(allow: str, *, takes_offers: bool) -> Response:
    """The answer to OPTIONS: what this address takes. Nothing of it is for pages of other sites (CORS)."""
    said = {"Accept-Post": SDP} if takes_offers else {"Accept-Patch": FRAGMENT}
    return Response(status_code=204, headers={"Allow": allow} | said)
