"""`Offer`: what `POST /api/offer` holds, and which call it asks for."""

from __future__ import annotations

from typing import Literal

from fastapi import HTTPException
from pydantic import BaseModel, Field

from engines.errors import no_such
from engines.generators.names import GENERATOR_NAMES
from engines.renderer import Aspect
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.look import Look, read_background, require_opaque
from streamer.serve.service import Service
from streamer.serve.store import BACKGROUND_PREFIX, BackgroundStore
from streamer.webrtc.call_options import MOST_TRIM_MS, CallOptions, DrivenBy, Mode
from streamer.webrtc.offer_sdp import MAX_SDP_CHARS

USUAL = CallOptions()


class Offer(BaseModel):
    """`POST /api/offer`."""

    sdp: str = Field(max_length=MAX_SDP_CHARS)
    type: Literal["offer"]
    avatar: str | None = None
    generator: str | None = None
    size: int = Field(USUAL.size_px, ge=64, le=1024)
    mode: Mode = USUAL.mode
    drive: DrivenBy = USUAL.drive
    tracker: str | None = None
    trim_ms: float = Field(USUAL.trim_ms, ge=-MOST_TRIM_MS, le=MOST_TRIM_MS)
    voice_helps: bool = USUAL.voice_helps
    background: str | None = Field(None, max_length=64)
    aspect: Aspect | None = None


def options_of(body: Offer, service: Service) -> CallOptions:
    """What an offer asks for; what it leaves out is as the server was started.

    Raises HTTPException for a name that there is not, and what `look_of` raises.
    """
    generator = body.generator or service.generators[0]
    if generator not in GENERATOR_NAMES:
        raise HTTPException(400, no_such("generator", generator, GENERATOR_NAMES))
    tracker = body.tracker or USUAL.tracker
    if tracker not in TRACKER_NAMES:
        raise HTTPException(400, no_such("tracker", tracker, TRACKER_NAMES))
    return CallOptions(
        generator=generator,
        tracker=tracker,
        size_px=body.size & ~1,
        look=look_of(body, service.look, service.backgrounds),
        trim_ms=body.trim_ms,
        mode=body.mode,
        drive=body.drive,
        voice_helps=body.voice_helps,
    )


def look_of(body: Offer, usual: Look, pictures: BackgroundStore) -> Look:
    """How the call looks.

    Raises BackgroundError, or HTTPException 410 for a picture that the server does not have any more.
    """
    aspect = body.aspect or usual.aspect
    text = body.background
    if text is None:
        return Look(usual.background, aspect)
    if text.startswith(BACKGROUND_PREFIX):
        picture = pictures.get(text)
        if picture is None:
            raise HTTPException(410, "the background picture is gone; choose it again")
        return Look(picture, aspect)
    # never a path: what a request says does not reach the disk
    if text not in ("keep", "blur", "transparent") and not text.startswith("#"):
        raise HTTPException(400, f"there is no background {text!r}; choose keep, blur, a colour or a picture")
    background = read_background(text)
    require_opaque(background, "a video call")
    return Look(background, aspect)
