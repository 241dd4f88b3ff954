"""`CallOptions`: what a page asks of a call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from calibration.neutral import DriverNeutral
from streamer.options import AvatarOptions

Mode = Literal["avatar", "echo"]
DrivenBy = Literal["webcam", "voice", "demo"]
MOST_TRIM_MS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions(AvatarOptions):
    """An avatar in a call, or the echo of the page's own camera.

    `trim_ms`: the sound that much later (> 0) or earlier than measured, at most `MOST_TRIM_MS`. `voice_helps`: the
    microphone moves the mouth while the camera sees no face. `neutral`: the driver's, from a call before this one.
    """

    mode: Mode = "avatar"
    drive: DrivenBy = "webcam"
    voice_helps: bool = True
    neutral: DriverNeutral | None = field(default=None, compare=False, repr=False)

    def but(self, **changes: Any) -> CallOptions:
        """The same with other values of some fields."""
        return replace(self, **changes)
