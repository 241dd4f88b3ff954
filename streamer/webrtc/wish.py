"""`Wish`: whom a call shows, and how. A page may change its mind while the call runs."""

from __future__ import annotations

from dataclasses import dataclass

from engines.enrollment import Enrollment
from engines.picture.background import Background
from streamer.webrtc.call_options import CallOptions


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """`number`: which of the call's wishes it is, 0 that of the offer."""

    enrollment: Enrollment
    options: CallOptions
    number: int = 0

    def looks_like(self, other: Wish) -> bool:
        """Whether nothing has to be made anew to show the one instead of the other."""
        mine, others = self.options, other.options
        return (
            self.enrollment is other.enrollment
            and (mine.generator, mine.size_px, mine.look.aspect)
            == (others.generator, others.size_px, others.look.aspect)
            and _same(mine.look.background, others.look.background)
        )


def _same(one: Background, other: Background) -> bool:
    return (one.mode, one.colour) == (other.mode, other.colour) and (one.picture is other.picture)
