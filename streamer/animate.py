"""Offline: a driving video or motion file moves an avatar into a file, frame for frame, sound in sync."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from engines.enrollment import Enrollment
from engines.errors import DriverError, SinkError
from engines.files import require_writable, whole_file
from engines.motion import Motion, write_motion
from engines.motion_window import WINDOW_HZ
from streamer.avatar import Avatar, Driven, Shown
from streamer.clock import Clock, SystemClock
from streamer.drive.driver import Driver
from streamer.latency.ledger import Ledger
from streamer.options import AvatarOptions
from streamer.recordings import ahead, recording_of
from streamer.sinks.file import FileSink
from streamer.sinks.sink import Sink, SinkInfo
from streamer.tuning import tune_for_small_pictures


@dataclass(frozen=True, slots=True)
class Job(AvatarOptions):
    """What to animate: a driver (video, sound, or motion file ending in .jsonl) and where the result goes."""

    driver: Path
    output: Path
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
    recording = recording_of(job.driver, job.tracker, clock)
    if job.motion_output:
        require_writable(job.motion_output, "--motion-out", "motion.jsonl")
    with ExitStack() as stack:
        sink: Sink = stack.enter_context(
            FileSink(
                job.output, audio_from=recording.audio, audio_delay_s=job.trim_ms / 1e3,
                alpha=job.look.background.mode == "transparent",
            )
        )  # fmt: skip
        ledger = stack.enter_context(Ledger(trace_path=job.trace))
        # a recording is smoothed by looking ahead instead: no lag in a file
        driver = Driver(recording.open_tracker(), smooth=False)
        stack.callback(driver.close)
        avatar = Avatar(enrollment, driver, job, clock=clock, on_fault=ledger.fault)
        avatar.wait_until_compiled()
        notices = [avatar.notice] if avatar.notice else []
        start_ns = clock.now_ns()
        played = recording.steps(driver, stack)
        fps, total = played.fps, played.total
        width, height = avatar.size_px
        sink.open(SinkInfo(width, height, fps))
        count = faces = 0
        motions: list[Motion] = []
        neutral: Motion | None = None
        # closed by name: after an exception nothing may still draw or track when the tracker is freed
        for shown in stack.enter_context(closing(ahead(_drawn(played.steps, avatar)))):
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
        notices += recording.notices
        if faces == 0:
            raise DriverError(recording.nobody)
        if faces < count:
            notices.append(f"no face in {count - faces} of {count} frames: held and eased to neutral there")
        sink.close()
        if job.motion_output:
            _write_motion(job.motion_output, motions, fps, neutral)
        seconds = (clock.now_ns() - start_ns) / 1e9
    return Done(count, seconds, faces, tuple(notices))


def _write_motion(path: Path, motions: list[Motion], fps: float, neutral: Motion | None) -> None:
    """Whole or not at all, as the video is."""
    try:
        with whole_file(path) as part:
            write_motion(part, motions, fps, neutral)
    except OSError as error:
        raise SinkError(
            f"cannot write the motion {path} ({error.strerror}); the video was kept; "
            "free some space or choose another file with --motion-out"
        ) from error


def _drawn(steps: Iterable[Driven], avatar: Avatar) -> Iterator[Shown]:
    ahead_s = avatar.ahead / WINDOW_HZ
    waiting: deque[Driven] = deque()
    for step in steps:
        waiting.append(step)
        while waiting and step.moment.pts_s - waiting[0].moment.pts_s >= ahead_s:
            yield _draw_first(waiting, avatar)
    while waiting:
        yield _draw_first(waiting, avatar)


def _draw_first(waiting: deque[Driven], avatar: Avatar) -> Shown:
    step = waiting.popleft()
    return avatar.show_drive(step.drive, step.moment, [w.drive for w in waiting])
