"""`PATCH /api/calls/{session}`: another face, background, shape, generator or voice help inside a running call."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from engines.enrollment import Enrollment
from engines.renderer import Aspect
from streamer.look import Look
from streamer.serve.avatars import found
from streamer.serve.errors import documented
from streamer.serve.offer import USUAL, background_of, generator_of
from streamer.serve.requests import StrictRoute
from streamer.serve.service import Served, Service
from streamer.webrtc.call_options import MOST_TRIM_MS, CallOptions
from streamer.webrtc.wish import Wish

changes = APIRouter(route_class=StrictRoute)


class Change(BaseModel):
    """What is left out stays as it is; null is as the server was started, as in an offer."""

    model_config = ConfigDict(extra="forbid")

    avatar: str | None = None
    background: str | None = Field(None, max_length=64)
    aspect: Aspect | None = None
    generator: str | None = None
    voice_helps: bool = USUAL.voice_helps
    trim_ms: float = Field(USUAL.trim_ms, ge=-MOST_TRIM_MS, le=MOST_TRIM_MS)


@changes.patch("/api/calls/{session}", responses=documented(404, 410, 411, 415, 422, 429, 503))
async def change(session: str, body: Change, service: Served) -> dict[str, object]:
    """Change a call; it goes on as it is until that is made."""
    call = service.calls.called(session)
    service.calls.require_patience(call)
    enrollment, options = merged(call.asked, body, service)
    wish = service.calls.change(call, enrollment, options)
    saved = enrollment.controls
    return {"controls": saved.to_dict() if saved else None, "change": wish.number}


def merged(before: Wish, body: Change, service: Service) -> tuple[Enrollment, CallOptions]:
    """What was asked for before with what `body` says of it.

    Raises HTTPException for a name that there is not or a picture that is gone, and BackgroundError.
    """
    given, options = body.model_fields_set, before.options
    enrollment = before.enrollment
    if "avatar" in given:
        public = service.store.public()
        enrollment = found(body.avatar or (public[0][0] if public else ""), service).enrollment
    usual, look = service.look, options.look
    if "background" in given:
        background = background_of(body.background, usual, service.backgrounds)
        look = Look(background, look.aspect)
    if "aspect" in given:
        look = Look(look.background, body.aspect or usual.aspect)
    more: dict[str, Any] = {name: getattr(body, name) for name in ("voice_helps", "trim_ms") if name in given}
    if "generator" in given:
        more["generator"] = generator_of(body.generator, service)
    return enrollment, options.but(look=look, **more)
