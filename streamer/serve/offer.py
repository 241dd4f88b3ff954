"""`Offer`: what `POST /api/offer` holds, and which call it asks for; `Asked`: what of it WHIP and WHEP say too."""

from __future__ import annotations

import logging
from typing import Literal

from fastapi import HTTPException
from pydantic import BaseModel, Field

from calibration.kept_neutral import MAX_KEPT_CHARACTERS, NeutralError, read_kept
from calibration.neutral import DriverNeutral
from engines.errors import no_such
from engines.generators.names import GENERATOR_NAMES
from engines.picture.background import Background
from engines.renderer import Aspect
from streamer.drive.trackers.names import TRACKER_NAMES
from streamer.look import Look, read_background, require_opaque
from streamer.serve.service import Service
from streamer.serve.store import BACKGROUND_PREFIX, BackgroundStore
from streamer.webrtc.call_options import MOST_TRIM_MS, CallOptions, DrivenBy, Mode
from streamer.webrtc.offer_sdp import MAX_SDP_CHARS

logger = logging.getLogger(__name__)

USUAL = CallOptions()


class Asked(BaseModel):
    """How a call is to look, however it is begun."""

    generator: str | None = None
    size: int = Field(USUAL.size_px, ge=64, le=1024)
    tracker: str | None = None
    trim_ms: float = Field(USUAL.trim_ms, ge=-MOST_TRIM_MS, le=MOST_TRIM_MS)
    voice_helps: bool = USUAL.voice_helps
    background: str | None = Field(None, max_length=64)
    aspect: Aspect | None = None


class Offer(Asked):
    """`POST /api/offer`."""

    sdp: str = Field(max_length=MAX_SDP_CHARS)
    type: Literal["offer"]
    avatar: str | None = None
    mode: Mode = USUAL.mode
    drive: DrivenBy = USUAL.drive
    neutral: str | None = Field(None, max_length=MAX_KEPT_CHARACTERS)


def options_of(body: Offer, service: Service) -> CallOptions:
    """What a page's offer asks for; raises as `options_for`."""
    return options_for(body, service, body.drive, body.mode, body.neutral)


def options_for(
    body: Asked, service: Service, drive: DrivenBy, mode: Mode = USUAL.mode, neutral: str | None = None
) -> CallOptions:
    """What is asked for; what it leaves out is as the server was started.

    Raises HTTPException for a name that there is not, and what `background_of` raises.
    """
    tracker = body.tracker or USUAL.tracker
    if tracker not in TRACKER_NAMES:
        raise HTTPException(400, no_such("tracker", tracker, TRACKER_NAMES))
    return CallOptions(
        generator=generator_of(body.generator, service),
        tracker=tracker,
        size_px=body.size & ~1,
        look=Look(
            background_of(body.background, service.look, service.backgrounds),
            body.aspect or service.look.aspect,
        ),
        trim_ms=body.trim_ms,
        mode=mode,
        drive=drive,
        voice_helps=body.voice_helps,
        neutral=neutral_of(neutral, tracker) if drive == "webcam" else None,
    )


def neutral_of(text: str | None, tracker: str) -> DriverNeutral | None:
    """The neutral that a page kept from the call before, if `tracker` took it.

    None for what is not one, too: then it is taken anew, as in a first call, and no call is lost for it.
    """
    if text is None:
        return None
    try:
        kept = read_kept(text)
    except NeutralError as error:
        logger.info("a page's kept neutral is left out: %s", error)
        return None
    return kept.neutral if kept.tracker == tracker else None


def generator_of(name: str | None, service: Service) -> str:
    """The generator of that name, else the server's first. Raises HTTPException where there is none of the name."""
    name = name or service.generators[0]
    if name not in GENERATOR_NAMES:
        raise HTTPException(400, no_such("generator", name, GENERATOR_NAMES))
    return name


def background_of(text: str | None, usual: Look, pictures: BackgroundStore) -> Background:
    """What stands behind the avatar of a call.

    Raises BackgroundError, or HTTPException 410 for a picture that the server does not have any more.
    """
    if text is None:
        return usual.background
    if text.startswith(BACKGROUND_PREFIX):
        picture = pictures.get(text)
        if picture is None:
            raise HTTPException(410, "the background picture is gone; choose it again")
        return picture
    # never a path: what a request says does not reach the disk
    if text not in ("keep", "soft", "blur", "transparent") and not text.startswith("#"):
        raise HTTPException(
            400, f"there is no background {text!r}; choose keep, soft, blur, a colour or a picture"
        )
    background = read_background(text)
    require_opaque(background, "a video call")
    return background
