"""Offline: a driving video or motion file moves an avatar into a file, frame for frame, sound in sync."""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from calibration.neutral import CALIBRATION_S
from engines.enrollment import Enrollment
from engines.errors import DriverError, SinkError
from engines.frame import Frame, LatencyTrace
from engines.generator_names import DEFAULT_GENERATOR
from engines.motion import Motion, read_motion, write_motion
from engines.renderer import Framing, Renderer
from engines.retarget import Controls
from engines.speech.speech_to_motion import SpeechToMotion, motions_of
from streamer.avatar import Avatar, Shown
from streamer.clock import Clock, SystemClock
from streamer.driver import Drive, Driver
from streamer.filters import centred
from streamer.idle import with_idle
from streamer.ledger import Ledger
from streamer.look import AS_IS, Look
from streamer.sinks.file import FileSink
from streamer.sinks.sink import Sink, SinkInfo
from streamer.sources.sound import sound_blocks, sound_seconds
from streamer.sources.video import VideoSource, is_sound
from streamer.tracker import NoTracker, Tracker
from streamer.trackers import DEFAULT_TRACKER, make_tracker
from streamer.tuning import tune_for_small_pictures

T = TypeVar("T")

SPEECH_FPS = 25.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to animate: a driver (video, sound, or motion file ending in .jsonl) and where the result goes."""

    driver: Path
    output: Path
    generator: str = DEFAULT_GENERATOR
    tracker: str = DEFAULT_TRACKER
    size_px: int = 512
    controls: Controls = field(default_factory=Controls)
    framing: Framing = "head"
    look: Look = AS_IS
    motion_output: Path | None = None
    trace: Path | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What came out; `notices` are sentences for the user."""

    frames: int
    seconds: float
    faces: int
    notices: tuple[str, ...]

    @property
    def fps(self) -> float:
        """Frames per second of work."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class _Step:
    frame: Frame
    drive: Drive


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


def animate(
    enrollment: Enrollment,
    job: Job,
    *,
    progress: Callable[[int, int | None], None] | None = None,
    clock: Clock | None = None,
) -> Done:
    """Run `job`; `progress(done, total)` after each frame. Raises DriverError or SinkError; leaves no half file."""
    tune_for_small_pictures()
    clock = clock or SystemClock()
    # in the photo's own framing an absolute driver is also where it is in its own picture
    controls = replace(job.controls, place_absolutely=job.controls.place_absolutely or job.framing == "photo")
    is_motion, speaks = job.driver.suffix.lower() == ".jsonl", is_sound(job.driver)
    if job.motion_output:
        _require_writable(job.motion_output)
    with ExitStack() as stack:
        background = job.look.background
        audio_from = None if is_motion else job.driver
        sink: Sink = stack.enter_context(
            FileSink(job.output, audio_from=audio_from, alpha=background.mode == "transparent")
        )
        ledger = stack.enter_context(Ledger(trace_path=job.trace))
        # motion and sound need none, nor the library that it loads
        tracker = NoTracker() if is_motion or speaks else make_tracker(job.tracker)
        driver = Driver(tracker, smooth=False)  # `_smoothed` looks ahead instead: no lag in a file
        stack.callback(driver.close)
        renderer = Renderer(
            enrollment, generator=job.generator, framing=job.framing, size_px=job.size_px,
            background=background, aspect=job.look.aspect,
        )  # fmt: skip
        avatar = Avatar(
            enrollment, driver, controls=controls, clock=clock, on_fault=ledger.fault, renderer=renderer
        )
        renderer.wait_until_compiled()
        notices = [renderer.notice] if renderer.notice else []
        start_ns = clock.now_ns()
        if is_motion:
            track = read_motion(job.driver)
            fps, total = track.fps, len(track.motions)
            steps = _recorded(track.motions, track.neutral, fps, clock)
        elif speaks:
            fps, seconds_in = SPEECH_FPS, sound_seconds(job.driver)
            total = None if seconds_in is None else round(seconds_in * fps)
            spoken = motions_of(SpeechToMotion(), sound_blocks(job.driver), fps)
            alive = (with_idle(motion, motion.time_s) for motion in spoken)
            steps = stack.enter_context(closing(ahead(_recorded(alive, Motion(), fps, clock))))
        else:
            calibrate(tracker, make_tracker(job.tracker), job.driver)
            source = stack.enter_context(VideoSource(job.driver))
            fps = source.info.fps
            total = round(source.info.duration_s * fps) if source.info.duration_s else None
            frames = stack.enter_context(closing(ahead(_frames(source))))
            steps = stack.enter_context(closing(ahead(_smoothed(_tracked(frames, driver, clock)))))
        width, height = avatar.size_px
        sink.open(SinkInfo(width, height, fps))
        count = faces = 0
        motions: list[Motion] = []
        neutral: Motion | None = None
        # closed by name: after an exception nothing may still draw or track when the tracker is freed
        for shown in stack.enter_context(closing(ahead(_drawn(steps, avatar)))):
            sink.write(shown.frame)
            count += 1
            faces += shown.drive.face
            if job.motion_output:
                motions.append(shown.drive.motion)
                neutral = shown.drive.neutral
            done = shown.frame.mark("encoded", clock.now_ns())
            ledger.frame(done.trace, sequence=done.sequence, pts_s=done.pts_s, fresh=True)
            if progress:
                progress(count, total)
        if not is_motion and not speaks and source.notice:  # pyright: ignore[reportPossiblyUnboundVariable]
            notices.append(source.notice)  # pyright: ignore[reportPossiblyUnboundVariable]
        if faces == 0 and speaks:
            raise DriverError(
                f"{job.driver.name} holds no sound that can be decoded; export it again as .wav"
            )
        if faces == 0:
            raise DriverError(
                f"no face found in {job.driver.name}; use a video that shows one face from the front"
            )
        if faces < count:
            notices.append(f"no face in {count - faces} of {count} frames: held and eased to neutral there")
        sink.close()
        if job.motion_output:
            _write_motion(job.motion_output, motions, fps, neutral)
        seconds = (clock.now_ns() - start_ns) / 1e9
    return Done(count, seconds, faces, tuple(notices))


def _require_writable(path: Path) -> None:
    """Raise SinkError when a motion file cannot be written there: known before the work, not after it."""
    if path.is_dir():
        raise SinkError(f"{path} is a folder; name a file in it, such as {path / 'motion.jsonl'}")
    if not path.parent.is_dir():
        raise SinkError(f"the folder {path.parent} does not exist; make it with `mkdir -p {path.parent}`")
    if not os.access(path.parent, os.W_OK):
        raise SinkError(f"the folder {path.parent} may not be written; choose another with --motion-out")


def _write_motion(path: Path, motions: list[Motion], fps: float, neutral: Motion | None) -> None:
    """Whole or not at all, as the video is."""
    part = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        write_motion(part, motions, fps, neutral)
        part.replace(path)
    except OSError as error:
        raise SinkError(
            f"cannot write the motion {path} ({error.strerror}); the video was kept; "
            "free some space or choose another file with --motion-out"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def calibrate(tracker: Tracker, probe: Tracker, path: Path) -> None:
    """Take the driver's neutral from the first second of faces before the first frame is drawn; frees `probe`."""
    with probe, VideoSource(path) as source:
        first_s: float | None = None
        while (frame := source.read()) is not None:
            seen = probe.track(frame).motion
            if seen is not None and first_s is None:
                first_s = frame.pts_s
            if (first_s is not None and frame.pts_s - first_s > 2 * CALIBRATION_S) or frame.pts_s > 20:
                break
        if probe.driver_neutral is not None:
            tracker.use_neutral(probe.driver_neutral)


def _frames(source: VideoSource) -> Iterator[Frame]:
    while (frame := source.read()) is not None:
        yield frame


def _tracked(frames: Iterable[Frame], driver: Driver, clock: Clock) -> Iterator[_Step]:
    for frame in frames:
        drive = driver.drive(frame)
        yield _Step(frame.mark("tracked", clock.now_ns()), drive)


def _smoothed(steps: Iterable[_Step]) -> Iterator[_Step]:
    """Each motion smoothed with its neighbours, where there is a face in all three frames."""
    before: _Step | None = None
    now: _Step | None = None

    def settled(a: _Step | None, b: _Step, c: _Step | None) -> _Step:
        if a is None or c is None or not (a.drive.face and b.drive.face and c.drive.face):
            return b
        return _Step(
            b.frame, replace(b.drive, motion=centred(a.drive.motion, b.drive.motion, c.drive.motion))
        )

    for after in steps:
        if now is not None:
            yield settled(before, now, after)
        before, now = now, after
    if now is not None:
        yield now


def _recorded(motions: Iterable[Motion], neutral: Motion | None, fps: float, clock: Clock) -> Iterator[_Step]:
    empty = np.zeros((2, 2, 3), np.uint8)
    rest: Motion | None = neutral
    for index, motion in enumerate(motions):
        rest = rest or motion  # without a recorded neutral the first frame is the rest
        now = clock.now_ns()
        frame = Frame(empty, index / fps, now, LatencyTrace({"captured": now}), index)
        yield _Step(frame, Drive(motion, rest, "tracking", face=True))


def _drawn(steps: Iterable[_Step], avatar: Avatar) -> Iterator[Shown]:
    for step in steps:
        yield avatar.show_drive(step.drive, step.frame)
