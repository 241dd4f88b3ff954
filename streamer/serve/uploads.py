"""The addresses that take a picture: enroll a photo, keep a background. Both are decoded in a process of their own."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile

from calibration.enroll import enroll_photo
from calibration.photo_apart import Cancelled, open_photo_apart
from engines.enrollment import Enrollment
from streamer.look import as_background
from streamer.serve.aside import unless_gone
from streamer.serve.config import ServeSettings
from streamer.serve.errors import documented
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served

logger = logging.getLogger(__name__)

uploads = APIRouter(route_class=StrictRoute)


@uploads.post("/api/avatars", status_code=201, responses=documented(411, 415, 422, 503))
async def upload(
    request: Request,
    photo: Annotated[UploadFile, File()],
    consent: Annotated[str, Form(max_length=200)],
    service: Served,
) -> dict[str, object]:
    """Enroll a photo."""
    if not consent.strip():
        raise HTTPException(422, "say whose face this is and that they agreed (field: consent)")
    require_small(photo, service.settings)
    head_model = service.settings.head_model

    def work(unwanted: threading.Event) -> Enrollment:
        opened = open_photo_apart(photo.file, cancelled=unwanted)
        if unwanted.is_set():
            raise Cancelled
        return enroll_photo(opened, name="upload", consent=consent.strip(), head_model=head_model)

    enrollment = await unless_gone(request, service.work.run(work))
    title = Path(photo.filename or "photo").stem[:40] or "photo"
    name = service.store.add_upload(enrollment, title)
    logger.info("a photo was enrolled, consent recorded")
    return {"name": name, "title": title, "notices": list(enrollment.notices)}


@uploads.post("/api/backgrounds", status_code=201, responses=documented(411, 415, 422, 503))
async def upload_background(
    request: Request, picture: Annotated[UploadFile, File()], service: Served
) -> dict[str, object]:
    """Keep a picture to be shown behind a person."""
    require_small(picture, service.settings)
    background = await unless_gone(
        request,
        service.work.run(
            lambda unwanted: as_background(lambda: open_photo_apart(picture.file, cancelled=unwanted))
        ),
    )
    return {"name": service.backgrounds.add(background)}


def require_small(file: UploadFile, settings: ServeSettings) -> None:
    """Raise HTTPException 413 for a picture that is larger than the settings allow."""
    if (file.size or 0) > settings.max_photo_bytes:
        raise HTTPException(413, settings.too_large)
