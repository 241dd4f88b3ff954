"""Settings of the server: from the command line, else from `VISAVIS_…` variables."""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Any, cast

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from engines.errors import VisavisError
from streamer.kept import KeptAvatars, kept_folder
from streamer.latency.minute import EVERY_S, MOST_S
from streamer.webrtc.ice import LIFETIME_S, IceError, IceSettings, read_ice

TOKEN_CHARACTERS = 12
# an address, and what else people copy with it: scheme, brackets, port
_HOST = re.compile(r"(?:\w+://)?(?:\[([^\[\]\s]*)\]|([^:/\[\]\s]*))(?::(\d*))?/?")


class ServeSettings(BaseSettings):
    """What `visavis serve` needs to know."""

    # a token that is refused must not stand in the error
    model_config = SettingsConfigDict(env_prefix="VISAVIS_", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    token: str | None = Field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_sessions: int | None = Field(default=None, ge=1)  # None: as many as the computer can show
    max_uploads: int = Field(default=32, ge=1)
    head_model: str | None = None
    log_every_s: float = Field(default=EVERY_S, ge=0, le=MOST_S)  # 0: never
    avatars: Path = Field(default_factory=kept_folder)  # where the page keeps avatars, on loopback alone
    publish: str | None = None  # a WHIP server's address
    publish_token: str | None = Field(default=None, repr=False)
    publish_token_file: Path | None = None
    max_photo_mb: float = Field(default=60, gt=0, le=2000)
    # addresses by commas; names and secrets of a TURN server come from the environment, where nobody else reads them
    stun: str = ""
    turn: str = ""
    turn_user: str | None = Field(default=None, repr=False)
    turn_password: str | None = Field(default=None, repr=False)
    turn_secret: str | None = Field(default=None, repr=False)
    turn_hours: float = Field(default=LIFETIME_S / 3600, ge=0.1, le=24 * 30)
    udp_ports: str | None = None

    @field_validator("host")
    @classmethod
    def _bare(cls, host: str) -> str:
        # as an IPv6 address stands in a URL (RFC 3986 § 3.2.2)
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if found := _HOST.fullmatch(bare):
            address = found[1] or found[2]
            if address and address == bare:
                return bare
            port = f" --port {found[3]}" if found[3] else ""
            raise ValueError(f"{host!r:.80} is no address alone: write --host {address or '127.0.0.1'}{port}")
        if ":" in bare and _is_ip(bare):
            return bare
        raise ValueError(
            f"{host!r:.80} is no address: write one such as --host 127.0.0.1 or --host ::1 --port 80"
        )

    @field_validator("token")
    @classmethod
    def _hard_to_guess(cls, token: str | None) -> str | None:
        # RFC 6750's token68, which a header can carry and an address can hold
        if token is not None and not re.fullmatch(rf"[\w.~+/-]{{{TOKEN_CHARACTERS},}}=*", token, re.ASCII):
            raise ValueError(
                f"a token has at least {TOKEN_CHARACTERS} letters, digits or -._~+/ so that nobody guesses it; "
                "make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        return token

    @model_validator(mode="after")
    def _ice_goes_together(self) -> ServeSettings:
        try:
            _ = self.ice
        except IceError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def ice(self) -> IceSettings:
        """How calls find their way through the network."""
        return read_ice(
            self.stun, self.turn, self.turn_user, self.turn_password, self.turn_secret, self.udp_ports,
            3600 * self.turn_hours,
        )  # fmt: skip

    @property
    def max_photo_bytes(self) -> int:
        """`max_photo_mb` in bytes."""
        return int(self.max_photo_mb * 1e6)

    @property
    def too_large(self) -> str:
        """What is said of a picture that is larger."""
        return f"the picture is larger than {self.max_photo_mb:g} MB; send a smaller one"

    @property
    def kept(self) -> KeptAvatars | None:
        """The avatars kept on this computer; None where others can connect: it would not be theirs."""
        return KeptAvatars(self.avatars.expanduser()) if self.loopback else None

    @property
    def loopback(self) -> bool:
        """Whether only this computer can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read_settings(**given: object) -> ServeSettings:
    """Settings from the command line over those from the environment; raises VisavisError naming a bad one."""
    try:
        settings = ServeSettings(**cast("dict[str, Any]", given))
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # of several that do not go together
            raise VisavisError(said) from error
        name = f"VISAVIS_{'_'.join(str(part) for part in first['loc'])}".upper()
        raise VisavisError(f"{name} (or its option) is wrong: {said}; correct or unset it") from error
    if settings.tls_cert and settings.tls_key:
        require_certificate(settings.tls_cert, settings.tls_key)
    return settings


def require_certificate(cert: Path, key: Path) -> None:
    """Raise VisavisError unless `cert` and `key` are a certificate and its key that can be read without a password."""
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise VisavisError(
                f"{option} {file} cannot be read ({error.strerror}); give a PEM file"
            ) from error
    try:
        # with no password of ours OpenSSL would ask for one on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise VisavisError(
            f"{cert} and {key} are no certificate and its key; give both as PEM, the key without a password"
        ) from error
