"""One avatar at work: moment → motion → retarget → picture. A fault degrades the picture, never the call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.enrollment import Enrollment
from engines.generators.kept import KeptGenerators
from engines.mood import mood_of
from engines.motion import Motion
from engines.retarget import retarget
from streamer.clock import Clock, SystemClock
from streamer.drive.demo import demo_track
from streamer.drive.driver import Drive, Driver
from streamer.drive.emotion import Felt, advance
from streamer.drive.recorded_head import RecordedHead
from streamer.figure import Figure
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.options import AvatarOptions
from streamer.slot import Slot

logger = logging.getLogger(__name__)

FAULT_EASE_S = 1.0

OnFault = Callable[[str, BaseException], None]


@dataclass(frozen=True, slots=True)
class Driven:
    """A driving moment and what it asks of the avatar: tracked, not drawn yet."""

    moment: Moment
    drive: Drive


@dataclass(frozen=True, slots=True)
class Shown:
    """One output frame and what drove it."""

    frame: Frame
    drive: Drive


class Avatar:
    """One session's avatar: `track` a moment, then `show_drive`.

    One thread tracks, one draws, the same or another; `controls` may be set and `driver.recalibrate` called
    from any. What it looks like may change while it is drawn (`become`): who drives it, and how, stays. Raises as
    `Renderer` does.
    """

    def __init__(
        self,
        enrollment: Enrollment,
        driver: Driver,
        options: AvatarOptions | None = None,
        *,
        clock: Clock | None = None,
        on_fault: OnFault | None = None,
    ) -> None:
        options = options or AvatarOptions()
        self.controls = options.controls_for(enrollment)
        self.driver = driver
        self._clock = clock or SystemClock()
        self._on_fault = on_fault
        self._generators = KeptGenerators()
        self._figure = Figure(enrollment, options, self._generators)
        self._next: Slot[tuple[Figure, Callable[[], None]]] = Slot()
        self._last_picture = self._figure.rest_picture
        self._fault_since_s: float | None = None
        self._felt: Felt | None = None
        self._head = RecordedHead(options.head_motion or demo_track())

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        height, width = self._figure.rest_picture.shape[:2]
        return width, height

    @property
    def notice(self) -> str | None:
        """A sentence for the user when another generator draws than was asked for, else None."""
        return self._figure.notice

    @property
    def generator_name(self) -> str:
        """The generator at work."""
        return self._figure.renderer.generator_name

    @property
    def still(self) -> NDArray[np.uint8]:
        """The picture at rest, (H, W, 3 or 4) uint8."""
        return self._figure.rest_picture

    def wait_until_compiled(self) -> bool:
        """For a file, which one engine draws from the first picture to the last; see `Renderer`."""
        return self._figure.renderer.wait_until_compiled()

    def figure_of(self, enrollment: Enrollment, options: AvatarOptions) -> Figure:
        """Another figure to `become`; takes a while, in any thread, one at a time. Raises as `Renderer` does."""
        return Figure(enrollment, options, self._generators)

    def become(self, figure: Figure, begun: Callable[[], None] = lambda: None) -> None:
        """Show `figure` from the next picture on; from any thread. The newest wins.

        `begun` is called by the drawing thread, before that picture: it may set `controls`.
        """
        self._next.put((figure, begun))

    def track(self, moment: Moment) -> Driven:
        """What one driving moment asks for. Only the tracking thread may call it."""
        drive = self.driver.drive(moment)
        return Driven(moment.mark("tracked", self._clock.now_ns()), drive)

    def track_idle(self, time_s: float, sequence: int) -> Driven:
        """What to show where nothing drives: the camera is gone or late. Only the tracking thread may call it."""
        now_ns = self._clock.now_ns()
        moment = Moment(time_s, now_ns, LatencyTrace({"captured": now_ns}), sequence)
        return Driven(moment, self.driver.idle(time_s))

    @property
    def ahead(self) -> int:
        """How many moments after the one to draw the generator sees, where a file has them."""
        return self._figure.renderer.ahead

    def show_drive(self, drive: Drive, moment: Moment, coming: Sequence[Drive] = ()) -> Shown:
        """The avatar's picture of `drive`, with the clock of `moment`. Only the drawing thread may call it.

        `coming`: what a file asks for next, soonest first; live nobody knows.
        """
        self._change()
        stamps = dict(moment.trace.stamps_ns)

        def mark(stage: str) -> None:
            stamps[stage] = self._clock.now_ns()

        try:
            asked, *later = self._asked(drive, moment.pts_s, coming)
            picture = self._figure.renderer.render(asked, mark, later)
            self._last_picture = picture
            self._fault_since_s = None
        except Exception as error:
            picture = self._after_fault(error, moment.pts_s)
            drive = replace(drive, state="fault")
        return Shown(replace(moment, trace=LatencyTrace(stamps)).with_image(picture), drive)

    def _change(self) -> None:
        coming = self._next.take(0.0)
        if coming is None:
            return
        self._figure, begun = coming
        self._last_picture = self._figure.rest_picture  # of its size, which may be another
        self._fault_since_s = None
        begun()

    def _asked(self, drive: Drive, time_s: float, coming: Sequence[Drive]) -> list[Motion]:
        """What `drive`, and what comes after it, ask of the photo's head, with the emotion of the controls eased in."""
        controls = self.controls  # read once: another thread may set them
        wanted = mood_of(controls.preset, controls.preset_strength)
        felt = self._felt = advance(self._felt, wanted, drive.motion, time_s)
        source = self._figure.source
        head = self._head = self._head.towards(controls.head_from == "recording", time_s)
        asked: list[Motion] = []
        for d in (drive, *coming):
            motion = retarget(d.motion, d.neutral, source, controls, mood=felt.mood, talking=felt.talking)
            # what comes is as much later in the recording too
            at_s = time_s + d.motion.time_s - drive.motion.time_s
            asked.append(head.posed(motion, at_s, source, controls))
        return asked

    def _after_fault(self, error: Exception, time_s: float) -> NDArray[np.uint8]:
        if self._fault_since_s is None:
            self._fault_since_s = time_s
            logger.error("the generator failed; showing the last good picture", exc_info=error)
        if self._on_fault:
            self._on_fault("generated", error)
        weight = float(np.clip((time_s - self._fault_since_s) / FAULT_EASE_S, 0, 1))
        return cv2.addWeighted(self._figure.rest_picture, weight, self._last_picture, 1 - weight, 0).astype(
            np.uint8
        )

    def close(self) -> None:
        """Free the tracker."""
        self.driver.close()
