"""Settings of the server: from the command line, else from `VISAVIS_…` variables."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from engines.errors import VisavisError


class ServeSettings(BaseSettings):
    """What `visavis serve` needs to know."""

    model_config = SettingsConfigDict(env_prefix="VISAVIS_")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_sessions: int | None = Field(default=None, ge=1)  # None: as many as the computer can show
    max_uploads: int = Field(default=32, ge=1)
    head_model: str | None = None
    max_photo_mb: float = Field(default=60, gt=0)

    @field_validator("host")
    @classmethod
    def _bare(cls, host: str) -> str:
        return host.removeprefix("[").removesuffix(
            "]"
        )  # as an IPv6 address stands in a URL (RFC 3986 § 3.2.2)

    @property
    def max_photo_bytes(self) -> int:
        """`max_photo_mb` in bytes."""
        return int(self.max_photo_mb * 1e6)

    @property
    def too_large(self) -> str:
        """What is said of a picture that is larger."""
        return f"the picture is larger than {self.max_photo_mb:g} MB; send a smaller one"

    @property
    def loopback(self) -> bool:
        """Whether only this computer can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_settings(**given: object) -> ServeSettings:
    """Settings from the command line over those from the environment; raises VisavisError naming a bad one."""
    try:
        return ServeSettings.model_validate(ServeSettings().model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"VISAVIS_{'_'.join(str(part) for part in first['loc'])}".upper()
        raise VisavisError(f"{name} (or its option) is wrong: {first['msg']}; correct or unset it") from error
