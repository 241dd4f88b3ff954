"""`RestNotices`: what a terminal says of the driver's neutral while it is waited for, and when it becomes another."""

from __future__ import annotations

from dataclasses import dataclass, replace

from calibration.neutral import NeutralReport

SAY_AFTER_S = 2.0  # whoever is calm at once reads nothing

_DO = {
    "new_person": "you are somebody else than before",
    "cut_off": "move until all of your face is in the picture",
    "turned": "look straight ahead",
    "looking_down": "look up, at the camera",
    "moving": "hold your head still",
    "talking": "be silent for a second",
    "mouth_open": "close your mouth",
    "smiling": "relax your smile",
    "eyes_shut": "open your eyes",
    "brows_up": "relax your brows",
}


@dataclass(frozen=True, slots=True)
class RestNotices:
    """The notices so far, each said once, and how the neutral stood when they were told.

    `asked`: the person was told what to do and is still waited for.
    """

    said: tuple[str, ...] = ()
    waits_since_s: float | None = None
    asked: bool = False
    revision: int = 0

    def after(self, report: NeutralReport, time_s: float) -> RestNotices:
        """The same after another moment with a face."""
        if report.state == "waiting":
            return self._waiting(report, time_s)
        now = replace(self, waits_since_s=None, asked=False, revision=report.revision)
        if report.revision == self.revision:
            return now
        if self.asked:
            return now._with("your face at rest was taken")
        if self.revision and self.waits_since_s is None:
            return now._with("you look calmer now; your face at rest was taken anew")
        return now

    def _waiting(self, report: NeutralReport, time_s: float) -> RestNotices:
        begin_s = self.waits_since_s
        if begin_s is None or time_s < begin_s:
            return replace(self, waits_since_s=time_s)
        if self.asked or not report.why or time_s - begin_s < SAY_AFTER_S:
            return self
        wishes = ", ".join(text for why, text in _DO.items() if why in report.why)
        return replace(self, asked=True)._with(f"waiting for your face at rest: {wishes}")

    def _with(self, text: str) -> RestNotices:
        return self if text in self.said else replace(self, said=(*self.said, text))
