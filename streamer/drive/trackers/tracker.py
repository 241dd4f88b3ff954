"""The `Tracker` contract: pictures in, `Motion` out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.neutral import DriverNeutral, NeutralReport
from engines.motion import Motion
from streamer.closing import Closing
from streamer.drive.told import Told
from streamer.frame import Frame

_MOST_OUTSIDE = 0.05  # of the landmarks; a chin or an ear at the edge is no half face


@dataclass(frozen=True, slots=True)
class Track:
    """What a tracker saw in one frame.

    `motion` is None when no face was found. `landmarks_px` (478, 3) is for the preview only: nothing
    downstream of the tracker may use it, so that every driver can be recorded and replayed as `Motion`.
    """

    motion: Motion | None
    landmarks_px: NDArray[np.float32] | None = None
    calibrating: bool = False


class Tracker(Closing):
    """Follows one face through a stream of frames. Not thread-safe: one tracker, one thread."""

    @abstractmethod
    def track(self, frame: Frame) -> Track:
        """Motion in `frame`; never raises for a picture without a face."""

    def told(self, moment: Told) -> Track:
        """Motion that another tells; who follows pictures believes nobody."""
        return Track(None)

    @property
    @abstractmethod
    def neutral(self) -> Motion | None:
        """The driver's rest motion, or None before the first face."""

    @abstractmethod
    def retake_neutral(self) -> None:
        """Forget the driver's neutral and take it anew from the coming second."""

    @property
    def neutral_report(self) -> NeutralReport:
        """How the neutral stands; what never takes one waits for ever."""
        return NeutralReport()

    @property
    def driver_neutral(self) -> DriverNeutral | None:
        """Mesh and motion of the driver's rest, for a tracker of the same kind to start from.

        The one that is being eased in, where one is. Worth keeping once `neutral_report` says "taken".
        """
        return None

    def use_neutral(self, neutral: DriverNeutral, *, for_good: bool = False) -> None:
        """Skip the calibration: take a neutral computed before; `for_good`: no later evidence revises it."""

    @abstractmethod
    def close(self) -> None:
        """Free the tracker's resources; calling twice is harmless."""


def is_cut_off(landmarks_px: NDArray[np.float32], width_px: int, height_px: int) -> bool:
    """Whether the picture does not show all of the face: some of its landmarks (478, 3) lie beyond the edge."""
    x, y = landmarks_px[:, 0], landmarks_px[:, 1]
    outside = (x < 0) | (y < 0) | (x > width_px) | (y > height_px)
    return float(outside.mean()) > _MOST_OUTSIDE


class NoTracker(Tracker):
    """Where nothing is tracked: motion comes from a file or from sound; of a picture it sees nothing."""

    def track(self, frame: Frame) -> Track:
        return Track(None)

    @property
    def neutral(self) -> Motion | None:
        return None

    def retake_neutral(self) -> None:
        return

    def close(self) -> None:
        return
