"""Measure what the README claims, on this computer: enrolling, loading, animating, the filter's delay.

python scripts/benchmark.py            # the demo photo, driven by a clip of itself
python scripts/benchmark.py --json     # the same for machines
python scripts/benchmark.py --driver talk.mp4 --photo me.jpg
python scripts/benchmark.py --generator geometric --only pipelined
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

# as the command line does, before numpy is imported: BLAS threads spin after each small product
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from calibration.enroll import enroll
from engines.enrollment import Enrollment, load_enrollment, save_enrollment
from engines.errors import DriverError, VisavisError
from engines.generators.names import DEFAULT_GENERATOR, FALLBACK_GENERATOR
from engines.generators.open import GENERATORS
from engines.motion import ARKIT_INDEX, Motion, MotionTrack
from engines.renderer import Renderer
from engines.retarget import Controls, retarget
from streamer.animate import Job, animate
from streamer.avatar import Avatar, Shown
from streamer.cli.terminal import quiet_native
from streamer.clock import SystemClock
from streamer.drive.demo import DEMO_PHOTO, demo_track, looped
from streamer.drive.driver import Drive
from streamer.drive.filters import MotionFilter
from streamer.drive.open import open_driver
from streamer.drive.trackers.names import DEFAULT_TRACKER
from streamer.frame import STAGES, Frame, LatencyTrace, Moment
from streamer.options import AvatarOptions
from streamer.pipeline import TrackThenDraw
from streamer.sinks.file import FileSink
from streamer.sinks.sink import SinkInfo
from streamer.sources.video import VideoSource
from streamer.tuning import tune_for_small_pictures

F64 = NDArray[np.float64]

MAX_SHIFT_MS = 160.0
WARM_UP_FRAMES = 60  # the driver's neutral is taken, engines are built, memory is touched


@dataclass(frozen=True, slots=True)
class Measured:
    """One number with its label: the unit is in `unit`, `key` is stable for machines."""

    key: str
    label: str
    value: float
    unit: str


def time_s(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def make_clip(enrollment: Enrollment, path: Path, seconds: float, fps: float, size_px: int) -> None:
    """A driving video without a recorded person: the enrolled face, moved by the demo motion.

    Drawn by the same generator whichever is measured, so that all follow the same driver.
    """
    renderer = Renderer(enrollment, generator=FALLBACK_GENERATOR, size_px=size_px)
    rest = demo_track().neutral or Motion()
    with FileSink(path) as sink:
        sink.open(SinkInfo(size_px, size_px, fps))
        for k in range(round(seconds * fps)):
            motion = retarget(looped(demo_track(), k / fps), rest, enrollment.motion, Controls())
            sink.write(Frame(k / fps, 0, sequence=k, image=renderer.render(motion)))


def shift_ms(raw: F64, filtered: F64, fps: float) -> float:
    """How far `filtered` (N, D) lags behind `raw` (N, D): the shift at which they differ least."""
    times_s = np.arange(len(raw)) / fps
    shifts_ms = np.arange(0.0, MAX_SHIFT_MS, 0.5)
    inside = times_s > MAX_SHIFT_MS / 1000

    def difference(shift: float) -> float:
        moved = np.stack([np.interp(times_s - shift / 1000, times_s, column) for column in raw.T], 1)
        return float(np.mean((moved - filtered)[inside] ** 2))

    return float(shifts_ms[int(np.argmin([difference(s) for s in shifts_ms]))])


def filter_delays_ms(track: MotionTrack) -> tuple[float, float]:
    """Delay of the smoothing on a recorded motion: (mouth, head rotation) in milliseconds."""
    smooth = MotionFilter()
    filtered = [smooth(m) for m in track.motions]
    mouth = [ARKIT_INDEX[name] for name in ("jawOpen", "mouthFunnel", "mouthPucker", "mouthSmileLeft")]

    def columns(pick: Callable[[Motion], NDArray[np.float32]]) -> tuple[F64, F64]:
        both = ([pick(m) for m in track.motions], [pick(m) for m in filtered])
        return np.asarray(both[0], np.float64), np.asarray(both[1], np.float64)

    return (
        shift_ms(*columns(lambda m: m.expression[mouth]), track.fps),
        shift_ms(*columns(lambda m: m.rotation_rad), track.fps),
    )


def stage_times_ms(
    enrollment: Enrollment, driver: Path, output: Path, generator: str, size_px: int
) -> dict[str, list[float]]:
    """What each stage costs a frame, one frame at a time: nothing overlaps, nothing waits."""
    clock = SystemClock()
    times_ms: dict[str, list[float]] = {}
    with ExitStack() as stack:
        source = stack.enter_context(VideoSource(driver))
        sink = stack.enter_context(FileSink(output))
        moving = open_driver(DEFAULT_TRACKER)
        stack.callback(moving.close)
        avatar = Avatar(enrollment, moving, AvatarOptions(generator=generator, size_px=size_px), clock=clock)
        sink.open(SinkInfo(*avatar.size_px, source.info.fps))
        while (frame := source.read()) is not None:
            driven = avatar.track(frame)
            shown = avatar.show_drive(driven.drive, driven.moment).frame
            sink.write(shown)
            trace = shown.mark("encoded", clock.now_ns()).trace
            for stage, ms in (trace.stage_ms() | {"total": trace.total_ms()}).items():
                times_ms.setdefault(stage, []).append(ms)
    return times_ms


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

    def show_drive(self, drive: Drive, moment: Moment) -> Shown:
        """As an avatar does, having told."""
        self.on_drawing()
        return super().show_drive(drive, moment)


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
        moving = open_driver(DEFAULT_TRACKER, lambda error: failed("tracked", error))
        stack.callback(moving.close)
        options = AvatarOptions(generator=generator, size_px=size_px)
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


def percentiles_of(times_ms: dict[str, list[float]], key: str, label: str) -> list[Measured]:
    """p50 and p95 of each stage, in the order a frame passes them."""
    out: list[Measured] = []
    for stage in (s for s in (*STAGES, "total") if s in times_ms):
        p50, p95 = (float(v) for v in np.percentile(times_ms[stage], [50, 95]))
        out.append(Measured(f"{key}{stage}_p50_ms", f"{label}, {stage}: p50", p50, "ms"))
        out.append(Measured(f"{key}{stage}_p95_ms", f"{label}, {stage}: p95", p95, "ms"))
    return out


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


def measure_smoothing() -> list[Measured]:
    """The delay of the live filter on the demo motion."""
    mouth_ms, head_ms = filter_delays_ms(demo_track())
    frames = max(mouth_ms, head_ms) / (1000 / demo_track().fps)
    return [
        Measured("filter_mouth_ms", "live smoothing delay of the mouth", mouth_ms, "ms"),
        Measured("filter_head_ms", "live smoothing delay of the head", head_ms, "ms"),
        Measured("filter_frames", "the longer of both in frames", frames, "frames"),
    ]


def measure(
    photo: Path,
    driver: Path | None,
    *,
    generator: str,
    seconds: float,
    size_px: int,
    repeats: int,
    only_pipelined: bool,
) -> list[Measured]:
    """All numbers, in the order they are printed. Raises what the measured commands raise."""
    tune_for_small_pictures()
    enrolled = enroll(photo)  # the first run also loads the models
    out: list[Measured] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if driver is None:
            driver = folder / "driver.mp4"
            make_clip(enrolled, driver, seconds, demo_track().fps, 512)
        if not only_pipelined:
            out += measure_enrolling(photo, enrolled, folder / "a.avatar", repeats)
            out += measure_animating(enrolled, driver, folder / "out.mp4", generator, size_px)
        out += measure_pipelined(enrolled, driver, generator=generator, size_px=size_px, seconds=seconds)
    return out if only_pipelined else [*out, *measure_smoothing()]


def machine() -> str:
    """This computer in a few words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photo", type=Path, default=DEMO_PHOTO)
    parser.add_argument("--driver", type=Path, help="a video (default: the photo moved by the demo motion)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of the made driver and of the run"
    )
    parser.add_argument("--generator", choices=sorted(GENERATORS), default=DEFAULT_GENERATOR)
    parser.add_argument("--only", choices=["pipelined"], help="leave everything else out")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.repeats < 1 or not 64 <= arguments.size <= 1024:
        parser.error("--seconds and --repeats must be positive, --size 64 … 1024")
    try:
        with quiet_native():
            numbers = measure(
                arguments.photo, arguments.driver,
                generator=arguments.generator, seconds=arguments.seconds, size_px=arguments.size & ~1,
                repeats=arguments.repeats, only_pipelined=arguments.only == "pipelined",
            )  # fmt: skip
    except VisavisError as error:
        sys.exit(f"benchmark: {error}")
    if arguments.json:
        print(json.dumps({"machine": machine(), "numbers": [asdict(n) for n in numbers]}, indent=2))
        return
    print(machine())
    for n in numbers:
        digits = 0 if n.unit == "" else 3 if n.unit == "s" else 2 if n.unit == "frames" else 1
        print(f"{n.label:<58} {n.value:>9.{digits}f} {n.unit}".rstrip())


if __name__ == "__main__":
    main()
