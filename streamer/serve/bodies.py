"""`Body`: what an address takes with a request, how long and of which kind. Most take nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.routing import compile_path

from calibration.avatar_apart import MAX_AVATAR_BYTES
from streamer.serve.config import ServeSettings
from streamer.webrtc.offer_sdp import MAX_SDP_CHARS
from streamer.webrtc.sdp_fragment import MAX_FRAGMENT_BYTES

OFFER_BYTES = 256 << 10  # the longest SDP, and how JSON writes its line ends
CONTROLS_BYTES = 16 << 10
CHANGE_BYTES = 4 << 10
NAME_BYTES = 1 << 10
EMOTIONS_BYTES = 1 << 10
FORM_BYTES = 64 << 10  # what a form may hold besides its picture

AVATAR_TOO_LARGE = (
    f"the avatar is larger than {MAX_AVATAR_BYTES // 1_000_000} MB; make it again from a smaller photo"
)

JSON, FORM = "application/json", "multipart/form-data"
SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"  # RFC 8866 § 8.1, RFC 8840 § 10.3


@dataclass(frozen=True, slots=True)
class Body:
    """At most `limit_bytes` of `media_type`; `too_large` is what is said of more."""

    limit_bytes: int
    media_type: str
    too_large: str


def bodies(settings: ServeSettings) -> dict[tuple[str, str], Body]:
    """By method and path, as the routes are written. What does not stand here takes no body."""
    sdp = Body(MAX_SDP_CHARS, SDP, _longer("an offer", MAX_SDP_CHARS))
    fragment = Body(MAX_FRAGMENT_BYTES, FRAGMENT, _longer("a fragment", MAX_FRAGMENT_BYTES))
    picture = Body(settings.max_photo_bytes + FORM_BYTES, FORM, settings.too_large)
    return {
        ("POST", "/api/avatars"): picture,
        ("POST", "/api/avatars/file"): Body(MAX_AVATAR_BYTES + FORM_BYTES, FORM, AVATAR_TOO_LARGE),
        ("POST", "/api/backgrounds"): picture,
        ("POST", "/api/avatars/{name}/keep"): Body(NAME_BYTES, JSON, _longer("an avatar's name", NAME_BYTES)),
        ("PATCH", "/api/avatars/{name}"): Body(NAME_BYTES, JSON, _longer("an avatar's name", NAME_BYTES)),
        ("POST", "/api/avatars/{name}/emotions"): Body(
            EMOTIONS_BYTES, JSON, _longer("what says which emotions to draw", EMOTIONS_BYTES)
        ),
        ("POST", "/api/offer"): Body(OFFER_BYTES, JSON, _longer("an offer", OFFER_BYTES)),
        ("POST", "/whip/{avatar}"): sdp,
        ("POST", "/whep/{avatar}"): sdp,
        ("PATCH", "/whip/{avatar}/{session}"): fragment,
        ("PATCH", "/whep/{avatar}/{session}"): fragment,
        ("POST", "/api/connection-test"): Body(OFFER_BYTES, JSON, _longer("an offer", OFFER_BYTES)),
        ("PATCH", "/api/calls/{session}"): Body(
            CHANGE_BYTES, JSON, _longer("a change of a call", CHANGE_BYTES)
        ),
        ("PUT", "/api/avatars/{name}/controls"): Body(
            CONTROLS_BYTES, JSON, _longer("what says how an avatar moves", CONTROLS_BYTES)
        ),
    }


def body_of(method: str, path: str, table: Mapping[tuple[str, str], Body]) -> Body | None:
    """What a request to `path` may bring, or None for nothing."""
    for (verb, template), body in table.items():
        if verb == method and compile_path(template)[0].fullmatch(path):
            return body
    return None


def _longer(what: str, limit_bytes: int) -> str:
    return f"{what} is at most {limit_bytes >> 10} kB long; send less"
