"""What drives a file: recorded motion, sound or video, each as moments and what drives them."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from calibration.neutral_estimator import LENIENT_S
from engines.motion import Motion, read_motion
from engines.speech.speech_to_motion import SpeechToMotion, motions_of
from streamer.avatar import Driven
from streamer.clock import Clock
from streamer.drive.driver import Drive, Driver
from streamer.drive.filters import centred
from streamer.drive.idle import with_idle
from streamer.drive.trackers.open import open_tracker
from streamer.drive.trackers.tracker import NoTracker, Tracker
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.sources.heard import HEARD_FPS
from streamer.sources.names import is_motion
from streamer.sources.orientation import upright_turn
from streamer.sources.sound_reading import SoundReading
from streamer.sources.source import Source
from streamer.sources.tracks import is_sound_alone
from streamer.sources.video import VideoSource

T = TypeVar("T")

_NOBODY_S = 20.0  # without any face
_LOOKED_THROUGH_S = 60.0
_LOOK_EACH_S = 0.06  # 15 frames a second tell a calm face as well as 60


@dataclass(frozen=True, slots=True)
class Steps:
    """All steps of a recording at `fps`; `total` is how many, where that is known before."""

    fps: float
    total: int | None
    steps: Iterable[Driven]


class Recording(ABC):
    """A driver that is a file. `steps` is asked for once; what it opens is closed by the stack it is given."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.clock = clock

    def open_tracker(self) -> Tracker:
        """What `steps` is to follow the driver with, through a `Driver`; motion and sound need none."""
        return NoTracker()

    @property
    def audio(self) -> Path | None:
        """Where the sound of the result comes from."""
        return self.path

    @property
    def notices(self) -> tuple[str, ...]:
        """What was wrong with the file without ending the work, once all steps were taken."""
        return ()

    @property
    @abstractmethod
    def nobody(self) -> str:
        """Why nothing at all was driven, with what to do."""

    @abstractmethod
    def steps(self, driver: Driver, stack: ExitStack) -> Steps:
        """From the first frame to the last; `driver` has the opened tracker. Raises DriverError for a broken file."""


class _MotionFile(Recording):
    @property
    def audio(self) -> Path | None:
        return None

    @property
    def nobody(self) -> str:
        return f"{self.path.name} holds no motion; record it again with --motion-out"

    def steps(self, driver: Driver, stack: ExitStack) -> Steps:
        track = read_motion(self.path)
        steps = _recorded(track.motions, track.neutral, track.fps, self.clock)
        return Steps(track.fps, len(track.motions), steps)


class _SoundFile(Recording):
    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path, clock)
        self._reading: SoundReading | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        return self._reading.final_notices() if self._reading else ()

    @property
    def nobody(self) -> str:
        return f"{self.path.name} holds no sound that can be decoded; export it again as .wav"

    def steps(self, driver: Driver, stack: ExitStack) -> Steps:
        self._reading = reading = stack.enter_context(SoundReading(self.path))
        seconds = reading.stated_s
        spoken = motions_of(SpeechToMotion(), reading.blocks(), HEARD_FPS)
        alive = (with_idle(motion, motion.time_s) for motion in spoken)
        steps = stack.enter_context(closing(ahead(_recorded(alive, Motion(), HEARD_FPS, self.clock))))
        return Steps(HEARD_FPS, None if seconds is None else round(seconds * HEARD_FPS), steps)


class _VideoFile(Recording):
    def __init__(self, path: Path, clock: Clock, tracker: str) -> None:
        super().__init__(path, clock)
        self._tracker_name = tracker
        self._tracker: Tracker | None = None
        self._source: VideoSource | None = None

    def open_tracker(self) -> Tracker:
        self._tracker = open_tracker(self._tracker_name)
        return self._tracker

    @property
    def notices(self) -> tuple[str, ...]:
        return self._source.notices if self._source else ()

    @property
    def nobody(self) -> str:
        return f"no face found in {self.path.name}; use a video that shows one face from the front"

    def steps(self, driver: Driver, stack: ExitStack) -> Steps:
        turns = upright_turn(self.path)
        if self._tracker is not None:
            with VideoSource(self.path, quarter_turns=turns) as first_seconds:
                calibrate(self._tracker, open_tracker(self._tracker_name), first_seconds)
        self._source = source = stack.enter_context(VideoSource(self.path, quarter_turns=turns))
        fps, seconds = source.info.fps, source.info.duration_s
        frames = stack.enter_context(closing(ahead(_frames(source))))
        steps = stack.enter_context(closing(ahead(_smoothed(_tracked(frames, driver, self.clock)))))
        return Steps(fps, round(seconds * fps) if seconds else None, steps)


def recording_of(path: Path, tracker: str, clock: Clock) -> Recording:
    """The recording that `path` is: motion by its name (.jsonl), else sound or video, followed by `tracker`.

    Raises DriverError for what is none.
    """
    if is_motion(path):
        return _MotionFile(path, clock)
    return _SoundFile(path, clock) if is_sound_alone(path) else _VideoFile(path, clock, tracker)


def ahead(items: Iterable[T], depth: int = 2) -> Generator[T, None, None]:
    """`items`, made in a thread of their own up to `depth` ahead: offline stages overlap, nothing is dropped.

    An exception of the producer is raised here; leaving the loop early stops the producer.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> None:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put((True, item))
                if stop.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield item  # pyright: ignore[reportReturnType]
    finally:
        stop.set()
        thread.join()


def calibrate(tracker: Tracker, probe: Tracker, source: Source) -> None:
    """Take the driver's neutral from the first calm second before the first frame is drawn; frees `probe`.

    Where the first seconds of faces are not calm, the calmest of `_LOOKED_THROUGH_S` is taken: a file has time.
    """
    with probe:
        first_s = last_s = taken = None
        while isinstance(frame := source.read(), Frame):
            if last_s is not None and 0 <= frame.pts_s - last_s < _LOOK_EACH_S:
                continue
            last_s = frame.pts_s
            if probe.track(frame).motion is not None and first_s is None:
                first_s = frame.pts_s
            if first_s is None and frame.pts_s > _NOBODY_S:
                break
            if first_s is None:
                continue
            if "new_person" in probe.neutral_report.why:  # whom the file shows first keeps the neutral
                break
            taken = probe.driver_neutral
            # taken before the tracker becomes lenient, it is as good as any that is to come
            is_calm = probe.neutral_report.state == "taken" and frame.pts_s - first_s < LENIENT_S
            if is_calm or frame.pts_s - first_s > _LOOKED_THROUGH_S:
                break
        taken = taken or probe.driver_neutral
        if taken is not None:
            # a recorded motion has one neutral
            tracker.use_neutral(taken, for_good=True)


def _frames(source: VideoSource) -> Iterator[Frame]:
    while (frame := source.read()) is not None:
        yield frame


def _tracked(frames: Iterable[Frame], driver: Driver, clock: Clock) -> Iterator[Driven]:
    for frame in frames:
        drive = driver.drive(frame)
        yield Driven(frame.mark("tracked", clock.now_ns()), drive)


def _smoothed(steps: Iterable[Driven]) -> Iterator[Driven]:
    """Each motion smoothed with its neighbours, where there is a face in all three frames."""
    before: Driven | None = None
    now: Driven | None = None

    def settled(a: Driven | None, b: Driven, c: Driven | None) -> Driven:
        drive = settled_drive(a and a.drive, b.drive, c and c.drive)
        return b if drive is b.drive else Driven(b.moment, drive)

    for after in steps:
        if now is not None:
            yield settled(before, now, after)
        before, now = now, after
    if now is not None:
        yield now


def settled_drive(before: Drive | None, now: Drive, after: Drive | None) -> Drive:
    """`now` smoothed with its neighbours in time, where there is a face in all three."""
    if before is None or after is None or not (before.face and now.face and after.face):
        return now
    return replace(now, motion=centred(before.motion, now.motion, after.motion))


def _recorded(
    motions: Iterable[Motion], neutral: Motion | None, fps: float, clock: Clock
) -> Iterator[Driven]:
    rest: Motion | None = neutral
    for index, motion in enumerate(motions):
        rest = rest or motion  # without a recorded neutral the first frame is the rest
        now = clock.now_ns()
        moment = Moment(index / fps, now, LatencyTrace({"captured": now}), index)
        yield Driven(moment, Drive(motion, rest, "tracking", face=True))
