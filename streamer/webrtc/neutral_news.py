"""`NeutralNews`: what a page is told of the driver's neutral, and is given to keep for its next call."""

from __future__ import annotations

from calibration.kept_neutral import NeutralError, text_of
from calibration.neutral import NeutralReport
from streamer.drive.driver import Driver
from streamer.webrtc.messages import Message


class NeutralNews:
    """Of one call. One thread asks."""

    def __init__(self, tracker: str) -> None:
        self._tracker = tracker
        self._told: NeutralReport | None = None

    def of(self, driver: Driver) -> Message | None:
        """What to tell when something is new, else None. `kept`: the neutral as text, once it is taken."""
        report = driver.neutral_report
        if report == self._told:
            return None
        self._told = report
        return {
            "type": "neutral",
            "state": report.state,
            "why": list(report.why),
            "revision": report.revision,
            "kept": self._kept(driver) if report.state == "taken" else None,
        }

    def _kept(self, driver: Driver) -> str | None:
        neutral = driver.driver_neutral
        try:
            return None if neutral is None else text_of(neutral, self._tracker)
        except NeutralError:  # no rest of a face: it serves, but not for another call
            return None
