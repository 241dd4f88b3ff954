"""`Told`: a moment whose motion a phone or another program tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from engines.motion import Motion
from streamer.frame import Moment


@dataclass(frozen=True, slots=True)
class Told(Moment):
    """A moment of another's tracking: there is nothing to look at, `motion` is the face then; None: there is no face.

    The motion is absolute, in the driver's camera; how closed lips and lids are is not told. `is_raw`: it is as
    measured, and wants smoothing.
    """

    motion: Motion | None = field(kw_only=True)
    is_raw: bool = field(kw_only=True)
