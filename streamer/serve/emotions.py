"""The address that draws all emotions of an avatar in one request: a sheet, or a picture each."""

from __future__ import annotations

import io
import logging
import threading
import zipfile
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Body, HTTPException, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from calibration.photo_apart import Cancelled
from engines.enrollment import Enrollment
from engines.motion import Motion
from engines.templates import load_templates
from streamer.emotions import draw_emotions, emotion_motions, sheet_of
from streamer.options import AvatarOptions
from streamer.serve.aside import unless_gone
from streamer.serve.avatars import found
from streamer.serve.errors import documented
from streamer.serve.offer import generator_of
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served, Service

U8 = NDArray[np.uint8]

logger = logging.getLogger(__name__)

PNG, ZIP = "image/png", "application/zip"


class Wanted(BaseModel):
    """Which faces, and how they are drawn."""

    faces: Literal["presets", "templates"] = "presets"
    strength: float = Field(1.0, ge=0, le=2)
    generator: str | None = None
    size: int = Field(256, ge=64, le=512)
    give: Literal["sheet", "pictures"] = "sheet"


emotions = APIRouter(route_class=StrictRoute)


@emotions.post(
    "/api/avatars/{name}/emotions",
    response_class=Response,
    responses={
        200: {"description": "A labelled sheet, or NAME.png of each emotion", "content": {PNG: {}, ZIP: {}}},
        **documented(404, 409, 411, 415, 422, 503),
    },
)
async def draw(name: str, request: Request, body: Annotated[Wanted, Body()], service: Served) -> Response:
    """All emotions of an avatar, by any generator that has weights."""
    enrollment = found(name, service).enrollment
    options = AvatarOptions(generator=generator_of(body.generator, service), size_px=body.size & ~1)

    def work(unwanted: threading.Event) -> bytes:
        pictures = drawn(enrollment, options, body, service, unwanted)
        return png(sheet_of(pictures)) if body.give == "sheet" else zipped(pictures)

    data = await unless_gone(request, service.work.run(work))
    kind = PNG if body.give == "sheet" else ZIP
    return Response(data, media_type=kind, headers={"Cache-Control": "no-store"})


def drawn(
    enrollment: Enrollment,
    options: AvatarOptions,
    wanted: Wanted,
    service: Service,
    unwanted: threading.Event,
) -> Mapping[str, U8]:
    """Emotion → picture. Blocks. Raises HTTPException 409 where another generator would have to draw."""
    templates = load_templates() if wanted.faces == "templates" else None
    motions = emotion_motions(enrollment, wanted.strength, templates)
    renderer = options.renderer_for(enrollment, service.still_generators)
    if renderer.generator_name != options.generator:
        logger.warning("emotions were not drawn: %s", renderer.notice)  # it names a place on this disk
        able = [name for name in service.generators if name != options.generator]
        raise HTTPException(
            409, f"{options.generator} has no weights here that load; choose one of: {', '.join(able)}"
        )

    def one(motion: Motion) -> U8:
        if unwanted.is_set():
            raise Cancelled
        return renderer.render(motion)

    return draw_emotions(one, motions)


def png(picture: U8) -> bytes:
    """A picture (H, W, 3) RGB as a PNG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


def zipped(pictures: Mapping[str, U8]) -> bytes:
    """A ZIP file of NAME.png, stored: PNG is compressed already."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, picture in pictures.items():
            archive.writestr(f"{name}.png", png(picture))
    return data.getvalue()
