"""One avatar at work: frame → motion → retarget → picture. A fault degrades the picture, never the call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.frame import Frame, LatencyTrace
from engines.generator_names import DEFAULT_GENERATOR
from engines.renderer import Framing, Renderer
from engines.retarget import Controls, retarget
from streamer.clock import Clock, SystemClock
from streamer.driver import Drive, Driver

logger = logging.getLogger(__name__)

FAULT_EASE_S = 1.0

OnFault = Callable[[str, BaseException], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """One output frame and what drove it."""

    frame: Frame
    drive: Drive


class Avatar:
    """One session's avatar. One thread calls `step` and `step_idle`; `controls` may be set from any other.

    Without `controls` it starts with those saved with the enrollment.
    """

    def __init__(
        self,
        enrollment: Enrollment,
        driver: Driver,
        *,
        generator: str = DEFAULT_GENERATOR,
        framing: Framing = "head",
        size_px: int = 512,
        controls: Controls | None = None,
        clock: Clock | None = None,
        on_fault: OnFault | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self.controls = controls or enrollment.controls or Controls()
        self.driver = driver
        self._clock = clock or SystemClock()
        self._on_fault = on_fault
        self._renderer = renderer or Renderer(
            enrollment, generator=generator, framing=framing, size_px=size_px
        )
        self._source = enrollment.motion
        # drawn now, while everything works: what a broken generator eases into
        self._neutral_picture = self._renderer.render(self._source)
        self._last_picture = self._neutral_picture
        self._fault_since_s: float | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        height, width = self._neutral_picture.shape[:2]
        return width, height

    def step(self, frame: Frame) -> Shown:
        """The avatar's answer to one driving frame."""
        drive = self.driver.drive(frame)
        tracked = frame.mark("tracked", self._clock.now_ns())
        return self._show(tracked, drive)

    def step_idle(self, time_s: float, sequence: int) -> Shown:
        """A frame without a driving frame: the camera is gone or late."""
        now = self._clock.now_ns()
        trace = LatencyTrace({"captured": now})
        frame = Frame(self._neutral_picture, time_s, now, trace, sequence)
        return self._show(frame, self.driver.idle(time_s))

    def show_drive(self, drive: Drive, frame: Frame) -> Shown:
        """A frame driven by what is already known (a recorded motion, a tracker that runs elsewhere)."""
        return self._show(frame, drive)

    def _show(self, frame: Frame, drive: Drive) -> Shown:
        stamps = dict(frame.trace.stamps_ns)

        def mark(stage: str) -> None:
            stamps[stage] = self._clock.now_ns()

        try:
            target = retarget(drive.motion, drive.neutral, self._source, self.controls)
            picture = self._renderer.render(target, mark)
            self._last_picture = picture
            self._fault_since_s = None
        except Exception as error:
            picture = self._after_fault(error, frame.pts_s)
            drive = replace(drive, state="fault")
        return Shown(replace(frame, image=picture, trace=LatencyTrace(stamps)), drive)

    def _after_fault(self, error: Exception, time_s: float) -> NDArray[np.uint8]:
        if self._fault_since_s is None:
            self._fault_since_s = time_s
            logger.error("the generator failed; showing the last good picture", exc_info=error)
        if self._on_fault:
            self._on_fault("generated", error)
        weight = float(np.clip((time_s - self._fault_since_s) / FAULT_EASE_S, 0, 1))
        return cv2.addWeighted(self._neutral_picture, weight, self._last_picture, 1 - weight, 0).astype(
            np.uint8
        )

    def close(self) -> None:
        """Free the tracker."""
        self.driver.close()
