"""target_of: where `visavis serve --publish` pushes to, and the token for it, from settings."""

from __future__ import annotations

import ipaddress
import logging
import re
from pathlib import Path
from urllib.parse import urlsplit

from engines.errors import VisavisError
from streamer.serve.config import ServeSettings
from streamer.webrtc.publication import WhipTarget

logger = logging.getLogger(__name__)

MOST_TOKEN_BYTES = 8192  # a JSON Web Token has a few hundred


def target_of(settings: ServeSettings) -> WhipTarget | None:
    """None where nothing is to be pushed. Raises VisavisError for an address or a token that cannot be used."""
    if settings.publish is None:
        if settings.publish_token_file is not None:
            raise VisavisError("--publish-token-file says what to show, not whom: give --publish URL too")
        return None
    url = address_of(settings.publish)
    token = settings.publish_token
    if settings.publish_token_file is not None:
        token = token_in(settings.publish_token_file)
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise VisavisError("the publish token has characters that no header carries; copy it again")
    if token is not None and urlsplit(url).scheme == "http" and not _is_here(urlsplit(url).hostname or ""):
        logger.warning("the publish token goes over the network in clear; use an https address")
    return WhipTarget(url, token)


def address_of(text: str) -> str:
    """`text`, if it is an http or https address without a password in it. Raises VisavisError."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or not re.fullmatch(r"[!-~]+", text):
        raise VisavisError(
            f"--publish {text!r:.80} is no address of a WHIP server; give one such as https://host/whip/name"
        )
    if parts.username is not None:
        raise VisavisError(
            "--publish has a password in its address; give it by VISAVIS_PUBLISH_TOKEN instead"
        )
    return text


def token_in(path: Path) -> str:
    """What stands in a token's file, without what stands around it. Raises VisavisError where there is none."""
    try:
        with path.open("rb") as file:
            token = file.read(MOST_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise VisavisError(f"--publish-token-file {path} cannot be read; write the token into it") from error
    if not token or len(token) > MOST_TOKEN_BYTES:
        raise VisavisError(f"--publish-token-file {path} holds no token; write the token alone into it")
    return token


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
