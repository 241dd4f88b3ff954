"""Every address of the server: the page, health and metrics, avatars, backgrounds, offers. None touches a frame."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, File, Form, HTTPException, UploadFile
from fastapi.responses import FileResponse, Response

from calibration.enroll import enroll
from engines.presets import preset_names
from engines.retarget import Controls
from streamer import __version__
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.look import read_picture
from streamer.serve.config import ServeSettings
from streamer.serve.offer import Offer, options_of
from streamer.serve.service import Served
from streamer.serve.store import Entry, picture_of, write_controls
from streamer.webrtc.offer_sdp import OfferError

logger = logging.getLogger(__name__)

WEB = Path(__file__).parents[1] / "web"

router = APIRouter()


@router.get("/")
async def page() -> Response:
    """The page."""
    return FileResponse(WEB / "index.html")


@router.get("/api/health")
async def health(service: Served) -> dict[str, object]:
    """That the server lives."""
    return {"status": "ok", "version": __version__, "sessions": len(service.calls.sessions)}


@router.get("/metrics")
async def metrics(service: Served) -> Response:
    """For Prometheus."""
    body, content_type = service.metrics.render()
    return Response(body, media_type=content_type)


@router.get("/api/avatars")
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


@router.get("/api/avatars/{name}/picture")
async def picture(name: str, service: Served) -> Response:
    """An avatar's face, JPEG."""
    return Response(picture_of(_found(name, service).enrollment), media_type="image/jpeg")


@router.post("/api/avatars", status_code=201)
async def upload(
    photo: Annotated[UploadFile, File()],
    consent: Annotated[str, Form(max_length=200)],
    service: Served,
) -> dict[str, object]:
    """Enroll a photo."""
    if not consent.strip():
        raise HTTPException(422, "say whose face this is and that they agreed (field: consent)")
    data = await _content(photo, service.settings)
    head_model = service.settings.head_model
    enrollment = await service.aside(lambda: enroll(data, consent=consent.strip(), head_model=head_model))
    title = Path(photo.filename or "photo").stem[:40] or "photo"
    name = service.store.add_upload(enrollment, title)
    logger.info("a photo was enrolled, consent recorded")
    return {"name": name, "title": title, "notices": list(enrollment.notices)}


@router.post("/api/backgrounds", status_code=201)
async def upload_background(picture: Annotated[UploadFile, File()], service: Served) -> dict[str, object]:
    """Keep a picture to be shown behind a person."""
    data = await _content(picture, service.settings)
    background = await service.aside(lambda: read_picture(data))
    return {"name": service.backgrounds.add(background)}


@router.put("/api/avatars/{name}/controls")
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


@router.delete("/api/avatars/{name}", status_code=204)
async def delete(name: str, service: Served) -> Response:
    """Forget an upload."""
    if not service.store.remove_upload(name):
        raise HTTPException(404, "there is no upload of that name")
    return Response(status_code=204)


@router.post("/api/offer")
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


async def _content(file: UploadFile, settings: ServeSettings) -> bytes:
    data = await file.read(settings.max_photo_bytes + 1)
    if len(data) > settings.max_photo_bytes:
        raise HTTPException(413, settings.too_large)
    return data
