"""`Check`: one finding of `visavis doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEADLINE_S = 4.0  # for the probes; the rest takes some tenths, and `diagnose` promises 5 s

Status = Literal["ok", "missing", "warn"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `missing`: visavis does not work without it; `warn`: something is worse or off."""

    name: str
    status: Status
    detail: str
    fix: str = ""  # the one command or sentence, for a status other than ok
