"""What enrolling and `animate` take, and each stage of a frame for itself."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from pathlib import Path

from calibration.enroll import enroll
from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from scripts.benchmarks.measured import Measured, percentiles_of, time_s
from streamer.animate import Job, animate
from streamer.avatar import Avatar
from streamer.clock import SystemClock
from streamer.drive.open import open_driver
from streamer.options import AvatarOptions
from streamer.sinks.file import FileSink
from streamer.sinks.sink import SinkInfo
from streamer.sources.video import VideoSource


def stage_times_ms(
    enrollment: Enrollment, driver: Path, output: Path, generator: str, size_px: int
) -> dict[str, list[float]]:
    """What each stage costs a frame, one frame at a time: nothing overlaps, nothing waits."""
    clock = SystemClock()
    times_ms: dict[str, list[float]] = {}
    with ExitStack() as stack:
        source = stack.enter_context(VideoSource(driver))
        sink = stack.enter_context(FileSink(output))
        options = AvatarOptions(generator=generator, size_px=size_px)
        moving = open_driver(options.tracker)
        stack.callback(moving.close)
        avatar = Avatar(enrollment, moving, options, clock=clock)
        sink.open(SinkInfo(*avatar.size_px, source.info.fps))
        while (frame := source.read()) is not None:
            driven = avatar.track(frame)
            shown = avatar.show_drive(driven.drive, driven.moment).frame
            sink.write(shown)
            trace = shown.mark("encoded", clock.now_ns()).trace
            for stage, ms in (trace.stage_ms() | {"total": trace.total_ms()}).items():
                times_ms.setdefault(stage, []).append(ms)
    return times_ms


def measure_enrolling(photo: Path, enrolled: Enrollment, avatar: Path, repeats: int) -> list[Measured]:
    """What comes once: enrolling `photo`, loading the avatar from `avatar`, which is written."""
    enroll_s = statistics.median(time_s(lambda: enroll(photo)) for _ in range(repeats))
    save_enrollment(enrolled, avatar)
    load_s = statistics.median(time_s(lambda: load_enrollment(avatar)) for _ in range(repeats))
    return [
        Measured("enroll_s", f"enroll, after imports, median of {repeats}", enroll_s, "s"),
        Measured("load_s", f"load an avatar, median of {repeats}", load_s, "s"),
        Measured("avatar_mb", "size of the avatar file", avatar.stat().st_size / 1e6, "MB"),
    ]


def measure_animating(
    enrolled: Enrollment, driver: Path, output: Path, generator: str, size_px: int
) -> list[Measured]:
    """What `animate` takes, and each stage for itself."""
    done = animate(enrolled, Job(driver, output, generator=generator, size_px=size_px))
    stages = stage_times_ms(enrolled, driver, output, generator, size_px)
    return [
        Measured("animate_frames", f"animate at {size_px} px: frames", done.frames, ""),
        Measured(
            "animate_fps", f"animate at {size_px} px, calibration and encoding included", done.fps, "fps"
        ),
        *percentiles_of(stages, "", "one frame at a time"),
    ]
