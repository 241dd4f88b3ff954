"""The addresses that take a file: a photo, an avatar, a background. Each is opened in a process of its own."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile

from calibration.avatar_apart import MAX_AVATAR_BYTES, open_avatar_apart
from calibration.enroll import enroll_photo
from calibration.photo_apart import Cancelled, open_photo_apart
from engines.enrollment import Enrollment
from streamer.look import as_background
from streamer.serve.aside import unless_gone
from streamer.serve.bodies import AVATAR_TOO_LARGE
from streamer.serve.config import ServeSettings
from streamer.serve.errors import documented
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served

logger = logging.getLogger(__name__)

TITLE_CHARACTERS, CONSENT_CHARACTERS = 40, 120
Again = Annotated[str | None, Form(max_length=64)]

uploads = APIRouter(route_class=StrictRoute)


@uploads.post("/api/avatars", status_code=201, responses=documented(411, 415, 422, 503))
async def upload(
    request: Request,
    photo: Annotated[UploadFile, File()],
    consent: Annotated[str, Form(max_length=200)],
    service: Served,
    again: Again = None,
) -> dict[str, object]:
    """Enroll a photo; `again`: the name that it had on a server that was restarted since."""
    if not consent.strip():
        raise HTTPException(
            422, "say whose face this is and that they agreed: their consent is kept with the avatar"
        )
    require_small(photo, service.settings)
    head_model = service.settings.head_model

    def work(unwanted: threading.Event) -> Enrollment:
        opened = open_photo_apart(photo.file, cancelled=unwanted)
        if unwanted.is_set():
            raise Cancelled
        return enroll_photo(opened, name="upload", consent=consent.strip(), head_model=head_model)

    enrollment = await unless_gone(request, service.work.run(work))
    title = _title(Path(photo.filename or "photo").stem, "photo")
    name = service.store.add_upload(enrollment, title, again)
    logger.info("a photo was enrolled, consent recorded")
    return {"name": name, "title": title, "notices": list(enrollment.notices)}


@uploads.post("/api/avatars/file", status_code=201, responses=documented(411, 415, 422, 503))
async def upload_avatar(
    request: Request, avatar: Annotated[UploadFile, File()], service: Served, again: Again = None
) -> dict[str, object]:
    """Take in an `.avatar` file that was made before; the consent is what the file says."""
    if (avatar.size or 0) > MAX_AVATAR_BYTES:
        raise HTTPException(413, AVATAR_TOO_LARGE)
    head_model = service.settings.head_model
    enrollment = await unless_gone(
        request,
        service.work.run(
            lambda unwanted: open_avatar_apart(avatar.file, head_model, cancelled=unwanted),
        ),
    )
    title = _title(enrollment.name, "avatar")
    name = service.store.add_upload(enrollment, title, again)
    consent = enrollment.consent
    # no other sentence of a stranger's file is told: a page would show it as its own
    return {
        "name": name,
        "title": title,
        "consent": {"name": consent.name[:CONSENT_CHARACTERS], "given_utc": consent.given_utc}
        if consent
        else None,
    }


@uploads.post("/api/backgrounds", status_code=201, responses=documented(411, 415, 422, 503))
async def upload_background(
    request: Request, picture: Annotated[UploadFile, File()], service: Served, again: Again = None
) -> dict[str, object]:
    """Keep a picture to be shown behind a person."""
    require_small(picture, service.settings)
    background = await unless_gone(
        request,
        service.work.run(
            lambda unwanted: as_background(lambda: open_photo_apart(picture.file, cancelled=unwanted))
        ),
    )
    return {"name": service.backgrounds.add(background, again)}


def require_small(file: UploadFile, settings: ServeSettings) -> None:
    """Raise HTTPException 413 for a picture that is larger than the settings allow."""
    if (file.size or 0) > settings.max_photo_bytes:
        raise HTTPException(413, settings.too_large)


def _title(text: str, otherwise: str) -> str:
    return text.strip()[:TITLE_CHARACTERS] or otherwise
