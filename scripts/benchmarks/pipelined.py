"""The live loop's two threads at full load, frames from memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engines.enrollment import Enrollment
from engines.errors import DriverError
from scripts.benchmarks.measured import Measured, percentiles_of
from streamer.avatar import Avatar, Shown
from streamer.clock import SystemClock
from streamer.drive.driver import Drive
from streamer.drive.open import open_driver
from streamer.frame import Frame, LatencyTrace, Moment
from streamer.options import AvatarOptions
from streamer.pipeline import TrackThenDraw
from streamer.sources.video import VideoSource

WARM_UP_FRAMES = 60  # the driver's neutral is taken, engines are built, memory is touched


@dataclass(frozen=True, slots=True)
class Pipelined:
    """A run of two threads: `generator` is the one that drew; stage times in ms of each frame after the warm-up."""

    generator: str
    frames: int
    fps: float
    dropped: int
    times_ms: dict[str, list[float]]


def read_clip(driver: Path) -> tuple[list[Frame], float]:
    """All frames of a video, and its frames per second. Raises DriverError for one without frames."""
    with VideoSource(driver) as source:
        frames: list[Frame] = []
        while (frame := source.read()) is not None:
            frames.append(frame)
        fps = source.info.fps
    if not frames:
        raise DriverError(f"{driver} has no frames; choose another video with --driver")
    return frames, fps


class TellingAvatar(Avatar):
    """Calls `on_drawing` when the drawing thread has taken a frame up."""

    on_drawing: Callable[[], None]

    def show_drive(self, drive: Drive, moment: Moment, coming: Sequence[Drive] = ()) -> Shown:
        """As an avatar does, having told."""
        self.on_drawing()
        return super().show_drive(drive, moment, coming)


def run_pipelined(
    enrollment: Enrollment, clip: list[Frame], clip_fps: float, generator: str, size_px: int, count: int
) -> Pipelined:
    """Track, fit, rasterise, generate and composite `count` frames after a warm-up, in the live loop's two threads.

    Frames come from memory, in turn, as fast as they are used: one is drawn while the next is tracked, so fps
    is what the two threads sustain, not what a camera gives. Raises what a stage raises.
    """
    clock = SystemClock()
    total = WARM_UP_FRAMES + count
    room = threading.Semaphore(1)  # before the drawing thread: no frame is dropped for being early
    given: list[tuple[int, LatencyTrace]] = []
    errors: list[Exception] = []
    taken = 0

    def take(timeout_s: float) -> tuple[Frame, None] | None:
        nonlocal taken
        if taken == total or not room.acquire(timeout=timeout_s):
            return None
        k, taken = taken, taken + 1
        image, now_ns = clip[k % len(clip)].image, clock.now_ns()
        return Frame(k / clip_fps, now_ns, LatencyTrace({"captured": now_ns}), k, image=image), None

    def give(shown: Shown, _: None) -> None:
        given.append((shown.frame.sequence, shown.frame.trace))

    def failed(_: str, error: BaseException) -> None:
        errors.append(error if isinstance(error, Exception) else RuntimeError(error))
        pipeline.stop()

    with ExitStack() as stack:
        options = AvatarOptions(generator=generator, size_px=size_px)
        moving = open_driver(options.tracker, lambda error: failed("tracked", error))
        stack.callback(moving.close)
        avatar = TellingAvatar(enrollment, moving, options, clock=clock, on_fault=failed)
        avatar.on_drawing = room.release
        if avatar.notice:
            print(f"benchmark: {avatar.notice}", file=sys.stderr)
        pipeline = TrackThenDraw[None](
            avatar, clock, take=take, give=give, on_dropped=room.release, on_fault=failed,
            ended=lambda: taken == total, idles=False,
        )  # fmt: skip
        pipeline.run()
        name = avatar.generator_name
    if errors:
        raise errors[0]
    warm = [trace for sequence, trace in given if sequence >= WARM_UP_FRAMES]
    times_ms: dict[str, list[float]] = {}
    for trace in warm:
        for stage, ms in (trace.stage_ms() | {"total": trace.total_ms()}).items():
            times_ms.setdefault(stage, []).append(ms)
    ends_ns = [trace.stamps_ns["composited"] for trace in warm]
    fps = (len(warm) - 1) / ((ends_ns[-1] - ends_ns[0]) / 1e9)
    return Pipelined(name, len(warm), fps, pipeline.dropped, times_ms)


def measure_pipelined(
    enrollment: Enrollment, driver: Path, *, generator: str, size_px: int, seconds: float
) -> list[Measured]:
    """The live loop's speed at `size_px`: fps and each stage's times while both threads are busy."""
    clip, fps = read_clip(driver)
    ran = run_pipelined(enrollment, clip, fps, generator, size_px, max(2, round(seconds * fps)))
    label = f"two threads, {ran.generator}"
    return [
        Measured("pipelined_frames", f"{label}, {size_px} px: frames", ran.frames, ""),
        Measured("pipelined_fps", f"{label}: frames a second, all stages", ran.fps, "fps"),
        Measured("pipelined_dropped", f"{label}: dropped", ran.dropped, ""),
        *percentiles_of(ran.times_ms, "pipelined_", label),
    ]
