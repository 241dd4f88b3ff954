"""The server's addresses but uploads and numbers: the page, health, avatars, offers. None touches a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from engines.presets import preset_names
from engines.retarget import Controls
from streamer import __version__
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.serve.errors import documented
from streamer.serve.offer import Offer, options_of
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served
from streamer.serve.store import Entry, picture_of, write_controls
from streamer.webrtc.offer_sdp import OfferError

WEB = Path(__file__).parents[1] / "web"


class JpegResponse(Response):
    """A picture."""

    media_type = "image/jpeg"


router = APIRouter(route_class=StrictRoute)


@router.get("/", response_class=HTMLResponse, responses=documented())
async def page() -> Response:
    """The page."""
    return FileResponse(WEB / "index.html")


@router.get("/api/health", responses=documented())
async def health(service: Served) -> dict[str, object]:
    """That the server lives."""
    return {"status": "ok", "version": __version__, "sessions": len(service.calls.sessions)}


@router.get("/api/avatars", responses=documented())
async def avatars(service: Served) -> dict[str, object]:
    """What can be chosen: avatars, generators, trackers, emotions, and how calls look at first."""
    public = service.store.public()
    return {
        "avatars": [{"name": n, "title": e.title} for n, e in public],
        "generators": list(service.generators),
        "trackers": list(TRACKER_NAMES),
        "emotions": list(preset_names()),
        "default": public[0][0] if public else None,
        "look": {"background": service.look.background.mode, "aspect": service.look.aspect},
    }


@router.get("/api/avatars/{name}/picture", response_class=JpegResponse, responses=documented(404))
async def picture(name: str, service: Served) -> Response:
    """An avatar's face, JPEG."""
    return JpegResponse(picture_of(_found(name, service).enrollment))


@router.put("/api/avatars/{name}/controls", responses=documented(404, 409, 411, 415, 422))
async def keep_controls(
    name: str, body: Annotated[dict[str, object], Body()], service: Served
) -> dict[str, object]:
    """Save how an avatar moves."""
    entry = _found(name, service)
    controls = Controls.from_dict(body)
    in_file = await service.aside(lambda: write_controls(entry, controls))
    if not service.store.set_controls(name, controls):
        raise HTTPException(404, f"the avatar {name!r} is gone; enroll the photo again")
    return {"controls": controls.to_dict(), "kept": "file" if in_file else "memory"}


@router.delete("/api/avatars/{name}", status_code=204, responses=documented(404))
async def delete(name: str, service: Served) -> Response:
    """Forget an upload."""
    if not service.store.remove_upload(name):
        raise HTTPException(404, "there is no upload of that name")
    return Response(status_code=204)


@router.post("/api/offer", responses=documented(404, 410, 411, 415, 422, 503))
async def offer(body: Offer, service: Served) -> dict[str, object]:
    """Begin a call."""
    public = service.store.public()
    entry = _found(body.avatar or (public[0][0] if public else ""), service, ", or enroll a photo")
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


def _found(name: str, service: Served, or_else: str = "") -> Entry:
    entry = service.store.get(name)
    if entry is None:
        raise HTTPException(404, f"there is no avatar {name!r}; GET /api/avatars lists them{or_else}")
    return entry
