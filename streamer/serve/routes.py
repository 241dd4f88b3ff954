"""The server's addresses but avatars, uploads and numbers: the page, health, offers. None touches a frame."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from streamer import __version__
from streamer.serve.avatars import found
from streamer.serve.errors import documented
from streamer.serve.offer import Offer, options_of
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served
from streamer.webrtc.offer_sdp import OfferError

WEB = Path(__file__).parents[1] / "web"


router = APIRouter(route_class=StrictRoute)


@router.get("/", response_class=HTMLResponse, responses=documented())
async def page() -> Response:
    """The page."""
    return FileResponse(WEB / "index.html")


@router.get("/api/health", responses=documented())
async def health(service: Served) -> dict[str, object]:
    """That the server lives."""
    return {"status": "ok", "version": __version__, "sessions": len(service.calls.sessions)}


@router.post("/api/offer", responses=documented(404, 410, 411, 415, 422, 503))
async def offer(body: Offer, service: Served) -> dict[str, object]:
    """Begin a call."""
    public = service.store.public()
    entry = found(body.avatar or (public[0][0] if public else ""), service)
    options = options_of(body, service)
    try:
        session, sdp = await service.calls.begin(entry.enrollment, options, body.sdp)
    except OfferError as error:
        raise HTTPException(400, str(error)) from error
    saved = entry.enrollment.controls
    return {
        "sdp": sdp,
        "type": "answer",
        "session": session.name,
        "controls": saved.to_dict() if saved else None,
    }
